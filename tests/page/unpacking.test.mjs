// What there is to read does not wait for the timeline.
import assert from 'node:assert/strict';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';

import {withSpans} from './many_spans.mjs';
import {api, browser, directory, keptPage, open, removeDirectory} from './support.mjs';

const SPANS = 1.3e6;  // some 5 MB
const MOST_MS = 50;   // that a page may let one wait

let chrome, large;
before(async () => {
  chrome = await browser();
  large = join(directory, 'large.html');
  writeFileSync(large, withSpans(readFileSync(keptPage('taking-turns'), 'utf8'), SPANS).text);
});
after(async () => {
  await chrome?.close();
  removeDirectory();
});

// When the verdict was on the screen and the rows were there, ms; and the longest task meanwhile.
function timing(page) {
  return page.evaluate(async () => {
    const entries = (type) => new Promise((done) => {
      new PerformanceObserver((list) => done(list.getEntries())).observe({type, buffered: true});
      setTimeout(done, 300, []);
    });
    const [verdict] = await entries('element');
    const [unpacked] = performance.getEntriesByName('giltop-unpacked');
    const tasks = (await entries('longtask')).filter((task) => task.startTime > verdict.renderTime);
    return {
      verdict: verdict.renderTime,
      unpacked: unpacked.startTime,
      longest: Math.max(0, ...tasks.map((task) => task.duration))
    };
  });
}

let alone = 0;  // the longest task of a page that has no worker's help
test('the verdict is first where there are no workers, too', async () => {
  const {page, complaints, close} = await open(chrome, large, {}, () => window.Worker = undefined);
  const {verdict, unpacked, longest} = await timing(page);
  assert.ok(verdict > 0 && verdict < unpacked, `${verdict} ms, ${unpacked} ms`);
  assert.ok(await api(page, 'spanCount') > SPANS - 8);
  assert.deepEqual(complaints, []);
  alone = longest;
  await close();
});

test('a large page shows its verdict before its timeline, and answers meanwhile', async () => {
  // On a host with other work all takes longer, the page without help, too.
  const most = Math.max(MOST_MS, alone / 4), longest = [];
  for (let i = 0; i < 5 && !longest.some((ms) => ms <= most); i++) {
    const {page, complaints, close} = await open(chrome, large);
    assert.ok(await api(page, 'spanCount') > SPANS - 8);
    const times = await timing(page);
    assert.ok(
        times.verdict > 0 && times.verdict < times.unpacked,
        `${times.verdict} ms, ${times.unpacked} ms`);
    longest.push(times.longest);
    assert.deepEqual(complaints, []);
    await close();
  }
  assert.ok(longest.some((ms) => ms <= most), `tasks of ${longest} ms, alone ${alone}`);
});

// Workers that do not answer, and what they would be asked.
const stalled = () => window.Worker = class {
  addEventListener() {}
  postMessage() {}
  terminate() {}
};

test('a link into the timeline is followed when that is there', async () => {
  const {page, complaints, close} =
      await open(chrome, keptPage('convoy'), {unready: true}, stalled);
  assert.ok(await page.isVisible('#unpacking'));
  assert.equal(await page.getAttribute('#timeline', 'aria-busy'), 'true');
  await page.click('#waits li:nth-child(2) a');
  // Keys that ask for what is not there yet do nothing.
  await page.focus('#timeline');
  for (const key of ['ArrowDown', 'Enter', 'm', 'v', '.', 'w', '0', 'Escape'])
    await page.keyboard.press(key);
  await page.evaluate(() => {
    dispatchEvent(new Event('beforeprint'));
    dispatchEvent(new Event('afterprint'));
  });
  const {processes: [{longest_waits: [, wait]}]} = await page.evaluate(() => window.giltop.report);
  assert.equal((await api(page, 'chosen')).tid, wait.waiter_tid);
  const {from, to} = await api(page, 'view');
  assert.ok(from < wait.start_s * 1e9 && to - from < wait.duration_s * 3e9);
  assert.equal(await page.getAttribute('#timeline', 'aria-busy'), 'false');
  assert.deepEqual(complaints, []);
  await close();
});

test('room is kept for the lanes that are to come', async () => {
  const heights = [];
  for (const early of [stalled, () => {}]) {
    const {page, close} =
        await open(chrome, keptPage('convoy'), {unready: early === stalled}, early);
    heights.push(await page.evaluate(() => document.getElementById('timeline').offsetHeight));
    await close();
  }
  assert.equal(heights[0], heights[1]);
});

test('a page whose timeline is damaged shows the rest, and says so', async () => {
  const file = join(directory, 'damaged.html');
  writeFileSync(
      file,
      readFileSync(keptPage('convoy'), 'utf8')
          .replace(
              /(id="giltop-spans">)[^<]{99}/,
              '$1' +
                  'AAAA'.repeat(25)));
  const {page, complaints, close} = await open(chrome, file, {unready: true});
  await page.waitForFunction(
      () => document.getElementById('unpacking').textContent.includes('cannot be shown'));
  assert.ok((await page.textContent('#verdict')).length > 20);
  assert.ok(await page.isVisible('#threads table'));
  assert.deepEqual(complaints, []);
  await close();
});
