// The page's parts, but for the timeline: each fills its section from the report of one process.
import {bar, byId, caption, el, fill, table} from './dom.js';
import {count, duration, moment, percent, undirected} from './format.js';

const ns = (seconds) => seconds * 1e9;
const MOST_ROWS = 24;
const MOST_IN_PICTURE = 12;

export const threadName = (thread) => thread.folded ? `${count(thread.folded)} ended threads` :
                                                      `${thread.tid} ${undirected(thread.comm)}`;

export function processName(process) {
  const name = undirected(process.folded ? process.comm : process.cmdline || process.comm);
  return process.folded ? `${count(process.folded)} ended processes · ${name}` :
                          `${process.pid} · ${name}`;
}

// --- the verdict and the run ---

export function showVerdict(process) {
  const {advice, also} = process.verdict;
  const whole = (sentence) => sentence.replaceAll(' %', '\u00a0%');  // no line begins with it
  const others = also.flatMap(
      (other) =>
          [el('p', {class: 'also'}, `Also: ${whole(other.text)}`),
           other.advice && other.advice !== advice ? el('p', {}, other.advice) : null]);
  fill(
      'verdict', el('p', {class: 'sentence'}, whole(process.verdict.text)),
      advice ? el('p', {}, advice) : null, ...others);
  byId('sampled').hidden = process.exact;
  const python = process.python ?
      `Python ${process.python}${process.free_threaded ? ' free-threaded' : ''}` :
      '';
  fill('process', [processName(process), python].filter(Boolean).join(' · '));
}

function eventsOf(report) {
  if (!report.lost_events) return `${count(report.events)}, none lost`;
  const kinds = Object.entries(report.lost_by_kind).map(([kind, n]) => `${count(n)} ${kind}`);
  return `${count(report.events)}, ${count(report.lost_events)} lost (${kinds.join(', ')}): ` +
      'what they covered is unknown';
}

function overheadOf({estimated_share: share, probe_hits: hits, giltop_cpu_s: own}) {
  const about = share === null ? '' : `about ${(share * 100).toFixed(2)} %, `;
  return `${about}${count(hits)} probe hits; giltop itself used ${duration(ns(own))} of CPU`;
}

export function showRun(page) {
  const {report} = page;
  const system = [`${report.mode} mode`, `Linux ${report.kernel}`];
  if (page.cpus) system.push(`${page.cpus} CPUs`);
  const lost = report.lost_events ? [`${count(report.lost_events)} events LOST`] : [];
  const hours = page.duration_ns / 3600e9;
  const long = hours >= 1 ? ` (${hours.toFixed(1)} h)` : '';
  fill('run', [`${duration(page.duration_ns)}${long} recorded`, ...system, ...lost].join(' · '));

  const facts = [['Events', eventsOf(report)]];
  const wrong = report.memory_disagreements;
  if (page.breaks_off)
    facts.push(['End', 'the recording breaks off: its recorder was killed, or still ran']);
  if (report.violations)
    facts.push([
      'Contradictions',
      `${count(report.violations)}: do not trust these figures, and please report it`
    ]);
  if (wrong)
    facts.push(
        ['Readings of memory', `${count(wrong)} proved wrong: what rested on them is unknown`]);
  facts.push(
      ['Overhead', overheadOf(report.overhead)],
      ['Recorded by', [`giltop ${report.giltop}`, ...system].join(', ')]);
  const coarse = page.resolution_ns > 0;
  facts.push([
    'Shown',
    coarse ?
        `the timeline to ${
            duration(page.resolution_ns)}: what is shorter is drawn, and summed up, as a share` :
        'every state of every thread, to the nanosecond'
  ]);
  fill('facts', ...facts.flatMap(([name, text]) => [el('dt', {}, name), el('dd', {}, text)]));
  byId('resolution').hidden = !coarse;
  byId('resolution').textContent = `Shown to ${duration(page.resolution_ns)}: what is shorter is ` +
      'drawn as a share. A larger page (--html-size) shows more.';
}

// --- where GIL time went ---

const LEDGER = [
  ['held_running_s', 'held-running', 'held, running'],
  ['held_runnable_s', 'held-runnable', 'held, preempted'],
  ['held_blocked_s', 'held-blocked', 'held, asleep'], ['handoff_s', 'handoff', 'hand-off'],
  ['idle_s', 'idle', 'idle'], ['off_s', 'off', 'switched off'], ['unknown_s', 'unknown', 'unknown']
];

