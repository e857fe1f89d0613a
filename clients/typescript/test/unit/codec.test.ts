/** Frames in both encodings, by the golden vectors. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encode } from '@msgpack/msgpack';
import { DecodeError, json, splitText } from '../../src/encoding.js';
import { exactJson } from '../../src/exact_json.js';
import type { ClientFrame, Payload, ServerFrame } from '../../src/frames.js';
import { prefixed } from '../../src/framing.js';
import { exactMessagePack, messagePack } from '../../src/msgpack.js';
import { toPayload } from '../../src/payload.js';
import { bytes, cases, hex, read } from './vectors.js';

/** A client's frame from its canonical JSON, with the payload's text as it stands there. */
function clientFrame(name: string, text: string): ClientFrame {
  const { data_b64: base64, ...body } = (JSON.parse(text) as Record<string, Record<string, unknown>>)[name] ?? {};
  if (typeof base64 === 'string') body['data'] = Uint8Array.from(Buffer.from(base64, 'base64'));
  else if ('data' in body) body['data'] = /"data":(.*)\}\}$/s.exec(text)?.[1] satisfies Payload | undefined;
  return [name, body] as unknown as ClientFrame;
}

describe('what a client sends', () => {
  for (const [name, { name: title, json: text, msgpack, canonical }] of cases('client')) {
    if (canonical === false) continue;
    it(`\`${name}\` ${title.replaceAll('_', ' ')} is written exactly as in the vectors`, () => {
      const frame = clientFrame(name, text);
      assert.equal(json.encode(frame), text);
      const encoded = messagePack.encode(frame);
      assert.ok(encoded instanceof Uint8Array);
      assert.equal(hex(encoded), msgpack);
    });
  }
});

describe('what a node sends', () => {
  for (const [name, { name: title, json: text, msgpack }] of cases('server')) {
    it(`\`${name}\` ${title.replaceAll('_', ' ')} is the same in both encodings`, () => {
      const frame = json.decode(text);
      assert.equal(frame[0], name);
      assert.deepEqual(messagePack.decode(bytes(msgpack)), frame);
      assert.deepEqual(json.decode(new TextEncoder().encode(text)), frame);
    });
  }

  it('holds payloads as values, and binary ones as bytes', () => {
    const at = '"channel":"a:b","origin":"eu","epoch":"e","offset":1,"time_ms":0';
    const decode = (payload: string): unknown =>
      (json.decode(`{"publication":{${at},${payload}}}`)[1] as { data: unknown }).data;
    assert.deepEqual(decode('"data":{"text":"hi"}'), { text: 'hi' });
    assert.equal(decode('"data":null'), null);
    assert.deepEqual(decode('"data_b64":"AP+A"'), Uint8Array.of(0, 255, 128));
    for (const wrong of ['"x":1', '"data":1,"data_b64":"AP+A"', '"data_b64":"%"', '"data_b64":1']) {
      assert.throws(() => decode(wrong), { problem: 'invalid' }, wrong);
    }
  });

  it('holds binary payloads that share no memory with the message they came in', () => {
    const at = { channel: 'a:b', origin: 'eu', epoch: 'e', offset: 1, time_ms: 0 };
    const frames = [{ publication: { ...at, data: Uint8Array.of(1, 2) } }, { publication: { ...at, data: Uint8Array.of(3) } }];
    const message = Buffer.concat(frames.map((frame) => prefixed(encode(frame))));
    const payloads = [...messagePack.fromMessage(message)].map(([, body]) => (body as { data: Uint8Array<ArrayBuffer> }).data);
    message.fill(0);
    assert.deepEqual(payloads.map(({ buffer }) => new Uint8Array(buffer)), [Uint8Array.of(1, 2), Uint8Array.of(3)]);
    assert.ok(payloads.every(({ constructor }) => constructor === Uint8Array));
  });
});

describe('integers beyond 2⁵³', () => {
  const text = '{"id":9007199254740993,"list":[-12345678901234567890],"text":"9007199254740993","small":1,"float":0.12345678901234567890,"big":1e20}';
  const value = { id: 9007199254740993n, list: [-12345678901234567890n], text: '9007199254740993', small: 1, float: 0.12345678901234568, big: 1e20 };
  const at = { channel: 'a:b', origin: 'eu', epoch: 'e', offset: 1, time_ms: 0 };

  it('in payloads are BigInts by the exact encodings, and numbers by the others', () => {
    const frame = `{"publication":${JSON.stringify(at).slice(0, -1)},"data":${text}}}`;
    const packed = encode({ publication: { ...at, data: text } });
    const dataOf = ([, body]: ServerFrame): unknown => (body as { data: unknown }).data;
    assert.deepEqual(dataOf(exactJson.decode(frame)), value);
    assert.deepEqual([...exactJson.fromMessage(`[${frame}]`)].map(dataOf), [value]);
    assert.deepEqual(dataOf(exactMessagePack.decode(packed)), value);
    assert.equal((dataOf(json.decode(frame)) as { id: unknown }).id, 9007199254740992);
    assert.throws(() => exactJson.decode(frame.slice(1)), DecodeError);
  });

  it('are published as they are', () => {
    assert.equal(toPayload({ id: 9007199254740993n, list: [-1n], text: 'a"1' }), '{"id":9007199254740993,"list":[-1],"text":"a\\"1"}');
  });
});

