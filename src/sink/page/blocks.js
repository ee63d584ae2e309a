// The blocks of data that the page comes with: base64 of zlib's format.
import {unzlibSync} from 'fflate';

const MOST_AT_ONCE = 4e6;  // bytes, compressed

function base64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// What a block of the page holds. Of most pages at once, so that they are whole when the browser
// says that they are loaded (and `chromium --print-to-pdf` prints); the browser's own code is
// faster, but takes turns with other work.
export async function bytesOf(text) {
  const bytes = base64(text);
  if (bytes.length <= MOST_AT_ONCE) return unzlibSync(bytes);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
