// The page on paper.
import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';

import {browser, keptPage, open, removeDirectory} from './support.mjs';

let chrome;
before(async () => {
  chrome = await browser();
});
after(async () => {
  await chrome?.close();
  removeDirectory();
});

test('paper is white', async () => {
  const {page, complaints, close} = await open(chrome, keptPage('asleep'), {colorScheme: 'dark'});
  const colour = () => page.evaluate(() => {
    const pixel = new OffscreenCanvas(1, 1).getContext('2d');
    pixel.drawImage(document.getElementById('lanes'), 1, 1, 1, 1, 0, 0, 1, 1);
    const [red, , , alpha] = pixel.getImageData(0, 0, 1, 1).data;
    return {red, alpha};
  });
  const isDark = async () => {
    const {red, alpha} = await colour();
    assert.ok(red < 64 && alpha === 255, `${red}, ${alpha}`);
  };
  await page.waitForFunction(() => window.giltop.frames().length > 0);
  await isDark();
  await page.evaluate(() => dispatchEvent(new Event('beforeprint')));
  assert.deepEqual(await colour(), {red: 255, alpha: 255});
  await page.evaluate(() => dispatchEvent(new Event('afterprint')));
  await isDark();
  assert.deepEqual(complaints, []);
  await close();
});

// Whoever prints when a page is loaded, as chromium --print-to-pdf does, has all of it.
test('a page that is printed before its timeline is unpacked is whole', async () => {
  const {page, complaints, close} =
      await open(chrome, keptPage('taking-turns'), {unready: true}, () => window.Worker = class {
        addEventListener() {}
        postMessage() {}
        terminate() {}
      });
  const states = await page.evaluate(() => {
    const {timeline} = window.giltop, all = [timeline.rows.length];
    dispatchEvent(new Event('beforeprint'));
    return [...all, timeline.rows.length, document.querySelectorAll('.strips canvas').length];
  });
  assert.deepEqual(states.slice(0, 2), [0, 3]);
  assert.ok(states[2] >= 1, 'lanes');
  assert.ok(await page.isHidden('#unpacking'));
  assert.deepEqual(complaints, []);
  await close();
});

// Paper breaks between the strips, so that none of it is left empty for a picture that is tall.
test('the lanes are cut up for paper, and nothing of them is lost', async () => {
  const {page, complaints, close} = await open(chrome, keptPage('convoy'));
  const cut = await page.evaluate(() => {
    const {timeline} = window.giltop, {canvas, rows} = timeline;
    timeline.show(Array.from({length: 97}, (_, i) => rows[i % rows.length]), ['0x1'], true);
    dispatchEvent(new Event('beforeprint'));
    const strips = [...document.querySelectorAll('.strips canvas')];
    const pixels = (one) => {
      const copy = new OffscreenCanvas(one.width, one.height).getContext('2d');
      copy.drawImage(one, 0, 0);
      return Array.from(
          new Uint32Array(copy.getImageData(0, 0, one.width, one.height).data.buffer));
    };
    const whole = pixels(canvas), parts = strips.flatMap(pixels);
    const heads = [...document.querySelectorAll('.strips thead span')];
    const out = {
      same: whole.slice(-parts.length).join() === parts.join(),
      ruler: (whole.length - parts.length) / canvas.width / timeline.scale,
      tallest: Math.max(...strips.map((strip) => strip.height)) / timeline.scale,
      head: heads.map((tick) => tick.textContent).join(' ')
    };
    dispatchEvent(new Event('afterprint'));
    return {...out, left: document.querySelectorAll('.strips').length};
  });
  assert.ok(cut.same, 'the strips are the picture');
  assert.ok(cut.tallest <= 140, `${cut.tallest}`);
  assert.ok(cut.ruler < 30, `${cut.ruler} px of the picture are not on paper`);
  assert.match(cut.head, /^0\.\d+\ss 0\.\d+\ss/);  // the ruler, which is on each sheet
  assert.equal(cut.left, 0);
  await page.emulateMedia({media: 'print'});
  assert.equal(
      await page.evaluate(() => {
        dispatchEvent(new Event('beforeprint'));
        return getComputedStyle(document.querySelector('.strips')).breakInside;
      }),
      'auto');
  assert.deepEqual(complaints, []);
  await close();
});