describe('a frame that is not understood', () => {
  const at = { channel: 'chat:1', position: {} };
  const presence = { count: 1, members: [{ session: 's', since_ms: 0, data: 1 }] };
  const told = (...bodies: Record<string, unknown>[]): ServerFrame[] => [...json.fromMessage(JSON.stringify(bodies))];
  const packed = (body: Record<string, unknown>): ServerFrame[] => [...messagePack.fromMessage(messagePack.toMessage(encode(body)))];

  it('leaves nobody waiting for what it answers, be that a request or what `connect` asked for', () => {
    const failure = { code: 100, reason: 'internal', message: 'invalid frame subscribed', transient: true };
    assert.deepEqual(told({ subscribed: { ...at, id: 7, position: 1 } }), [['error', { id: 7, ...failure }]]);
    assert.deepEqual(told({ subscribed: { ...at, position: 1 } }), [['unsubscribed', { channel: 'chat:1' }]]);
    assert.deepEqual(told({ unsubscribed: { channel: 'chat:1', code: -1 } }), [['unsubscribed', { channel: 'chat:1' }]]);
    assert.deepEqual(packed({ subscribed: { ...at, id: 7, presence } }), [['error', { id: 7, ...failure }]]);
    assert.deepEqual(packed({ subscribed: { ...at, presence } }), [['unsubscribed', { channel: 'chat:1' }]]);
  });

  it('is passed over where nobody waits for it', () => {
    assert.deepEqual(told({ event: { channel: 'chat:1', session: 's' } }, { publication: at }, { error: {} }, { later: {} }), []);
  });
});

describe('a payload', () => {
  /** Nested so deep, with brackets in texts that are none. */
  const nested = (levels: number): unknown => (levels === 0 ? '[[{"\\' : levels % 2 ? [nested(levels - 1), '}]'] : { '{': nested(levels - 1) });

  it('that nests deeper than a node takes is refused here: the tenth would end the session', () => {
    assert.deepEqual(JSON.parse(toPayload(nested(100)) as string), nested(100));
    assert.throws(() => toPayload(nested(101)), { code: 107, transient: false, message: /100 levels/ });
    assert.equal(toPayload(Array.from({ length: 500 }, () => [])), `[${'[],'.repeat(499)}[]]`);
  });

  it('has as many brackets in its texts as it likes', () => {
    const text = '\u001b[31m{"'.repeat(200);
    for (const data of [text, [text], [1, text], { text, [text]: text }, [{ text }, text]]) assert.deepEqual(JSON.parse(toPayload(data) as string), data);
  });
});

interface Invalid {
  name: string;
  direction: 'client' | 'server';
  encoding: 'json' | 'msgpack';
  text?: string;
  hex?: string;
  class: 'malformed' | 'unknown' | 'invalid';
}

describe('what is no frame', () => {
  const all = read('invalid.json') as Invalid[];
  // Duplicate fields are all that `JSON.parse` does not tell; a node never sends them.
  const concerning = all.filter((one) => one.direction === 'server');
  assert.ok(concerning.length > 0);
  for (const one of concerning) {
    it(`is told apart: ${one.name.replaceAll('_', ' ')}`, () => {
      const encoding = one.encoding === 'json' ? json : messagePack;
      assert.throws(
        () => encoding.decode(one.text ?? bytes(one.hex ?? '')),
        (error) => error instanceof DecodeError && error.problem === one.class,
      );
    });
  }

  const malformed = all.filter((one) => one.class === 'malformed' && one.direction === 'client');
  assert.ok(malformed.length > 0);
  for (const one of malformed) {
    it(`is refused: ${one.name.replaceAll('_', ' ')}`, () => {
      const encoding = one.encoding === 'json' ? json : messagePack;
      assert.throws(() => encoding.decode(one.text ?? bytes(one.hex ?? '')), DecodeError);
    });
  }
});

describe('a text message', () => {
  interface Text {
    name: string;
    text: string;
    frames?: string[];
  }
  const { texts } = read('framing.json') as { texts: Text[] };
  for (const { name, text, frames } of texts) {
    it(`holds a frame or an array of them: ${name.replaceAll('_', ' ')}`, () => {
      if (frames === undefined) assert.throws(() => splitText(text, JSON.parse), DecodeError);
      else assert.deepEqual(splitText(text, JSON.parse), frames.map((frame) => JSON.parse(frame) as unknown));
    });
  }
});
