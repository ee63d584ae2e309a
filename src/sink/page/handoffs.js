// Who held the GIL meanwhile, and who handed it to whom.
import {CELLS, gilState, HOLDING, MIXED, WAITING} from './spans.js';

// What a thread did between two moments while it was about this GIL (-1: any), ns in each cell.
function cellsOfGil(row, gil, from, to) {
  if (gil < 0) return row.between(from, to);
  const sum = new Float64Array(CELLS), {gils, starts, count} = row;
  for (let i = Math.max(0, row.gilIndex(row.at(from))); i < gils.length; i++) {
    const begin = starts[gils[i].span], end = starts[gils[i + 1]?.span ?? count];
    if (begin >= to) break;
    if (gils[i].gil !== gil) continue;
    row.between(Math.max(from, begin), Math.min(to, end)).forEach((ns, cell) => {
      sum[cell] += ns;
    });
  }
  return sum;
}

// What others did with the GIL between two moments: the longest holders first.
export function holdersBetween(rows, waiter, gil, from, to) {
  const holders = [];
  for (const row of rows) {
    if (row === waiter || row.last <= from || row.first >= to) continue;
    const cells = cellsOfGil(row, gil, from, to);
    const ns = cells.slice(HOLDING * 4, HOLDING * 4 + 4);
    const sum = ns.reduce((a, b) => a + b, 0);
    if (sum > 0) holders.push({row, running: ns[0], runnable: ns[1], blocked: ns[2], sum});
  }
  return holders.sort((a, b) => b.sum - a.sum);
}

function holdsOf(row, from, to) {
  const holds = [];
  let span = Math.max(0, row.at(from));
  const end = row.at(to);
  const holding = (i) => row.cells[i] !== MIXED && gilState(row.cells[i]) === HOLDING;
  while (span > 0 && holding(span) && holding(span - 1)) span--;
  for (; span <= end && span < row.count; span++) {
    if (!holding(span)) continue;
    const first = span;
    while (span + 1 < row.count && holding(span + 1)) span++;
    const before = first > 0 ? row.cells[first - 1] : MIXED;
    const waited = before !== MIXED && gilState(before) === WAITING;
    holds.push({
      row,
      from: row.starts[first],
      to: row.starts[span + 1],
      gil: row.gilOf(first),
      waited,
      wanted: waited ? row.stretch(first - 1).from : 0
    });
  }
  return holds;
}

function mayHold(row, span, gil) {
  const cell = row.cells[span];
  if (cell !== MIXED) return gilState(cell) === HOLDING && row.gilOf(span) === gil;
  for (let part = row.partsOf[span]; part < row.partsOf[span + 1]; part++)
    if (gilState(row.partCells[part]) === HOLDING) return row.gilOf(span) === gil;
  return false;
}

// Those during which nobody else can have had the GIL. A hold that is part of a mixed span is no
// hold of its own: what went around it would look like one hand-off.
function direct(handoffs, rows) {
  handoffs.sort((a, b) => a.released - b.released);
  const held = handoffs.map(() => false);
  for (const row of rows) {
    let near = 0;
    handoffs.forEach(({gil, released, acquired}, i) => {
      if (held[i] || row.last <= released || row.first >= acquired) return;
      near = Math.max(0, row.atNear(released, near));
      for (let span = near; !held[i] && span < row.count && row.starts[span] < acquired; span++)
        held[i] = mayHold(row, span, gil);
    });
  }
  return handoffs.filter((handoff, i) => !held[i]);
}

const MOST_SPANS = 20000;  // that are gone through for them, some ms

// The hand-offs that end between two moments, each from the end of a hold to the beginning of the
// next one of that GIL by a thread that had waited. `all` are the rows that may have held it
// meanwhile, `rows` those that are asked about. Null: more than can be told apart.
export function handoffsBetween(rows, from, to, most = 200, all = rows) {
  const there = rows.filter((row) => row.last > from && row.first < to);
  const spans = there.reduce((sum, row) => sum + row.at(to) - Math.max(0, row.at(from)), 0);
  if (spans > MOST_SPANS && most < Infinity) return null;
  const holds = there.flatMap((row) => holdsOf(row, from, to));
  holds.sort((a, b) => a.from - b.from);
  const last = new Map();  // by GIL
  const handoffs = [];
  for (const hold of holds) {
    const before = last.get(hold.gil);
    if (hold.waited && before && before.row !== hold.row && before.to <= hold.from &&
        before.to >= hold.wanted)
      handoffs.push({
        from: before.row,
        to: hold.row,
        gil: hold.gil,
        released: before.to,
        acquired: hold.from
      });
    last.set(hold.gil, hold);
  }
  return handoffs.length > most ? null : direct(handoffs, all);
}

// Sums of cells, for a table.
export function matrixBetween(row, from, to) {
  const cells = row.between(from, to);
  let life = 0;
  for (let i = 0; i < CELLS; i++) life += cells[i];
  return {cells, life};
}
