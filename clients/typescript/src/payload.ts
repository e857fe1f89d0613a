/** What an application sends: any JSON value, or bytes. */
import { check } from './errors.js';
import type { Payload } from './frames.js';
import { isText } from './text.js';

/**
 * The payload for a value: bytes for an `ArrayBuffer` or a view of one, JSON for all else.
 *
 * @throws RequestError for what JSON cannot say, or says as `{}` alone, like a `Map`; and for what nests too deep for a node.
 */
export function toPayload(data: unknown): Payload {
  if (data instanceof ArrayBuffer) return new Uint8Array(data.slice(0));
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  const text = textOf(data) ?? textWithBigInts(data) ?? '';
  const { constructor } = Object(data) as { constructor?: { readonly name: string } };
  const isSaid = text !== '' && (text !== '{}' || constructor === undefined || constructor.name === 'Object');
  let depth = 0;
  const marks = text.replace(/"(\\.|[^"\\]+)*"|[^"[\]{}]+/g, '');
  const isTooDeep = Array.from(marks).some((mark) => (depth += '[{'.includes(mark) ? 1 : -1) > 100);
  check(isSaid && !isTooDeep, 'bytes, or JSON of at most 100 levels');
  return text;
}

/** @throws RequestError for text that no node would take. */
export function checkText(text: string | undefined, maxBytes: number): void {
  check(isText(text ?? '', maxBytes), `a text of at most ${maxBytes} bytes`);
}

/** The JSON text of a value. There is none of functions, symbols and `undefined`, and of what is circular. */
function textOf(data: unknown, replacer?: (name: string, value: unknown) => unknown): string | undefined {
  try {
    return JSON.stringify(data, replacer);
  } catch {
    return undefined;
  }
}

/** A BigInt is written as the integer that it is. */
function textWithBigInts(data: unknown): string | undefined {
  const mark = `${Math.random()}${Math.random()}:`;
  const text = textOf(data, (_, value) => (typeof value === 'bigint' ? `${mark}${String(value)}` : value));
  return text?.replace(new RegExp(`"${mark}(-?\\d+)"`, 'g'), '$1');
}
