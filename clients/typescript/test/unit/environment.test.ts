/** Where the client runs: what is missing there is told by whatever needs it, and not before. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Skywave as CoreSkywave } from '../../src/core.js';
import { indexedDbOutbox } from '../../src/indexeddb_outbox.js';
import { Skywave } from '../../src/skywave.js';
import { FakeNode } from './fake_node.js';

const NEEDED = ['WebSocket', 'WebTransport', 'indexedDB'] as const;
const scope = globalThis as Partial<Record<(typeof NEEDED)[number], unknown>>;
const CLIENTS = { 'a client': Skywave, 'a client of the core': CoreSkywave };

let own: typeof scope;

beforeEach(() => {
  own = Object.fromEntries(NEEDED.filter((name) => name in scope).map((name) => [name, scope[name]]));
  for (const name of NEEDED) Reflect.deleteProperty(scope, name);
});

afterEach(() => {
  for (const name of NEEDED) Reflect.deleteProperty(scope, name);
  Object.assign(scope, own);
});

for (const [name, Client] of Object.entries(CLIENTS)) {
  describe(name, () => {
    it('can be made where there is no WebSocket, and says so to whoever connects or waits', async () => {
      const missing = { transient: false, message: /no WebSocket here: .*`ws`/ };
      for (const autoConnect of [true, false]) {
        const client = new Client('wss://node.example', { autoConnect });
        const published = client.channel('chat:1').publish('hi');
        await assert.rejects(client.connect(), missing);
        assert.equal(client.state, 'disconnected');
        await assert.rejects(published, missing);
        client.close();
      }
    });

    it('takes a WebSocket that the runtime has got since', async () => {
      const client = new Client('ws://node.example', { autoConnect: false });
      scope.WebSocket = new FakeNode().WebSocket;
      assert.equal((await client.connect()).transport, 'websocket');
      client.close();
    });

    it('says which address is none', () => {
      for (const given of [undefined, '', '/realtime', 'example.com', 'ftp://a', 'https://a b']) {
        const message = `\`${String(given)}\` is no address like https://example.com`;
        assert.throws(() => new Client(given as unknown as string), { name: 'TypeError', message });
      }
      assert.throws(() => new Client({}), TypeError);
      assert.throws(() => new Client([]), TypeError);
    });
  });
}

describe('a client for WebTransport alone', () => {
  it('says to whoever connects that there is none', async () => {
    const client = new Skywave('https://node.example', { transport: 'webtransport', autoConnect: false });
    await assert.rejects(client.connect(), { transient: false, message: /no WebTransport here/ });
    client.close();
  });
});

describe('an outbox in IndexedDB', () => {
  it('can be made where there is none, and says so to whoever publishes', async () => {
    const client = new Skywave('wss://node.example', { outbox: indexedDbOutbox(), autoConnect: false });
    await assert.rejects(client.channel('chat:1').publish('hi'), { transient: false, message: /no IndexedDB here/ });
    client.close();
  });
});
