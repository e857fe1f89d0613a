/** Both transports, with a WebSocket and a WebTransport that do as they are told. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Encoding, json } from '../../src/encoding.js';
import type { ServerFrame } from '../../src/frames.js';
import { prefixed } from '../../src/framing.js';
import { messagePack } from '../../src/msgpack.js';
import { reasonToAvoidWebTransport } from '../../src/quirks.js';
import { Skywave } from '../../src/skywave.js';
import type { Transport } from '../../src/transport.js';
import { openWebSocket } from '../../src/transport/websocket.js';
import { openWebTransport } from '../../src/transport/webtransport.js';
import { SilentWebSocket } from './silent_websocket.js';

const PING = '{"ping":{"seq":1,"interval_ms":1,"timeout_ms":1}}';
const LATER = '{"later":{"seq":1}}';
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface Heard {
  frames: ServerFrame[];
  faults: string[];
  ends: (number | undefined)[];
}

function listen(transport: Transport): Heard {
  const heard: Heard = { frames: [], faults: [], ends: [] };
  transport.listen({
    frame: (frame) => void heard.frames.push(frame),
    fault: (problem) => void heard.faults.push(problem),
    ended: (code) => void heard.ends.push(code),
  });
  return heard;
}

let socket: FakeWebSocket;

class FakeWebSocket extends SilentWebSocket {
  readonly sent: (string | Uint8Array)[] = [];
  closedWith: number | undefined;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    super();
    socket = this;
  }

  send(data: string | Uint8Array): void {
    this.sent.push(data);
  }

  close(code?: number): void {
    this.closedWith = code ?? 0;
  }
}

async function openSocket(encoding = json): Promise<Transport> {
  const opening = openWebSocket('ws://node', encoding, FakeWebSocket, new AbortController().signal);
  socket.fire('onopen', {});
  return opening;
}

describe('a WebSocket', () => {
  it('offers the subprotocol of its encoding', async () => {
    await openSocket();
    assert.deepEqual(socket.protocols, ['skywave.v1.json']);
    await openSocket(messagePack);
    assert.deepEqual(socket.protocols, ['skywave.v1.msgpack']);
    assert.equal(socket.binaryType, 'arraybuffer');
  });

  it('gives the frames of text messages, passes over later ones and tells faults', async () => {
    const heard = listen(await openSocket());
    socket.fire('onmessage', { data: PING });
    socket.fire('onmessage', { data: `[${PING},${LATER},${PING}]` });
    socket.fire('onmessage', { data: LATER });
    assert.equal(heard.frames.length, 3);
    socket.fire('onmessage', { data: '{' });
    assert.equal(heard.faults.length, 1);
  });

  it('carries MessagePack in binary messages', async () => {
    const transport = await openSocket(messagePack);
    const heard = listen(transport);
    assert.ok(transport.send(['pong', { seq: 1 }], 'reliable', 100));
    assert.equal(Buffer.from(socket.sent[0] as Uint8Array).toString('hex'), '0c81a4706f6e6781a373657101');
    const published = Buffer.from('81a470696e6783a373657101ab696e74657276616c5f6d7301aa74696d656f75745f6d7301', 'hex');
    const later = Buffer.from('81a56c6174657280', 'hex');
    const message = Buffer.concat([prefixed(published), prefixed(later), prefixed(published)]);
    socket.fire('onmessage', { data: message.buffer.slice(message.byteOffset, message.byteOffset + message.length) });
    const ping = ['ping', { seq: 1, interval_ms: 1, timeout_ms: 1 }];
    assert.deepEqual(heard.frames, [ping, ping]);
  });

  it('sends no frame that is larger than the node takes', async () => {
    const transport = await openSocket();
    assert.equal(transport.send(['emit', { channel: 'a:b', data: `"${'é'.repeat(50)}"` }], 'reliable', 100), false);
    assert.deepEqual(socket.sent, []);
  });

  it('tells its end once, and nothing after it was closed', async () => {
    const heard = listen(await openSocket());
    socket.fire('onclose', { code: 3001, reason: 'shutdown' });
    socket.fire('onclose', { code: 3001, reason: 'shutdown' });
    socket.fire('onmessage', { data: PING });
    assert.deepEqual(heard, { frames: [], faults: [], ends: [3001] });
    const other = await openSocket();
    const deaf = listen(other);
    other.close();
    socket.fire('onclose', { code: 1000, reason: '' });
    assert.deepEqual(deaf.ends, []);
    assert.equal(socket.closedWith, 1000);
  });

  it('that fails tells the close that follows, or at least that it failed', async () => {
    const heard = listen(await openSocket());
    socket.fire('onerror', {});
    socket.fire('onclose', { code: 3001, reason: 'shutdown' });
    assert.deepEqual(heard.ends, [3001]);
    const other = listen(await openSocket());
    socket.fire('onerror', {});
    await new Promise((resolve) => setTimeout(resolve));
    assert.deepEqual(other.ends, [undefined]);
  });

  it('that does not open rejects, and one that is given up is closed', async () => {
    const opening = openWebSocket('ws://node', json, FakeWebSocket, new AbortController().signal);
    socket.fire('onclose', { code: 1006, reason: '' });
    await assert.rejects(opening, { code: 110, transient: true });
    const failing = openWebSocket('ws://node', json, FakeWebSocket, new AbortController().signal);
    socket.fire('onerror', {});
    await assert.rejects(failing, { code: 110, transient: true }, 'an error is all that Node tells');
    const controller = new AbortController();
    const other = openWebSocket('ws://node', json, FakeWebSocket, controller.signal);
    controller.abort();
    await assert.rejects(other);
    assert.equal(socket.closedWith, 0);
  });
});

type Controller<T> = ReadableStreamDefaultController<T>;

let session: FakeWebTransport;

/** A readable stream and its other end. */
function source<T>(): { stream: ReadableStream<T>; controller: Controller<T> } {
  let controller: Controller<T> | undefined;
  const stream = new ReadableStream<T>({ start: (given) => { controller = given; } });
  assert.ok(controller);
  return { stream, controller };
}

