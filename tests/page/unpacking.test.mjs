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

// Counts the page's frames in which the verdict is there to be read, and the rows are not, after
// those that come while the file is still read. By the page's own thread: when a frame was on the
// screen is known only later, and perhaps not at all.
const countFrames = () => {
  window.readable = 0;
  const frame = () => {
    if (performance.getEntriesByName('giltop-unpacked').length > 0) return;
    if (document.readyState !== 'loading' && document.getElementById('verdict').textContent)
      window.readable++;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
};

// Has the page's own thread get round to something else again and again while a worker is at it, as
// it would to a key. How long that took, ms, and the longest that it had no turn; the rows that the
// worker gave.
const watched = () => {
  window.seen = {turns: 0, rows: 0, took: 0, longest: 0};
  const {port1, port2} = new MessageChannel();
  let busy = false, begun = 0, last = 0;
  const look = () => {
    const now = performance.now();
    window.seen.longest = Math.max(window.seen.longest, now - last);
    window.seen.took = now - begun;
    last = now;
  };
  port1.onmessage = () => {
    if (!busy) return;
    look();
    window.seen.turns++;
    port2.postMessage(null);
  };
  window.Worker = class extends Worker {
    constructor(...given) {
      super(...given);
      this.addEventListener('message', ({data}) => {
        look();
        busy = false;
        window.seen.rows = data?.length ?? 0;
      });
    }
    postMessage(...given) {
      begun = last = performance.now();
      super.postMessage(...given);
      busy = true;
      port2.postMessage(null);
    }
  };
};

// A worker that has its answer at once.
const fast = () => window.Worker = class extends EventTarget {
  postMessage() {
    this.dispatchEvent(new MessageEvent('message', {data: []}));
  }
  terminate() {}
};

// A page with its large timeline there.
async function readableFirst(early) {
  const {page, complaints, close} =
      await open(chrome, large, {}, `(${countFrames})();(${early})();`);
  const readable = await page.evaluate(() => window.readable);
  assert.ok(readable > 0, 'the rows were there before a frame with the verdict');
  assert.deepEqual(complaints, []);
  const spans = await api(page, 'spanCount'), seen = await page.evaluate(() => window.seen);
  await close();
  return {spans, seen};
}

test('the verdict is first where there are no workers, too', async () => {
  const {spans} = await readableFirst(() => window.Worker = undefined);
  assert.ok(spans > SPANS - 8);
});

test('the verdict is first where a worker is fast, too', () => readableFirst(fast));

test('a large page shows its verdict before its timeline, and answers meanwhile', async () => {
  // A busy host may stop it for a while, but not each time for half of the worker's.
  const tries = [];
  const answers = ({turns, longest, took}) => turns >= 2 && longest < took / 2;
  for (let i = 0; i < 5 && !tries.some(answers); i++) {
    const {spans, seen} = await readableFirst(watched);
    assert.ok(spans > SPANS - 8);
    assert.ok(seen.rows > 0);
    tries.push(seen);
  }
  assert.ok(tries.some(answers), JSON.stringify(tries));
});

test('a page that nobody looks at gets ready, too', async () => {
  const {page, complaints, close} = await open(chrome, keptPage('convoy'), {}, () => {
    Object.defineProperty(document, 'hidden', {value: true});
    window.requestAnimationFrame = () => 0;
  });
  assert.ok(await api(page, 'spanCount') > 0);
  assert.deepEqual(complaints, []);
  await close();
});

// Unpacked by one thread or by another: that of the page has less to do, by CPU time. That does not
// count waiting for a CPU, but what other guests steal, and a busy neighbour in the same core, make
// it longer: the least of some, and a bound far from what it is on a quiet host, two thirds.
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
