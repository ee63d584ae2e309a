// Pages of recordings, opened in Chromium without a network.
import {execFileSync} from 'node:child_process';
import {existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {deflateSync, inflateSync} from 'node:zlib';
import {chromium} from 'playwright-core';

const need = (name) => {
  if (!process.env[name]) throw new Error(`${name} is not set: run this by ctest`);
  return process.env[name];
};
export const giltop = need('GILTOP');
export const sources = need('GILTOP_SOURCE_DIR');
const found = [process.env.CHROMIUM, '/usr/bin/chromium'].find((path) => path && existsSync(path));

export const directory = mkdtempSync(join(tmpdir(), 'giltop-page-'));
export const removeDirectory = () => rmSync(directory, {recursive: true, force: true});

const run = (command, ...words) =>
    execFileSync(command, words, {stdio: ['ignore', 'pipe', 'pipe']});

export function pageOf(recording, name) {
  const page = join(directory, `${name}.html`);
  run(giltop, 'report', recording, '--html', page);
  return page;
}
export const keptPage = (name) =>
    pageOf(join(sources, 'tests/recordings', `${name}.pftrace`), name);

// Why there can be no live recording; empty: there can.
export const noLive = process.getuid() !== 0 ? 'not root' :
    !existsSync('/sys/kernel/btf/vmlinux')   ? 'no BTF' :
                                               '';

if (noLive && process.env.GILTOP_REQUIRE_LIVE)
  throw new Error(`live recordings are required: ${noLive}`);

// The page of a python that has these words on its command line. On a busy host one that does
// little can be over before giltop has looked at it: then another is recorded.
export function recordPython(name, ...words) {
  const recording = join(directory, `${name}.pftrace`);
  for (let i = 0; i < 5; i++) {
    run(giltop, 'record', '-q', '-o', recording, '--', 'python3', '-c', ...words);
    if (JSON.parse(run(giltop, 'report', recording, '--json')).processes.length > 0) break;
  }
  return pageOf(recording, name);
}

// What a workload did: the page of its recording, and what it says of itself.
export function record(workload, ...words) {
  const recording = join(directory, `${workload}.pftrace`),
        truth = join(directory, `${workload}.json`);
  run(giltop, 'record', '-q', '-o', recording, '--', 'python3',
      join(sources, 'tools/workloads/workload.py'), workload, '--truth', truth, ...words);
  return {page: pageOf(recording, workload), truth: JSON.parse(readFileSync(truth, 'utf8'))};
}

const block = /(id="giltop-report">)([^<]*)/;

// A copy of a page, with its data changed.
export function altered(page, name, change) {
  const text = readFileSync(page, 'utf8');
  const data = JSON.parse(inflateSync(Buffer.from(text.match(block)[2], 'base64')));
  change(data);
  const out = join(directory, `${name}.html`);
  const packed = deflateSync(JSON.stringify(data)).toString('base64');
  writeFileSync(out, text.replace(block, (all, tag) => tag + packed));
  return out;
}

export async function browser() {
  if (!found)
    throw new Error('there is no /usr/bin/chromium: run tools/install-deps, or set CHROMIUM');
  return chromium.launch({executablePath: found, args: ['--no-sandbox', '--disable-gpu']});
}

// An open page, and all it complained about or asked for.
// `early` runs in the page before its own script; `unready`: not to wait for the timeline.
export async function open(chrome, file, {unready, ...options} = {}, early = () => {}) {
  const context =
      await chrome.newContext({viewport: {width: 1280, height: 900}, offline: true, ...options});
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  const cdp = await context.newCDPSession(page);
  await cdp.send('Performance.enable', {timeDomain: 'threadTicks'});
  await page.addInitScript(early);
  const complaints = [];
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    // A blob: is what the page made itself, for its worker.
    if (request.url().split('#')[0] !== `file://${file}` && !request.url().startsWith('blob:null/'))
      complaints.push(`request: ${request.url()}`);
  });
  await page.goto(`file://${file}`);
  if (!unready) await page.waitForSelector('html[data-ready]', {state: 'attached'});
  // What the page's own thread has used of a CPU, s.
  const cpu_s = async () => {
    const {metrics} = await cdp.send('Performance.getMetrics');
    return metrics.find(({name}) => name === 'TaskDuration').value;
  };
  return {page, complaints, cpu_s, close: () => context.close()};
}

export const api = (page, what, ...words) =>
    page.evaluate(([name, given]) => window.giltop[name](...given), [what, words]);

// The stretches in which a thread held the GIL, or was on its CPU.
export const stretches = (spans, is) => {
  const out = [];
  for (const span of spans) {
    if (!is(span)) continue;
    const last = out.at(-1);
    if (last && last.to === span.from)
      last.to = span.to;
    else
      out.push({from: span.from, to: span.to});
  }
  return out;
};

export function overlap(one, other) {
  let sum = 0;
  for (const a of one)
    for (const b of other) sum += Math.max(0, Math.min(a.to, b.to) - Math.max(a.from, b.from));
  return sum;
}

export const median = (values) =>
    values.slice().sort((a, b) => a - b)[Math.floor(values.length / 2)];
