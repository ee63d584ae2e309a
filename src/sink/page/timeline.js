// The timeline: a lane for each thread. What is drawn, and which part of the run; what mice, keys
// and fingers do to it is in timeline_input.js.
import {el} from './dom.js';
import {duration, exact, moment, stateName} from './format.js';
import {handoffsBetween, holdersBetween} from './handoffs.js';
import {Raster} from './raster.js';
import {gilState, MIXED, WAITING} from './spans.js';

const LABEL = '12px system-ui, sans-serif';
const RULER = 26, GAP = 6;     // CSS pixels
const LEAST_NS = 200;          // across the whole width
const MOST_PIXELS = 2600;      // of a lane
const MOST_PRINTED = 8000;     // CSS pixels of height
const TALL = 900;              // the same: about what fits on a sheet
const STRIP = 120;             // the same: what stays on one sheet
const PRINTED = 2;             // pixels for a CSS pixel, on paper; nowhere more
const MOST_OF_ALL = 16e6;      // pixels of the canvas
const PIXELS_OF_HANDOFF = 12;  // closer to each other they are not drawn

const hex = (text) => {
  const value = text.trim().replace('#', '');
  const digits = value.length === 3 ? [...value].map((c) => c + c).join('') : value;
  return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
};

export class Timeline {
  // `rows` with a `label` each; `run` is the whole time, ns.
  constructor(scroller, canvas, tooltip, run) {
    Object.assign(this, {scroller, canvas, tooltip, run});
    this.context = canvas.getContext('2d');
    this.rows = [];
    this.labelsWidth = 0;
    this.view = {from: 0, to: run};
    this.selection = null;
    this.chosen = null;  // { row, span }
    this.hover = null;   // { x, y }
    this.pending = false;
    this.printing = false;
    this.frames = [];  // how long drawing took, ms
    this.onChange = () => {};
    this.readColours();
    new ResizeObserver(() => this.resize()).observe(scroller);
    scroller.addEventListener('scroll', () => this.redraw());
  }

  // The page's colours are others now; on paper, where nothing scrolls, as many lanes are
  // there as have room. At once: a printer does not wait for a frame.
  restyle(printing) {
    if (printing && !this.printing) this.scrolled = this.scroller.scrollTop;
    if (printing) this.scroller.scrollTop = 0;
    const ended = this.printing && !printing;
    this.printing = printing;
    this.lane = this.laneHeight();
    this.readColours();
    this.resize();
    if (ended) this.scroller.scrollTop = this.scrolled;
    this.draw();
    this.strips?.remove();
    this.strips = printing && this.rows.length ? this.cutUp() : null;
    if (this.strips) this.canvas.after(this.strips);
  }

  // The picture as a table, which paper can break: some lanes a row, and the ruler on each sheet.
  cutUp() {
    const strip = (top, bottom) => {
      const [y0, y1] =
          [top, bottom].map((y) => Math.min(Math.round(y * this.scale), this.canvas.height));
      const drawn = new OffscreenCanvas(this.canvas.width, Math.max(1, y1 - y0));
      drawn.getContext('2d').drawImage(this.canvas, 0, -y0);
      const canvas = el('canvas', {width: drawn.width, height: drawn.height});
      // A bitmap: what is drawn on a canvas while Chromium prints comes out at another scale.
      canvas.getContext('bitmaprenderer').transferFromImageBitmap(drawn.transferToImageBitmap());
      return el('tr', {}, el('td', {}, canvas));
    };
    const pitch = this.lane + GAP, step = Math.max(1, Math.round(STRIP / pitch)) * pitch;
    const body = [];
    for (let top = RULER, end = RULER + GAP / 2 + step; top < this.height; top = end, end += step)
      body.push(strip(top, Math.min(end, this.height)));
    // As text: a browser repeats no picture on the next sheet.
    const ruler = el('th', {}, ...this.ticks().map(({x, label}) => {
      const tick = el('span', {}, label);
      tick.style.left = `${x / this.width * 100}%`;
      return tick;
    }));
    return el(
        'table', {class: 'strips', 'aria-hidden': 'true'}, el('thead', {}, el('tr', {}, ruler)),
        el('tbody', {}, ...body));
  }

  readColours() {
    const style = getComputedStyle(this.canvas);
    const of = (name) => hex(style.getPropertyValue(`--${name}`));
    this.colours = Object.fromEntries([
      'background', 'holding', 'waiting', 'released', 'unknown', 'idle', 'wrong', 'text', 'muted',
      'accent'
    ].map((name) => [name, of(name)]));
  }

  css(name, alpha = 1) {
    return `rgb(${this.colours[name].join(' ')} / ${alpha})`;
  }

