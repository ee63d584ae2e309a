// What there is to read does not wait for the timeline.
import assert from 'node:assert/strict';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';

import {withSpans} from './many_spans.mjs';
import {api, browser, directory, keptPage, open, removeDirectory} from './support.mjs';

const SPANS = 1.3e6;  // some 5 MB

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

// When the verdict was on the screen, and when the rows were there, ms.
function timing(page) {
  return page.evaluate(async () => {
    const entries = (type) => new Promise((done) => {
      new PerformanceObserver((list) => done(list.getEntries())).observe({type, buffered: true});
      setTimeout(done, 300, []);
    });
    const [verdict] = await entries('element');
    const [unpacked] = performance.getEntriesByName('giltop-unpacked');
    return {verdict: verdict.renderTime, unpacked: unpacked.startTime};
  });
}

// Counts how often the page's own thread gets round to something else while a worker is at it, as
// it would to a key, and the rows that the worker gives.
const watched = () => {
  window.seen = {turns: 0, rows: 0};
  const {port1, port2} = new MessageChannel();
  let busy = false;
  port1.onmessage = () => {
    if (!busy) return;
    window.seen.turns++;
    port2.postMessage(null);
  };
  window.Worker = class extends Worker {
    constructor(...given) {
      super(...given);
      this.addEventListener('message', ({data}) => {
        busy = false;
        window.seen.rows = data?.length ?? 0;
      });
    }
    postMessage(...given) {
      super.postMessage(...given);
      busy = true;
      port2.postMessage(null);
    }
  };
};

for (const [name, early] of [
         ['the verdict is first where there are no workers, too', () => window.Worker = undefined],
         ['a large page shows its verdict before its timeline, and answers meanwhile', watched]])
  test(name, async () => {
    const {page, complaints, close} = await open(chrome, large, {}, early);
    const {verdict, unpacked} = await timing(page);
    assert.ok(verdict > 0 && verdict < unpacked, `${verdict} ms, ${unpacked} ms`);
    assert.ok(await api(page, 'spanCount') > SPANS - 8);
    if (early === watched) {
      const {turns, rows} = await page.evaluate(() => window.seen);
      assert.ok(rows > 0);
      assert.ok(turns >= 10, `${turns} turns`);
    }
    assert.deepEqual(complaints, []);
    await close();
  });

// Unpacked by one thread or by another: that of the page has less to do. CPU time, of which neither
// a busy host nor a slow one takes any.
test('what a worker unpacks, the page does not', async () => {
  const least = {alone: Infinity, helped: Infinity};
  for (let i = 0; i < 3; i++)
    for (const [who, early] of [['alone', () => window.Worker = undefined], ['helped', () => {}]]) {
      const {cpu_s, close} = await open(chrome, large, {}, early);
      least[who] = Math.min(least[who], await cpu_s());
      await close();
    }
  assert.ok(least.helped < least.alone * 0.9, `${least.helped} s, alone ${least.alone} s`);
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
