// Lanes of a timeline as pixels: a colour for the GIL state, a height for the scheduler's, and
// hatching for whoever has the GIL, or wants a CPU, and is on none.
import {BLOCKED, CELLS, cpuState, gilState, HOLDING, MIXED, RELEASED, RUNNABLE, UNKNOWN, WAITING} from './spans.js';

const HEIGHTS = [1, 0.75, 0.45, 0.45];  // of a lane: running, runnable, blocked, unknown
const ASLEEP = 0.13;                    // of a lane
const NARROW = 16;                      // below it a loop is faster than a fill
const FEW = 24;                         // spans that are added one by one sooner than looked up
const DENSE = 2, SPARSE = 1, PLAIN = 0;

const hatching = (cell) => {
  if (gilState(cell) === HOLDING && cpuState(cell) === BLOCKED) return DENSE;
  return cpuState(cell) === RUNNABLE ? SPARSE : PLAIN;
};

// How tall a lane is where a thread does nothing else.
export function heightOf(cell) {
  if (gilState(cell) === HOLDING) return 1;
  return gilState(cell) === RELEASED && cpuState(cell) === BLOCKED ? 0 : HEIGHTS[cpuState(cell)];
}

function packed(colour) {
  const [red, green, blue] = colour;
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}

export class Raster {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.mix = new Float64Array(CELLS);
  }

  // `colours`: [red, green, blue] of background, holding, waiting, released, unknown, idle, hatch.
  use(colours) {
    this.background = packed(colours.background);
    this.idle = packed(colours.idle);
    this.wrong = packed(colours.wrong);
    this.fills = [];
    this.hatches = [];
    for (let cell = 0; cell < CELLS; cell++) {
      const colour =
          [colours.holding, colours.waiting, colours.released, colours.unknown][gilState(cell)];
      this.fills.push(packed(colour));
      this.hatches.push(
          gilState(cell) === HOLDING ?
              this.wrong :
              packed(colour.map((part, i) => Math.round((part + 2 * colours.background[i]) / 3))));
    }
  }

  clear() {
    this.pixels.fill(this.background);
  }

  // Pixels [x0, x1) of the lines [y0, y1). Diagonal stripes; dense ones are wider than what they
  // leave, and lean the other way.
  block(cell, x0, x1, y0, y1) {
    const {pixels, width} = this;
    const fill = this.fills[cell], pattern = hatching(cell), hatch = this.hatches[cell];
    const on = [0, 2, 5][pattern];
    if (on === 0 && x1 - x0 > NARROW) {
      for (let y = y0; y < y1; y++) pixels.fill(fill, y * width + x0, y * width + x1);
      return;
    }
    for (let y = y0; y < y1; y++) {
      const lean = pattern === DENSE ? -y : y;
      for (let x = x0, at = y * width + x0; x < x1; x++, at++)
        pixels[at] = ((x + lean) & 7) < on ? hatch : fill;
    }
  }

  // What is there of a thread that sleeps.
  baseline(x0, x1, top, bottom) {
    const height = Math.max(2, Math.round((bottom - top) * ASLEEP));
    for (let y = Math.max(0, bottom - height); y < bottom; y++)
      this.pixels.fill(this.idle, y * this.width + x0, y * this.width + x1);
  }

  // A stretch of one state.
  pure(cell, x0, x1, top, bottom) {
    const height = Math.round(heightOf(cell) * (bottom - top));
    if (height > 0) this.block(cell, x0, x1, bottom - height, bottom);
  }

  // A column of many: each as tall as its share of the time.
  column(mix, whole, x, top, bottom) {
    const height = bottom - top;
    let y = bottom, exact = bottom;
    for (let cell = 0; cell < CELLS; cell++) {
      if (mix[cell] <= 0) continue;
      exact -= heightOf(cell) * height * mix[cell] / whole;
      const to = Math.max(top, Math.round(exact));
      if (to < y) this.block(cell, x, x + 1, to, y);
      y = Math.min(y, to);
    }
  }

  // One thread between two moments, in the lines [top, bottom).
  lane(row, from, to, top, bottom) {
    const {width, mix} = this;
    const step = (to - from) / width;
    const firstX = Math.max(0, Math.floor((row.first - from) / step));
    const endX = Math.min(width, Math.ceil((row.last - from) / step));
    if (endX <= firstX) return;
    this.baseline(firstX, endX, top, bottom);
    const columns = new Columns(row, Math.max(from + firstX * step, row.first));
    for (let x = firstX; x < endX;) {
      const b = Math.min(from + (x + 1) * step, row.last);
      const span = columns.spanUpTo(b);
      if (span >= 0) {
        // All columns that lie within this span.
        const spanEnd = Math.floor((row.starts[span + 1] - from) / step);
        const x1 = Math.min(endX, Math.max(x + 1, spanEnd));
        this.pure(row.cells[span], x, x1, top, bottom);
        columns.skipTo(Math.min(from + x1 * step, row.last));
        x = x1;
      } else {
        this.column(columns.upTo(b, mix), step, x, top, bottom);
        x++;
      }
    }
  }
}

// Walks along a row from moment to moment: what it did from each to the next.
class Columns {
  constructor(row, from) {
    Object.assign(this, {row, from, span: row.at(from), next: -1});
    this.sums = new Float64Array(CELLS);  // up to `from`, where `known`
    this.known = false;
  }

  // The span that lasts from here to there; -1: there are more, or it is of several states.
  spanUpTo(to) {
    this.next = this.row.atNear(to, this.span);
    return this.next === this.span && this.row.cells[this.span] !== MIXED ? this.span : -1;
  }

  skipTo(to) {
    this.span = this.row.atNear(to, this.span);
    this.from = to;
    this.known = false;
  }

  // Into `out` what it does up to `to`, which spanUpTo() was asked for.
  upTo(to, out) {
    const {row, span, next} = this;
    out.fill(0);
    if (next - span <= FEW) {
      row.addBetween(out, this.from, to, span, next);
      this.known = false;
    } else {
      if (!this.known) {
        this.sums.fill(0);
        row.addUpTo(this.sums, this.from, span, 1);
      }
      row.addUpTo(out, to, next, 1);
      for (let cell = 0; cell < CELLS; cell++) {
        const sum = out[cell];
        out[cell] -= this.sums[cell];
        this.sums[cell] = sum;
      }
      this.known = true;
    }
    this.from = to;
    this.span = next;
    return out;
  }
}

export const legendCells = [
  HOLDING * 4,
  HOLDING * 4 + RUNNABLE,
  HOLDING * 4 + BLOCKED,
  WAITING * 4 + BLOCKED,
  WAITING * 4 + RUNNABLE,
  WAITING * 4,
  RELEASED * 4,
  RELEASED * 4 + RUNNABLE,
  RELEASED * 4 + BLOCKED,
  UNKNOWN * 4,
  UNKNOWN * 4 + RUNNABLE,
  UNKNOWN * 4 + BLOCKED,
  UNKNOWN * 4 + 3,
];
