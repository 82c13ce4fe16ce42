// Tokens of an answer with a colour each: blue above zero, orange below, paler towards zero.

const MOST_TOKENS = 4000;

const COLUMNS = {
  advantage: { name: "advantage", diverging: true },
  logprob: { name: "log-prob", diverging: false },
  kl: { name: "log-ratio to reference", diverging: true },
  drift: { name: "train − engine log-prob", diverging: true },
  value: { name: "value", diverging: true },
};

// The token columns of one answer by span, read once.
function tokensOf(trace) {
  const spans = new Map();
  for (const one of (trace && trace.spans) || []) {
    if (one.ends === undefined) continue;
    const ends = endsOf(one.ends);
    const read = (name) => (name in one ? numbersOf(one[name], ends.length) : null);
    const found = { advantage: read("advantage"), logprob: read("logprob"), value: read("value") };
    const [reference, old] = [read("ref_logprob"), read("old_logprob")];
    if (reference) found.kl = reference.map((r, i) => (old || found.logprob)[i] - r);
    if (old) found.drift = old.map((o, i) => o - found.logprob[i]);
    for (const name of Object.keys(found)) if (!found[name]) delete found[name];
    spans.set(one.span, { ends, columns: found });
  }
  return spans;
}

const heat = {
  // Which columns some answer of the group has, and the largest size of each.
  scales(tokens) {
    const scales = {};
    for (const spans of tokens) {
      for (const { columns } of spans.values()) {
        for (const [name, values] of Object.entries(columns)) {
          let most = scales[name] || 0;
          for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
          scales[name] = most;
        }
      }
    }
    return scales;
  },

  colour(mode, value, most) {
    if (Number.isNaN(value) || !most) return "";
    const share = Math.min(1, Math.abs(value) / most);
    const alpha = (0.62 * share).toFixed(3);
    if (alpha < 0.004) return "";
    const hue = COLUMNS[mode].diverging ? (value > 0 ? "above" : "below") : "along";
    return `background:rgb(var(--${hue})/${alpha})`;
  },

  // HTML of a span's text. Without a trace or a mode it is the plain text.
  html(text, span, mode, scales, number, whole) {
    if (!span || !mode) return escaped(text);
    const letters = Array.from(text); // ends count characters, not UTF-16 units
    const { ends, columns } = span;
    const values = columns[mode];
    const count = whole ? ends.length : Math.min(ends.length, MOST_TOKENS);
    let html = "", from = 0;
    for (let i = 0; i < count; i++) {
      const piece = letters.slice(from, ends[i]).join("");
      from = ends[i];
      const style = values ? this.colour(mode, values[i], scales[mode]) : "";
      const shown = piece === "" ? (i === ends.length - 1 ? '<i class="stop">end</i>' : "") : escaped(piece);
      html += `<span class="t" data-s="${number}" data-i="${i}"${style && ` style="${style}"`}>${shown}</span>`;
    }
    if (count < ends.length) {
      html += `${escaped(letters.slice(from).join(""))}<button type="button" class="more">colour all ${plural(ends.length, "token")}</button>`;
    }
    return html;
  },

  legend(mode, scales) {
    if (!mode) return "";
    const most = scales[mode];
    if (!most) return `<span class="legend">${COLUMNS[mode].name}: 0 everywhere</span>`;
    const ramp = COLUMNS[mode].diverging ? "diverging" : "single";
    const low = COLUMNS[mode].diverging ? figure(-most, 2) : "0";
    const high = figure(COLUMNS[mode].diverging ? most : -most, 2);
    return `<span class="legend" title="${COLUMNS[mode].name}"><span>${low}</span><i class="${ramp}"></i><span>${high}</span></span>`;
  },

  // What the tooltip says of a token.
  tip(text, span, i) {
    const letters = Array.from(text);
    const piece = letters.slice(i ? span.ends[i - 1] : 0, span.ends[i]).join("");
    const rows = Object.entries(COLUMNS).filter(([name]) => span.columns[name]).map(
      ([name, { name: title }]) => `<dt>${title}</dt><dd>${name === "logprob" || name === "value" ? figure(span.columns[name][i], 4) : signed(span.columns[name][i], 4)}</dd>`);
    if (span.columns.logprob) rows.push(`<dt>probability</dt><dd>${figure(Math.exp(span.columns.logprob[i]), 4)}</dd>`);
    const shown = piece === "" ? "end of turn" : JSON.stringify(piece).slice(1, -1);
    return `<b>${escaped(shown)}</b> <span class="dim">token ${i + 1} of ${span.ends.length}</span><dl>${rows.join("")}</dl>`;
  },
};