function handoffsOf(gil) {
  const {handoff} = gil;
  if (handoff.count === 0) return null;
  const mean = (seconds) => duration(ns(seconds) / handoff.count);
  const wakeup = handoff.wakeup_s === null ? '' : `wakeup ${mean(handoff.wakeup_s)} + `;
  const parts = `${wakeup}run queue ${mean(handoff.runqueue_s)} + lock ${mean(handoff.lock_s)}`;
  const contended = `${count(gil.contended)} contended`;
  const acquires = gil.acquires === null ?
      `${contended} acquires` :
      `${count(gil.acquires)} acquires, ${contended} · releases ` +
          `${count(gil.forced_releases)} forced, ${count(gil.voluntary_releases)} voluntary`;
  return el(
      'p', {class: 'muted'},
      `${count(handoff.count)} hand-offs, mean ${mean(handoff.sum_s)} = ${parts} · ${acquires}`);
}

function ledgerOf(gil, oneOfMany, about) {
  const whole = ns(gil.life_s);
  const parts = LEDGER.map(([key, name, title]) => ({name, title, ns: ns(gil.ledger[key])}))
                    .filter((part) => part.ns > 0);
  const share = (part) => `${part.title} ${about}${percent(part.ns, whole)} %`;
  const name = gil.folded ? `${count(gil.folded)} GILs` : `GIL ${gil.address}`;
  const interpreter =
      oneOfMany && gil.interpreter !== null ? ` of interpreter ${gil.interpreter}` : '';
  return el(
      'div', {class: 'ledger'}, el('h3', {}, name + interpreter),
      bar(parts, whole, `${name}: ${parts.map(share).join(', ')}`),
      el('ul', {class: 'legend'},
         ...parts.map(
             (part) =>
                 el('li', {}, el('span', {class: `swatch ${part.name}`}), `${share(part)} `,
                    el('span', {class: 'muted'}, duration(part.ns))))),
      handoffsOf(gil));
}

export function showLedgers(process) {
  const gils =
      process.gils.slice().sort((a, b) => b.ledger.held_running_s - a.ledger.held_running_s);
  const shown = gils.slice(0, MOST_IN_PICTURE)
                    .map((gil) => ledgerOf(gil, gils.length > 1, process.exact ? '' : '~'));
  if (gils.length > shown.length)
    shown.push(el('p', {}, `… and ${count(gils.length - shown.length)} more GILs`));
  if (gils.length === 0) shown.push(el('p', {}, 'No GIL was seen in use.'));
  fill('ledgers', ...shown);
}

// --- threads ---

const sum = (row) => row.running_s + row.runnable_s + row.blocked_s + row.unknown_s;

function stateBar(thread) {
  const {holding, waiting, released, unknown} = thread.matrix;
  const parts = [
    {name: 'held-running', ns: holding.running_s + holding.unknown_s},
    {name: 'held-runnable', ns: holding.runnable_s}, {name: 'held-blocked', ns: holding.blocked_s},
    {name: 'waits', ns: sum(waiting)}, {name: 'native', ns: released.running_s},
    {name: 'starved', ns: released.runnable_s}, {name: 'idle', ns: released.blocked_s},
    {name: 'unknown', ns: sum(unknown) + released.unknown_s}
  ];
  const whole = thread.life_s || 1;
  return bar(
      parts, whole,
      `holding ${percent(sum(holding), whole)} %, waiting ${percent(sum(waiting), whole)} %`);
}

export function showThreads(process) {
  const used = (thread) => sum(thread.matrix.holding) + sum(thread.matrix.waiting);
  const threads = process.threads.slice().sort((a, b) => used(b) - used(a));
  const off = process.free_threaded && process.gil_enabled === false;
  const share = (thread, state) => off ? '–' :
                                         `${process.exact || state === 'waiting' ? '' : '~'}${
                                             percent(sum(thread.matrix[state]), thread.life_s)} %`;
  const of = (histogram, key) => histogram.count ? duration(ns(histogram[key])) : '–';
  const rows = threads.slice(0, 64).map(
      (thread) =>
          [threadName(thread), duration(ns(thread.life_s)), share(thread, 'holding'),
           share(thread, 'waiting'), share(thread, 'released'), of(thread.wait, 'p50_s'),
           of(thread.wait, 'p99_s'), of(thread.wait, 'max_s'), of(thread.hold, 'max_s'),
           stateBar(thread)]);
  fill(
      'threads',
      table(
          'Threads, all of their lives',
          [
            ['Thread'], ['Life', true], ['Holding', true], ['Waiting', true], ['Released', true],
            ['Wait p50', true], ['p99', true], ['max', true], ['Hold max', true], ['States']
          ],
          rows),
      threads.length > rows.length ?
          el('p', {}, `… and ${count(threads.length - rows.length)} more threads`) :
          null);
}

