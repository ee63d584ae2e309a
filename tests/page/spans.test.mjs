// The page's own arithmetic, against sums made the slow way.
import assert from 'node:assert/strict';
import {join} from 'node:path';
import {test} from 'node:test';

const sources = join(process.env.GILTOP_SOURCE_DIR, 'src/sink/page');
const {CELLS, MIXED, Row} = await import(join(sources, 'spans.js'));
const {holdersBetween, handoffsBetween} = await import(join(sources, 'handoffs.js'));
const GIL = 17;

// `spans`: [cell, ns], [MIXED, [cell, ns], …] or [GIL, place].
function rowOf(first, spans) {
  const values = spans.flatMap(
      ([code, ...rest]) => code === MIXED ? [rest.length, ...rest.flat()] : [rest[0]]);
  return new Row(
      0, 0, first, Uint8Array.from(spans, ([code]) => code), {next: () => values.shift()});
}

// Not Math.random: a failure must come again.
function randomNumbers(seed) {
  let state = seed;
  return (below) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor(state / 65536) % below;
  };
}

test('sums between any two moments', () => {
  const random = randomNumbers(7), spans = [], flat = [];
  let at = 500;
  for (let i = 0; i < 1000; i++) {
    const parts = random(10) === 0 ? [[0, 1 + random(50)], [6, 1 + random(50)]] :
                                     [[random(CELLS), 1 + random(99)]];
    spans.push(parts.length > 1 ? [MIXED, ...parts] : parts[0]);
    const ns = parts.reduce((sum, part) => sum + part[1], 0);
    flat.push({from: at, to: at + ns, parts, ns});
    at += ns;
  }
  const row = rowOf(500, spans);
  assert.equal(row.last, at);
  const slow = (a, b) => {
    const out = new Float64Array(CELLS);
    for (const {from, to, parts, ns} of flat) {
      const share = Math.max(0, Math.min(b, to) - Math.max(a, from)) / ns;
      for (const [cell, part] of parts) out[cell] += share * part;
    }
    return out;
  };
  for (let i = 0; i < 2000; i++) {
    const a = random(at + 1000), b = a + random([50, 5000, at][i % 3]);
    const fast = row.between(a, b), exact = slow(a, b);
    for (let cell = 0; cell < CELLS; cell++)
      assert.ok(
          Math.abs(fast[cell] - exact[cell]) < 1e-6,
          `${a} to ${b}, cell ${cell}: ${fast[cell]}, not ${exact[cell]}`);
  }
  for (let i = 0; i < 2000; i++) {
    const ns = 500 + random(at - 500), near = random(row.count);
    const span = row.at(ns);
    assert.ok(row.starts[span] <= ns && (ns < row.starts[span + 1] || span === row.count));
    if (near <= span) assert.equal(row.atNear(ns, near), span);
  }
});

test('a wait is behind who held the same GIL', () => {
  const waiter = rowOf(0, [[GIL, 0], [6, 100], [0, 10]]);
  const other = rowOf(0, [[GIL, 1], [0, 100]]);
  const both = rowOf(0, [[GIL, 1], [0, 40], [8, 10], [GIL, 0], [0, 30], [2, 20]]);
  assert.deepEqual(
      holdersBetween([waiter, other, both], waiter, 0, 0, 100),
      [{row: both, running: 30, runnable: 0, blocked: 20, sum: 50}]);
  assert.deepEqual(
      holdersBetween([waiter, other, both], waiter, 1, 0, 100).map(({sum}) => sum), [100, 40]);
});

test('a hand-off leads from a hold to the next one of its GIL, by who waited', () => {
  const a = rowOf(0, [[GIL, 0], [0, 50], [8, 20], [6, 30], [0, 50]]);
  const b = rowOf(0, [[GIL, 0], [6, 55], [0, 40], [10, 55]]);
  const passer = rowOf(0, [[GIL, 1], [0, 52], [10, 98]]);
  assert.deepEqual(handoffsBetween([a, b, passer], 0, 150), [
    {from: a, to: b, gil: 0, released: 50, acquired: 55},
    {from: b, to: a, gil: 0, released: 95, acquired: 100}
  ]);
  assert.equal(handoffsBetween([a, b, passer], 0, 150, 1), null);
});

