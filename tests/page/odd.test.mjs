// Recordings as nobody wants them.
import assert from 'node:assert/strict';
import {readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';

import {withRows} from './many_spans.mjs';
import {altered, api, browser, directory, keptPage, noLive, open, recordPython, removeDirectory, sources} from './support.mjs';

let chrome;
before(async () => {
  chrome = await browser();
});
after(async () => {
  await chrome?.close();
  removeDirectory();
});

test('every kept recording opens, and all its lanes are there', async () => {
  const names = readdirSync(join(sources, 'tests/recordings'))
                    .filter((name) => name.endsWith('.pftrace'))
                    .map((name) => name.slice(0, -8));
  assert.ok(names.length > 10);
  for (const name of names) {
    const {page, complaints, close} = await open(chrome, keptPage(name));
    const {lanes, threads} = await page.evaluate(() => {
      const {report, timeline} = window.giltop;
      const shown = document.getElementById('process').textContent;
      const process = report.processes.find(({pid}) => shown.startsWith(`${pid} `));
      return {lanes: timeline.rows.length, threads: process.threads.length};
    });
    assert.equal(lanes, threads, name);
    assert.deepEqual(complaints, [], name);
    await close();
  }
});

test('what was lost is shown as unknown, and counted', async () => {
  const {page, close} = await open(chrome, keptPage('unknown'));
  assert.match(await page.textContent('#run'), /events LOST/);
  assert.match(await page.textContent('#facts'), /lost \(.*: what they covered is unknown/);
  assert.match(await page.textContent('#ledgers'), /unknown \d/);
  const {processes: [{threads: [{tid}]}]} = await page.evaluate(() => window.giltop.report);
  assert.ok((await api(page, 'spans', tid)).some((span) => span.gil === 'unknown'));
  await close();
});

test('a name of half a letter, all the way from a thread', {skip: noLive || false}, async () => {
  const rename = String.raw`open("/proc/self/comm", "wb").write(b"\xc3\xa9" * 7 + b"\xc3")`;
  const {page, complaints, close} = await open(chrome, recordPython('half', rename));
  assert.match(await page.textContent('#threads'), /\d é{7}\ufffd/);
  assert.deepEqual(complaints, []);
  await close();
});

test('a name stays in its line', async () => {
  const file = altered(keptPage('convoy'), 'marks', (data) => {
    const [process] = data.report.processes;
    process.cmdline = `\u200f\u061ca${'\u0301'.repeat(500)}\n\u001b[31mb\u200b`;
    for (const thread of process.threads) thread.comm = '\u0301\u200b\u0007';
  });
  const {page, complaints, close} = await open(chrome, file);
  const text = await page.textContent('#process');
  assert.match(text, /· a\u0301\u0301\ufffd\ufffd\[31mb/);
  assert.match(await page.textContent('#threads'), /\d \u0301\u200b\ufffd/);
  assert.deepEqual(complaints, []);
  await close();
});

test('ten hours, of which any microsecond can be seen', async () => {
  const hour = 3600e9, file = join(directory, 'hours.html');
  const at = 7 * hour + 123_456_789, wait = 1000;
  const {text} = withRows(readFileSync(keptPage('taking-turns'), 'utf8'), [
    [[10, at], [6, wait], [0, 5e6], [10, 10 * hour - at - wait - 5e6]], [[0, at + wait], [10, hour]]
  ]);
  writeFileSync(file, text);
  const {page, complaints, close} = await open(chrome, file);
  assert.match(await page.textContent('#run'), /36\s000\ss \(10\.0 h\) recorded/);
  await page.focus('#timeline');
  for (const key of ['ArrowDown', '.', 'Enter']) await page.keyboard.press(key);
  await page.waitForFunction(
      () => document.getElementById('chosen').textContent.includes('waiting for'));
  const shown = (await page.textContent('#chosen')).replace(/\s/g, ' ');
  assert.ok(
      shown.includes(
          'waiting for 1.0 µs (1 000 ns)from 25 200.123 456 789 s to 25 200.123 457 789 s'),
      shown);
  assert.ok(shown.includes('behind 1001'), shown);
  const {from, to} = await api(page, 'view');
  assert.ok(from <= at && to >= at + wait && to - from < 5000, `${from} to ${to}`);
  assert.deepEqual(complaints, []);
  await close();
});
