// Line charts as inline SVG. All charts of the page point at the same step.

const EDGE = { left: 46, right: 10, top: 8, bottom: 20 };
const charts = [];

function ticksOf(low, high, wanted) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= raw);
  const ticks = [];
  for (let at = Math.ceil(low / size - 1e-9) * size; at <= high + size * 1e-9; at += size) {
    ticks.push(Math.abs(at) < size * 1e-9 ? 0 : at);
  }
  return ticks;
}

// Centred moving mean over a tenth of the points.
function smooth(points) {
  const half = Math.max(1, Math.floor(points.length / 20));
  return points.map(([x], i) => {
    const near = points.slice(Math.max(0, i - half), i + half + 1);
    return [x, near.reduce((sum, p) => sum + p[1], 0) / near.length];
  });
}

class Chart {
  // series: [{name, points: [[x, y]], band: [[x, low, high]]?, faint: bool?, dots: bool?}]
  constructor(box, title, series, { height = 120, range } = {}) {
    Object.assign(this, { box, title, series, height, range, drawn: 0 });
    box.classList.add("chart");
    box.innerHTML = `<div class="caption"><h3>${escaped(title)}</h3><div class="reading"></div></div><svg height="${height}" role="img" aria-label="${escaped(title)}"></svg>`;
    this.svg = box.querySelector("svg");
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => charts.forEach((chart) => chart.mark(null)));
    this.svg.addEventListener("click", (event) => openStep(this.stepAt(event)));
    new ResizeObserver(() => this.draw()).observe(box);
    charts.push(this);
    this.read(null);
  }

  draw() {
    const width = Math.round(this.box.clientWidth);
    if (!width || width === this.drawn) return;
    this.drawn = width;
    const all = this.series.flatMap((s) => [...s.points.map((p) => p[1]), ...(s.band || []).flatMap((b) => [b[1], b[2]])]);
    let low = Math.min(...extremes(all)), high = Math.max(...extremes(all));
    if (low > 0 && low < 0.35 * high) low = 0;
    if (high === 0 && low === 0) high = 1;
    else if (high === low) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const room = (high - low) * 0.06;
    if (low !== 0) low -= room;
    high += room;
    const [first, last] = this.range;
    const x = (v) => EDGE.left + ((v - first) / (last - first || 1)) * (width - EDGE.left - EDGE.right);
    const y = (v) => this.height - EDGE.bottom - ((v - low) / (high - low)) * (this.height - EDGE.top - EDGE.bottom);
    Object.assign(this, { x, y, width });
    let html = "";
    for (const tick of ticksOf(low, high, this.height > 160 ? 5 : 3)) {
      html += `<line class="grid" x1="${EDGE.left}" x2="${width - EDGE.right}" y1="${y(tick).toFixed(1)}" y2="${y(tick).toFixed(1)}"/><text class="tick" x="${EDGE.left - 6}" y="${(y(tick) + 3.5).toFixed(1)}" text-anchor="end">${short(tick)}</text>`;
    }
    for (const tick of ticksOf(first, last, Math.min(6, width / 80)).filter(Number.isInteger)) {
      html += `<text class="tick" x="${x(tick).toFixed(1)}" y="${this.height - 5}" text-anchor="middle">${tick}</text>`;
    }
    const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    this.series.forEach((s, i) => {
      if (s.band && s.band.length > 1) {
        const back = s.band.map(([a, , c]) => [a, c]).reverse();
        html += `<path class="band s${i}" d="${path(s.band.map(([a, b]) => [a, b]))}L${path(back).slice(1)}Z"/>`;
      }
      html += `<path class="line s${i}${s.faint ? " faint" : ""}" d="${path(s.points)}"/>`;
      if (s.faint) html += `<path class="line s${i}" d="${path(smooth(s.points))}"/>`;
      if (s.dots || s.points.length === 1) html += s.points.map(([a, b]) => `<circle class="dot s${i}" r="3" cx="${x(a).toFixed(1)}" cy="${y(b).toFixed(1)}"/>`).join("");
    });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.innerHTML = `${html}<g class="cursor"></g>`;
  }

  stepAt(event) {
    const { left } = this.svg.getBoundingClientRect();
    const share = (event.clientX - left - EDGE.left) / (this.width - EDGE.left - EDGE.right);
    const [first, last] = this.range;
    return Math.round(first + Math.max(0, Math.min(1, share)) * (last - first));
  }

  point(event) {
    const step = this.stepAt(event);
    charts.forEach((chart) => chart.mark(step));
  }

  mark(step) {
    const cursor = this.svg.querySelector(".cursor");
    if (!cursor || !this.box.offsetParent) return;
    this.read(step);
    if (step === null) {
      cursor.innerHTML = "";
      return;
    }
    let html = `<line x1="${this.x(step)}" x2="${this.x(step)}" y1="${EDGE.top}" y2="${this.height - EDGE.bottom}"/>`;
    this.series.forEach((s, i) => {
      const found = nearest(s.points, step);
      if (found) html += `<circle class="dot s${i}" r="3.5" cx="${this.x(found[0])}" cy="${this.y(found[1])}"/>`;
    });
    cursor.innerHTML = html;
  }

  // The numbers at a step; without one, the last of each series.
  read(step) {
    const readings = this.series.map((s, i) => {
      const found = step === null ? s.points[s.points.length - 1] : nearest(s.points, step);
      const name = this.series.length > 1 ? `${escaped(s.name)} ` : "";
      return found ? `<span class="s${i}">${name}<b>${figure(found[1])}</b></span>` : "";
    });
    const when = step === null ? "" : `<span class="dim">step ${step}</span>`;
    this.box.querySelector(".reading").innerHTML = when + readings.join("");
  }
}

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low <= high ? [low, high] : [0, 1];
}

// The last point at or before a step.
function nearest(points, step) {
  let low = 0, high = points.length - 1;
  if (high < 0 || points[0][0] > step) return null;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (points[middle][0] <= step) low = middle;
    else high = middle - 1;
  }
  return points[low];
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e4 || (size && size < 1e-3)) return value.toExponential(0).replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(6))).replace("-", "−");
}