test('pictures are drawn as wide as paper', async () => {
  const {page, complaints, close} = await open(chrome, keptPage('taking-turns'));
  const [before, paper, after] = await page.evaluate(async () => {
    const sizes = async () => {
      await null;  // uPlot draws after what runs now
      const {canvas, scale} = window.giltop.timeline;
      const charts = Array.from(document.querySelectorAll('.uplot'));
      return {
        lanes: canvas.offsetWidth,
        drawn: Math.round(canvas.width / scale),
        charts: Math.max(...charts.map((chart) => chart.getBoundingClientRect().right))
      };
    };
    const all = [await sizes()];
    dispatchEvent(new Event('beforeprint'));
    all.push(await sizes());
    dispatchEvent(new Event('afterprint'));
    return all.concat(await sizes());
  });
  const width = Math.round(186 / 25.4 * 96);
  assert.ok(Math.abs(paper.lanes - width) <= 4, `${paper.lanes}`);
  assert.equal(paper.drawn, paper.lanes);
  assert.ok(paper.charts <= width + 1, `${paper.charts}`);
  assert.deepEqual(after, before);
  assert.deepEqual(complaints, []);
  await close();
});

test('paper has all lanes', async () => {
  const {page, complaints, close} = await open(chrome, keptPage('taking-turns'));
  // The same threads again and again: more lanes than a screen has.
  const sizes = await page.evaluate(() => {
    const {canvas, scroller, rows} = window.giltop.timeline;
    window.giltop.timeline.show(
        Array.from({length: 61}, (_, i) => rows[i % rows.length]), ['0x1'], true);
    const whole = canvas.parentElement.offsetHeight;
    const onScreen = canvas.offsetHeight;
    scroller.scrollTop = 300;
    dispatchEvent(new Event('beforeprint'));
    const printed = canvas.offsetHeight, scrolled = scroller.scrollTop;
    const onPaper = window.giltop.timeline.wholeHeight();
    const note = document.getElementById('unprinted');
    const left = !note.hidden;
    dispatchEvent(new Event('afterprint'));
    return {
      left,
      whole,
      onScreen,
      onPaper,
      printed,
      scrolled,
      after: canvas.offsetHeight,
      back: scroller.scrollTop
    };
  });
  assert.ok(sizes.onScreen < sizes.whole);
  assert.equal(sizes.printed, sizes.onPaper);
  assert.ok(sizes.printed < 910, 'on a sheet');
  assert.equal(sizes.left, false);
  assert.equal(sizes.scrolled, 0);
  assert.equal(sizes.after, sizes.onScreen);
  assert.equal(sizes.back, 300);
  assert.deepEqual(complaints, []);
  await close();
});

test('paper says what lanes it has no room for', async () => {
  const {page, complaints, close} = await open(chrome, keptPage('taking-turns'));
  const notes = await page.evaluate(() => {
    const {timeline} = window.giltop, {rows} = timeline,
          note = document.getElementById('unprinted');
    return [664, 665].map((all) => {
      timeline.show(Array.from({length: all}, (_, i) => rows[i % rows.length]), ['0x1'], true);
      dispatchEvent(new Event('beforeprint'));
      const said = note.hidden ? '' : note.textContent;
      dispatchEvent(new Event('afterprint'));
      return said + (note.hidden ? '' : ' on the screen, too');
    });
  });
  assert.equal(notes[0], '');
  assert.match(notes[1], /^On paper are the lanes of 664 of 665 threads; the page has all\.$/);
  assert.deepEqual(complaints, []);
  await close();
});
