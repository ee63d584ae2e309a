// What is on the page, and what one can do with it by mouse, by keys, and not see.
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {copyFileSync, readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';

import {altered, api, browser, directory, giltop, keptPage, median, noLive, open, overlap, record, recordPython, removeDirectory, sources, stretches} from './support.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let chrome;
before(async () => {
  chrome = await browser();
});
after(async () => {
  await chrome?.close();
  removeDirectory();
});

const holding = (span) => span.gil === 'holding';
const length = ({from, to}) => to - from;
const holdingAndRunning = (span) => span.gil === 'holding' && span.cpu === 'running';

// Of two threads that compute, those moments at which both have work to do.
async function checkTurns(page, tids, longest = Infinity) {
  const [a, b] = await Promise.all(tids.map((tid) => api(page, 'spans', tid)));
  const green = [a, b].map((spans) => stretches(spans, holdingAndRunning));
  assert.ok(
      green[0].length > 10 && green[1].length > 10, `${green[0].length}, ${green[1].length} holds`);
  assert.equal(overlap(green[0], green[1]), 0);
  // While both live, who waits gets it after a switch interval of 5 ms.
  const waits = [a, b]
                    .flatMap((spans) => stretches(spans, (span) => span.gil === 'waiting'))
                    .map((wait) => wait.to - wait.from)
                    .filter((ns) => ns > 1e6);
  const typical = median(waits);
  assert.ok(typical > 4.5e6 && typical < longest, `half of the waits are below ${typical} ns`);
}

function reportOf(page) {
  return page.evaluate(() => window.giltop.report);
}

describe('giltop report --html', () => {
  const recording = join(sources, 'tests/recordings/sleeping.pftrace');
  const report = (...words) =>
      spawnSync(giltop, ['report', ...words], {encoding: 'utf8', maxBuffer: 1 << 26});

  test('goes to stdout as other outputs do', () => {
    const {status, stdout, stderr} = report(recording, '--html', '-');
    assert.equal(status, 0);
    assert.match(stdout, /^<!doctype html>/);
    assert.equal(stderr, '');
    assert.equal(report(recording, '--html', '-', '--json').status, 2);
  });
  test('goes with --json', () => {
    const out = join(directory, 'both.html');
    const {status, stdout} = report(recording, '--html', out, '--json');
    assert.equal(status, 0);
    assert.equal(JSON.parse(stdout).schema, 'giltop.report/1');
    assert.match(readFileSync(out, 'utf8'), /giltop-spans/);
  });
  test('loses nothing', () => {
    const out = join(directory, 'kept.html'), copy = join(directory, 'copy.pftrace');
    writeFileSync(out, 'mine');
    assert.equal(report(recording, '--html', out).status, 0);
    assert.equal(readFileSync(`${out}.old`, 'utf8'), 'mine');
    copyFileSync(recording, copy);
    const {status, stderr} = report(copy, '--html', copy);
    assert.equal(status, 1);
    assert.equal(stderr, `giltop: cannot write ${copy}: it is the recording\n`);
    assert.deepEqual(readFileSync(copy), readFileSync(recording));
  });
  test('says in a line why it cannot', () => {
    for (const out of ['/nonexistent/x.html', directory]) {
      const {status, stderr} = report(recording, '--html', out);
      assert.equal(status, 1);
      assert.match(stderr, /^giltop: cannot write [^\n]+\n$/);
    }
    assert.equal(report(recording, '--html-size', '9').status, 2);
  });
});

describe('a recording of two threads that take turns', () => {
  let file, view;
  before(async () => {
    file = keptPage('taking-turns');
    view = await open(chrome, file);
  });
  after(() => {
    assert.deepEqual(view.complaints, []);
    return view.close();
  });

  test('says so', async () => {
    assert.match(await view.page.textContent('#verdict'), /took turns on one GIL/);
    assert.match(await view.page.textContent('#ledgers'), /held, running 9\d\.\d %/);
  });

  test('the threads alternate and never hold at once', async () => {
    const {processes: [{pid}]} = await reportOf(view.page);
    const tids = (await api(view.page, 'threads')).filter((tid) => tid !== pid);
    assert.equal(tids.length, 2);
    await checkTurns(view.page, tids, 6e6);
    const handoffs = await api(view.page, 'handoffs', 0, 1e12);
    assert.ok(handoffs.length > 20);
    for (const one of handoffs) assert.ok(one.released <= one.acquired && one.from !== one.to);
  });

  test('spans add up to the report', async () => {
    const {duration_s: duration, processes: [{threads}]} = await reportOf(view.page);
    for (const thread of threads) {
      const cells = await api(view.page, 'matrix', thread.tid, 0, duration * 1e9);
      ['holding', 'waiting', 'released', 'unknown'].forEach(
          (gil, g) => ['running_s', 'runnable_s', 'blocked_s', 'unknown_s'].forEach(
              (cpu, c) => assert.ok(
                  Math.abs(cells[g * 4 + c] / 1e9 - thread.matrix[gil][cpu]) < 1e-7,
                  `${thread.tid} ${gil} ${cpu}: ${cells[g * 4 + c]}, ${thread.matrix[gil][cpu]}`)));
    }
  });

  test('what is drawn is what was recorded', async () => {
    const {processes: [{pid}]} = await reportOf(view.page);
    const [tid] = (await api(view.page, 'threads')).filter((each) => each !== pid);
    const spans = await api(view.page, 'spans', tid);
    const long = (gil) => spans.find((span) => span.gil === gil && span.to - span.from > 3e6);
    const colourAt = async (span) => {
      const middle = (span.from + span.to) / 2;
      await api(view.page, 'setView', middle - 1e6, middle + 1e6);
      return view.page.evaluate(async ([thread, at]) => {
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const canvas = document.getElementById('lanes'), {x, y} = window.giltop.place(thread, at);
        const scale = canvas.width / canvas.clientWidth;
        const pixel = new OffscreenCanvas(1, 1).getContext('2d');
        pixel.drawImage(canvas, x * scale, y * scale, 1, 1, 0, 0, 1, 1);
        const [r, g, b] = pixel.getImageData(0, 0, 1, 1).data;
        return `#${[r, g, b].map((part) => part.toString(16).padStart(2, '0')).join('')}`;
      }, [tid, middle]);
    };
    const css = (name) => view.page.evaluate(
        (property) => getComputedStyle(document.documentElement).getPropertyValue(property).trim(),
        name);
    assert.equal(await colourAt(long('holding')), await css('--holding'));
    assert.equal(await colourAt(long('waiting')), await css('--waiting'));
  });

  test('mouse: drag moves, Ctrl+wheel zooms, the ruler selects, a click tells', async () => {
    const {page} = view;
    await api(page, 'setView', 0.4e9, 0.5e9);
    await page.locator('#lanes').scrollIntoViewIfNeeded();
    const box = await page.locator('#lanes').boundingBox();
    const middle = {x: box.x + box.width / 2, y: box.y + box.height - 20};
    await page.mouse.move(middle.x, middle.y);
    await page.mouse.down();
    await page.mouse.move(middle.x - 200, middle.y, {steps: 4});
    await page.mouse.up();
    const moved = await api(page, 'view');
    assert.ok(
        moved.from > 0.4e9 && Math.abs(moved.to - moved.from - 0.1e9) < 1, JSON.stringify(moved));
    await page.keyboard.down('Control');
    await page.mouse.wheel(0, -300);
    await page.keyboard.up('Control');
    await page.waitForFunction(
        (was) => window.giltop.view().to - window.giltop.view().from < was, 0.09e9);
    await page.mouse.move(middle.x - 100, box.y + 8);
    await page.mouse.down();
    await page.mouse.move(middle.x + 100, box.y + 8, {steps: 4});
    await page.mouse.up();
    const selection = await api(page, 'selection');
    assert.ok(selection.to > selection.from);
    await page.waitForFunction(
        () => document.getElementById('matrix').textContent.includes('did selected'));
    await page.mouse.click(middle.x, middle.y);
    assert.ok(await api(page, 'chosen'));
    await page.waitForFunction(
        () => /for .* \(.*[nµ]s\)/.test(document.getElementById('chosen').textContent));
  });
});

test('fingers: one moves, two zoom, a tap tells', async () => {
  const {page, complaints, close} =
      await open(chrome, keptPage('convoy'), {hasTouch: true, viewport: {width: 500, height: 900}});
  await page.locator('#lanes').scrollIntoViewIfNeeded();
  const box = await page.locator('#lanes').boundingBox();
  const y = box.y + box.height - 20, x = box.x + 250;
  const session = await page.context().newCDPSession(page);
  const touch = (type, ...at) => session.send(
      'Input.dispatchTouchEvent', {type, touchPoints: at.map((each, id) => ({x: each, y, id}))});
  const before = await api(page, 'view');
  await touch('touchStart', x - 40);
  await touch('touchStart', x - 40, x + 40);
  for (let step = 1; step <= 4; step++)
    await touch('touchMove', x - 40 - 10 * step, x + 40 + 10 * step);
  await touch('touchEnd', x - 80);  // the other finger is left, and goes on
  const zoomed = await api(page, 'view');
  const part = (zoomed.to - zoomed.from) / (before.to - before.from);
  assert.ok(part > 0.4 && part < 0.6, `${part} of it is in view`);
  for (let step = 1; step <= 3; step++)
    await session.send(
        'Input.dispatchTouchEvent',
        {type: 'touchMove', touchPoints: [{x: x + 80 - 15 * step, y, id: 1}]});
  await touch('touchEnd');
  const left = await api(page, 'view');
  assert.ok(left.from > zoomed.from, JSON.stringify({zoomed, left}));
  assert.ok(Math.abs(left.to - left.from - (zoomed.to - zoomed.from)) < 1);
  assert.equal(await api(page, 'chosen'), null);
  await touch('touchStart', x);
  for (let step = 1; step <= 4; step++) await touch('touchMove', x - 15 * step);
  await touch('touchEnd');
  const moved = await api(page, 'view');
  assert.ok(moved.from > left.from, JSON.stringify({left, moved}));
  assert.ok(Math.abs(moved.to - moved.from - (zoomed.to - zoomed.from)) < 1);
  await page.touchscreen.tap(x, y);
  assert.ok(await api(page, 'chosen'));
  assert.deepEqual(complaints, []);
  await close();
});

describe('by keys alone', () => {
  let view;
  before(async () => {
    view = await open(chrome, keptPage('convoy'));
  });
  after(() => {
    assert.deepEqual(view.complaints, []);
    return view.close();
  });

  const tabTo = async (page, is) => {
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab');
      if (await page.evaluate(is)) return;
    }
    assert.fail('Tab does not lead there');
  };

  test('zoom, movement, choice and selection', async () => {
    const {page} = view;
    await tabTo(page, () => document.activeElement.id === 'timeline');
    const whole = await api(page, 'view');
    await page.keyboard.press('w');
    await page.keyboard.press('w');
    const zoomed = await api(page, 'view');
    assert.ok(zoomed.to - zoomed.from < (whole.to - whole.from) * 0.6);
    await page.keyboard.press('d');
    const moved = await api(page, 'view');
    assert.ok(moved.from > zoomed.from);
    await page.keyboard.press('ArrowLeft');
    assert.ok((await api(page, 'view')).from < moved.from);
    await page.keyboard.press('ArrowDown');
    const first = await api(page, 'chosen');
    await page.keyboard.press('ArrowDown');
    const second = await api(page, 'chosen');
    assert.notEqual(first.tid, second.tid);
    await page.keyboard.press('.');
    assert.equal((await api(page, 'chosen')).span, second.span + 1);
    await page.keyboard.press('m');
    const selected = await api(page, 'selection');
    await page.keyboard.press('Shift+ArrowRight');
    assert.ok((await api(page, 'selection')).to > selected.to);
    await page.waitForFunction(
        () => document.getElementById('matrix').textContent.includes('did selected'));
    await page.keyboard.press('Escape');
    assert.equal(await api(page, 'selection'), null);
    await page.keyboard.press('0');
    assert.deepEqual(await api(page, 'view'), whole);
  });

  test('a long wait leads into the timeline', async () => {
    const {page} = view;
    const {processes: [{longest_waits: [wait]}]} = await reportOf(page);
    await tabTo(page, () => document.activeElement.closest('#waits li') !== null);
    await page.keyboard.press('Enter');
    const shown = await api(page, 'view');
    assert.ok(
        shown.from <= wait.start_s * 1e9 + 1 &&
        shown.to >= (wait.start_s + wait.duration_s) * 1e9 - 1);
    assert.ok(shown.to - shown.from < wait.duration_s * 3e9);
    assert.equal((await api(page, 'chosen')).tid, wait.waiter_tid);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'timeline');
    await page.waitForFunction(
        (holder) => document.getElementById('chosen').textContent.includes(`behind ${holder}`),
        wait.holder_tid);
    assert.match(page.url(), /#wait-1-1$/);
    await page.reload();
    await page.waitForSelector('html[data-ready]', {state: 'attached'});
    assert.deepEqual(await api(page, 'view'), shown);
  });
});

