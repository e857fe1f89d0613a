/** The client that an application holds, over a WebSocket that does as it is told. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Skywave } from '../../src/core.js';
import type { ClientFrames } from '../../src/frames.js';
import { SilentWebSocket } from './silent_websocket.js';

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class FakeWebSocket extends SilentWebSocket {
  static last: FakeWebSocket;
  readonly sent: Partial<ClientFrames>[] = [];

  constructor() {
    super();
    FakeWebSocket.last = this;
    queueMicrotask(() => {
      this.fire('onopen', {});
    });
  }

  send(data: string | Uint8Array): void {
    this.sent.push(JSON.parse(String(data)) as Partial<ClientFrames>);
  }

  close(): void {
    // Nobody listens any more.
  }

  says(frame: object): void {
    this.fire('onmessage', { data: JSON.stringify(frame) });
  }

  /** The last frame of that name. */
  last<Name extends keyof ClientFrames>(name: Name): ClientFrames[Name] {
    const body = this.sent.map((frame) => frame[name]).findLast((one) => one !== undefined);
    assert.ok(body, `no \`${name}\` was sent`);
    return body;
  }
}

function welcomes(socket: FakeWebSocket): void {
  const { id } = socket.last('connect');
  const limits = { frame_bytes: 65_536, publishes_per_second: 0 };
  const heartbeat = { interval_ms: 60_000, timeout_ms: 10_000 };
  socket.says({ connected: { id, session: 's', resume: 'r', node: 'n', region: 'eu', resumed: false, heartbeat, limits, regions: [] } });
}

async function connected(client: Skywave): Promise<FakeWebSocket> {
  const connecting = client.connect();
  await settled();
  const socket = FakeWebSocket.last;
  welcomes(socket);
  await connecting;
  return socket;
}

