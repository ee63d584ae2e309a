// Histograms, drawn by uPlot: a bar for each doubling, as giltop hist has them.
import uPlot from 'uplot';

import {el, fill, table} from './dom.js';
import {count, duration} from './format.js';

const HEIGHT = 200;
const ns = (seconds) => seconds * 1e9;

// [from, to) in nanoseconds and how many, from the first that has any to the last.
function octaves(histogram) {
  const counts = new Map();
  for (const [upper, n] of histogram.buckets) {
    const octave = Math.max(0, Math.ceil(Math.log2(Math.max(1, ns(upper) * (1 - 1e-9)))) - 1);
    counts.set(octave, (counts.get(octave) ?? 0) + n);
  }
  if (counts.size === 0) return [];
  const first = Math.min(...counts.keys()), last = Math.max(...counts.keys());
  return Array.from(
      {length: last - first + 1},
      (_, i) =>
          ({from: 2 ** (first + i), to: 2 ** (first + i + 1), count: counts.get(first + i) ?? 0}));
}

function draw(place, bars, colour, style) {
  const css = (name) => style.getPropertyValue(`--${name}`).trim();
  const text = css('muted'), grid = css('grid');
  const options = {
    width: Math.max(200, place.clientWidth),
    height: HEIGHT,
    cursor: {show: false},
    legend: {show: false},
    scales: {
      x: {time: false, range: [-0.6, bars.length - 0.4]},
      y: {range: (u, min, max) => [0, max * 1.1 || 1]}
    },
    axes: [
      {
        stroke: text,
        grid: {show: false},
        ticks: {stroke: grid},
        incrs: [1, 2, 3, 4, 6, 8],
        values: (u, at) => at.map((i) => bars[i] ? duration(bars[i].from) : ''),
        space: 52
      },
      {
        stroke: text,
        grid: {stroke: grid, width: 1},
        ticks: {stroke: grid},
        size: 58,
        values: (u, at) => at.map((n) => Number.isInteger(n) ? count(n) : '')
      },
    ],
    series: [
      {}, {
        stroke: css(colour),
        fill: css(colour),
        width: 0,
        points: {show: false},
        paths: uPlot.paths.bars({size: [0.85, 80]})
      }
    ],
  };
  return new uPlot(options, [bars.map((_, i) => i), bars.map((b) => b.count)], place);
}

function part(title, histogram, colour, plots) {
  if (!histogram.count)
    return el(
        'div', {class: 'histogram none'}, el('h3', {}, title),
        el('p', {}, histogram.count === 0 ? 'None was seen.' : 'Not known in light mode.'));
  const bars = octaves(histogram);
  const quantiles =
      [['p50', 'p50_s'], ['p90', 'p90_s'], ['p99', 'p99_s'], ['p99.9', 'p999_s'], ['max', 'max_s']]
          .map(([name, key]) => `${name} ${duration(ns(histogram[key]))}`)
          .join(' · ');
  const place = el('div', {class: 'plot', role: 'img', 'aria-label': `${title}: ${quantiles}`});
  plots.push({place, bars, colour});
  return el(
      'div', {class: 'histogram'}, el('h3', {}, title),
      el('p', {}, `${count(histogram.count)} · ${quantiles}`), place,
      el('details', {}, el('summary', {}, 'as a table'),
         table(
             title, [['from'], ['to', true], ['count', true]],
             bars.map((b) => [duration(b.from), duration(b.to), count(b.count)]))));
}

export class Histograms {
  constructor() {
    this.plots = [];
    addEventListener('resize', () => this.draw());
  }

  show(process) {
    this.plots = [];
    fill(
        'histograms', part('Waits for the GIL', process.wait, 'waiting', this.plots),
        part('Holds of the GIL', process.hold, 'holding', this.plots));
    this.draw();
  }

  draw() {
    for (const plot of this.plots) {
      plot.drawn?.destroy();
      plot.drawn = draw(plot.place, plot.bars, plot.colour, getComputedStyle(plot.place));
    }
  }
}
