// One group: its question, its pictures with boxes, its answers side by side.

const detail = {
  group: -1,
  member: -1,
  wide: -1,
  mode: null, // a name of COLUMNS, "" for plain text, null until somebody chooses
  turn: 0,

  prepare() {
    this.box = $("detail");
    this.box.addEventListener("click", (event) => {
      const { target } = event;
      const button = target.closest("button");
      if (button && button.dataset.mode !== undefined) return this.colour(button.dataset.mode);
      if (button && button.dataset.by) return choose(list.beside(Number(button.dataset.by)));
      if (button && button.classList.contains("more")) return this.whole(target.closest(".answer"));
      const card = target.closest(".answer");
      if (!card) return undefined;
      const m = Number(card.dataset.member);
      if (button && button.classList.contains("widen")) return this.widen(m);
      return this.focus(m, false);
    });
    this.box.addEventListener("mouseover", (event) => {
      const card = event.target.closest(".answer");
      this.light(card ? Number(card.dataset.member) : this.member);
    });
    this.box.addEventListener("mousemove", (event) => {
      const token = event.target.closest(".t");
      if (!token) return tip.hide();
      const m = Number(token.closest(".answer").dataset.member);
      const span = Number(token.dataset.s);
      const text = this.spanText(m, span);
      return tip.show(heat.tip(text, this.tokens[m].get(span), Number(token.dataset.i)), event);
    });
    this.box.addEventListener("mouseleave", () => tip.hide());
  },

  async show(g, member) {
    const turn = ++this.turn;
    if (g < 0) {
      this.group = -1;
      this.box.innerHTML = `<p class="empty">${store.count ? "Choose a group." : "No rollouts are logged."}</p>`;
      return;
    }
    const [text, trace] = await Promise.all([store.text(g), store.trace(g)]);
    const pictures = await Promise.all(text.images.map((hash) => store.picture(hash)));
    if (turn !== this.turn) return;
    Object.assign(this, { group: g, text, pictures, member: -1, wide: -1 });
    this.tokens = text.members.map((_, m) => tokensOf(trace && trace[m]));
    this.scales = heat.scales(this.tokens);
    this.box.innerHTML = this.head() + this.question() + this.controls() + '<div class="answers"></div>';
    this.answers();
    this.box.scrollTop = 0;
    if (member >= 0 && member < text.members.length) this.focus(member, true);
  },

  // The colouring in force: the chosen one where the group has it, else the first it has.
  modeHere() {
    if (this.mode === "" || this.mode in this.scales) return this.mode;
    return Object.keys(COLUMNS).find((name) => name in this.scales) || "";
  },

  head() {
    const { groups } = store;
    const g = this.group, task = store.task(g);
    const about = [task, groups.id[g] !== String(groups.serial[g]) && groups.id[g]].filter(Boolean);
    const dropped = groups.dropped[g] ? '<span class="mark">dropped by a filter</span>' : "";
    return `<div class="head"><h1>Step ${groups.step[g]}<span class="dot">·</span>Group ${groups.serial[g]}</h1>
      <span class="dim">${about.map(escaped).join(" · ")}</span>${dropped}
      <span class="step"><button type="button" data-by="-1" title="Previous group (k)">↑</button><button type="button" data-by="1" title="Next group (j)">↓</button></span></div>`;
  },

  question() {
    const { answer, prompt, gold } = this.text;
    const told = answer === null || answer === undefined ? "–" : typeof answer === "string" ? answer : JSON.stringify(answer);
    const mean = store.mean[this.group], spread = store.spread[this.group];
    return `<div class="question${this.pictures.length ? " seen" : ""}">${this.figures(gold)}
      <div class="asked"><h2>Prompt</h2><div class="prose">${escaped(this.pictures.length === 1 ? prompt.replace(/^\[image\]\s*/, "") : prompt)}</div>
      <h2>Gold</h2><div class="prose gold">${escaped(told)}</div>
      <dl class="facts"><div><dt>mean reward</dt><dd>${figure(mean)}</dd></div>
      <div><dt>deviation</dt><dd>${figure(spread)}</dd></div>
      <div><dt>answers</dt><dd>${this.text.members.length}</dd></div></dl></div></div>`;
  },

  figures(gold) {
    return this.pictures.map(({ address, width, height }, at) => {
      const sharp = Math.max(width, height) <= 200 ? " sharp" : "";
      const told = this.text.members.map((member, m) => this.boxes(member.places || [], `told m${m}`, width, height));
      const marks = at ? "" : this.boxes(gold || [], "gold", width, height) + told.join("");
      const some = !at && ((gold || []).length || this.text.members.some((m) => m.places));
      const key = some ? `<figcaption><span class="key gold">gold</span><span class="key told">answers</span><span class="dim size">${width} × ${height}</span></figcaption>`
        : `<figcaption><span class="dim size">${width} × ${height}</span></figcaption>`;
      const shape = `aspect-ratio:${width}/${height};width:min(100%,${Math.round((320 * width) / Math.max(width, height))}px)`;
      return `<figure><div class="canvas${sharp}" style="${shape}"><img src="${address}" alt="picture ${at + 1} of the prompt">
        <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none">${marks}</svg></div>${key}</figure>`;
    }).join("");
  },

  boxes(places, kind, width, height) {
    return places.map((place) => {
      const [a, b, c, d] = place.map((v, i) => (v / 10000) * (i % 2 ? height : width));
      if (place.length === 2) {
        const r = Math.max(width, height) / 50;
        const cross = `M${a - r} ${b}h${2 * r}M${a} ${b - r}v${2 * r}`;
        return `<g class="${kind}"><path class="under" d="${cross}"/><path class="over" d="${cross}"/></g>`;
      }
      const shape = `x="${a}" y="${b}" width="${Math.max(0, c - a)}" height="${Math.max(0, d - b)}"`;
      return `<g class="${kind}"><rect class="under" ${shape}/><rect class="over" ${shape}/></g>`;
    }).join("");
  },

  controls() {
    const names = Object.keys(COLUMNS).filter((name) => name in this.scales);
    if (!names.length) {
      return '<div class="controls"><h2>Answers</h2><span class="dim">no token numbers are logged for this group</span></div>';
    }
    const mode = this.modeHere();
    const buttons = ["", ...names].map((name) => `<button type="button" data-mode="${name}" aria-pressed="${name === mode}">${name ? COLUMNS[name].name : "plain"}</button>`);
    return `<div class="controls"><h2>Answers</h2><div class="segments" role="group" aria-label="Colour of the tokens">${buttons.join("")}</div>${heat.legend(mode, this.scales)}</div>`;
  },

  answers() {
    const cards = this.text.members.map((_, m) => this.card(m));
    this.box.querySelector(".answers").innerHTML = cards.join("");
    this.marks();
    this.light(this.member);
  },

  card(m, whole = false) {
    const i = store.start[this.group] + m;
    const reward = store.members.reward[i];
    const member = this.text.members[m];
    const marks = [];
    if (store.status(i) !== "ok") marks.push(`<span class="mark">${escaped(store.status(i).replaceAll("_", " "))}</span>`);
    const scored = store.scored(i);
    if (scored !== "ok" && scored !== null) marks.push(`<span class="mark${store.isFault(i) ? " bad" : ""}">${escaped(scored.replaceAll("_", " "))}</span>`);
    const classes = `answer${m === this.member ? " focused" : ""}${m === this.wide ? " wide" : ""}${filters.matches[i] ? "" : " other"}`;
    return `<article class="${classes}" data-member="${m}">
      <header><span class="number">#${m}</span><span class="reward">${reward === null ? "no reward" : figure(reward)}</span>${this.advantage(m)}
      <span class="length dim">${plural(store.members.length[i], "token")}</span>${marks.join("")}<button type="button" class="widen" title="Full width (Enter)" aria-label="Full width">⤢</button></header>
      ${this.parts(i)}${member.reason ? `<p class="reason">${escaped(member.reason)}</p>` : ""}
      <div class="reply">${this.reply(m, whole)}</div></article>`;
  },

  // The mean over the answer's tokens.
  advantage(m) {
    let sum = 0, n = 0;
    for (const { columns } of this.tokens[m].values()) {
      for (const value of columns.advantage || []) {
        sum += value;
        n++;
      }
    }
    return n ? `<span class="estimate dim" title="advantage, mean over the tokens">A ${signed(sum / n, 2)}</span>` : "";
  },

  parts(i) {
    const rows = store.partNames.filter((name) => {
      const value = store.parts[name][i];
      return value !== null && value !== undefined;
    }).map((name) => {
      const value = store.parts[name][i];
      const most = this.largest(name);
      const share = most ? Math.min(1, Math.abs(value) / most) : 0;
      const bar = `<i class="${value < 0 ? "minus" : ""}" style="width:${(100 * share).toFixed(1)}%"></i>`;
      return `<dt title="${escaped(name)}">${escaped(name)}</dt><dd><span class="bar">${bar}</span><span class="value">${figure(value)}</span></dd>`;
    });
    return rows.length ? `<dl class="parts">${rows.join("")}</dl>` : "";
  },

  // Of a part over the whole run: equal bars mean equal values in every group.
  largest(name) {
    this.most = this.most || {};
    if (!(name in this.most)) {
      this.most[name] = store.parts[name].reduce((most, v) => (v === null ? most : Math.max(most, Math.abs(v))), 0);
    }
    return this.most[name];
  },

  spanText(m, span) {
    const { reply, turns } = this.text.members[m];
    return turns ? turns[span - 1].text : reply;
  },

  reply(m, whole) {
    const { reply, turns } = this.text.members[m];
    const mode = this.modeHere();
    const spans = this.tokens[m];
    const coloured = (text, span) => heat.html(text, spans.get(span), mode, this.scales, span, whole);
    if (!turns) return coloured(reply, 1) || '<i class="dim">empty</i>';
    return turns.map((turn, at) => `<div class="turn ${escaped(turn.author)}"><span class="author">${escaped(turn.author)}</span>${coloured(turn.text, at + 1)}</div>`).join("");
  },

  whole(card) {
    card.outerHTML = this.card(Number(card.dataset.member), true);
    this.marks();
  },

  marks() {
    if (this.group >= 0) markHits(this.box, filters.values.q);
  },

  colour(mode) {
    this.mode = mode;
    this.box.querySelector(".controls").outerHTML = this.controls();
    this.answers();
    remember();
  },

  nextColour() {
    if (this.group < 0) return;
    const names = ["", ...Object.keys(COLUMNS).filter((name) => name in this.scales)];
    this.colour(names[(names.indexOf(this.modeHere()) + 1) % names.length]);
  },

  focus(m, scroll) {
    const cards = [...this.box.querySelectorAll(".answer")];
    if (!cards.length) return;
    this.member = Math.max(0, Math.min(cards.length - 1, m));
    cards.forEach((card, at) => card.classList.toggle("focused", at === this.member));
    if (scroll) cards[this.member].scrollIntoView({ block: "nearest" });
    this.light(this.member);
    remember();
  },

  widen(m) {
    this.wide = this.wide === m ? -1 : m;
    this.answers();
    if (m >= 0) this.focus(m, true);
  },

  // Shows the boxes of one answer and pales the others.
  light(m) {
    for (const mark of this.box.querySelectorAll("svg .told")) {
      mark.classList.toggle("lit", mark.classList.contains(`m${m}`));
      mark.classList.toggle("pale", m >= 0 && !mark.classList.contains(`m${m}`));
    }
  },
};
