/** MessagePack as an encoding: smaller frames and binary payloads as they are, for the price of a library. */
import { decode, encode } from '@msgpack/msgpack';
import { decoded, DecodeError, type Encoding, parsed, toFrame } from './encoding.js';
import { parseExact } from './exact_json.js';
import type { Fields, PayloadReader } from './frame_shapes.js';
import type { ServerFrame, WireMember } from './frames.js';
import { prefixed, splitFrames } from './framing.js';

type Parse = (text: string) => unknown;

const payloadReader = (parse: Parse): PayloadReader => (body) => {
  const data = body['data'];
  if (typeof data === 'string') body['data'] = parse(data);
  // Decoded, it is a view into the whole message; what an application is given is its own.
  else if (data instanceof Uint8Array) body['data'] = new Uint8Array(data);
  return body['data_b64'] === undefined && (typeof data === 'string' || data instanceof Uint8Array);
};

/**
 * What a frame tells of members is JSON text here.
 *
 * @throws DecodeError where it is none.
 */
function readMembers(frame: ServerFrame, parse: Parse): void {
  try {
    for (const member of membersOf(frame)) if (Object.hasOwn(member, 'data')) member.data = parse(textOf(member.data));
  } catch {
    const [name, body] = frame;
    throw new DecodeError('invalid', name, body as unknown as Fields);
  }
}

function membersOf([name, body]: ServerFrame): readonly WireMember[] {
  if (name === 'subscribed') return body.presence?.members ?? [];
  if (name === 'presence') return body.members;
  return name === 'presence_changed' ? [...body.joined, ...body.left] : [];
}

function textOf(data: unknown): string {
  if (typeof data !== 'string') throw new TypeError('not text');
  return data;
}

function encoding(parse: Parse): Encoding {
  const reader = payloadReader(parse);
  return {
    name: 'msgpack',
    parse,
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
