/** A client that tabs share, in tabs of one process: the node is the test, the browser's locks are fakes. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { aborted } from '../../src/abort.js';
import { canShare, SharedSkywave, type SharedOptions } from '../../src/shared_skywave.js';
import { exactJson, type SkywaveError, Skywave, type SkywaveClient } from '../../src/index.js';
import { hear, lockOf, openTabChannel, type TabMessage } from '../../src/tabs/messages.js';
import { UNKNOWN } from '../../src/tabs/status.js';
import type { FakeLocks } from './fake_locks.js';
import type { FakeNode } from './fake_node.js';
import { SharedStage, until } from './shared_stage.js';

let stage: SharedStage;
let locks: FakeLocks;
let node: FakeNode;
let share: string;

beforeEach(() => {
  stage = new SharedStage();
  ({ locks, node, share } = stage);
});

afterEach(() => {
  stage.close();
});

const tab = (options: SharedOptions = {}): SharedSkywave => stage.tab(options);

/** The states that it tells, with the reasons of errors. */
function states(client: SkywaveClient): string[] {
  const told: string[] = [];
  client.on('state', ({ state, error }) => told.push(error === undefined ? state : `${state} ${error.reason}`));
  return told;
}

describe('a client that tabs share', () => {
  it('has one connection, and tells in each tab what carries it', async () => {
    const [first, second] = [tab(), tab()];
    const [one, other] = [await first.connect(), await second.connect()];
    assert.equal(node.connections.length, 1);
    assert.deepEqual(one, other);
    assert.equal(other.node, 'n1');
    assert.equal(other.session, 's1');
  });

  it('is as good for a component as one that is not shared', () => {
    const component = (client: SkywaveClient): string => client.state;
    const alone = new Skywave('ws://node.example', { WebSocket: node.WebSocket, autoConnect: false });
    assert.equal(component(tab({ autoConnect: false })), component(alone));
  });

  it('rejects what is no address of a node, in each tab', () => {
    assert.throws(() => new SharedSkywave('nonsense', { share }), TypeError);
    assert.throws(() => new SharedSkywave([], { share }), TypeError);
  });

  it('can be made where tabs cannot share, and says so to whoever connects', async () => {
    Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true });
    assert.equal(canShare(), false);
    const [eager, patient] = [tab(), tab({ autoConnect: false })];
    assert.equal(patient.state, 'disconnected');
    for (const client of [eager, patient]) {
      await assert.rejects(client.connect(), { transient: false, message: /Web Locks/ });
      assert.equal(client.state, 'disconnected');
      await assert.rejects(client.switchTransport('websocket'), { message: /Web Locks/ });
    }
  });

  it('gives the other tabs what one of them emits as its encoding reads it', async () => {
    const [first, second] = [tab({ encoding: exactJson }), tab({ encoding: exactJson })];
    await Promise.all([first.connect(), second.connect()]);
    const heard: unknown[] = [];
    second.channel('chat:1').on('event', ({ data }) => heard.push(data));
    await second.channel('chat:1').subscribe();
    first.channel('chat:1').emit({ at: 2n ** 63n, x: 1 });
    await until('it is heard', () => heard.length > 0);
    assert.deepEqual(heard, [{ at: 2n ** 63n, x: 1 }]);
  });

  it('leaves the channels of a tab that crashed', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    await second.channel('chat:1').subscribe();
    const before = new Set(locks.names);
    const third = tab();
    await third.connect();
    await third.channel('chat:2').subscribe();
    await until('both channels', () => node.connection.channels.size === 2);
    const [lock] = locks.names.filter((name) => !before.has(name));
    assert.ok(lock !== undefined);
    locks.crash(lock);
    await until('that one is left', () => node.connection.channels.size === 1);
    assert.deepEqual([...node.connection.channels], ['chat:1']);
  });

  it('goes on in each tab behind what was published twice, in two regions', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const heard: unknown[][] = [];
    for (const client of [first, second]) {
      const told: unknown[] = [];
      heard.push(told);
      const channel = client.channel('chat:1');
      channel.on('publication', ({ data }) => told.push(data));
      channel.on('subscribed', () => told.push('subscribed'));
      channel.on('gap', () => told.push('gap'));
      await channel.subscribe();
    }
    node.connection.publishes('chat:1', 1, { key: 'k', data: 'once' });
    node.connection.publishes('chat:1', 1, { key: 'k', data: 'again', origin: 'us' });
    node.connection.publishes('chat:1', 2, { data: 'next', origin: 'us' });
    await until('both have heard it all', () => heard.every((told) => told.includes('next')));
    assert.deepEqual(heard, [['subscribed', 'once', 'next'], ['subscribed', 'once', 'next']]);
    assert.deepEqual(second.channel('chat:1').position?.['us'], { epoch: 'e', offset: 2 });
  });

  it('tells who is there to the tab that asks for it, even while another one subscribes that does not', async () => {
    node.isSlow = true;
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const both = [first.channel('chat:1').subscribe()];
    await until('the first to have asked', () => node.connection.confirmations.length === 1);
    const counts: number[] = [];
    second.channel('chat:1', { presence: true }).on('presence', ({ count }) => counts.push(count));
    both.push(second.channel('chat:1').subscribe());
    // Whatever waits for its confirmation gets it from here on.
    await second.channel('chat:2').presence();
    node.isSlow = false;
    node.connection.confirm();
    await Promise.all(both);
    await until('that it is told', () => counts.length > 0);
    assert.deepEqual(counts, [1]);
  });

  it('gives a tab what it missed though the only other one has gone while that could not be read', async () => {
    const [, first, second] = [tab({ requestTimeoutMs: 50 }), tab(), tab()];
    await second.connect();
    await first.channel('chat:1', { position: { eu: { epoch: 'e', offset: 3 } } }).subscribe();
    const told: unknown[] = [];
    const late = second.channel('chat:1', { position: { eu: { epoch: 'e', offset: 1 } } });
    late.on('publication', ({ offset }) => told.push(offset));
    late.on('gap', ({ reason }) => told.push(reason));
    // Nobody answers what the holder asks for the tab.
    await second.channel('chat:2').presence();
    first.channel('chat:1').unsubscribe();
    await until('that it is taken up again', () => late.isSubscribed);
    node.connection.publishes('chat:1', 2);
    await until('what it missed', () => told.length > 0);
    assert.deepEqual(told, [2]);
  });

  it('gives a tab what it missed though nobody may read history, and repeats nothing to the others', async () => {
    node.isPrivate = true;
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const heard: unknown[][] = [[], []];
    const listen = (place: number, client: SharedSkywave, position = {}): void => {
      const channel = client.channel('chat:1', position);
      channel.on('publication', ({ offset }) => heard[place]?.push(offset));
      channel.on('gap', ({ reason }) => heard[place]?.push(reason));
    };
    listen(0, first, { position: { eu: { epoch: 'e', offset: 3 } } });
    await first.channel('chat:1').subscribe();
    listen(1, second, { position: { eu: { epoch: 'e', offset: 1 } } });
    await second.channel('chat:1').subscribe();
    assert.deepEqual(second.channel('chat:1').position, { eu: { epoch: 'e', offset: 1 } });
    for (const offset of [2, 3, 4]) node.connection.publishes('chat:1', offset);
    await until('that both have heard', () => heard.every((all) => all.includes(4)));
    assert.deepEqual(heard, [[4], [2, 3, 4]]);
  });

  it('drops events while there is no connection, and says so', async () => {
    const [first, second] = [tab({ backoff: { firstMs: 500, maxMs: 500 } }), tab()];
    await Promise.all([first.connect(), second.connect()]);
    assert.equal(second.channel('chat:1').emit(1), true);
    node.connection.breaks();
    await until('that it is told', () => second.state === 'connecting');
    assert.equal(second.channel('chat:1').emit(2), false);
  });

  it('tells a refusal in all tabs, and comes back in all of them when it is asked to', async () => {
    node.refusal = { code: 3503, reason: 'unauthenticated' };
    let token = 'bad';
    const [first, second] = [tab({ getToken: () => token }), tab({ getToken: () => token })];
    const refused = { reason: 'unauthenticated', transient: false };
    await Promise.all([assert.rejects(first.connect(), refused), assert.rejects(second.connect(), refused)]);
    assert.deepEqual([first.state, second.state], ['disconnected', 'disconnected']);
    assert.deepEqual([first.error?.reason, second.error?.reason], ['unauthenticated', 'unauthenticated']);
    node.refusal = undefined;
    token = 'good';
    await second.connect();
    await until('that the other one follows', () => first.state === 'connected');
    assert.deepEqual(node.tokens, ['bad', 'good']);
  });

  it('tells in all tabs why there is no connection for now, and when it is tried again', async () => {
    const [first, second] = [tab({ backoff: { firstMs: 200, maxMs: 200 } }), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const told: { state: string; error: SkywaveError | undefined; retryAtMs: number | undefined }[] = [];
    second.on('state', (change) => told.push(change));
    node.connection.breaks();
    await until('that it is told', () => told.length > 0);
    assert.equal(told[0]?.state, 'connecting');
    assert.equal(told[0].error?.reason, 'unavailable');
    assert.ok(told[0].retryAtMs !== undefined);
    await until('that it is back', () => second.state === 'connected');
    assert.equal(second.error, undefined);
    assert.equal(second.connection?.connects, 2);
  });

  it('gets over a break of the connection with all its tabs, and without subscribing anew in each', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const data: unknown[] = [];
    second.channel('chat:1').on('publication', (publication) => data.push(publication.data));
    await second.channel('chat:1').subscribe();
    const published = new Promise((resolve) => void first.channel('chat:1').publish('during', { key: 'k' }).then(resolve));
    node.connection.breaks();
    await published;
    node.connection.publishes('chat:1', 1);
    await until('the publication', () => data.length === 1);
    assert.deepEqual(data, [1]);
  });

  it('is disconnected by one tab for that tab alone, and gives the connection up with the last', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    first.disconnect();
    assert.equal(first.state, 'disconnected');
    await second.channel('chat:1').presence();
    assert.equal(second.state, 'connected');
    second.disconnect();
    await until('that nobody holds one', () => node.connection.isOver);
    await first.connect();
    assert.equal(second.state, 'disconnected');
  });

  it('does not connect before a tab wants to', async () => {
    const first = tab({ autoConnect: false });
    await until('a holder', () => first.isHolder);
    const second = tab({ autoConnect: false });
    assert.equal(node.connections.length, 0);
    await second.connect();
    assert.equal(first.state, 'disconnected');
  });

  it('is closed in the tab that holds it without harm to the others', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const uncaught: unknown[] = [];
    const hear = (error: unknown): void => void uncaught.push(error);
    process.on('uncaughtException', hear).on('unhandledRejection', hear);
    first.close();
    await until('that the other one holds it', () => second.isHolder && second.state === 'connected');
    process.off('uncaughtException', hear).off('unhandledRejection', hear);
    assert.deepEqual(uncaught, []);
    assert.equal(first.state, 'closed');
  });

  it('lets the connection go when its lock is stolen, and goes on as one of the others', async () => {
    const first = tab();
    await first.connect();
    assert.equal(first.isHolder, true);
    const old = node.connection;
    const told = states(first);
    const [lock] = locks.names.filter((name) => name === lockOf(share));
    const back = new AbortController();
    void locks.request(lock ?? '', { steal: true }, () => aborted(back.signal));
    await until('that it is closed', () => old.isOver);
    assert.equal(first.isHolder, false);
    assert.ok(told.some((state) => state.startsWith('connecting')));
    back.abort();
    await until('that it is elected again', () => first.isHolder && first.state === 'connected');
  });

  it('is not led astray by a tab that wakes up late, and still takes itself for the holder', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const told = states(second);
    const stale = openTabChannel(share);
    for (const to of locks.names) stale.postMessage({ kind: 'opened', to, hub: 'stale', status: UNKNOWN } satisfies TabMessage);
    stale.postMessage({ kind: 'status', hub: 'stale', status: UNKNOWN } satisfies TabMessage);
    stale.postMessage({ kind: 'gone', hub: 'stale' } satisfies TabMessage);
    stale.close();
    await second.channel('chat:1').presence();
    assert.deepEqual(told, []);
    node.connection.breaks();
    await until('that it is told', () => told.length >= 2);
    assert.deepEqual(told, ['connecting unavailable', 'connected']);
  });

  it('is in the background when all its tabs are', async () => {
    const [first, second] = [tab({ followPage: false }), tab({ followPage: false })];
    await Promise.all([first.connect(), second.connect()]);
    first.setNetwork({ background: true });
    await first.channel('chat:1').presence();
    assert.notEqual(node.connection.network?.background, true);
    second.setNetwork({ background: true, kind: 'wifi' });
    await until('that it is hidden', () => node.connection.network?.background === true);
    assert.deepEqual(node.connection.network, { background: true, kind: 'wifi' });
    first.setNetwork({ background: false });
    await until('that it is shown', () => node.connection.network?.background === false);
  });

  it('asks for the holder as soon as it is seen', async () => {
    const [first, second] = [tab({ followPage: false }), tab({ followPage: false })];
    await Promise.all([first.connect(), second.connect()]);
    second.setNetwork({ background: true });
    const line = openTabChannel(share);
    const kinds: string[] = [];
    hear(line, ({ kind }) => kinds.push(kind));
    second.setNetwork({ background: false });
    // An answer to this tab may overtake what the line has yet to hear.
    await until('both', () => kinds.length >= 2);
    line.close();
    assert.deepEqual(kinds.slice(0, 2), ['page', 'probe']);
  });

  it('tells in all tabs what became of publications that an earlier page left', async () => {
    const left = [{ channel: 'chat:1', key: 'k', data: '1' }];
    const outbox = { load: () => Promise.resolve(left), add: () => Promise.resolve(), remove: () => Promise.resolve() };
    const [first, second] = [tab({ outbox, autoConnect: false }), tab({ outbox, autoConnect: false })];
    const told: unknown[] = [];
    for (const client of [first, second]) client.on('delivered', ({ key, published }) => told.push([key, published?.offset]));
    await second.connect();
    await until('both', () => told.length === 2);
    assert.deepEqual(told, [['k', 1], ['k', 1]]);
  });

  it('does not publish again what a former holder may have sent once the nodes may have forgotten its key', async () => {
    node.keyMs = 300;
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    node.isMute = true;
    const published = second.channel('chat:1').publish(1, { key: 'k' });
    published.catch(() => undefined);
    await until('that it is sent', () => node.published.length === 1);
    node.isAway = true;
    first.close();
    await until('another holder', () => second.isHolder);
    await pause(node.keyMs);
    node.isAway = node.isMute = false;
    await until('that it is back', () => second.state === 'connected');
    await assert.rejects(published, { reason: 'outcome_unknown' });
    assert.deepEqual(node.published, ['k']);
  });

  it('publishes what waits for a connection, however long it waits and whoever holds it in the end', async () => {
    node.keyMs = 300;
    const first = tab();
    await first.connect();
    const second = tab();
    await second.connect();
    node.isAway = true;
    node.connection.breaks();
    await until('that it is told', () => second.state === 'connecting');
    const published = second.channel('chat:1').publish(1, { key: 'k' });
    published.catch(() => undefined);
    await pause(node.keyMs);
    first.close();
    await until('another holder', () => second.isHolder);
    await pause(node.keyMs);
    node.isAway = false;
    assert.equal((await published).offset, 1);
    assert.deepEqual(node.published, ['k']);
  });

  for (const where of ['memory', 'an outbox']) {
    it(`publishes what waits in each tab, in its order, however much waits in the others, in ${where}`, async () => {
      const outbox = { load: () => Promise.resolve([]), add: () => Promise.resolve(), remove: () => Promise.resolve() };
      const options = { publishQueue: 2, ...(where === 'memory' ? {} : { outbox }) };
      const tabs = [tab(options), tab(options), tab(options)];
      await Promise.all(tabs.map((one) => one.connect()));
      node.isMute = true;
      for (const [place, one] of tabs.entries()) {
        for (const key of [`${place}a`, `${place}b`]) one.channel('chat:1').publish(1, { key }).catch(() => undefined);
        await assert.rejects(one.channel('chat:1').publish(1), { reason: 'limit_reached' });
      }
      await until('all that waits', () => node.published.length === 6);
      for (const place of [0, 1, 2]) assert.deepEqual(node.published.filter((key) => key.startsWith(`${place}`)), [`${place}a`, `${place}b`]);
    });
  }

  it('tells whoever published what the outbox failed at, and does not try it again behind what followed', async () => {
    const add = ({ key }: { key: string }): Promise<void> => (key === 'a' ? Promise.reject(new Error('the disk is full')) : Promise.resolve());
    const outbox = { load: () => Promise.resolve([]), add, remove: () => Promise.resolve() };
    const [, second] = [tab({ outbox }), tab({ outbox })];
    await second.connect();
    const [failed, other] = ['a', 'b'].map((key) => second.channel('chat:1').publish(1, { key }));
    await assert.rejects(failed ?? Promise.resolve(), { reason: 'unavailable', message: /the disk is full/ });
    await other;
    assert.deepEqual(node.published, ['b']);
  });

  it('goes on with what a former holder may have sent however often the outbox fails', async () => {
    let [isFull, failures] = [false, 0];
    const add = (): Promise<void> => {
      if (isFull) failures += 1;
      return isFull ? Promise.reject(new Error('the disk is full')) : Promise.resolve();
    };
    const outbox = { load: () => Promise.resolve([]), add, remove: () => Promise.resolve() };
    const [first, second] = [tab({ outbox }), tab({ outbox })];
    await Promise.all([first.connect(), second.connect()]);
    node.isMute = true;
    const published = second.channel('chat:1').publish(1, { key: 'a' });
    published.catch(() => undefined);
    await until('that it is sent', () => node.published.length === 1);
    isFull = true;
    node.isMute = false;
    first.close();
    await until('another attempt', () => failures >= 2 && second.isHolder);
    isFull = false;
    assert.equal((await published).offset, 1);
  });

  it('says nothing to other tabs under a name that another build makes short in another way', async () => {
    const line = openTabChannel(share);
    const names = new Set<string>();
    hear(line, (message) => JSON.stringify(message, (name, value: unknown) => (names.add(name), value)));
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    await second.channel('chat:1', { presence: true }).subscribe();
    await second.channel('chat:1').publish(1);
    first.close();
    await until('another holder', () => second.isHolder && second.state === 'connected');
    line.close();
    assert.ok(names.has('kind'));
    // The tests' names are made longer by this.
    assert.deepEqual([...names].filter((name) => name.endsWith('$')), []);
  });

  it('says when it cannot move to another transport, and goes on', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    for (const client of [first, second]) await assert.rejects(client.switchTransport('webtransport'), { message: 'no WebTransport here' });
    assert.equal(second.connection?.transport, 'websocket');
  });

  it('waits for a move no longer than its signal lets it', async () => {
    const [first, second] = [tab(), tab()];
    await Promise.all([first.connect(), second.connect()]);
    const reason = new Error('enough');
    await assert.rejects(second.switchTransport('auto', { signal: AbortSignal.abort(reason) }), reason);
    const waiting = new AbortController();
    const moved = second.switchTransport('webtransport', { signal: waiting.signal });
    waiting.abort(reason);
    await assert.rejects(moved, reason);
    assert.equal(second.state, 'connected');
  });

  it('leaves with its page, and comes again with it', async () => {
    const target = Object.assign(new EventTarget(), { document: new EventTarget() });
    Object.assign(globalThis, { addEventListener: target.addEventListener.bind(target), document: target.document });
    try {
      const first = tab({ followPage: false });
      await first.connect();
      for (const [from, name, back] of [[target, 'pagehide', 'pageshow'], [target.document, 'freeze', 'resume']] as const) {
        from.dispatchEvent(Object.assign(new Event(name), { persisted: true }));
        await until(`that it left at ${name}`, () => node.connection.isOver && locks.names.length === 0);
        from.dispatchEvent(Object.assign(new Event(back), { persisted: true }));
        await until('that it is back', () => first.state === 'connected');
      }
    } finally {
      for (const name of ['addEventListener', 'document']) Reflect.deleteProperty(globalThis, name);
    }
  });
});
