// The list of groups. Only the rows that can be seen are in the document.

const ROW = 62;
const MARGIN = 6;

const list = {
  chosen: -1, // a group
  pending: false,
  first: -1,

  prepare() {
    this.box = $("list");
    this.spacer = this.box.firstElementChild;
    this.box.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => this.later()).observe(this.box);
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) choose(Number(row.dataset.group));
    });
  },

  later() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  },

  // After a change of what is shown.
  refresh() {
    this.place = new Map(filters.shown.map((g, at) => [g, at]));
    this.spacer.style.height = `${filters.shown.length * ROW}px`;
    this.draw();
  },

  draw() {
    const { shown } = filters;
    const top = this.box.scrollTop;
    const from = Math.max(0, Math.floor(top / ROW) - MARGIN);
    const to = Math.min(shown.length, Math.ceil((top + this.box.clientHeight) / ROW) + MARGIN);
    let html = "";
    for (let at = from; at < to; at++) html += this.row(shown[at], at);
    if (!shown.length) html = '<p class="empty">Nothing matches these filters.</p>';
    if (html === this.drawn) return; // a click needs the row to stay where it was pressed
    this.drawn = html;
    this.spacer.innerHTML = html;
  },

  row(g, at) {
    const { groups } = store;
    const task = store.task(g);
    const marks = [];
    let faults = 0, cut = 0;
    for (let i = store.start[g]; i < store.start[g + 1]; i++) {
      faults += store.isFault(i);
      cut += store.status(i) !== "ok";
    }
    if (faults) marks.push(`<span class="mark bad" title="faults in scoring">${faults} ✕</span>`);
    if (cut) marks.push(`<span class="mark" title="answers that did not end by themselves">${cut} cut</span>`);
    if (groups.dropped[g]) marks.push('<span class="mark" title="left out by a filter">dropped</span>');
    return `<div class="row" role="option" id="row${g}" data-group="${g}" style="top:${at * ROW}px"
      aria-selected="${g === this.chosen}"><div class="snippet">${escaped(groups.snippet[g]) || "<i>no text</i>"}</div>
      <div class="mean">${figure(store.mean[g], 2)}</div>
      <div class="about">step ${groups.step[g]} · group ${groups.serial[g]}${task ? ` · ${escaped(task)}` : ""} ${marks.join(" ")}</div>
      ${this.strip(g)}</div>`;
  },

  // One bar per answer: its height is the reward; a cross has none; pale ones do not match.
  strip(g) {
    const from = store.start[g];
    const n = Math.min(store.start[g + 1] - from, 24);
    const width = Math.min(6, 72 / n);
    let bars = "";
    for (let m = 0; m < n; m++) {
      const reward = store.members.reward[from + m];
      const pale = filters.matches[from + m] ? "" : ' opacity="0.25"';
      const x = (m * width).toFixed(1), w = Math.max(1, width - 1.5).toFixed(1);
      if (reward === null) {
        bars += `<path d="M${x} 9l4 4m0-4l-4 4" class="none"${pale}/>`;
        continue;
      }
      const height = Math.max(1.5, (14 * (reward - store.low)) / (store.high - store.low));
      bars += `<rect x="${x}" y="${(15 - height).toFixed(1)}" width="${w}" height="${height.toFixed(1)}"${pale}/>`;
    }
    return `<svg class="strip" width="${Math.ceil(n * width)}" height="16" aria-hidden="true">${bars}</svg>`;
  },

  show(g) {
    this.chosen = g;
    const at = this.place.get(g);
    if (at !== undefined) {
      const top = at * ROW, { scrollTop, clientHeight } = this.box;
      if (top < scrollTop - 4 * ROW || top > scrollTop + clientHeight + 4 * ROW) {
        this.box.scrollTop = top - clientHeight / 2; // from afar: into the middle
      } else if (top < scrollTop) this.box.scrollTop = top;
      else if (top + ROW > scrollTop + clientHeight) this.box.scrollTop = top + ROW - clientHeight;
    }
    this.draw();
    this.box.setAttribute("aria-activedescendant", `row${g}`);
  },

  // The group that stands `by` rows further down.
  beside(by) {
    const { shown } = filters;
    if (!shown.length) return -1;
    const at = this.place.get(this.chosen);
    if (at === undefined) return shown[0];
    return shown[Math.max(0, Math.min(shown.length - 1, at + by))];
  },
};
