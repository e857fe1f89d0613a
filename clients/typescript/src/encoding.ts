/** How frames become text or bytes and come back; JSON, the encoding that needs no library. */
import { messageOf } from './errors.js';
import { type Fields, isFields, type PayloadReader, shapeOf } from './frame_shapes.js';
import type { ClientFrame, Payload, ServerFrame } from './frames.js';

/** What carries a frame over WebTransport: the control stream, a stream that the node has opened, or a datagram. */
export type Carrier = 'control' | 'stream' | 'datagram';

/**
 * One of the protocol's encodings: {@link json}, or `messagePack` of `skywave/msgpack`. To see every frame, wrap one.
 *
 * The `carrier` is told over WebTransport alone; an outgoing datagram that is too large goes over the control stream.
 */
export interface Encoding {
  /** As in the WebSocket subprotocol. */
  readonly name: 'json' | 'msgpack';
  encode(frame: ClientFrame, carrier?: Carrier): string | Uint8Array;
  /** @throws DecodeError for anything but a frame that a node sends. */
  decode(frame: string | Uint8Array, carrier?: Carrier): ServerFrame;
  /** The value of a payload's JSON text, as `decode` gives it; that of `JSON.parse` by default. */
  readonly parse?: (text: string) => unknown;
  /** The WebSocket message that holds an encoded frame. */
  toMessage(encoded: string | Uint8Array): string | Uint8Array<ArrayBuffer>;
  /**
   * The frames in a WebSocket message.
   *
   * @throws DecodeError or RangeError for anything else.
   */
  fromMessage(message: string | Uint8Array): Iterable<ServerFrame>;
}

/** Why something is no frame of a node. */
export type DecodeProblem = 'malformed' | 'unknown' | 'invalid';

/** Something came that is no frame of a node. */
export class DecodeError extends Error {
  readonly problem: DecodeProblem;
  /** The name of a frame that is known, and what it says, right or wrong. */
  readonly what: string;
  readonly body: Fields;

  constructor(problem: DecodeProblem, what = '', body: Fields = {}) {
    super(`${problem} frame ${what}`);
    this.problem = problem;
    this.what = what;
    this.body = body;
  }
}

/** Checks a decoded value: it has to be a map with one entry, a frame that nodes send. */
export function toFrame(value: unknown, reader: PayloadReader): ServerFrame {
  const entries = isFields(value) ? Object.entries(value) : [];
  const [name, body] = entries[0] ?? [];
  if (name === undefined || entries.length !== 1 || !isFields(body)) throw new DecodeError('malformed');
  const fits = shapeOf(name);
  if (fits === undefined) throw new DecodeError('unknown', name);
  let isRight = false;
  try {
    isRight = fits(body, reader);
  } catch {
    // A payload that cannot be read, as wrong as a field of another type.
  }
  if (!isRight) throw new DecodeError('invalid', name, body);
  // Just checked, field by field.
  return [name, body] as unknown as ServerFrame;
}

/**
 * The frames that `decode` makes of these. One that is not understood may be a later version's. It harms nothing else:
 * it is passed over, and whoever waits for it gets an error.
 */
export function* decoded<Encoded>(all: Iterable<Encoded>, decode: (one: Encoded) => ServerFrame): Generator<ServerFrame, void, undefined> {
  for (const one of all) {
    try {
      yield decode(one);
    } catch (error) {
      if (!(error instanceof DecodeError) || error.problem === 'malformed') throw error;
      // A number that is none belongs to nobody, and a name that is none to no channel.
      const { id, channel } = error.body as { id?: number; channel: string };
      if (id !== undefined) yield ['error', { id, code: 100, reason: 'internal', message: error.message, transient: true }];
      // How the channel stands nobody knows: it is asked for again.
      else if (error.what.includes('subscribed')) yield ['unsubscribed', { channel }];
    }
  }
}

/** `parse` with what it throws told as a frame that is none. */
export function parsed(parse: () => unknown): unknown {
  try {
    return parse();
  } catch (error) {
    throw new DecodeError('malformed', messageOf(error));
  }
}

const reader: PayloadReader = (body) => {
  const base64 = body['data_b64'] ?? undefined;
  delete body['data_b64'];
  if (base64 === undefined) return Object.hasOwn(body, 'data');
  if (typeof base64 !== 'string' || Object.hasOwn(body, 'data')) return false;
  body['data'] = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return true;
};

/** JSON, read by `parse`. */
export function jsonEncoding(parse: (text: string) => unknown): Encoding {
  return { ...writing, decode: (frame) => toFrame(valueOf(frame, parse), reader), fromMessage: (message) => decoded(splitText(message, parse), (one) => toFrame(one, reader)) };
}

const writing: Pick<Encoding, 'name' | 'encode' | 'toMessage'> = {
  name: 'json',
  encode([name, body]) {
    const { data, ...fields } = body as { data?: Payload };
    const head = `{"${name}":${JSON.stringify(fields)}`;
    if (data === undefined) return `${head}}`;
    const [field, value] = typeof data === 'string' ? ['data', data] : ['data_b64', `"${toBase64(data)}"`];
    // Text that is JSON already is put in as it is, after the other fields, of which there always are some.
    return `${head.slice(0, -1)},"${field}":${value}}}`;
  },
  toMessage: (encoded) => encoded as string,
};

/** JSON: what a browser reads and writes fastest. */
export const json: Encoding = /* @__PURE__ */ jsonEncoding((text) => JSON.parse(text) as unknown);

function valueOf(frame: string | Uint8Array, parse: (text: string) => unknown): unknown {
  return parsed(() => parse(typeof frame === 'string' ? frame : new TextDecoder('utf-8', { fatal: true }).decode(frame)));
}

function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/**
 * The values in a JSON WebSocket message: one frame, or an array of them.
 *
 * @throws DecodeError for what is no JSON.
 */
export function splitText(message: string | Uint8Array, parse: (text: string) => unknown): unknown[] {
  return [valueOf(message, parse)].flat();
}
