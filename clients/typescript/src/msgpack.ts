/** MessagePack as an encoding: smaller frames and binary payloads as they are, for the price of a library. */
import { decode, encode } from '@msgpack/msgpack';
import { decoded, DecodeError, type Encoding, parsed, toFrame } from './encoding.js';
import { prefixed, splitFrames } from './framing.js';
import type { PayloadReader } from './shapes.js';

const reader: PayloadReader = {
  payload(body) {
    const data = body['data'];
    if (typeof data === 'string') body['data'] = JSON.parse(data) as unknown;
    return body['data_b64'] === undefined && (typeof data === 'string' || data instanceof Uint8Array);
  },
  info(value) {
    if (typeof value !== 'string') throw new TypeError('no JSON text');
    return JSON.parse(value) as unknown;
  },
};

/** MessagePack, to be given as the option `encoding`. */
export const messagePack: Encoding = {
  name: 'msgpack',
  encode: ([name, body]) => encode({ [name]: body }, { ignoreUndefined: true }),
  decode(frame) {
    if (typeof frame === 'string') return toFrame(undefined, reader);
    return toFrame(
      parsed(() => decode(frame)),
      reader,
    );
  },
  toMessage: (encoded) => prefixed(encoded as Uint8Array),
  fromMessage(message) {
    if (typeof message === 'string') throw new DecodeError('malformed', 'that is text');
    return decoded(splitFrames(message), (frame) => this.decode(frame));
  },
};