describe('for everybody', () => {
  for (const [name, options] of [
           ['light', {colorScheme: 'light'}],
           ['dark', {colorScheme: 'dark'}],
           ['a narrow screen', {viewport: {width: 390, height: 800}}],
  ]) {
    test(`axe finds nothing serious: ${name}`, async () => {
      const {page, complaints, close} = await open(chrome, keptPage('asleep'), options);
      await page.focus('#timeline');
      for (const key of ['ArrowDown', '.', 'm']) await page.keyboard.press(key);
      await page.evaluate(() => {
        for (const details of document.querySelectorAll('details')) details.open = true;
      });
      await page.waitForFunction(
          () => / for /.test(document.getElementById('chosen').textContent) &&
              document.getElementById('matrix').textContent.includes('did selected'));
      await page.evaluate(axe);
      const {violations} = await page.evaluate(() => window.axe.run());
      const grave = violations.filter(({impact}) => impact === 'serious' || impact === 'critical')
                        .map(({id, nodes}) => `${id}: ${nodes.map((node) => node.html).join(' ')}`);
      assert.deepEqual(grave, []);
      assert.ok(
          await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth),
          'it is too wide');
      assert.deepEqual(complaints, []);
      await close();
    });
  }

  test('a table says what the picture shows', async () => {
    const {page, close} = await open(chrome, keptPage('asleep'));
    await page.waitForSelector('#matrix tbody tr');
    const tids = await api(page, 'threads');
    assert.equal(await page.locator('#matrix tbody tr').count(), tids.length);
    await close();
  });
});

