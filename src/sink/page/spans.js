// The spans of all threads, unpacked, and what they add up to between any two moments.
// Times are nanoseconds since the recording's beginning. A cell is GIL state * 4 + CPU state.

export const CELLS = 16;
export const HOLDING = 0, WAITING = 1, RELEASED = 2, UNKNOWN = 3;
export const RUNNING = 0, RUNNABLE = 1, BLOCKED = 2;
export const MIXED = 16;
const GIL = 17;
const BLOCK = 32;  // spans between two sums

export const gilState = (cell) => cell >> 2;
export const cpuState = (cell) => cell & 3;

// Numbers of seven bits a byte, the lowest first.
class Numbers {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }
  next() {
    const {bytes} = this;
    let byte = bytes[this.at++], value = byte;
    // A byte that is not the last has 128 too much, which the next one takes back.
    for (let unit = 128; byte >= 128; unit *= 128) {
      byte = bytes[this.at++];
      value += (byte - 1) * unit;
    }
    return value;
  }
}

// One thread's life.
export class Row {
  constructor(process, thread, first, codes, numbers) {
    this.process = process;
    this.thread = thread;
    this.first = first;
    this.gils = [];  // from span `span` on it is about GIL `gil` of the process
    // The parts of mixed span s: from partsOf[s] on, to partsOf[s + 1].
    this.partsOf = codes.includes(MIXED) ? new Uint32Array(codes.length + 1) : null;
    this.partCells = new Uint8Array(0);
    this.partNs = new Float64Array(0);
    // The same bytes, where nothing else is among them.
    this.cells = codes.includes(GIL) ? codes.filter((code) => code !== GIL) : codes;
    this.count = this.cells.length;
    this.starts = new Float64Array(this.count + 1);
    this.sums = new Float64Array((Math.floor(this.count / BLOCK) + 1) * CELLS);
    this.read(codes, numbers);
    this.last = this.starts[this.count];
  }

  read(codes, numbers) {
    const running = new Float64Array(CELLS);
    const {starts, sums} = this;
    let at = this.first, span = 0, part = 0;
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code === GIL) {
        this.gils.push({span, gil: numbers.next()});
        continue;
      }
      if (span % BLOCK === 0) sums.set(running, span / BLOCK * CELLS);
      starts[span++] = at;
      if (code === MIXED) {
        for (let left = numbers.next(); left > 0; left--) {
          if (part === this.partCells.length) this.growParts();
          const cell = numbers.next(), ns = numbers.next();
          this.partCells[part] = cell;
          this.partNs[part++] = ns;
          running[cell] += ns;
          at += ns;
        }
      } else {
        const ns = numbers.next();
        running[code] += ns;
        at += ns;
      }
      if (this.partsOf) this.partsOf[span] = part;
    }
    if (span % BLOCK === 0) sums.set(running, span / BLOCK * CELLS);
    starts[span] = at;
  }

  growParts() {
    const size = Math.max(64, this.partCells.length * 2);
    const cells = new Uint8Array(size), ns = new Float64Array(size);
    cells.set(this.partCells);
    ns.set(this.partNs);
    this.partCells = cells;
    this.partNs = ns;
  }

  // The span at this moment; -1 before its life, `count` after it. `from` and `to` narrow it down.
  at(ns, from = 0, to = this.count) {
    if (ns < this.first) return -1;
    const {starts} = this;
    let low = from, high = to;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= ns)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }

  // The same, where it is probably not far from span `near`.
  atNear(ns, near) {
    let step = 8;
    const from = Math.max(near, 0);
    while (from + step < this.count && this.starts[from + step] <= ns) step *= 2;
    return this.at(ns, from, Math.min(from + step, this.count));
  }

  addSpan(out, span, share, sign) {
    const cell = this.cells[span];
    if (cell !== MIXED) {
      out[cell] += sign * share * (this.starts[span + 1] - this.starts[span]);
      return;
    }
    for (let part = this.partsOf[span]; part < this.partsOf[span + 1]; part++)
      out[this.partCells[part]] += sign * share * this.partNs[part];
  }

  // Adds what it did up to a moment within span `at`.
  addUpTo(out, ns, at, sign) {
    if (at < 0) return;
    const block = Math.floor(at / BLOCK);
    for (let i = 0; i < CELLS; i++) out[i] += sign * this.sums[block * CELLS + i];
    for (let span = block * BLOCK; span < at; span++) this.addSpan(out, span, 1, sign);
    this.addPart(out, at, this.starts[at], ns, sign);
  }

  addPart(out, span, from, to, sign) {
    if (span < 0 || span >= this.count || to <= from) return;
    if (this.cells[span] !== MIXED) {
      out[this.cells[span]] += sign * (to - from);
      return;
    }
    this.addSpan(out, span, (to - from) / (this.starts[span + 1] - this.starts[span]), sign);
  }

  // Adds what it did from `a`, within span `i`, to `b`, within span `j`.
  addBetween(out, a, b, i, j) {
    if (i === j) {
      this.addPart(out, i, a, b, 1);
    } else if (j - i <= BLOCK) {
      if (i >= 0) this.addPart(out, i, a, this.starts[i + 1], 1);
      for (let span = i + 1; span < j; span++) this.addSpan(out, span, 1, 1);
      this.addPart(out, j, this.starts[j], b, 1);
    } else {
      this.addUpTo(out, b, j, 1);
      this.addUpTo(out, a, i, -1);
    }
  }

  // What it did between two moments, ns in each cell.
  between(a, b) {
    const out = new Float64Array(CELLS);
    if (b > a) this.addBetween(out, a, b, this.at(a), this.at(b));
    return out;
  }

  // Of `gils` the last that a span comes after; -1: none.
  gilIndex(span) {
    let low = 0, high = this.gils.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.gils[middle].span <= span)
        low = middle + 1;
      else
        high = middle;
    }
    return low - 1;
  }

  // The GIL that a span is about, by its place in the process; -1: none yet.
  gilOf(span) {
    return this.gils[this.gilIndex(span)]?.gil ?? -1;
  }

  // The spans around `span` that are of one GIL state with it: a hold, a wait.
  stretch(span) {
    const state = gilState(this.cells[span]);
    let first = span, last = span;
    if (this.cells[span] !== MIXED) {
      const same = (i) => this.cells[i] !== MIXED && gilState(this.cells[i]) === state;
      while (first > 0 && same(first - 1)) first--;
      while (last + 1 < this.count && same(last + 1)) last++;
    }
    return {from: this.starts[first], to: this.starts[last + 1]};
  }
}

// The rows of all threads.
export function unpack(bytes) {
  const numbers = new Numbers(bytes);
  const heads = [];
  for (let left = numbers.next(); left > 0; left--)
    heads.push(Array.from({length: 5}, () => numbers.next()));
  let at = numbers.at;
  return heads.map(([process, thread, first, codes, values]) => {
    const row = new Row(
        process, thread, first, bytes.subarray(at, at + codes), new Numbers(bytes, at + codes));
    at += codes + values;
    return row;
  });
}
