// The data of the page: unpacked from gzip in base64, the index at once, the pieces when needed.

const KEPT = 24;
const pieces = new Map();

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function unpack(id) {
  const bytes = bytesOf(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// The pieces looked at last stay unpacked.
function piece(id) {
  const known = pieces.get(id);
  if (known) {
    pieces.delete(id);
    pieces.set(id, known);
    return known;
  }
  const wanted = unpack(id);
  pieces.set(id, wanted);
  if (pieces.size > KEPT) pieces.delete(pieces.keys().next().value);
  return wanted;
}

const store = {
  async open() {
    Object.assign(this, await unpack("index"));
    const { groups, members } = this;
    const count = (groups.size || []).length;
    this.count = count;
    this.start = new Int32Array(count + 1);
    for (let g = 0; g < count; g++) this.start[g + 1] = this.start[g] + groups.size[g];
    this.total = this.start[count];
    this.mean = new Float64Array(count).fill(NaN);
    this.spread = new Float64Array(count).fill(NaN);
    this.longest = new Int32Array(count);
    let low = Infinity, high = -Infinity;
    for (let g = 0; g < count; g++) {
      let n = 0, mean = 0, squares = 0;  // Welford's way: equal values have a spread of 0
      for (let i = this.start[g]; i < this.start[g + 1]; i++) {
        this.longest[g] = Math.max(this.longest[g], members.length[i]);
        const value = members.reward[i];
        if (value === null) continue;
        const off = value - mean;
        mean += off / ++n;
        squares += off * (value - mean);
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
      if (!n) continue;
      this.mean[g] = mean;
      this.spread[g] = Math.sqrt(squares / n);
    }
    this.low = Math.min(0, low);
    this.high = high > this.low ? high : this.low + 1;
    this.partNames = Object.keys(this.parts || {});
    this.benign = new Set(["ok", "not_applicable", "unparsable", null]);
  },

  async at(kind, where) {
    return where ? (await piece(kind + where[0]))[where[1]] : null;
  },
  text(g) {
    return this.at("text", this.groups.text[g]);
  },
  trace(g) {
    return this.at("trace", this.groups.trace[g]);
  },
  async picture(hash) {
    const [chunk, place, width, height] = this.images[hash];
    const data = await this.at("picture", [chunk, place]);
    return { address: `data:image/webp;base64,${data}`, width, height };
  },

  task(g) {
    return this.names.task[this.groups.task[g]];
  },
  status(i) {
    return this.names.status[this.members.status[i]];
  },
  scored(i) {
    return this.names.scored[this.members.scored[i]];
  },
  isFault(i) {
    return !this.benign.has(this.scored(i));
  },
  find(step, serial) {
    const { groups } = this;
    for (let g = 0; g < this.count; g++) {
      if (groups.step[g] === step && (serial === null || groups.serial[g] === serial)) return g;
    }
    return -1;
  },
};

// A packed column of numbers: see trainer/ops/traces.py.
function numbersOf(packed, count) {
  if (typeof packed === "number") return new Float64Array(count).fill(packed);
  const bytes = bytesOf(packed.data);
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 2 }, (_, i) => {
    const value = view.getInt16(2 * i, true);
    return value === -32768 ? NaN : value * packed.scale;
  });
}

function endsOf(packed) {
  const ends = [];
  let end = 0;
  for (const length of bytesOf(packed)) {
    end += length;
    if (length < 255) ends.push(end);
  }
  return ends;
}

// Small things that every part of the page uses.

const $ = (id) => document.getElementById(id);
const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

function figure(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace("-", "−");
  const text = Number.isInteger(value) ? value.toLocaleString("en") :
    value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : digits);
  return text.replace("-", "−");
}

const signed = (value, digits = 3) => (value > 0 ? "+" : "") + figure(value, digits);
