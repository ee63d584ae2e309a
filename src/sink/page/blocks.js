// The blocks of data that the page comes with: parts of base64 of zlib's format.
import {unzlibSync} from 'fflate';

function base64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function joined(parts) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// What a block of the page holds, in one part or several.
export function bytesNow(text) {
  return joined(text.split('.').map((part) => unzlibSync(base64(part))));
}

// The same by the browser's own code, which is faster, but takes turns with other work.
export async function bytesSoon(text) {
  return joined(await Promise.all(text.split('.').map((part) => inflated(base64(part)))));
}
