// A page of many spans, made of another page.
import {randomBytes} from 'node:crypto';
import {deflateSync, inflateSync} from 'node:zlib';

const THREADS = 8, MOST_AT_ONCE = 512 * 1024;  // bytes, as giltop compresses them

function leb(out, at, value) {
  let left = value;
  for (; left >= 128; left = Math.floor(left / 128)) out[at++] = 128 | left % 128;
  out[at++] = left;
  return at;
}

// Codes and values of a life of [cell, ns], …
function row(spans) {
  const codes = Buffer.from(spans.map(([cell]) => cell)), values = Buffer.alloc(spans.length * 8);
  let at = 0;
  for (const [, ns] of spans) at = leb(values, at, ns);
  return {codes, values: values.subarray(0, at), ns: spans.reduce((sum, [, ns]) => sum + ns, 0)};
}

// Waits, holds and sleeps of 1 to 66 µs, so that each takes three bytes at most.
function randomRow(count) {
  const codes = Buffer.alloc(count), values = Buffer.alloc(count * 3),
        random = randomBytes(count * 2);
  let at = 0, sum = 0;
  for (let i = 0; i < count; i++) {
    const ns = 1000 + random.readUInt16LE(i * 2);
    codes[i] = [6, 0, 8, 10][i % 4];
    at = leb(values, at, ns);
    sum += ns;
  }
  return {codes, values: values.subarray(0, at), ns: sum};
}

// As encode_spans() of src/sink/page_spans.h has them.
function encoded(rows) {
  const heads = Buffer.alloc(16 + 64 * rows.length);
  let head = leb(heads, 0, rows.length);
  rows.forEach(({codes, values}, thread) => {
    for (const value of [0, thread, 0, codes.length, values.length]) head = leb(heads, head, value);
  });
  return Buffer.concat(
      [heads.subarray(0, head), ...rows.flatMap(({codes, values}) => [codes, values])]);
}

function packed(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; at += MOST_AT_ONCE)
    parts.push(deflateSync(bytes.subarray(at, at + MOST_AT_ONCE), {level: 1}).toString('base64'));
  return parts.join('.');
}

function withEncoded(page, rows) {
  const run = Math.max(...rows.map(({ns}) => ns));
  const text =
      page.replace(/(id="giltop-report">)([^<]*)/, (all, tag, report) => {
            const data = JSON.parse(inflateSync(Buffer.from(report, 'base64')));
            const [process] = data.report.processes;
            process.threads = rows.map(
                (one, i) =>
                    ({...process.threads[0], tid: 1000 + i, first_s: 0, last_s: one.ns / 1e9}));
            data.duration_ns = run;
            return tag + deflateSync(JSON.stringify(data)).toString('base64');
          }).replace(/(id="giltop-spans">)([^<]*)/, (all, tag) => tag + packed(encoded(rows)));
  return {text, run};
}

// The text of a page with other rows, each of [cell, ns], …; and how long its run is, ns.
export const withRows = (page, rows) => withEncoded(page, rows.map(row));

// The same with so many spans of eight threads.
export const withSpans = (page, count) =>
    withEncoded(page, Array.from({length: THREADS}, () => randomRow(Math.floor(count / THREADS))));
