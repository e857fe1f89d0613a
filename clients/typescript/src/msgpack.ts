/** MessagePack as an encoding: smaller frames and binary payloads as they are, for the price of a library. */
import { decode, encode } from '@msgpack/msgpack';
import { decoded, DecodeError, type Encoding, parsed, toFrame } from './encoding.js';
import type { ServerFrame, WireMember } from './frames.js';
import { prefixed, splitFrames } from './framing.js';
import type { PayloadReader } from './shapes.js';

const reader: PayloadReader = (body) => {
  const data = body['data'];
  if (typeof data === 'string') body['data'] = JSON.parse(data) as unknown;
  // Decoded, it is a view into the whole message; what an application is given is its own.
  else if (data instanceof Uint8Array) body['data'] = new Uint8Array(data);
  return body['data_b64'] === undefined && (typeof data === 'string' || data instanceof Uint8Array);
};

/** What a frame tells of members is JSON text here. */
function readMembers([name, body]: ServerFrame): void {
  if (name === 'subscribed' && body.presence !== undefined) readData(body.presence.members);
  else if (name === 'presence') readData(body.members);
  else if (name === 'presence_changed') readData([...body.joined, ...body.left]);
}

function readData(members: readonly WireMember[]): void {
  for (const member of members) {
    if (!Object.hasOwn(member, 'data')) continue;
    if (typeof member.data !== 'string') throw new DecodeError('invalid', 'whose member has no JSON text');
    const text = member.data;
    member.data = parsed(() => JSON.parse(text) as unknown, 'invalid');
  }
}

/** MessagePack, to be given as the option `encoding`. */
export const messagePack: Encoding = {
  name: 'msgpack',
  encode: ([name, body]) => encode({ [name]: body }, { ignoreUndefined: true }),
  decode(frame) {
    if (typeof frame === 'string') return toFrame(undefined, reader);
    const value = parsed(() => decode(frame));
    const serverFrame = toFrame(value, reader);
    readMembers(serverFrame);
    return serverFrame;
  },
  toMessage: (encoded) => prefixed(encoded as Uint8Array),
  fromMessage(message) {
    if (typeof message === 'string') throw new DecodeError('malformed', 'that is text');
    return decoded(splitFrames(message), (frame) => this.decode(frame));
  },
};