  // `gils`: their addresses, by their place in the process. `complete`: every thread has a lane.
  show(rows, gils, complete) {
    this.rows = rows;
    this.complete = complete;
    this.gils = gils;
    this.chosen = null;
    this.selection = null;
    this.lane = this.laneHeight();
    this.context.font = `bold ${LABEL}`;
    const widest =
        rows.reduce((most, row) => Math.max(most, this.context.measureText(row.label).width), 0);
    this.labelsWidth = Math.max(60, Math.ceil(widest) + 20);
    this.canvas.parentElement.style.height = `${this.wholeHeight()}px`;
    this.scroller.scrollTop = 0;
    this.resize();
    this.showAll();
  }

  // Keeps room for so many lanes, whose rows are not there yet.
  expect(lanes) {
    this.rows = [];
    this.lane = this.laneHeight(lanes);
    this.canvas.parentElement.style.height = `${this.wholeHeight(lanes)}px`;
    this.resize(lanes);
  }

  // --- geometry ---

  // Most runs' lanes fit on one sheet of paper.
  laneHeight(lanes = this.rows.length) {
    const onScreen = lanes <= 6 ? 40 : lanes <= 12 ? 30 : 20;
    const onPaper = Math.max(GAP, Math.floor((TALL - RULER - GAP) / lanes) - GAP);
    return this.printing ? Math.min(onScreen, onPaper) : onScreen;
  }
  wholeHeight(lanes = this.rows.length) {
    return RULER + lanes * (this.lane + GAP) + GAP;
  }
  // How many lanes have room on paper.
  get printed() {
    const room = Math.floor((this.height - RULER - GAP) / (this.lane + GAP));
    return Math.min(this.rows.length, room);
  }
  get width() {
    return this.scroller.clientWidth;
  }
  // For the widest label.
  get gutter() {
    return Math.min(this.labelsWidth, this.width < 620 ? 84 : 190);
  }
  get lanesWidth() {
    return Math.max(50, this.width - this.gutter);
  }

  labelOf(row) {
    return this.width < 620 ? row.short : row.label;
  }

  timeAt(x) {
    const {from, to} = this.view;
    return from + (x - this.gutter) / this.lanesWidth * (to - from);
  }
  xOf(ns) {
    const {from, to} = this.view;
    return this.gutter + (ns - from) / (to - from) * this.lanesWidth;
  }
  topOf(index) {
    return RULER + GAP + index * (this.lane + GAP) - this.scroller.scrollTop;
  }
  rowAt(y) {
    const index = Math.floor((y - RULER - GAP / 2 + this.scroller.scrollTop) / (this.lane + GAP));
    return y < RULER ? null : this.rows[index] ?? null;
  }
  isRuler(y) {
    return y < RULER;
  }

  resize() {
    const room = this.printing ? MOST_PRINTED : this.scroller.clientHeight || Infinity;
    const height = Math.min(this.wholeHeight(), room);
    const scale = Math.min(
        this.printing ? PRINTED : devicePixelRatio || 1, PRINTED, MOST_PIXELS / this.lanesWidth,
        Math.sqrt(MOST_OF_ALL / (height * Math.max(1, this.width))));
    this.scale = Math.max(scale, 0.5);
    this.canvas.style.height = `${height}px`;
    this.height = height;
    const size = [this.width, height].map((pixels) => Math.round(pixels * this.scale));
    // To set a canvas's size clears it, whatever the size.
    if (size[0] !== this.canvas.width || size[1] !== this.canvas.height)
      [this.canvas.width, this.canvas.height] = size;
    this.redraw();
  }

  // --- what is shown ---

