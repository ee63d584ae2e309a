// node bench.mjs PAGE [MILLIONS]: puts so many million spans [10] of 8 threads into a copy of a
// page, opens it in Chromium, and says how long that took and how fast it moves.
import {readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {chromium} from 'playwright-core';

import {withSpans} from './many_spans.mjs';

const [page, millions = '10'] = process.argv.slice(2);
const file = join(tmpdir(), `giltop-page-bench-${process.pid}.html`);
const {text, run} = withSpans(readFileSync(page, 'utf8'), Number(millions) * 1e6);
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
    console.log(`${Number((share * 100).toPrecision(1))} % of the run in view: ${
        frames.toFixed(0)} frames/s, ${drawing.toFixed(1)} ms to draw one`);
  }
} finally {
  await chrome.close();
  rmSync(file, {force: true});
}
