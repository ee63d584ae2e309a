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

// Waits, holds and sleeps of 1 to 66 µs, so that each takes three bytes at most.
function spans(count) {
  const each = Math.floor(count / THREADS), heads = Buffer.alloc(1024), bodies = [];
  let head = leb(heads, 0, THREADS), run = 0;
  const random = randomBytes(each * 2);
  for (let thread = 0; thread < THREADS; thread++) {
    const codes = Buffer.alloc(each), values = Buffer.alloc(each * 3);
    let at = 0, sum = 0;
    for (let i = 0; i < each; i++) {
      const ns = 1000 + random.readUInt16LE(i * 2);
      codes[i] = [6, 0, 8, 10][i % 4];
      at = leb(values, at, ns);
      sum += ns;
    }
    run = Math.max(run, sum);
    for (const value of [0, thread, 0, each, at]) head = leb(heads, head, value);
    bodies.push(codes, values.subarray(0, at));
  }
  return {bytes: Buffer.concat([heads.subarray(0, head), ...bodies]), run};
}

function packed(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; at += MOST_AT_ONCE)
    parts.push(
        deflateSync(bytes.subarray(at, at + MOST_AT_ONCE), {level: 1}).toString('base64'));
  return parts.join('.');
}

// The text of a page with so many spans instead of its own, and how long its run is, ns.
export function withSpans(page, count) {
  const {bytes, run} = spans(count);
  const text =
      page.replace(
              /(id="giltop-report">)([^<]*)/,
              (all, tag, report) => {
                const data = JSON.parse(inflateSync(Buffer.from(report, 'base64')));
                const [process] = data.report.processes;
                process.threads = Array.from(
                    {length: THREADS},
                    (_, i) =>
                        ({...process.threads[0], tid: 1000 + i, first_s: 0, last_s: run / 1e9}));
                data.duration_ns = run;
                return tag + deflateSync(JSON.stringify(data)).toString('base64');
              })
          .replace(/(id="giltop-spans">)([^<]*)/, (all, tag) => tag + packed(bytes));
  return {text, run};
}