  setView(from, to) {
    const least = Math.min(LEAST_NS, this.run);
    const span = Math.min(Math.max(to - from, least), this.run);
    const middle = (from + to) / 2;
    const start = Math.min(Math.max(middle - span / 2, 0), this.run - span);
    this.view = {from: start, to: start + span};
    this.redraw();
    this.onChange();
  }
  zoom(factor, at = (this.view.from + this.view.to) / 2) {
    const {from, to} = this.view;
    const span = Math.min(Math.max((to - from) * factor, Math.min(LEAST_NS, this.run)), this.run);
    const start = at - (at - from) * (span / (to - from));
    const kept = Math.min(Math.max(start, 0), this.run - span);
    this.view = {from: kept, to: kept + span};
    this.redraw();
    this.onChange();
  }
  // From the first thread's beginning to the last one's end.
  showAll() {
    this.setView(
        this.rows.reduce((first, row) => Math.min(first, row.first), this.run),
        this.rows.reduce((last, row) => Math.max(last, row.last), 0));
  }
  pan(share) {
    const {from, to} = this.view;
    this.setView(from + share * (to - from), to + share * (to - from));
  }
  select(from, to) {
    const a = Math.max(0, Math.min(from, to)), b = Math.min(this.run, Math.max(from, to));
    this.selection = b > a ? {from: a, to: b} : null;
    this.redraw();
    this.onChange();
  }
  choose(row, span) {
    this.chosen = row && span >= 0 && span < row.count ? {row, span} : null;
    if (this.chosen) this.reveal(row);
    this.redraw();
    this.onChange();
  }
  // Scrolls so that the lane is in sight.
  reveal(row) {
    const index = this.rows.indexOf(row), top = this.topOf(index);
    if (top < RULER)
      this.scroller.scrollTop += top - RULER - GAP;
    else if (top + this.lane + GAP > this.height)
      this.scroller.scrollTop += top + this.lane + GAP - this.height;
  }
  // A stretch of time with some of what is around it, and the thread it is about.
  focusOn(from, to, row) {
    const margin = Math.max((to - from) * 0.5, 1000);
    this.setView(from - margin, to + margin);
    if (row) this.choose(row, row.at((from + to) / 2));
  }

  // --- figures ---

  // What is at a span: lines of text.
  describe(row, span) {
    const cell = row.cells[span], from = row.starts[span], to = row.starts[span + 1];
    const lines = [
      `${row.label}: ${stateName(cell)} for ${duration(to - from)} (${exact(to - from)})`,
      `from ${moment(from)} to ${moment(to)}`
    ];
    if (cell === MIXED) {
      const parts = [];
      for (let part = row.partsOf[span]; part < row.partsOf[span + 1]; part++)
        parts.push(`${stateName(row.partCells[part])} ${duration(row.partNs[part])}`);
      lines.push(parts.join(' · '));
      return lines;
    }
    if (gilState(cell) <= WAITING && this.gils.length > 1)
      lines[0] += `, GIL ${this.gils[row.gilOf(span)] ?? 'not known'}`;
    const stretch = row.stretch(span);
    if (stretch.to - stretch.from > to - from)
      lines.push(`part of ${duration(stretch.to - stretch.from)} of ${
              ['holding', 'waiting', 'being without the GIL', 'an unknown state']
              [gilState(cell)]}`);
    if (gilState(cell) === WAITING) {
      const holders = holdersBetween(this.rows, row, row.gilOf(span), stretch.from, stretch.to);
      for (const holder of holders.slice(0, 3)) {
        const parts =
            [
              ['running', holder.running], ['preempted', holder.runnable],
              ['asleep', holder.blocked]
            ].filter(([, ns]) => ns > 0)
                .map(([name, ns]) => `${name} ${duration(ns)}`);
        lines.push(`behind ${holder.row.label}: ${parts.join(', ')}`);
      }
    }
    return lines;
  }

  // --- drawing ---

  redraw() {
    this.stale = true;
    this.request();
  }
  request() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  draw() {
    if (!this.rows.length || this.width === 0) return;
    const begun = performance.now();
    if (this.stale) this.drawLanes();
    this.stale = false;
    const {context, scale} = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.css('background');
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.putImageData(
        this.raster.image, Math.round(this.gutter * scale), Math.round(RULER * scale));
    context.scale(scale, scale);
    this.drawLabels();
    this.drawHandoffs();
    this.drawSelection();
    this.drawRuler();
    this.drawChosen();
    this.frames.push(performance.now() - begun);
    if (this.frames.length > 1000) this.frames.splice(0, 500);
  }

  drawLanes() {
    const {scale} = this;
    const width = Math.round(this.lanesWidth * scale);
    const height = Math.max(1, Math.round((this.height - RULER) * scale));
    if (this.raster?.width !== width || this.raster?.height !== height)
      this.raster = new Raster(width, height);
    this.raster.use(this.colours);
    this.raster.clear();
    const shown = [];
    this.rows.forEach((row, index) => {
      const top = Math.round((this.topOf(index) - RULER) * scale);
      const bottom = top + Math.round(this.lane * scale);
      if (bottom <= 0 || top >= height) return;
      shown.push(row);
      // Half a lane at an edge is drawn as one that is less tall.
      this.raster.lane(
          row, this.view.from, this.view.to, Math.max(0, top), Math.min(bottom, height));
    });
    const most = Math.round(this.lanesWidth / PIXELS_OF_HANDOFF);
    // A thread without a lane may have held the GIL meanwhile, and nothing here would tell.
    this.handoffs = this.complete ? handoffsBetween(
                                        this.rows.length <= 256 ? this.rows : shown, this.view.from,
                                        this.view.to, most, this.rows) :
                                    null;
  }

