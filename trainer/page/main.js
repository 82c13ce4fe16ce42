// Views, keys, the address, the tooltip; starts everything.

let view = "overview";
let quiet = false; // while the address is being read, nothing is written to it

const tip = {
  show(html, event) {
    const box = $("tip");
    box.innerHTML = html;
    box.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = box;
    const x = Math.min(event.clientX + 14, innerWidth - w - 8);
    const y = event.clientY + 18 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 18;
    box.style.transform = `translate(${Math.max(8, x)}px,${Math.max(8, y)}px)`;
  },
  hide() {
    $("tip").hidden = true;
  },
};

function look(name) {
  view = name;
  for (const other of ["overview", "rollouts"]) $(other).hidden = other !== name;
  for (const button of document.querySelectorAll("[data-view]")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  tip.hide();
  if (name === "rollouts") {
    list.refresh();
    if (list.chosen < 0 && filters.shown.length) choose(filters.shown[0]);
  }
  remember();
}

async function choose(g, member = -1) {
  if (g < 0) return;
  list.show(g);
  await detail.show(g, member);
  remember();
}

// A click on a curve leads to the groups of that step.
function openStep(step) {
  const { groups, count } = store;
  let best = -1;
  for (let g = 0; g < count; g++) {
    if (best < 0 || Math.abs(groups.step[g] - step) < Math.abs(groups.step[best] - step)) best = g;
  }
  if (best < 0) return;
  if (!filters.shown.includes(best)) clear();
  look("rollouts");
  choose(best);
}

function said(share) {
  const { shown, answers } = filters;
  const all = filters.active().length ? ` of ${store.count.toLocaleString("en")}` : "";
  const going = share < 1 ? ` · searching ${Math.round(100 * share)} %` : "";
  $("found").textContent = `${plural(shown.length, "group")}${all} · ${plural(answers, "answer")}${going}`;
  $("clear").hidden = !filters.active().length;
}

function refilter(share = 1) {
  filters.apply();
  said(share);
  list.refresh();
  const g = list.chosen;
  if (view === "rollouts" && share === 1 && filters.shown.length && !list.place.has(g)) {
    list.box.scrollTop = 0;
    choose(filters.shown[0]);
  } else if (detail.group >= 0 && share === 1) {
    detail.marks();
    detail.box.querySelectorAll(".answer").forEach((card, m) => card.classList.toggle("other", !filters.matches[store.start[detail.group] + m]));
  }
  remember();
}

function clear() {
  filters.set(Object.fromEntries(filters.active().map((name) => [name, ""])));
  filters.hits = null;
  filters.searching++;
  refilter();
}

// The address says what is looked at, so that it can be sent to somebody.
function remember() {
  if (quiet) return;
  const words = new URLSearchParams();
  if (view === "rollouts" && list.chosen >= 0) {
    words.set("step", store.groups.step[list.chosen]);
    words.set("group", store.groups.serial[list.chosen]);
    if (detail.member >= 0 && detail.group === list.chosen) words.set("member", detail.member);
  } else {
    words.set("view", view);
  }
  if (view === "rollouts" && detail.mode !== null) words.set("colour", detail.mode || "plain");
  for (const name of FIELDS) if (filters.values[name] !== "") words.set(name, filters.values[name]);
  if (`#${words}` !== location.hash) history.replaceState(null, "", `#${words}`);
}

async function follow() {
  quiet = true;
  const words = new URLSearchParams(location.hash.slice(1));
  filters.set(Object.fromEntries(FIELDS.map((name) => [name, words.get(name) || ""])));
  const wanted = words.get("colour");
  if (wanted !== null) detail.mode = wanted === "plain" ? "" : wanted;
  await filters.search(() => {});
  filters.apply();
  said(1);
  const step = Number(words.get("step"));
  const serial = words.has("group") ? Number(words.get("group")) : null;
  const g = words.has("step") ? store.find(step, serial) : -1;
  const name = words.get("view");
  if (g >= 0) list.chosen = g;
  look(words.has("step") || name === "rollouts" ? "rollouts" : "overview");
  if (g >= 0) await choose(g, words.has("member") ? Number(words.get("member")) : -1);
  else if (words.has("step")) detail.box.innerHTML = `<p class="empty">This run has no step ${step}${serial === null ? "" : `, group ${serial}`}.</p>`;
  quiet = false;
}

function theme(next) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  const now = root.dataset.theme || (dark ? "dark" : "light");
  root.dataset.theme = next || (now === "dark" ? "light" : "dark");
  try {
    localStorage.setItem("cohort-theme", root.dataset.theme);
  } catch { /* a browser may refuse storage to files */ }
}

const KEYS = {
  j: () => choose(list.beside(1)),
  k: () => choose(list.beside(-1)),
  ArrowDown: () => choose(list.beside(1)),
  ArrowUp: () => choose(list.beside(-1)),
  ArrowRight: () => detail.focus(detail.member + 1, true),
  ArrowLeft: () => detail.focus(detail.member - 1, true),
  Enter: () => detail.widen(detail.member),
  m: () => detail.nextColour(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (filters.active().length) clear();
    return;
  }
  if (typing) {
    if (event.key === "Enter") event.target.blur();
    return;
  }
  const everywhere = {
    "/": () => { look("rollouts"); $("q").focus(); $("q").select(); },
    "?": () => $("keys").showModal(),
    1: () => look("overview"),
    2: () => look("rollouts"),
    t: () => theme(),
  };
  const onButton = event.key === "Enter" && event.target.matches("button, summary");
  const act = everywhere[event.key] || (view === "rollouts" && !onButton && KEYS[event.key]);
  if (!act) return;
  event.preventDefault();
  act();
}

function listen() {
  let waiting = 0;
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("input", (event) => {
    filters.set({ [event.target.id]: event.target.value });
    if (event.target.id !== "q") return refilter();
    clearTimeout(waiting);
    waiting = setTimeout(() => filters.search(refilter), 180);
    return undefined;
  });
  $("clear").addEventListener("click", clear);
  $("theme").addEventListener("click", () => theme());
  $("help").addEventListener("click", () => $("keys").showModal());
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => look(button.dataset.view));
  }
  addEventListener("keydown", pressed);
  addEventListener("hashchange", follow);
}

async function begin() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack gzip; take a newer one (2023 or later)");
  }
  try {
    const chosen = localStorage.getItem("cohort-theme");
    if (chosen) theme(chosen);
  } catch { /* see theme */ }
  await store.open();
  const { run } = store;
  $("name").textContent = run.folder === run.name || run.stage !== "rl" ? run.name : run.folder;
  $("stage").textContent = run.stage;
  $("loading").remove();
  list.prepare();
  detail.prepare();
  filters.prepare();
  filters.apply();
  said(1);
  listen();
  overview.prepare();
  await follow();
  detail.group < 0 && list.chosen < 0 && detail.show(-1);
}

window.cohort = { ready: false };
begin().then(
  () => { window.cohort = { ready: true, store, filters, list, detail }; },
  (error) => {
    ($("loading") || document.body).textContent = `The page cannot be shown: ${error.message}`;
    throw error;
  },
);