describe('a client', () => {
  it('calls with no deadline that no node takes', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, autoConnect: false });
    const socket = await connected(client);
    const late = client.call('greet', null, { deadlineMs: -5 });
    assert.equal(socket.last('call').deadline_ms, 0);
    await assert.rejects(late, { reason: 'timeout' });
    const patient = client.call('greet', null, { deadlineMs: Infinity });
    assert.ok(Number.isSafeInteger(socket.last('call').deadline_ms));
    client.close();
    await assert.rejects(patient);
  });

  it('tells when its session has expired and another one of the same user has begun', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, autoConnect: false });
    const expired: string[] = [];
    client.on('expired', ({ session }) => expired.push(session));
    await connected(client);
    client.disconnect();
    assert.deepEqual(expired, []);
    await connected(client);
    assert.deepEqual(expired, ['s']);
    client.close();
  });

  it('passes over frames that it does not understand, tells whoever waits for them, and keeps its connection', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, autoConnect: false });
    const socket = await connected(client);
    const channel = client.channel('chat:1');
    const [history, presence] = [channel.history(), channel.presence()];
    const [{ id }, { id: other }] = [socket.last('history'), socket.last('presence')];
    socket.says({ event: { channel: 'chat:1', session: 's', slot: 7, data: 1 } });
    socket.says({ history: { id, channel: 'chat:1', publications: 'many' } });
    socket.says({ presence: { id: other, channel: 'chat:1', count: 0, members: [] } });
    await assert.rejects(history, { code: 100, transient: true });
    assert.equal((await presence).count, 0);
    assert.equal(client.state, 'connected');
    client.close();
  });

  it('goes elsewhere when it does not understand `connected`', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, autoConnect: false, backoff: { firstMs: 1, maxMs: 1 } });
    client.connect().catch(() => undefined);
    await settled();
    const socket = FakeWebSocket.last;
    socket.says({ connected: { id: socket.last('connect').id, limits: 'none' } });
    assert.equal(client.state, 'connecting');
    while (FakeWebSocket.last === socket) await settled();
    client.close();
  });

  it('keeps the token that the node has taken when it refuses another one', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, token: 'first', autoConnect: false });
    const socket = await connected(client);
    const refused = client.refresh('wrong');
    socket.says({ error: { id: socket.last('refresh').id, code: 101, reason: 'unauthenticated', message: 'no', transient: false } });
    await assert.rejects(refused, { code: 101 });
    client.disconnect();
    const next = await connected(client);
    assert.equal(next.last('connect').token, 'first');
    const taken = client.refresh('second');
    next.says({ refreshed: { id: next.last('refresh').id, expires_at_ms: Date.now() + 60_000 } });
    await taken;
    next.says({ disconnect: { code: 3005, reason: 'token_expired', reconnect: true } });
    assert.equal(client.state, 'disconnected', 'there is no other token');
    assert.equal((await connected(client)).last('connect').token, 'second');
    client.close();
  });

  it('keeps none of the tokens that the node refuses when several are brought at once', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, token: 'first', autoConnect: false });
    const socket = await connected(client);
    const refused = ['wrong', 'worse'].map((token) => client.refresh(token));
    for (const { refresh } of socket.sent) {
      if (refresh) socket.says({ error: { id: refresh.id, code: 101, reason: 'unauthenticated', message: 'no', transient: false } });
    }
    for (const one of refused) await assert.rejects(one, { code: 101 });
    client.disconnect();
    assert.equal((await connected(client)).last('connect').token, 'first');
    client.close();
  });

  it('goes on with the token that it is about to bring where the one before is refused as expired', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, token: 'old', autoConnect: false, backoff: { firstMs: 1, maxMs: 1 } });
    for (const isConnecting of [true, false]) {
      const former = await connected(client);
      const next = async (socket: FakeWebSocket): Promise<FakeWebSocket> => {
        while (FakeWebSocket.last === socket || FakeWebSocket.last.sent.length === 0) await settled();
        return FakeWebSocket.last;
      };
      const token = isConnecting ? 'new' : 'newer';
      let socket = former;
      if (isConnecting) {
        former.fire('onclose', { code: 1006, reason: '' });
        socket = await next(former);
        assert.equal(socket.last('connect').token, 'old');
      }
      const refreshed = client.refresh(token);
      socket.says({ disconnect: { code: 3005, reason: 'token_expired', reconnect: true } });
      const last = await next(socket);
      assert.equal(last.last('connect').token, token);
      welcomes(last);
      last.says({ refreshed: { id: last.last('refresh').id, expires_at_ms: Date.now() + 60_000 } });
      await refreshed;
      client.disconnect();
    }
    client.close();
  });

  for (const [isCode, code, times] of [['unauthenticated', 3503, 2], ['token_expired', 3005, 1]] as const) {
    it(`goes back to the token that a node took where one brought without a connection is ${isCode}`, async () => {
      const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, token: 'good', autoConnect: false, backoff: { firstMs: 1, maxMs: 1 } });
      let socket = await connected(client);
      const next = async (): Promise<FakeWebSocket> => {
        while (FakeWebSocket.last === socket || FakeWebSocket.last.sent.length === 0) await settled();
        return (socket = FakeWebSocket.last);
      };
      socket.fire('onclose', { code: 1006, reason: '' });
      const refused = client.refresh('bad');
      for (let attempt = 0; attempt < times; attempt += 1) {
        await next();
        assert.equal(socket.last('connect').token, 'bad');
        socket.says({ disconnect: { code, reason: isCode, reconnect: code === 3005 } });
      }
      await next();
      assert.equal(socket.last('connect').token, 'good');
      welcomes(socket);
      socket.says({ error: { id: socket.last('refresh').id, code: 101, reason: isCode, message: 'no', transient: false } });
      await assert.rejects(refused, { code: 101 });
      socket.says({ disconnect: { code: 3005, reason: 'token_expired', reconnect: true } });
      assert.equal(client.state, 'disconnected', 'there is no other token');
      client.close();
    });
  }

  it('connects with the token that it was given while there was no connection', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, token: 'old', autoConnect: false });
    const refreshed = client.refresh('new').catch(() => undefined);
    assert.equal((await connected(client)).last('connect').token, 'new');
    client.close();
    await refreshed;
  });

  it('tells whoever waits why the node refuses it, though a listener connects anew at once', async () => {
    const client = new Skywave('ws://node', { WebSocket: FakeWebSocket, autoConnect: false });
    const socket = await connected(client);
    const channel = client.channel('chat:1');
    const waiting = [channel.publish(1), channel.history(), channel.subscribe(), channel.publications().next()];
    const later: Promise<unknown>[] = [];
    client.on('state', ({ state }) => {
      if (state !== 'disconnected') return;
      client.connect().catch(() => undefined);
      later.push(channel.publish(2));
    });
    socket.says({ disconnect: { code: 3504, reason: 'disconnected', reconnect: false } });
    for (const one of waiting) await assert.rejects(one, { code: 3504, transient: false });
    await settled();
    const next = FakeWebSocket.last;
    const limits = { frame_bytes: 65_536, publishes_per_second: 0 };
    const heartbeat = { interval_ms: 60_000, timeout_ms: 10_000 };
    next.says({ connected: { id: next.last('connect').id, session: 's', resume: 'r', node: 'n', region: 'eu', resumed: false, heartbeat, limits, regions: [] } });
    next.says({ published: { id: next.last('publish').id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 } });
    await Promise.all(later);
    client.close();
  });
});
