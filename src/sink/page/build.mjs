// node build.mjs SOURCES NODE_MODULES OUT: the page in one file, but for the data.
import {createHash} from 'node:crypto';
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const MOST_BYTES = 150_000;
const [sources, modules, out] = process.argv.slice(2);
const esbuild = createRequire(join(modules, 'place.js'))('esbuild');

function bundle(file) {
  const {outputFiles} = esbuild.buildSync({
    entryPoints: [join(sources, file)],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: ['chrome111', 'firefox113', 'safari16.4'],
    nodePaths: [modules],
    legalComments: 'none',
  });
  // Neither may end the element it becomes.
  return outputFiles[0]
      .text.trim()
      .replace(/<\/(script|style)/gi, '<\\/$1')
      .replace(/<!--/g, '<\\!--');
}

const hash = (text) => `sha256-${createHash('sha256').update(text).digest('base64')}`;
const script = bundle('main.js'), style = bundle('style.css');
const parts = {
  script,
  style,
  'script-hash': hash(script),
  'style-hash': hash(style),
  licence: readFileSync(join(modules, 'uplot/LICENSE'), 'utf8').trim(),
};
const page = readFileSync(join(sources, 'page.html'), 'utf8')
                 .replace(/<!--([a-z-]+)-->/g, (mark, name) => parts[name] ?? mark);
if (Buffer.byteLength(page) > MOST_BYTES)
  throw new Error(`the page has ${Buffer.byteLength(page)} bytes without data: at most ${
      MOST_BYTES} are meant to be`);
writeFileSync(out, page);