test('no hand-off goes around a hold that is not told apart, or not asked about', () => {
  const a = rowOf(0, [[GIL, 0], [0, 50], [8, 100]]);
  const b = rowOf(0, [[GIL, 0], [6, 100], [0, 50]]);
  assert.equal(handoffsBetween([a, b], 0, 150).length, 1);
  const between = [[GIL, 0], [6, 60], [0, 20], [8, 70]];
  const mixed = rowOf(0, [[GIL, 0], [MIXED, [6, 60], [0, 20], [8, 10]], [8, 60]]);
  const without = rowOf(0, [[GIL, 0], [MIXED, [6, 70], [8, 20]], [8, 60]]);
  const other = rowOf(0, [[GIL, 1], [MIXED, [6, 60], [0, 20], [8, 10]], [8, 60]]);
  assert.deepEqual(handoffsBetween([a, b, mixed], 0, 150), []);
  assert.equal(handoffsBetween([a, b, without, other], 0, 150).length, 1);
  assert.deepEqual(handoffsBetween([a, b], 0, 150, 200, [a, b, rowOf(0, between)]), []);
});

test('many short holds beside a hand-off do not hide it', () => {
  const busy = [[GIL, 0]];
  for (let i = 0; i < 2000; i++) busy.push([0, 5], [8, 5]);
  const a = rowOf(0, busy);
  const b = rowOf(0, [[GIL, 0], [8, 19900], [6, 95], [0, 50]]);
  assert.deepEqual(
      handoffsBetween([a, b], 0, 30000, 90),
      [{from: a, to: b, gil: 0, released: 19995, acquired: 19995}]);
});

test('who had not waited yet was handed nothing', () => {
  const a = rowOf(0, [[GIL, 0], [0, 50], [8, 100]]);
  const late = rowOf(0, [[GIL, 0], [8, 60], [6, 40], [0, 50]]);
  assert.deepEqual(handoffsBetween([a, late], 0, 150), []);
});

// A history of one GIL that threads wait for and hold, one at a time.
function turns(random, threads, steps) {
  const lives = Array.from({length: threads}, () => [[GIL, 0]]);
  const add = (thread, cell, ns) => ns > 0 && lives[thread].push([cell, ns]);
  const waiting = Array.from({length: threads}, () => random(2) === 0);
  for (let i = 0; i < steps; i++) {
    const holder = random(threads), free = random(5), held = 1 + random(200);
    lives.forEach((life, thread) => {
      if (thread === holder) {
        const ran = random(held);
        add(thread, waiting[thread] ? 6 : 8, free);
        add(thread, 0, ran);
        add(thread, 2, held - ran);
        waiting[thread] = random(2) === 0;
      } else {
        const before = waiting[thread] ? 0 : random(free + held + 1);
        const begins = !waiting[thread] && random(2) === 0;
        add(thread, waiting[thread] ? 6 : 8, before);
        waiting[thread] ||= begins;
        add(thread, waiting[thread] ? 6 : 8, free + held - before);
      }
    });
  }
  return lives;
}

// As the page's writer does: neighbours that are short become one span.
function coarsened(life, resolution) {
  const out = [life[0]];
  let group = [];
  const length = () => group.reduce((sum, [, ns]) => sum + ns, 0);
  const end = () => {
    if (group.length) out.push(group.length === 1 ? group[0] : [MIXED, ...group]);
    group = [];
  };
  for (const span of life.slice(1)) {
    if (span[1] >= resolution || length() >= resolution) end();
    if (span[1] >= resolution)
      out.push(span);
    else
      group.push(span);
  }
  end();
  return out;
}

test('a coarser page draws no other hand-offs', () => {
  const random = randomNumbers(11);
  let fineOnes = 0, coarseOnes = 0;
  for (let round = 0; round < 50; round++) {
    const lives = turns(random, 2 + round % 5, 60);
    const named = (resolution) => {
      const rows = lives.map((life) => rowOf(0, coarsened(life, resolution)));
      return handoffsBetween(rows, 0, rows[0].last, Infinity)
          .map(
              ({from,
                to,
                released,
                acquired}) => [rows.indexOf(from), rows.indexOf(to), released, acquired].join(' '));
    };
    const fine = new Set(named(0));
    fineOnes += fine.size;
    for (const resolution of [20, 60, 150, 400]) {
      const coarse = named(resolution);
      coarseOnes += coarse.length;
      for (const one of coarse) assert.ok(fine.has(one), `${one} at ${resolution}`);
    }
  }
  assert.ok(fineOnes > 500 && coarseOnes > 100, `${fineOnes} and ${coarseOnes} hand-offs`);
});
