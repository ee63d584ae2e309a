// node build.mjs SOURCES NODE_MODULES OUT: the page in one file, but for the data.
import {createHash} from 'node:crypto';
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const MOST_BYTES = 150_000;
const [sources, modules, out] = process.argv.slice(2);
const esbuild = createRequire(join(modules, 'place.js'))('esbuild');

const packages = new Set();  // whose files are in the page

function bundle(file) {
  const {outputFiles, metafile} = esbuild.buildSync({
    entryPoints: [join(sources, file)],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: ['chrome111', 'firefox113', 'safari16.4'],
    nodePaths: [modules],
    legalComments: 'none',  // the whole licences are at the end of the page
    metafile: true,
  });
  for (const input of Object.keys(metafile.inputs)) {
    const [, name] = input.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)\//) ?? [];
    if (name) packages.add(name);
  }
  // Neither may end the element it becomes.
  return outputFiles[0]
      .text.trim()
      .replace(/<\/(script|style)/gi, '<\\/$1')
      .replace(/<!--/g, '<\\!--');
}

// The licence of each package that is in the page, which it asks to go with it.
function licences() {
  return [...packages]
      .sort()
      .map((name) => {
        const text = readFileSync(join(modules, name, 'LICENSE'), 'utf8').trim();
        // It becomes a part of a comment, which it must not end.
        if (text === '' || text.includes('--')) throw new Error(`no usable licence of ${name}`);
        return `${name}:\n\n${text}`;
      })
      .join('\n\n');
}

const hash = (text) => `sha256-${createHash('sha256').update(text).digest('base64')}`;
const script = bundle('main.js'), style = bundle('style.css');
const parts = {
  script,
  style,
  'script-hash': hash(script),
  'style-hash': hash(style),
  licence: licences(),
};
const page = readFileSync(join(sources, 'page.html'), 'utf8')
                 .replace(/<!--([a-z-]+)-->/g, (mark, name) => parts[name] ?? mark);
if (Buffer.byteLength(page) > MOST_BYTES)
  throw new Error(`the page has ${Buffer.byteLength(page)} bytes without data: at most ${
      MOST_BYTES} are meant to be`);
writeFileSync(out, page);
