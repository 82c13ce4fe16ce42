// Which groups and answers are shown. A group is shown if one of its answers matches.

const FIELDS = ["q", "from", "to", "low", "high", "task", "status", "sort"];

const filters = {
  values: Object.fromEntries(FIELDS.map((name) => [name, ""])),
  matches: null, // u8 per member
  hits: null, // u8 per member that the text search found; null without a search
  shown: [],
  answers: 0,
  searching: 0,

  prepare() {
    const options = (names, label) => names.map((n) => `<option value="${escaped(n)}">${escaped(label(n))}</option>`);
    const words = (name) => String(name).replaceAll("_", " ");
    const tasks = store.names.task.filter((t) => t !== null);
    $("task").innerHTML = '<option value="">any</option>' + options(tasks, String).join("");
    $("task").disabled = tasks.length < 1;
    const part = (title, kind) => {
      const names = store.names[kind].filter((n) => n !== null);
      const items = names.map((n) => `<option value="${kind}:${escaped(n)}">${escaped(words(n))}</option>`);
      return `<optgroup label="${title}">${items.join("")}</optgroup>`;
    };
    $("status").innerHTML =
      '<option value="">any</option><option value="fault">any fault in scoring</option>' +
      part("Answer", "status") + part("Scoring", "scored");
    const steps = store.groups.step || [];
    $("from").placeholder = steps.length ? steps[0] : "";
    $("to").placeholder = steps.length ? steps[steps.length - 1] : "";
    $("low").placeholder = figure(store.low, 2);
    $("high").placeholder = figure(store.high, 2);
  },

  // Sets some values, for instance from the address, and shows them in the form.
  set(changes) {
    for (const name of FIELDS) {
      if (name in changes) {
        this.values[name] = changes[name];
        const field = $(name);
        if (field.value !== changes[name]) field.value = changes[name];
        if (field.value !== changes[name] && field.tagName === "SELECT") {
          field.value = this.values[name] = ""; // a link may name what this run does not have
        }
      }
    }
  },

  active() {
    return FIELDS.filter((name) => name !== "sort" && this.values[name] !== "");
  },

  apply() {
    const { values } = this;
    const { groups, members, total, count, start } = store;
    const number = (name) => (values[name] === "" ? null : Number(values[name]));
    const [from, to, low, high] = ["from", "to", "low", "high"].map(number);
    const [kind, wanted] = values.status.split(":");
    const code = wanted === undefined ? -1 : store.names[kind].indexOf(wanted);
    const task = values.task === "" ? null : store.names.task.indexOf(values.task);
    const matches = new Uint8Array(total);
    const shown = [];
    let answers = 0;
    for (let g = 0; g < count; g++) {
      if (from !== null && groups.step[g] < from) continue;
      if (to !== null && groups.step[g] > to) continue;
      if (task !== null && groups.task[g] !== task) continue;
      let any = false;
      for (let i = start[g]; i < start[g + 1]; i++) {
        const reward = members.reward[i];
        if (low !== null && !(reward !== null && reward >= low)) continue;
        if (high !== null && !(reward !== null && reward <= high)) continue;
        if (values.status === "fault" && !store.isFault(i)) continue;
        if (code >= 0 && members[kind][i] !== code) continue;
        if (this.hits && !this.hits[i]) continue;
        matches[i] = 1;
        any = true;
        answers++;
      }
      if (any) shown.push(g);
    }
    this.matches = matches;
    this.answers = answers;
    this.shown = this.sorted(shown);
  },

  sorted(shown) {
    const by = {
      newest: (g) => -groups.step[g] * 1e7 + g,
      best: (g) => (Number.isNaN(store.mean[g]) ? Infinity : -store.mean[g]),
      worst: (g) => (Number.isNaN(store.mean[g]) ? Infinity : store.mean[g]),
      spread: (g) => (Number.isNaN(store.spread[g]) ? Infinity : -store.spread[g]),
      long: (g) => -store.longest[g],
    }[this.values.sort];
    const { groups } = store;
    if (!by) return shown;
    const keys = new Map(shown.map((g) => [g, by(g)]));
    return shown.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
  },

  // Looks through the texts piece by piece; what was found so far is shown while it goes on.
  async search(changed) {
    const turn = ++this.searching;
    const wanted = this.values.q.trim().toLowerCase();
    if (!wanted) {
      this.hits = null;
      changed(1);
      return;
    }
    const hits = new Uint8Array(store.total);
    const has = (text) => text !== null && text !== undefined && String(text).toLowerCase().includes(wanted);
    const { text: places, id } = store.groups;
    let told = performance.now();
    for (let g = 0; g < store.count; ) {
      const chunk = places[g][0];
      // Not through `piece`: a search must not drive out what somebody looks at.
      const texts = await (pieces.get(`text${chunk}`) || unpack(`text${chunk}`));
      if (turn !== this.searching) return;
      for (; g < store.count && places[g][0] === chunk; g++) {
        const one = texts[places[g][1]];
        const whole = has(one.prompt) || has(id[g]) || has(JSON.stringify(one.answer));
        one.members.forEach((member, m) => {
          const turns = member.turns || [];
          const found = whole || has(member.reply) || has(member.reason) || turns.some((t) => has(t.text));
          if (found) hits[store.start[g] + m] = 1;
        });
      }
      if (performance.now() - told > 250) {
        told = performance.now();
        this.hits = hits;
        changed(g / store.count);
      }
    }
    this.hits = hits;
    changed(1);
  },
};