describe('hostile names', () => {
  test('are text', async () => {
    const name = '</script><img src=x onerror="window.pwned=1"><b>';
    const file = altered(keptPage('convoy'), 'hostile', (data) => {
      for (const process of data.report.processes) {
        process.comm = process.cmdline = process.python = name;
        process.verdict.text = process.verdict.advice = name;
        for (const thread of process.threads) thread.comm = name;
      }
    });
    const {page, complaints, close} = await open(chrome, file);
    assert.equal(await page.locator('main img, main b').count(), 0);
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.ok((await page.textContent('#threads')).includes(name));
    assert.ok((await page.textContent('#verdict')).includes(name));
    assert.deepEqual(complaints, []);
    await close();
  });

  test('are text all the way from a command line', {skip: noLive || false}, async () => {
    const name = '</script><!-- <script>window.pwned=1</script><img src=x onerror=alert(1)><b>';
    const comm = 'open("/proc/self/comm", "w").write("</script><b>")';
    const {page, complaints, close} = await open(chrome, recordPython('named', comm, name));
    assert.equal(await page.locator('main img, main b').count(), 0);
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.ok((await page.textContent('#process')).includes(name));
    assert.ok((await page.textContent('#threads')).includes('</script><b>'));
    assert.deepEqual(complaints, []);
    await close();
  });

  test('do not turn around what is beside them', async () => {
    const file = altered(keptPage('convoy'), 'turned', (data) => {
      for (const process of data.report.processes) {
        process.comm = process.cmdline = '\u202eevil\u2066';
        for (const thread of process.threads) thread.comm = '\u2067evil\u202c';
      }
    });
    const {page, close} = await open(chrome, file);
    assert.match(await page.textContent('#threads'), /\d evil/);
    assert.match(await page.textContent('#process'), /· evil/);
    assert.doesNotMatch(await page.textContent('main'), /[\u202a-\u202e\u2066-\u2069]/);
    assert.match(await page.title(), /^giltop: evil/);
    await close();
  });

  test('could do nothing even if they were not', async () => {
    const {page, complaints, close} = await open(chrome, keptPage('convoy'));
    const pwned = await page.evaluate(async () => {
      window.refused = [];
      addEventListener(
          'securitypolicyviolation',
          ({effectiveDirective}) => window.refused.push(effectiveDirective));
      const image = document.createElement('img'), script = document.createElement('script');
      image.setAttribute('onerror', 'window.pwned = 1');
      script.textContent = 'window.pwned = 2';
      document.body.append(image, script);
      // After the handler above, if that is one.
      const failed = new Promise((done) => image.addEventListener('error', done));
      image.src = 'http://127.0.0.1:9/x';
      await failed;
      return window.pwned;
    });
    assert.equal(pwned, undefined);
    await page.waitForFunction(() => window.refused.length >= 3);
    assert.deepEqual(
        await page.evaluate(() => window.refused.sort()),
        ['img-src', 'script-src-attr', 'script-src-elem']);
    assert.ok(complaints.some((text) => text.includes('Content Security Policy')));
    await close();
  });
});

