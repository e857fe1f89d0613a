/** How the demo chooses its transport, with transports that do as they are told. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { openTransport } from '../../demo/transports.js';

const endpoints = { webtransport: 'https://node.test/v1/connect', websocket: 'ws://node.test/v1/connect' };
const never = new Promise(() => {});
/** Lets everything run that waits for nothing but its turn. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

let sockets;
let sessions;
let ready;

class FakeWebSocket {
  constructor() {
    sockets.push(this);
  }

  close() {
    this.isClosed = true;
  }
}

class FakeWebTransport {
  closed = never;
  datagrams = { readable: new ReadableStream(), writable: new WritableStream(), maxDatagramSize: 1200 };
  incomingUnidirectionalStreams = new ReadableStream();

  constructor() {
    sessions.push(this);
    const closed = new Promise((_, reject) => {
      this.close = () => {
        this.isClosed = true;
        reject(new Error('closed while connecting'));
      };
    });
    this.ready = Promise.race([ready, closed]);
  }

  async createBidirectionalStream() {
    return { readable: new ReadableStream(), writable: new WritableStream() };
  }
}

describe('the choice of a transport', () => {
  beforeEach(() => {
    sockets = [];
    sessions = [];
    ready = never;
    globalThis.WebSocket = FakeWebSocket;
    globalThis.WebTransport = FakeWebTransport;
    mock.timers.enable({ apis: ['setTimeout'] });
  });
  afterEach(() => {
    mock.timers.reset();
    delete globalThis.WebSocket;
    delete globalThis.WebTransport;
  });

  const open = (signal = new AbortController().signal) => openTransport('auto', endpoints, signal);

  it('is WebTransport where it opens in time, and no WebSocket is tried', async () => {
    ready = Promise.resolve();
    assert.equal((await open()).kind, 'webtransport');
    mock.timers.tick(10_000);
    await settle();
    assert.equal(sockets.length, 0);
  });

  it('is WebSocket where WebTransport gets no answer, which is then given up', async () => {
    const opening = open();
    mock.timers.tick(1_000);
    await settle();
    assert.equal(sockets.length, 0, 'the head start');
    mock.timers.tick(1_000);
    await settle();
    sockets[0].onopen();
    assert.equal((await opening).kind, 'websocket');
    assert.ok(sessions[0].isClosed);
  });

  it('does not wait for the head start where WebTransport fails at once', async () => {
    ready = Promise.reject(new Error('refused'));
    const opening = open();
    await settle();
    sockets[0].onopen();
    assert.equal((await opening).kind, 'websocket');
  });

  it('is WebTransport where that opens after the head start, and before the WebSocket', async () => {
    let becomeReady;
    ready = new Promise((resolve) => {
      becomeReady = resolve;
    });
    const opening = open();
    mock.timers.tick(2_000);
    await settle();
    becomeReady();
    assert.equal((await opening).kind, 'webtransport');
    assert.ok(sockets[0].isClosed);
  });

  it('fails with both reasons where neither opens', async () => {
    ready = Promise.reject(new Error('refused'));
    const opening = open();
    await settle();
    sockets[0].onclose({ code: 1006 });
    await assert.rejects(opening, /no WebTransport to the node \(refused\); no WebSocket to the node \(1006\)/);
  });

  it('is given up when it is not wanted any more', async () => {
    const controller = new AbortController();
    const opening = open(controller.signal);
    mock.timers.tick(2_000);
    await settle();
    controller.abort(new Error('enough'));
    await assert.rejects(opening);
    assert.ok(sessions[0].isClosed && sockets[0].isClosed);
  });
});