class FakeWebTransport {
  readonly written: string[] = [];
  readonly control = source<Uint8Array>();
  readonly streams = source<ReadableStream<Uint8Array>>();
  readonly incomingDatagrams = source<Uint8Array>();
  readonly ready: Promise<void>;
  readonly closed: Promise<{ closeCode: number; reason: string }>;
  end!: (info: { closeCode: number; reason: string }) => void;
  isClosed = false;

  constructor(
    readonly url: string,
    readonly options: WebTransportOptions,
  ) {
    session = this;
    this.ready = Promise.resolve();
    this.closed = new Promise((resolve) => { this.end = resolve; });
  }

  get datagrams(): unknown {
    return { readable: this.incomingDatagrams.stream, writable: this.#sink('datagram'), maxDatagramSize: 60 };
  }

  get incomingUnidirectionalStreams(): ReadableStream<ReadableStream<Uint8Array>> {
    return this.streams.stream;
  }

  createBidirectionalStream(): Promise<unknown> {
    return Promise.resolve({ readable: this.control.stream, writable: this.#sink('control') });
  }

  #sink(lane: string): WritableStream<Uint8Array> {
    return new WritableStream({ write: (bytes) => void this.written.push(`${lane} ${Buffer.from(bytes).toString()}`) });
  }

  close(): void {
    this.isClosed = true;
  }
}

async function openSession(signal = new AbortController().signal, encoding = json): Promise<Transport> {
  const hashes = [{ algorithm: 'sha-256', value: new Uint8Array(32) }];
  return openWebTransport('https://node/v1/connect', encoding, FakeWebTransport as never, hashes, signal);
}

describe('a WebTransport session', () => {
  it('names its encoding in its URL, and the certificates that it trusts', async () => {
    await openSession();
    assert.equal(session.url, 'https://node/v1/connect?encoding=json');
    assert.equal(session.options.serverCertificateHashes?.length, 1);
  });

  it('gives the frames of the control stream, of all streams at once, and of datagrams', async () => {
    const heard = listen(await openSession());
    const [first, second] = [source<Uint8Array>(), source<Uint8Array>()];
    session.streams.controller.enqueue(first.stream);
    session.streams.controller.enqueue(second.stream);
    const whole = prefixed(utf8(PING));
    // A frame that is stuck half-way holds up no other stream.
    first.controller.enqueue(whole.subarray(0, 10));
    second.controller.enqueue(whole);
    session.control.controller.enqueue(whole);
    session.incomingDatagrams.controller.enqueue(utf8(PING));
    await settle();
    assert.equal(heard.frames.length, 3);
    first.controller.enqueue(whole.subarray(10));
    await settle();
    assert.equal(heard.frames.length, 4);
  });

  it('goes on when a stream is reset', async () => {
    const heard = listen(await openSession());
    const stream = source<Uint8Array>();
    session.streams.controller.enqueue(stream.stream);
    stream.controller.error(new Error('reset'));
    await settle();
    session.control.controller.enqueue(prefixed(utf8(PING)));
    await settle();
    assert.equal(heard.frames.length, 1);
    assert.deepEqual(heard.faults, []);
  });

  it('tells what is no frame as a fault', async () => {
    const heard = listen(await openSession());
    session.control.controller.enqueue(prefixed(utf8('nonsense')));
    await settle();
    assert.equal(heard.faults.length, 1);
  });

  it('passes over a later frame, and gives what came behind it', async () => {
    const heard = listen(await openSession());
    const [ping, later] = [prefixed(utf8(PING)), prefixed(utf8(LATER))];
    session.control.controller.enqueue(Buffer.concat([ping, later, ping]));
    await settle();
    assert.equal(heard.frames.length, 2);
    assert.deepEqual(heard.faults, []);
  });

  it('shows a bug of whoever is told as such, and tells a fault so that nothing is lost', async (test) => {
    const transport = await openSession();
    const faults: string[] = [];
    transport.listen({
      frame: () => { throw new TypeError('a bug'); },
      fault: (problem) => void faults.push(problem),
      ended: () => undefined,
    });
    const stream = source<Uint8Array>();
    session.streams.controller.enqueue(stream.stream);
    await settle();
    const reported = test.mock.method(globalThis, 'queueMicrotask', () => undefined);
    stream.controller.enqueue(prefixed(utf8(PING)));
    await settle();
    stream.controller.enqueue(prefixed(utf8(PING)));
    await settle();
    assert.deepEqual(faults, ['a bug', 'a bug'], 'the stream is read further');
    assert.throws(reported.mock.calls[0]?.arguments[0] as () => void, { message: 'a bug' });
  });

  it('sends datagrams where they fit, and the rest on the control stream', async () => {
    const transport = await openSession();
    transport.send(['pong', { seq: 1 }], 'datagram', Infinity);
    transport.send(['emit', { channel: 'a:b', data: `"${'x'.repeat(100)}"` }], 'datagram', Infinity);
    await settle();
    assert.deepEqual(session.written.map((line) => line.split(' ')[0]), ['datagram', 'control']);
    assert.equal(session.written[0], 'datagram {"pong":{"seq":1}}');
  });

  it('tells its encoding what carries each frame', async () => {
    const carriers: (string | undefined)[] = [];
    const encoding: Encoding = {
      ...json,
      encode: (frame, carrier) => (carriers.push(carrier), json.encode(frame)),
      decode: (frame, carrier) => (carriers.push(carrier), json.decode(frame)),
    };
    const transport = await openSession(undefined, encoding);
    listen(transport);
    transport.send(['unsubscribe', { id: 1, channel: 'a:b' }], 'reliable', Infinity);
    transport.send(['pong', { seq: 1 }], 'datagram', Infinity);
    const stream = source<Uint8Array>();
    session.streams.controller.enqueue(stream.stream);
    const give = [
      () => { session.control.controller.enqueue(prefixed(utf8(PING))); },
      () => { stream.controller.enqueue(prefixed(utf8(PING))); },
      () => { session.incomingDatagrams.controller.enqueue(utf8(PING)); },
    ];
    for (const one of give) {
      one();
      await settle();
    }
    assert.deepEqual(carriers, ['control', 'datagram', 'control', 'stream', 'datagram']);
  });

  it('trusts the certificates that are told at each attempt', async () => {
    const trusted: string[] = [];
    class Refused {
      readonly ready = Promise.reject(new Error('refused'));
      readonly closed = this.ready;
      constructor(_url: string, { serverCertificateHashes = [] }: WebTransportOptions) {
        for (const { value } of serverCertificateHashes) trusted.push(Buffer.from(value as Uint8Array).toString('hex'));
      }
    }
    const scope = globalThis as { WebTransport?: unknown };
    scope.WebTransport = Refused;
    let asked = 0;
    const client = new Skywave('https://node', {
      transport: 'webtransport',
      backoff: { firstMs: 1, maxMs: 1 },
      serverCertificateHashes: () => Promise.resolve([`0${(asked += 1)}`.repeat(2)]),
    });
    await new Promise<void>((resolve) => client.on('state', () => { if (trusted.length >= 2) resolve(); }));
    client.close();
    delete scope.WebTransport;
    assert.deepEqual(trusted.slice(0, 2), ['0101', '0202']);
  });

  it('sends a `pong` that nobody asked for over a path that is silent, once', async (test) => {
    test.mock.timers.enable({ apis: ['setTimeout'] });
    let now = 0;
    test.mock.method(performance, 'now', () => now);
    const pass = async (milliseconds: number): Promise<void> => {
      now += milliseconds;
      test.mock.timers.tick(milliseconds);
      await settle();
    };
    const transport = await openSession();
    listen(transport);
    const ping = prefixed(utf8('{"ping":{"seq":3,"interval_ms":10000,"timeout_ms":4000}}'));
    session.control.controller.enqueue(ping);
    await settle();
    await pass(6_000);
    session.control.controller.enqueue(ping);
    await settle();
    await pass(11_999);
    assert.deepEqual(session.written, []);
    await pass(1);
    await pass(60_000);
    assert.deepEqual(session.written, ['datagram {"pong":{"seq":3}}']);
    session.control.controller.enqueue(ping);
    await settle();
    transport.close();
    await pass(60_000);
    assert.equal(session.written.length, 1, 'and none once it is over');
  });

  it('tells its end with the code of the close', async () => {
    const heard = listen(await openSession());
    session.end({ closeCode: 3000, reason: 'drain' });
    await settle();
    assert.deepEqual(heard.ends, [3000]);
  });

  it('that is given up while it opens is closed', async () => {
    const controller = new AbortController();
    const opening = openSession(controller.signal);
    controller.abort();
    await assert.rejects(opening, { code: 110 });
    assert.ok(session.isClosed);
  });
});

describe('browsers with bugs', () => {
  const avoided: [string, boolean][] = [
    ['Mozilla/5.0 (X11; Linux x86_64; rv:152.0) Gecko/20100101 Firefox/152.0', true],
    ['Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0', false],
    ['Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36', false],
    ['Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/150.0.0.0 Safari/537.36', false],
    ['Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.5 Safari/605.1.15', true],
    ['Mozilla/5.0 (iPhone; CPU iPhone OS 26_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/150.0 Mobile/15E148 Safari/604.1', true],
    ['', false],
  ];
  for (const [userAgent, isAvoided] of avoided) {
    it(`are known: ${userAgent || 'none'}`, () => {
      assert.equal(reasonToAvoidWebTransport(userAgent) !== undefined, isAvoided);
    });
  }
});
