/** Publications in IndexedDB: each is of one client, and of another one once that has ended, however it did. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { indexedDbOutbox } from '../../src/indexeddb_outbox.js';
import type { Outbox } from '../../src/outbox.js';
import { FakeIndexedDb } from './fake_indexeddb.js';
import { FakeLocks } from './fake_locks.js';

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const CHAIN = 'skywave:outbox';

let locks: FakeLocks;
let database: FakeIndexedDb;
let factory: IDBFactory;

beforeEach(() => {
  locks = new FakeLocks();
  locks.install();
  database = new FakeIndexedDb();
  ({ factory } = database);
});

/** A client with an outbox, in a tab of its own. */
class Client {
  readonly outbox: Outbox;
  readonly left: string[] = [];
  loaded: string[] = [];
  readonly #closing = new AbortController();
  readonly #tab: object;
  #lock = '';

  constructor(tab: object, outbox: Outbox) {
    this.#tab = tab;
    this.outbox = outbox;
  }

  static async open(tab = {}, outbox = indexedDbOutbox({ factory })): Promise<Client> {
    const client = new Client(tab, outbox);
    const before = new Set(locks.names);
    const { signal } = client.#closing;
    const left = (entries: readonly { key: string }[]): void => void client.left.push(...entries.map(({ key }) => key));
    const loaded = await locks.tab.run(tab, () => client.outbox.load(left, signal));
    client.loaded = loaded.map(({ key }) => key);
    client.#lock = locks.names.find((name) => !before.has(name) && name !== CHAIN) ?? '';
    await quiet();
    return client;
  }

