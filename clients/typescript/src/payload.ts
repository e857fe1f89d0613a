/** What an application sends: any JSON value, or bytes. */
import { requestError } from './errors.js';
import type { Payload } from './frames.js';

/**
 * The payload for a value: bytes for a `Uint8Array` or an `ArrayBuffer`, JSON for all else.
 *
 * @throws RequestError for what JSON cannot say.
 */
export function toPayload(data: unknown): Payload {
  if (data instanceof Uint8Array) return data.slice();
  if (data instanceof ArrayBuffer) return new Uint8Array(data.slice(0));
  // Its declared type leaves out that functions, symbols and `undefined` have no JSON.
  const text = JSON.stringify(data) as string | undefined;
  if (text === undefined) throw requestError('bad_request', 'a payload is a JSON value or bytes');
  return text;
}