// --- blame ---

const PARTS = [
  ['running_s', 'running'], ['runnable_s', 'preempted'], ['blocked_s', 'asleep'],
  ['handoff_s', 'hand-off'], ['unknown_s', 'unknown']
];
const blamed = (row) => PARTS.reduce((all, [key]) => all + row[key], 0);
const waiterOf = (row) => row.waiter_tid === null ? 'other threads' : String(row.waiter_tid);
const holderOf = (row) => row.holder_tid !== null ? String(row.holder_tid) :
    row.holder_folded                             ? 'other threads' :
                                                    'nobody known';

function blamePicture(rows) {
  const pairs = new Map(), waited = new Map(), blocked = new Map();
  const add = (map, key, value) => map.set(key, (map.get(key) ?? 0) + value);
  for (const row of rows) {
    add(pairs, `${waiterOf(row)} ${holderOf(row)}`, blamed(row));
    add(waited, waiterOf(row), blamed(row));
    add(blocked, holderOf(row), blamed(row));
  }
  const most =
      (map) => [...map].sort((a, b) => b[1] - a[1]).slice(0, MOST_IN_PICTURE).map(([key]) => key);
  const waiters = most(waited), holders = most(blocked);
  const largest = Math.max(...pairs.values());
  const head = el('tr', {}, el('td', {}), ...holders.map((name) => el('th', {scope: 'col'}, name)));
  const body = waiters.map(
      (waiter) => el('tr', {}, el('th', {scope: 'row'}, waiter), ...holders.map((holder) => {
        const seconds = pairs.get(`${waiter} ${holder}`) ?? 0;
        const cell = el('td', {}, seconds > 0 ? duration(ns(seconds)) : '');
        cell.style.setProperty('--share', String(seconds / largest));
        return cell;
      })));
  return el(
      'div', {class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Blame as a picture'},
      el('table', {class: 'heat'}, caption('Who waited (down) behind whom (across)'),
         el('thead', {}, head), el('tbody', {}, ...body)));
}

export function showBlame(process) {
  const rows = process.gils.flatMap((gil) => gil.blame)
                   .filter((row) => blamed(row) > 0)
                   .sort((a, b) => blamed(b) - blamed(a));
  if (rows.length === 0) {
    fill('blame', el('p', {}, 'No thread waited for the GIL.'));
    return;
  }
  const shown = rows.slice(0, MOST_ROWS);
  const left = rows.slice(shown.length).reduce((all, row) => all + blamed(row), 0) +
      process.gils.reduce((all, gil) => all + gil.blame_left_out.sum_s, 0);
  fill(
      'blame', blamePicture(rows),
      table(
          'Waits, and what the holder did meanwhile',
          [['Waiter'], ['behind'], ['waited', true], ...PARTS.map(([, title]) => [title, true])],
          shown.map(
              (row) =>
                  [waiterOf(row), holderOf(row), duration(ns(blamed(row))),
                   ...PARTS.map(([key]) => row[key] > 0 ? duration(ns(row[key])) : '·')])),
      left > 0 ? el('p', {}, `… and ${duration(ns(left))} of other pairs`) : null);
}

// --- the longest waits ---

// `go(index)` leads to it in the timeline, as `hashOf(index)` in the page's address does.
export function showWaits(process, hashOf, go) {
  const items = process.longest_waits.map((wait, index) => {
    const parts = PARTS.filter(([key]) => wait[key] > 0)
                      .sort((a, b) => wait[b[0]] - wait[a[0]])
                      .map(([key, title]) => `${title} ${duration(ns(wait[key]))}`);
    const behind = wait.holder_tid === null ? '' : ` behind ${wait.holder_tid}`;
    return el(
        'li', {},
        el('a', {
          href: hashOf(index),
          onclick: (event) => {
            event.preventDefault();
            go(index);
          }
        },
           `${duration(ns(wait.duration_s))} at ${moment(ns(wait.start_s), 6)}`),
        ` ${wait.waiter_tid}${behind} (${parts.join(', ')})${wait.ongoing ? ', and goes on' : ''}`);
  });
  fill(
      'waits',
      items.length ? el('ol', {}, ...items) :
                     el('p', {}, 'No wait was seen from its beginning to its end.'));
}
