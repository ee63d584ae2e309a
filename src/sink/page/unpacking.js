// The spans of a large page take a while to unpack. A worker does it, so that the page answers, and
// can be read, meanwhile. The worker is made of the page's one script, as nothing else is at hand.
import {bytesNow, bytesSoon} from './blocks.js';
import {Row, unpack} from './spans.js';

export const inWorker = typeof document === 'undefined';
const script = inWorker ? '' : document.currentScript.textContent;

export const unpackNow = (text) => unpack(bytesNow(text));

function buffersOf(rows) {
  const all = new Set();
  for (const row of rows)
    for (const field of Object.values(row))
      if (ArrayBuffer.isView(field)) all.add(field.buffer);
  return [...all];
}

// What the worker does: it takes a block's text, and gives its rows; null: it cannot.
export function serve() {
  addEventListener('message', async ({data: text}) => {
    try {
      const rows = unpack(await bytesSoon(text));
      postMessage(rows, buffersOf(rows));
    } catch {
      postMessage(null);
    }
  });
}

function byWorker(text) {
  return new Promise((resolve, reject) => {
           const url = URL.createObjectURL(new Blob([script], {type: 'text/javascript'}));
           const worker = new Worker(url);
           const end = (then, what) => {
             worker.terminate();
             URL.revokeObjectURL(url);
             then(what);
           };
           worker.addEventListener('message', ({data: rows}) => end(rows ? resolve : reject, rows));
           for (const failed of ['error', 'messageerror'])
             worker.addEventListener(failed, (event) => end(reject, event));
           worker.postMessage(text);
         })
      .then((rows) => rows.map((fields) => Object.assign(Object.create(Row.prototype), fields)));
}

// What is there now has been on the screen. A page that nobody looks at has no frames.
const painted = () => new Promise((done) => {
  requestAnimationFrame(() => setTimeout(done));
  setTimeout(done, document.hidden ? 500 : 5000);
});

// What there is to read is painted first, whoever unpacks. Where there can be no worker, the page
// does it itself; what a worker could not read, it can say why.
export async function unpackBeside(text) {
  const shown = painted();
  const rows = await byWorker(text).catch(() => null);
  await shown;
  return rows ?? unpackNow(text);
}
