// Lanes of a timeline as pixels: a colour for the GIL state, a height for the scheduler's, and
// hatching for whoever has the GIL, or wants a CPU, and is on none.
import { BLOCKED, CELLS, HOLDING, MIXED, RELEASED, RUNNABLE, UNKNOWN, WAITING, cpuState,
         gilState } from './spans.js';

const HEIGHTS = [1, 0.75, 0.45, 0.45]; // of a lane: running, runnable, blocked, unknown
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
      const colour = [colours.holding, colours.waiting, colours.released, colours.unknown]
          [gilState(cell)];
      this.fills.push(packed(colour));
      this.hatches.push(gilState(cell) === HOLDING
          ? this.wrong
          : packed(colour.map((part, i) => Math.round((part + 2 * colours.background[i]) / 3))));
    }
  }

  clear() {
    this.pixels.fill(this.background);
  }

  // Pixels [x0, x1) of the lines [y0, y1), each line `bottom` - 1 or above.
  block(cell, x0, x1, y0, y1) {
    const { pixels, width } = this;
    const fill = this.fills[cell], pattern = hatching(cell), hatch = this.hatches[cell];
    for (let y = y0; y < y1; y++) {
      const line = y * width;
      pixels.fill(fill, line + x0, line + x1);
      if (pattern === PLAIN) continue;
      // Diagonal stripes; dense ones are as wide as what they leave.
      const on = pattern === DENSE ? 4 : 2;
      for (let x = x0; x < x1; x++) if (((x + y) & 7) < on + (pattern === DENSE)) pixels[line + x] = hatch;
    }
  }

  baseline(x0, x1, bottom) {
    for (let y = bottom - 2; y < bottom; y++)
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
    const { width, mix } = this;
    const step = (to - from) / width;
    const firstX = Math.max(0, Math.floor((row.first - from) / step));
    const endX = Math.min(width, Math.ceil((row.last - from) / step));
    if (endX <= firstX) return;
    this.baseline(firstX, endX, bottom);
    let a = Math.max(from + firstX * step, row.first);
    let i = row.at(a);
    for (let x = firstX; x < endX;) {
      const b = Math.min(from + (x + 1) * step, row.last);
      const j = row.atNear(b, i);
      if (j === i && row.cells[i] !== MIXED) {
        // All columns that lie within this span.
        const spanEnd = Math.floor((row.starts[i + 1] - from) / step);
        const x1 = Math.min(endX, Math.max(x + 1, spanEnd));
        this.pure(row.cells[i], x, x1, top, bottom);
        a = Math.min(from + x1 * step, row.last);
        x = x1;
        continue;
      }
      mix.fill(0);
      row.addBetween(mix, a, b, i, j);
      this.column(mix, step, x, top, bottom);
      a = b;
      i = j;
      x++;
    }
  }
}

export const legendCells = [
  HOLDING * 4, HOLDING * 4 + RUNNABLE, HOLDING * 4 + BLOCKED, WAITING * 4 + BLOCKED,
  WAITING * 4 + RUNNABLE, WAITING * 4, RELEASED * 4, RELEASED * 4 + RUNNABLE, RELEASED * 4 + BLOCKED,
  UNKNOWN * 4, UNKNOWN * 4 + RUNNABLE, UNKNOWN * 4 + BLOCKED, UNKNOWN * 4 + 3,
];
