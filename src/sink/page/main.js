// The page: reads the two blocks of data it came with, and fills its sections.
import {bytesNow} from './blocks.js';
import {byId, el, fill, table} from './dom.js';
import {count, duration, moment, stateName, undirected} from './format.js';
import {handoffsBetween, matrixBetween} from './handoffs.js';
import {Histograms} from './histograms.js';
import {legendCells, Raster} from './raster.js';
import {processName, showBlame, showLedgers, showRun, showThreads, showVerdict, showWaits, threadName} from './sections.js';
import {BLOCKED, CELLS, cpuState, gilState, HOLDING, MIXED, RUNNABLE, RUNNING, WAITING} from './spans.js';
import {Timeline} from './timeline.js';
import {listen} from './timeline_input.js';
import {inWorker, serve, unpackBeside, unpackNow} from './unpacking.js';

const MOST_IN_TABLE = 48;
let histograms = null;
let page = null, report = null;
let timeline = null, process = null, place = 0;
let rows = null;    // of all threads; not before they are unpacked
let wanted = null;  // a wait that is to be shown then

// The one at `at` in the order of the page, the worst first.
function showProcess(at) {
  wanted = null;
  place = at;
  process = report.processes[page.order[place]];
  showVerdict(process);
  showLedgers(process);
  showThreads(process);
  showBlame(process);
  const hashOf = (index) => `#wait-${at + 1}-${index + 1}`;
  showWaits(process, hashOf, (index) => {
    history.replaceState(null, '', hashOf(index));
    goToWait(process.longest_waits[index]);
  });
  histograms.show(process);
  showTimeline();
}

function showTimeline() {
  byId('unpacking').hidden = rows !== null;
  byId('timeline').setAttribute('aria-busy', String(rows === null));
  const lanes = process.threads.filter((thread) => !thread.folded).length;
  byId('timeline-section').hidden = lanes === 0;
  if (!rows) {
    timeline.expect(lanes);
    return;
  }
  const index = page.order[place];
  const own = rows.filter((row) => row.process === index && row.count > 0);
  for (const row of own) {
    const thread = process.threads[row.thread];
    row.tid = thread.tid;
    row.label = threadName(thread);
    row.short = String(thread.tid);
  }
  const without = process.threads.reduce((all, thread) => all + (thread.folded || 0), 0);
  byId('timeline-section').hidden = own.length === 0;
  // What was chosen of another process is of no use here, lanes or not.
  timeline.show(own, process.gils.map((gil) => gil.address), without === 0);
  if (own.length === 0) return;
  showLegend(own);
  byId('without').hidden = without === 0;
  byId('without').textContent = `${
      count(
          without)} threads that ended early have no lane: they are summed up, and without them no hand-offs are drawn.`;
}

// What of all that may be drawn is there.
function showLegend(own) {
  const all = new Float64Array(CELLS);
  for (const row of own)
    row.between(0, page.duration_ns).forEach((ns, cell) => {
      all[cell] += ns;
    });
  const items = legendCells.filter((cell) => all[cell] > 0).map((cell) => {
    const canvas = el('canvas', {width: 28, height: 16, 'aria-hidden': 'true'});
    const raster = new Raster(28, 16);
    raster.use(timeline.colours);
    raster.clear();
    raster.baseline(0, 28, 1, 16);
    raster.pure(cell, 0, 28, 1, 16);
    canvas.getContext('2d').putImageData(raster.image, 0, 0);
    return el('li', {}, canvas, stateName(cell));
  });
  fill('legend', ...items);
}

function restyle(printing) {
  timeline.restyle(printing);
  histograms.draw();
  if (!rows) return;
  const {printed, rows: {length: all}} = timeline;
  byId('unprinted').hidden = !printing || printed === all;
  byId('unprinted').textContent =
      `On paper are the lanes of ${count(printed)} of ${count(all)} threads; the page has all.`;
  showLegend(timeline.rows);
}