  add(key: string): Promise<void> {
    return this.outbox.add({ channel: 'chat:1', data: '1', key }, this.#closing.signal);
  }

  close(): Promise<void> {
    this.#closing.abort();
    return quiet();
  }

  /** Its tab ends. */
  async crash(): Promise<void> {
    if (locks.holder(CHAIN) === this.#tab) locks.crash(CHAIN);
    locks.crash(this.#lock);
    await quiet();
  }
}

/** Until all has been done that follows. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await settled();
}

describe('an outbox in IndexedDB', () => {
  it('gives a page what is its own or was left by pages that have ended, and what others leave when they end', async () => {
    const first = await Client.open();
    await first.add('a');
    const second = await Client.open();
    assert.deepEqual(second.loaded, [], 'the first page is there');
    await second.add('b');
    await first.crash();
    assert.deepEqual(second.left, ['a']);
    const third = await Client.open();
    assert.deepEqual(third.loaded, [], 'all is of the second one now');
    await second.crash();
    assert.deepEqual(third.left, ['a', 'b']);
    await third.outbox.remove('a');
    await third.crash();
    assert.deepEqual((await Client.open()).loaded, ['b']);
  });

  it('that a page leaves which came later is published by one that was there before, whoever else has ended', async () => {
    const [first, second, third] = [await Client.open(), await Client.open(), await Client.open()];
    await third.add('a');
    await second.crash();
    await third.crash();
    assert.deepEqual(first.left, ['a']);
  });

  it('that a page leaves which came after the one before it had ended is published by one that was there before', async () => {
    const [first, second] = [await Client.open(), await Client.open()];
    await second.crash();
    const third = await Client.open();
    await third.add('a');
    await third.crash();
    assert.deepEqual(first.left, ['a']);
  });

  it('that the browser takes away while it is stored fails, and the next one is stored', async () => {
    const client = await Client.open();
    database.fallSilent();
    const lost = client.add('a');
    await quiet();
    database.takeAway();
    await assert.rejects(lost, /took the database away/u);
    await client.add('b');
    assert.deepEqual(database.keys, ['b']);
  });

  it('that is left goes to a client that lives, and not to one that was closed in the same page', async () => {
    const page = {};
    const closed = await Client.open(page);
    const other = await Client.open();
    await other.add('a');
    await closed.close();
    const next = await Client.open(page);
    await other.crash();
    assert.deepEqual([closed.left, next.left], [[], ['a']]);
  });

  it('that a closed client leaves is published by another one at once, though its page lives', async () => {
    const [first, second] = [await Client.open(), await Client.open()];
    await second.add('a');
    await second.close();
    assert.deepEqual(first.left, ['a']);
    assert.equal(locks.names.length, 2, 'no lock is held for a client that is closed');
    const third = await Client.open();
    const adding = third.add('b');
    await third.close();
    await adding;
    assert.deepEqual(first.left, ['a', 'b'], 'also what was being stored');
  });

  it('that is given to two clients of a page gives each what the other leaves, and nothing of its own', async () => {
    const [page, outbox] = [{}, indexedDbOutbox({ factory })];
    const [first, second, third] = [await Client.open(page, outbox), await Client.open(page, outbox), await Client.open(page, outbox)];
    for (const [client, key] of [[first, 'a'], [second, 'b'], [third, 'c']] as const) await client.add(key);
    await third.close();
    const next = first.left.length === 0 ? second : first;
    assert.deepEqual([...first.left, ...second.left], ['c']);
    await (next === first ? second : first).close();
    assert.deepEqual(next.left, ['c', next === first ? 'b' : 'a']);
  });

  it('that is blocked by whoever deletes it fails instead of waiting for ever, and works once it is free', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    let isBlocked = true;
    const [waiting, blocked] = [[] as (() => void)[], { closed: 0 }];
    const slow = {
      open(name: string, version: number) {
        if (!isBlocked) return factory.open(name, version);
        const database = { close: () => (blocked.closed += 1) };
        const request = { result: database } as unknown as IDBOpenDBRequest;
        waiting.push(() => void Reflect.apply(request.onsuccess ?? (() => undefined), request, []));
        return request;
      },
    } as unknown as IDBFactory;
    const outbox = indexedDbOutbox({ factory: slow });
    const added = outbox.add({ channel: 'chat:1', key: 'a', data: '1' });
    await settled();
    context.mock.timers.tick(5_000);
    await assert.rejects(added, { message: /the database is blocked/ });
    isBlocked = false;
    await outbox.add({ channel: 'chat:1', key: 'b', data: '1' });
    for (const opens of waiting) opens();
    assert.equal(blocked.closed, 1);
  });

  it('lets go of what is settled though the disk is full, and takes what is new once that made room', async () => {
    const client = await Client.open();
    for (const key of ['a', 'b']) await client.add(key);
    database.isFull = true;
    for (const key of ['a', 'b']) await client.outbox.remove(key);
    assert.deepEqual(database.keys, []);
    assert.ok(database.isFull, 'though that made no room');
    await client.add('c');
    assert.deepEqual(database.keys, ['c']);
    database.isFull = true;
    await client.crash();
    assert.deepEqual((await Client.open()).loaded, ['c']);
  });

  it('gives a page everything where pages cannot be told from each other', async () => {
    Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true });
    await indexedDbOutbox({ factory, name: 'no locks' }).add({ channel: 'chat:1', data: '1', key: 'a' });
    const loaded = await indexedDbOutbox({ factory, name: 'no locks' }).load(() => undefined);
    assert.deepEqual(loaded.map(({ key }) => key), ['a']);
  });

  it('that could not be opened is opened anew by the next use', async () => {
    let opened = 0;
    const failing = {
      open() {
        opened += 1;
        const request = { error: new Error(`failure ${opened}`) } as unknown as IDBOpenDBRequest;
        queueMicrotask(() => {
          Reflect.apply(request.onerror ?? (() => undefined), request, []);
        });
        return request;
      },
    } as unknown as IDBFactory;
    const outbox = indexedDbOutbox({ factory: failing });
    await assert.rejects(outbox.load(() => undefined), { message: 'failure 1' });
    await assert.rejects(outbox.add({ channel: 'chat:1', key: 'a', data: '1' }), { message: 'failure 2' });
  });
});