  eachShown(what) {
    this.rows.forEach((row, index) => {
      const top = this.topOf(index);
      if (top + this.lane > RULER && top < this.height) what(row, top);
    });
  }

  drawLabels() {
    const {context} = this;
    context.save();
    context.beginPath();
    context.rect(0, RULER, this.gutter - 8, this.height - RULER);
    context.clip();
    context.textBaseline = 'middle';
    this.eachShown((row, top) => {
      const chosen = this.chosen?.row === row;
      context.font = `${chosen ? 'bold ' : ''}${LABEL}`;
      context.fillStyle = this.css('text');
      context.fillText(this.labelOf(row), 4, top + this.lane / 2);
    });
    context.restore();
  }

  // Where the ruler has its marks, and what it says there: nothing, where there is no room.
  ticks() {
    const {context} = this, {from, to} = this.view, all = [];
    const wanted = Math.max(2, this.lanesWidth / 110);
    const rough = (to - from) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const digits = Math.max(0, Math.min(9, 9 - Math.floor(Math.log10(step) + 1e-9)));
    context.font = '11px system-ui, sans-serif';
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      const x = this.xOf(at), label = moment(at, digits);
      all.push({x, label: x + 4 + context.measureText(label).width > this.width ? '' : label});
    }
    return all;
  }

  drawRuler() {
    const {context} = this;
    context.fillStyle = this.css('background');
    context.fillRect(0, 0, this.width, RULER);
    const ticks = this.ticks();
    context.textBaseline = 'middle';
    for (const {x, label} of ticks) {
      context.fillStyle = this.css('muted', 0.6);
      context.fillRect(x, RULER - 6, 1, 6);
      context.fillStyle = this.css('muted', 0.15);
      context.fillRect(x, RULER, 1, this.height - RULER);
      context.fillStyle = this.css('muted');
      context.fillText(label, x + 4, RULER / 2);
    }
    context.fillStyle = this.css('muted');
    context.fillText('select ▸', 4, RULER / 2);
  }

  drawSelection() {
    const {context, selection} = this;
    if (!selection) return;
    const left = Math.max(this.xOf(selection.from), this.gutter);
    const right = Math.min(this.xOf(selection.to), this.width);
    if (right < left) return;
    context.fillStyle = this.css('background', 0.6);  // what is not selected stands back
    context.fillRect(this.gutter, RULER, left - this.gutter, this.height);
    context.fillRect(right, RULER, this.width - right, this.height);
    context.fillStyle = this.css('accent');
    context.fillRect(left - 1, 0, 2, this.height);
    context.fillRect(right - 1, 0, 2, this.height);
  }

  drawChosen() {
    if (!this.chosen) return;
    const {context} = this;
    const {row, span} = this.chosen;
    const top = this.topOf(this.rows.indexOf(row));
    const left = Math.max(this.xOf(row.starts[span]), this.gutter);
    const right = Math.min(this.xOf(row.starts[span + 1]), this.width);
    if (right < left || top + this.lane < RULER) return;
    context.strokeStyle = this.css('text');
    context.lineWidth = 2;
    context.strokeRect(left - 1, top - 2, Math.max(right - left, 1) + 2, this.lane + 4);
  }

  drawHandoffs() {
    if (!this.handoffs) return;
    const {context} = this;
    context.save();
    context.beginPath();
    context.rect(this.gutter, RULER, this.lanesWidth, this.height - RULER);
    context.clip();
    context.lineWidth = 1.5;
    for (const handoff of this.handoffs) {
      const x0 = this.xOf(handoff.released), x1 = this.xOf(handoff.acquired);
      const y0 = this.topOf(this.rows.indexOf(handoff.from)) + this.lane / 2;
      const y1 = this.topOf(this.rows.indexOf(handoff.to)) + this.lane / 2;
      this.arrow(x0, y0, x1, y1);
    }
    context.restore();
  }

  arrow(x0, y0, x1, y1) {
    const {context} = this;
    const angle = Math.atan2(y1 - y0, x1 - x0), head = 7;
    context.strokeStyle = context.fillStyle = this.css('text');
    context.beginPath();
    context.arc(x0, y0, 2.5, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1 - head * 0.8 * Math.cos(angle), y1 - head * 0.8 * Math.sin(angle));
    context.stroke();
    context.beginPath();
    context.moveTo(x1, y1);
    context.lineTo(x1 - head * Math.cos(angle - 0.4), y1 - head * Math.sin(angle - 0.4));
    context.lineTo(x1 - head * Math.cos(angle + 0.4), y1 - head * Math.sin(angle + 0.4));
    context.fill();
  }
}
