/** MessagePack as an encoding: smaller frames and binary payloads as they are, for the price of a library. */
import { decode, encode } from '@msgpack/msgpack';
import { decoded, DecodeError, type Encoding, parsed, toFrame } from './encoding.js';
import { parseExact } from './exact_json.js';
import type { ServerFrame, WireMember } from './frames.js';
import { prefixed, splitFrames } from './framing.js';
import type { PayloadReader } from './shapes.js';

type Parse = (text: string) => unknown;

const payloadReader = (parse: Parse): PayloadReader => (body) => {
  const data = body['data'];
  if (typeof data === 'string') body['data'] = parse(data);
  // Decoded, it is a view into the whole message; what an application is given is its own.
  else if (data instanceof Uint8Array) body['data'] = new Uint8Array(data);
  return body['data_b64'] === undefined && (typeof data === 'string' || data instanceof Uint8Array);
};

/** What a frame tells of members is JSON text here. */
function readMembers([name, body]: ServerFrame, parse: Parse): void {
  if (name === 'subscribed' && body.presence !== undefined) readData(body.presence.members, parse);
  else if (name === 'presence') readData(body.members, parse);
  else if (name === 'presence_changed') readData([...body.joined, ...body.left], parse);
}

function readData(members: readonly WireMember[], parse: Parse): void {
  for (const member of members) {
    if (!Object.hasOwn(member, 'data')) continue;
    if (typeof member.data !== 'string') throw new DecodeError('invalid', 'whose member has no JSON text');
    const text = member.data;
    member.data = parsed(() => parse(text), 'invalid');
  }
}

function encoding(parse: Parse): Encoding {
  const reader = payloadReader(parse);
  return {
    name: 'msgpack',
    encode: ([name, body]) => encode({ [name]: body }, { ignoreUndefined: true }),
    decode(frame) {
      if (typeof frame === 'string') return toFrame(undefined, reader);
      const value = parsed(() => decode(frame));
      const serverFrame = toFrame(value, reader);
      readMembers(serverFrame, parse);
      return serverFrame;
    },
    toMessage: (encoded) => prefixed(encoded as Uint8Array),
    fromMessage(message) {
      if (typeof message === 'string') throw new DecodeError('malformed', 'that is text');
      return decoded(splitFrames(message), (frame) => this.decode(frame));
    },
  };
}

/** MessagePack, to be given as the option `encoding`. */
export const messagePack: Encoding = /* @__PURE__ */ encoding((text) => JSON.parse(text) as unknown);
/** The same, but for integers beyond 2⁵³ in payloads, which are BigInts. */
export const exactMessagePack: Encoding = /* @__PURE__ */ encoding(parseExact);
