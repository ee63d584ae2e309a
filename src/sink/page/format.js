// Figures and names, as the text report has them.
import {cpuState, gilState, HOLDING, MIXED, RELEASED, WAITING} from './spans.js';

// A name that says in which direction it is read would turn around the text beside it; a hundred
// marks on a letter would stand in the lines above.
export function undirected(name) {
  return name.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '')
      .replace(/\p{Cc}/gu, '\ufffd')
      .replace(/(\p{M}{2})\p{M}+/gu, '$1');
}

const THIN = '\u202f';

function two(value) {
  return value >= 9.95 ? value.toFixed(0) : value.toFixed(1);
}

export function duration(ns) {
  if (ns < 0.5) return '0';
  if (ns < 999.5) return `${ns.toFixed(0)}${THIN}ns`;
  if (ns < 999.5e3) return `${two(ns / 1e3)}${THIN}µs`;
  if (ns < 999.5e6) return `${two(ns / 1e6)}${THIN}ms`;
  if (ns < 1000e9) return `${(ns / 1e9).toFixed(ns < 100e9 ? 2 : 1)}${THIN}s`;
  return `${count(Math.round(ns / 1e9))}${THIN}s`;
}

// To the nanosecond: "1.234 567 890 s".
export function moment(ns, digits = 9) {
  const text = (ns / 1e9).toFixed(digits);
  const dot = text.indexOf('.');
  if (dot < 0) return `${count(text)}${THIN}s`;
  return `${count(text.slice(0, dot))}.${
      text.slice(dot + 1).replace(/(\d{3})(?=\d)/g, `$1${THIN}`)}${THIN}s`;
}

export function exact(ns) {
  return ns < 1e6 ? `${count(Math.round(ns))}${THIN}ns` : `${count(Math.round(ns / 1e3))}${THIN}µs`;
}

export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

export function percent(part, whole, digits = 1) {
  return whole > 0 ? (part / whole * 100).toFixed(digits) : (0).toFixed(digits);
}

export function stateName(cell) {
  if (cell === MIXED) return 'several states';
  const gil = gilState(cell), cpu = cpuState(cell);
  if (gil === HOLDING)
    return ['holding, running', 'holding, preempted', 'holding, asleep', 'holding'][cpu];
  if (gil === WAITING)
    return ['waiting, on its CPU', 'waiting, no CPU yet', 'waiting', 'waiting'][cpu];
  if (gil === RELEASED)
    return [
      'running without the GIL', 'wants a CPU, not the GIL', 'asleep', 'without the GIL'
    ][cpu];
  return [
    'running, GIL unknown', 'wants a CPU, GIL unknown', 'asleep, GIL unknown', 'unknown'
  ][cpu];
}
