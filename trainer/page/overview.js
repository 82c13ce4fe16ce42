// The first view: where the run stands, its curves, its evaluations, where the time went.

const GIVEN = [
  ["reward parts", null],
  ["entropy (nats)", ["train/entropy"]],
  ["gradient norm", ["train/grad_norm"]],
  ["answer length (tokens)", ["rollout/length_mean", "rollout/length_max"]],
  ["clipped share", ["train/clip_low", "train/clip_high"]],
  ["KL divergence", ["train/kl_ref", "train/approx_kl"]],
  ["shares of rollouts and groups", ["rollout/truncated", "group/zero_variance", "rollout/unscored"]],
  ["faults in scoring", ["score/faults"]],
  ["train / engine log-prob gap", ["sync/probe_gap", "train/logprob_gap_max"]],
];
const PHASES = ["generate", "reward", "logprob", "train", "sync", "evaluate", "log", "save", "idle"];

const overview = {
  prepare() {
    const { run, metrics, evaluations } = store;
    const steps = metrics.step || [];
    this.steps = steps;
    const last = Math.max(steps.length ? steps[steps.length - 1] : 0, ...evaluations.map((t) => t.step));
    const first = Math.min(steps.length ? steps[0] : 0, ...evaluations.map((t) => t.step));
    this.range = [first, Math.max(last, first + 1)];
    $("overview").innerHTML = `
      ${run.description ? `<p class="lead">${escaped(run.description)}</p>` : ""}
      <div class="tiles">${this.tiles()}</div>
      <div class="large"></div><div class="small"></div>
      ${this.tables()}${this.time()}
      <details id="every"><summary>Every metric</summary><div class="small"></div></details>
      <details><summary>Recipe, resolved</summary><pre>${escaped(run.recipe)}</pre></details>
      <footer>written ${escaped(run.written)} by cohort ${escaped(run.version)}</footer>`;
    this.curves();
    $("every").addEventListener("toggle", () => this.every(), { once: true });
  },

  points(key) {
    const values = store.metrics[key] || [];
    return this.steps.map((step, i) => [step, values[i]]).filter(([, v]) => v !== null && v !== undefined);
  },

  tiles() {
    const { run, timings, evaluations } = store;
    const done = this.steps.length ? this.steps[this.steps.length - 1] : 0;
    const rewards = this.points("reward/mean");
    const tile = (name, value, note = "") => `<div class="tile"><span>${name}</span><b>${value}</b><small>${note}</small></div>`;
    const tiles = [tile("steps", done.toLocaleString("en"), `of ${run.steps.toLocaleString("en")}`)];
    if (rewards.length) tiles.push(tile("reward, last tenth", figure(tail(rewards)), `from ${figure(head(rewards))}`));
    const tables = evaluations.filter((t) => t.sampled);
    if (tables.length) {
      const [a, b] = [tables[0], tables[tables.length - 1]];
      tiles.push(tile(`held-out ${escaped(b.name)}`, figure(b.sampled.mean), a === b ? `step ${b.step}` : `from ${figure(a.sampled.mean)}`));
    }
    tiles.push(tile("rollouts", store.total.toLocaleString("en"), `in ${plural(store.count, "group")}`));
    let faults = 0;
    for (let i = 0; i < store.total; i++) faults += store.isFault(i);
    tiles.push(tile("faults in scoring", faults.toLocaleString("en"), store.total ? `${((100 * faults) / store.total).toFixed(2)} % of rollouts` : ""));
    const spent = (timings["time/step"] || []).reduce((sum, v) => sum + v, 0);
    if (spent) tiles.push(tile("time", duration(spent), `${figure(spent / timings["time/step"].length, 2)} s a step`));
    return tiles.join("");
  },

  curves() {
    const large = document.querySelector("#overview > .large");
    const small = document.querySelector("#overview > .small");
    const { evaluations } = store;
    const options = { height: 220, range: this.range };
    const rewards = this.points("reward/mean");
    if (rewards.length) new Chart(add(large), "training reward", [{ name: "mean", points: rewards, faint: rewards.length > 8 }], options);
    const held = ["sampled", "greedy"].map((kind) => {
      const rows = evaluations.filter((t) => t[kind]);
      return { name: kind, dots: true, points: rows.map((t) => [t.step, t[kind].mean]), band: rows.map((t) => [t.step, t[kind].low, t[kind].high]) };
    }).filter((s) => s.points.length);
    if (held.length) new Chart(add(large), `held-out ${evaluations[0].name}, 95 % interval`, held, options);
    for (const [title, keys] of GIVEN) {
      const named = keys || Object.keys(store.metrics).filter((k) => k.startsWith("reward/") && !["reward/mean", "reward/std"].includes(k)).slice(0, 6);
      const series = named.map((key) => ({ name: key.replace(/^\w+\//, "").replaceAll("_", " "), points: this.points(key) })).filter((s) => s.points.length);
      if (series.length) new Chart(add(small), title, series, { range: this.range });
    }
  },

  every() {
    const small = document.querySelector("#every .small");
    for (const key of Object.keys(store.metrics).filter((k) => k !== "step").sort()) {
      const points = this.points(key);
      if (points.length) new Chart(add(small), key, [{ name: key, points }], { range: this.range });
    }
  },

  tables() {
    const rows = store.evaluations;
    if (!rows.length) return "";
    const interval = (f) => (f ? `${figure(f.mean)} <span class="dim">${figure(f.low)} – ${figure(f.high)}</span>` : "–");
    const ks = (kind) => [...new Set(rows.flatMap((t) => Object.keys(t[kind] || {})))].filter((k) => k !== "1");
    const columns = ["pass@k", "maj@k"].flatMap((kind) => ks(kind).map((k) => [kind, k]));
    const parts = [...new Set(rows.flatMap((t) => Object.keys(t.parts || {})))];
    const heads = ["step", "sampled", "greedy", ...columns.map(([kind, k]) => kind.replace("k", k)), ...parts];
    const lines = rows.map((t) => [
      t.step, interval(t.sampled), interval(t.greedy), ...columns.map(([kind, k]) => interval((t[kind] || {})[k])),
      ...parts.map((name) => interval(((t.parts || {})[name] || {}).sampled)),
    ]);
    return `<section><h2>Held-out ${escaped(rows[0].name)}</h2><div class="scroll"><table><thead><tr>${heads.map((h) => `<th>${escaped(h)}</th>`).join("")}</tr></thead>
      <tbody>${lines.map((line) => `<tr>${line.map((c) => `<td>${c}</td>`).join("")}</tr>`).join("")}</tbody></table></div></section>`;
  },

  time() {
    const { timings } = store;
    const sums = PHASES.map((name) => [name, (timings[`time/${name}`] || []).reduce((sum, v) => sum + (v || 0), 0)]);
    const whole = sums.reduce((sum, [, v]) => sum + v, 0);
    if (!whole) return "";
    const shown = sums.filter(([, v]) => v / whole >= 0.002);
    const share = (v) => `${((100 * v) / whole).toFixed(1)} %`;
    const bars = shown.map(([name, v]) => `<i class="phase ${name}" style="width:${(100 * v) / whole}%" title="${name} ${share(v)}, ${duration(v)}"></i>`);
    const keys = shown.map(([name, v]) => `<span><i class="phase ${name}"></i>${name} <b>${share(v)}</b></span>`);
    return `<section><h2>Where the time went</h2><div class="phases">${bars.join("")}</div><div class="phase-keys">${keys.join("")}</div></section>`;
  },
};

function add(box) {
  return box.appendChild(document.createElement("div"));
}

// Mean of the first and of the last tenth of the points.
function head(points) {
  const some = points.slice(0, Math.max(1, Math.floor(points.length / 10)));
  return some.reduce((sum, p) => sum + p[1], 0) / some.length;
}

function tail(points) {
  return head([...points].reverse());
}

function duration(seconds) {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}
