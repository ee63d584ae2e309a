// node bench.mjs PAGE [MILLIONS]: puts so many million spans [10] of 8 threads into a copy of a
// page, opens it in Chromium, and says how long that took and how fast it moves.
import {randomBytes} from 'node:crypto';
import {readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {deflateSync, inflateSync} from 'node:zlib';
import {chromium} from 'playwright-core';

const THREADS = 8;
const [page, millions = '10'] = process.argv.slice(2);
const count = Number(millions) * 1e6;
const file = join(tmpdir(), `giltop-page-bench-${process.pid}.html`);

function leb(out, at, value) {
  let left = value;
  for (; left >= 128; left = Math.floor(left / 128)) out[at++] = 128 | left % 128;
  out[at++] = left;
  return at;
}

// Waits, holds and sleeps of 1 to 66 µs, so that each takes three bytes at most.
function spans() {
  const each = count / THREADS, heads = Buffer.alloc(1024), bodies = [];
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

const {bytes, run} = spans();
const text =
    readFileSync(page, 'utf8')
        .replace(
            /(id="giltop-report">)([^<]*)/,
            (all, tag, packed) => {
              const data = JSON.parse(inflateSync(Buffer.from(packed, 'base64')));
              const [process] = data.report.processes;
              process.threads = Array.from(
                  {length: THREADS},
                  (_, i) =>
                      ({...process.threads[0], tid: 1000 + i, first_s: 0, last_s: run / 1e9}));
              data.duration_ns = run;
              return tag + deflateSync(JSON.stringify(data)).toString('base64');
            })
        .replace(
            /(id="giltop-spans">)([^<]*)/,
            (all, tag) => tag + deflateSync(bytes, {level: 1}).toString('base64'));
writeFileSync(file, text);

const chrome = await chromium.launch(
    {executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox']});
try {
  const tab = await chrome.newPage({viewport: {width: 1600, height: 900}});
  const begun = performance.now();
  await tab.goto(`file://${file}`);
  await tab.waitForSelector('html[data-ready]', {state: 'attached', timeout: 60000});
  await tab.evaluate(
      () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const opened = performance.now() - begun;
  console.log(`${(statSync(file).size / 1e6).toFixed(1)} MB, ${
      await tab.evaluate(
          () => window.giltop.spanCount())} spans: open and drawn after ${opened.toFixed(0)} ms`);
  for (const share of [1, 0.1, 0.001, 0.00001]) {
    const {frames, drawing} = await tab.evaluate(async ([duration, part]) => {
      const span = duration * part, from = (duration - span) / 2,
            before = window.giltop.frames().length;
      const begin = performance.now();
      let shown = 0;
      for (; performance.now() - begin < 2000; shown++) {
        // A pan: a hundredth of the width each frame.
        const at = part === 1 ? 0 : from + (shown % 50 - 25) * span / 100;
        window.giltop.setView(at, at + span - (part === 1 ? shown % 50 + 1 : 0));
        await new Promise((done) => requestAnimationFrame(done));
      }
      const took = window.giltop.frames().slice(before);
      return {
        frames: shown / ((performance.now() - begin) / 1000),
        drawing: took.reduce((a, b) => a + b, 0) / took.length
      };
    }, [run, share]);
    console.log(`${(share * 100).toPrecision(1)} % of the run in view: ${
        frames.toFixed(0)} frames/s, ${drawing.toFixed(1)} ms to draw one`);
  }
} finally {
  await chrome.close();
  rmSync(file, {force: true});
}