function goToWait(wait) {
  if (!rows) {
    wanted = wait;
    return;
  }
  const from = wait.start_s * 1e9, to = from + wait.duration_s * 1e9;
  const row =
      timeline.rows.find((r) => r.tid === wait.waiter_tid && r.first <= to && r.last >= from);
  timeline.focusOn(from, to, row);
  byId('timeline').focus({preventScroll: true});
  byId('timeline-section').scrollIntoView({block: 'start'});
}

// An address that ends in #wait-2-1 is about the first wait of the second process.
function followAddress() {
  const [, at, index] = location.hash.match(/^#wait-(\d+)-(\d+)$/) ?? [];
  const wait = report.processes[page.order[at - 1]]?.longest_waits[index - 1];
  if (!wait) return;
  byId('choice').value = String(at - 1);
  showProcess(at - 1);
  goToWait(wait);
}

// --- what is beside the timeline ---

let updating = 0;
function changed() {
  clearTimeout(updating);
  updating = setTimeout(update, 120);
}

function update() {
  if (!rows) return;
  const {chosen, selection, view} = timeline;
  byId('zoomed').textContent =
      `${moment(view.from, 6)} to ${moment(view.to, 6)}: ${duration(view.to - view.from)}`;
  byId('clear').disabled = !selection;
  fill(
      'chosen',
      ...(chosen ? timeline.describe(chosen.row, chosen.span).map((line) => el('p', {}, line)) :
                   [el('p', {class: 'muted'},
                       'Click a state, or choose one by the arrow keys, for its figures.')]));
  showMatrix(selection ?? view, selection ? 'selected' : 'in view');
}

function showMatrix({from, to}, what) {
  const shown = timeline.rows.map((row) => ({row, ...matrixBetween(row, from, to)}))
                    .filter((one) => one.life > 0);
  const used = ({cells}) => cells.subarray(HOLDING * 4, WAITING * 4 + 4).reduce((a, b) => a + b, 0);
  if (shown.length > MOST_IN_TABLE) shown.sort((a, b) => used(b) - used(a));
  const part = (ns) => ns >= 0.5 ? duration(ns) : '·';
  const body = shown.slice(0, MOST_IN_TABLE).map(({row, cells, life}) => {
    const known = [];
    for (const gil of [0, 1, 2])
      for (const cpu of [RUNNING, RUNNABLE, BLOCKED]) known.push(cells[gil * 4 + cpu]);
    const unknown = life - known.reduce((a, b) => a + b, 0);
    return [row.label, ...known.map(part), part(unknown)];
  });
  const cpu = [['on CPU', true], ['no CPU', true], ['asleep', true]];
  fill(
      'matrix',
      table(
          `What threads did ${what}: ${duration(to - from)} from ${moment(from, 6)}`,
          [['Thread'], ...cpu, ...cpu, ...cpu, ['Unknown', true]], body,
          [['', 1], ['Holding', 3], ['Waiting', 3], ['Released', 3], ['', 1]]),
      shown.length > body.length ?
          el('p', {}, `… and ${count(shown.length - body.length)} more threads`) :
          null);
}

// The worst first.
function offerProcesses() {
  const choice = byId('choice');
  const ordered = page.order.map((index) => report.processes[index]);
  byId('processes').hidden = ordered.length < 2;
  ordered.forEach((each, place) => choice.append(el('option', {value: place}, processName(each))));
  choice.addEventListener('change', () => showProcess(Number(choice.value)));
  fill(
      'all-processes',
      table(
          'Processes, the worst first', [['Process'], ['Verdict']],
          ordered.slice(0, MOST_IN_TABLE).map((each) => [processName(each), each.verdict.text])));
}

function buttons() {
  const on = (id, what) => byId(id).addEventListener('click', what);
  on('zoom-in', () => timeline.zoom(0.5));
  on('zoom-out', () => timeline.zoom(2));
  on('whole', () => timeline.showAll());
  on('clear', () => timeline.select(0, 0));
}

// --- for tests, and for whoever opens a console ---

function api() {
  const rowOf = (tid) => timeline.rows.find((row) => row.tid === tid);
  return {
    report,
    timeline,
    resolution_ns: page.resolution_ns,
    threads: () => timeline.rows.map((row) => row.tid),
    spanCount: () => rows.reduce((all, row) => all + row.count, 0),
    // [{ from, to, gil, cpu }], ns; both states are null where there are several.
    spans: (tid, from = 0, to = page.duration_ns) => {
      const row = rowOf(tid), out = [];
      for (let i = Math.max(0, row.at(from)); i < row.count && row.starts[i] < to; i++) {
        const cell = row.cells[i], mixed = cell === MIXED;
        out.push({
          from: row.starts[i],
          to: row.starts[i + 1],
          gil: mixed ? null : ['holding', 'waiting', 'released', 'unknown'][gilState(cell)],
          cpu: mixed ? null : ['running', 'runnable', 'blocked', 'unknown'][cpuState(cell)]
        });
      }
      return out;
    },
    matrix: (tid, from, to) => Array.from(rowOf(tid).between(from, to)),
    handoffs: (from, to) =>
        handoffsBetween(timeline.rows, from, to, Infinity)?.map((one) => ({
                                                                  from: one.from.tid,
                                                                  to: one.to.tid,
                                                                  released: one.released,
                                                                  acquired: one.acquired
                                                                })) ??
        null,
    view: () => ({...timeline.view}),
    setView: (from, to) => timeline.setView(from, to),
    selection: () => timeline.selection && {...timeline.selection},
    chosen: () => timeline.chosen && {tid: timeline.chosen.row.tid, span: timeline.chosen.span},
    place: (tid, ns) => ({
      x: timeline.xOf(ns),
      y: timeline.topOf(timeline.rows.indexOf(rowOf(tid))) + timeline.lane - 3
    }),
    frames: () => timeline.frames.slice(),
  };
}

// All there is to read.
function showReport() {
  page = JSON.parse(new TextDecoder().decode(bytesNow(byId('giltop-report').textContent)));
  report = page.report;
  document.title = `giltop: ${
      report.processes.map((p) => undirected(p.comm)).slice(0, 3).join(', ') || 'report'}`;
  showRun(page);
  if (page.order.length === 0) {
    fill('verdict', el('p', {class: 'sentence'}, 'No CPython process was seen.'));
    for (const section of document.querySelectorAll('section[data-process]')) section.hidden = true;
    return;
  }
  histograms = new Histograms();
  timeline = new Timeline(byId('timeline'), byId('lanes'), byId('tooltip'), page.duration_ns);
  timeline.onChange = changed;
  listen(timeline);
  buttons();
  matchMedia('(prefers-color-scheme: dark)')
      .addEventListener('change', () => restyle(timeline.printing));
  for (const [event, printing] of [['beforeprint', true], ['afterprint', false]]) {
    addEventListener(event, () => {
      // A printer does not wait, `chromium --print-to-pdf` not even for a worker.
      try {
        if (printing && !rows) take(unpackNow(byId('giltop-spans')?.textContent ?? ''));
      } catch {
        // Not all there yet, or damaged: printed is what there is to read.
      }
      document.documentElement.toggleAttribute('data-print', printing);
      restyle(printing);
    });
  }
  offerProcesses();
  showProcess(0);
  window.giltop = api();
  addEventListener('hashchange', followAddress);
  followAddress();
}

// The rows come once.
function take(unpacked) {
  if (rows) return;
  rows = unpacked;
  performance.mark('giltop-unpacked');
  showTimeline();
  update();
  if (wanted) goToWait(wanted);
  ready();
}

const ready = () => document.documentElement.setAttribute('data-ready', '');


const loaded = () => new Promise((done) => {
  if (document.readyState === 'loading')
    addEventListener('DOMContentLoaded', done);
  else
    done();
});

async function start() {
  try {
    showReport();
  } catch (error) {
    fill('verdict', el('p', {class: 'sentence'}, `This page cannot be shown: ${error.message}`));
    return;
  }
  if (!process) {
    ready();
    return;
  }
  await loaded();  // the spans come after the script
  try {
    take(await unpackBeside(byId('giltop-spans').textContent));
  } catch (error) {
    byId('unpacking').textContent = `The timeline cannot be shown: ${error.message}`;
    byId('timeline').setAttribute('aria-busy', 'false');
  }
}

if (inWorker)
  serve();
else
  start();