test('of several processes one is chosen', async () => {
  const file = altered(keptPage('convoy'), 'two', (data) => {
    const copy = structuredClone(data.report.processes[0]);
    copy.pid = 7;
    copy.verdict = {
      text: 'The other one.',
      advice: null,
      also: [{text: 'A second cause.', advice: 'A second cure.'}]
    };
    data.report.processes.push(copy);
    data.order.push(1);
  });
  const {page, complaints, close} = await open(chrome, file);
  assert.ok(await page.isVisible('#timeline-section'));
  await page.selectOption('#choice', '1');
  assert.match(
      await page.textContent('#verdict'), /The other one\.Also: A second cause\.A second cure\./);
  assert.ok(!await page.isVisible('#timeline-section'));  // no spans came with it
  assert.deepEqual(complaints, []);
  await close();
});

test('what is not shown in full says so', async () => {
  const file = altered(keptPage('convoy'), 'coarse', (data) => {
    data.resolution_ns = 16000;
  });
  const {page, close} = await open(chrome, file);
  assert.match(await page.textContent('#resolution'), /Shown to 16\sµs/);
  assert.ok(await page.isVisible('#resolution'));
  await close();
});

describe('the five workloads, live', {skip: noLive || false}, () => {
  const check = (name, words, what) => test(name, async () => {
    const {page: file, truth} = record(name, ...words);
    const {page, complaints, close} = await open(chrome, file);
    const tids = truth.threads.map(({tid}) => tid).filter((tid) => tid !== truth.pid);
    await what(page, tids, truth);
    assert.deepEqual(complaints, []);
    await close();
  });
  const runs = (page, tid) => api(page, 'spans', tid);

  check('cpu1', ['--scale', '0.05'], async (page, tids) => {
    assert.equal(tids.length, 0);
    const [main] = await api(page, 'threads');
    const spans = await runs(page, main);
    assert.ok(stretches(spans, holding).length > 0);
  });
  check('io1', ['--scale', '0.05'], async (page) => {
    const [main] = await api(page, 'threads');
    const slept = stretches(
        await runs(page, main), (span) => span.gil === 'released' && span.cpu === 'blocked');
    assert.ok(Math.max(...slept.map(length)) > 10e6);
  });
  check('cpu2', ['--scale', '0.5'], (page, tids) => checkTurns(page, tids));
  check('io4', [], async (page, tids, truth) => {
    assert.equal(tids.length, 4);
    // Each sleeps once; what it lives longer than that, it may be before its sleep or after it.
    const threads = await Promise.all(tids.map(async (tid) => {
      const {start, end} = truth.threads.find((thread) => thread.tid === tid);
      const spans = await runs(page, tid);
      const released = stretches(spans, (span) => span.gil === 'released');
      const slept = released.reduce((one, other) => length(other) > length(one) ? other : one);
      assert.ok(length(slept) > 0.499e9, `${tid} slept ${length(slept)} ns`);
      assert.ok(overlap([slept], spans.filter(({cpu}) => cpu === 'blocked')) > 0.25e9);
      return {start: start * 1e9, end: end * 1e9, slept, rest: (end - start) * 1e9 - length(slept)};
    }));
    threads.forEach((one, i) => threads.slice(i + 1).forEach((other) => {
      const both = Math.min(one.end, other.end) - Math.max(one.start, other.start),
            asleep = overlap([one.slept], [other.slept]);
      assert.ok(
          asleep < both + 1e6 && asleep > both - one.rest - other.rest - 1e6,
          `${asleep} ns asleep together of ${both}`);
    }));
  });
  check('yield2', ['--scale', '0.1'], async (page, tids) => {
    const [a, b] = await Promise.all(
        tids.map(async (tid) => stretches(await runs(page, tid), holdingAndRunning)));
    assert.ok(a.length > 0 && b.length > 0, `${a.length}, ${b.length} holds`);
    assert.equal(overlap(a, b), 0);
  });
});
