/** Publications that outlive the page: kept until they are settled, bounded, in order, whatever the store does. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Asking } from '../../src/asking.js';
import { Courier, type Delivered } from '../../src/courier.js';
import type { SkywaveError } from '../../src/errors.js';
import type { Outbox, OutboxEntry } from '../../src/outbox.js';
import { type FakeTransport, World } from './world.js';

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** An outbox that a test can make fail or wait. */
class MemoryOutbox implements Outbox {
  readonly entries = new Map<string, OutboxEntry>();
  /** What is thrown by what is asked next. */
  failures: Error[] = [];
  /** What adding waits for, by key. */
  readonly holds = new Map<string, Promise<void>>();
  #left: (entries: readonly OutboxEntry[]) => void = () => undefined;

  constructor(...keys: string[]) {
    for (const key of keys) this.entries.set(key, { channel: 'chat:1', key, data: '1' });
  }

  #fail(): void {
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
  }

  leaves(entry: OutboxEntry): void {
    this.entries.set(entry.key, entry);
    this.#left([entry]);
  }

  async load(left: (entries: readonly OutboxEntry[]) => void): Promise<OutboxEntry[]> {
    this.#left = left;
    await settled();
    this.#fail();
    return [...this.entries.values()];
  }

  async add(entry: OutboxEntry): Promise<void> {
    await this.holds.get(entry.key);
    this.#fail();
    this.entries.set(entry.key, entry);
  }

  async remove(key: string): Promise<void> {
    await settled();
    this.#fail();
    this.entries.delete(key);
  }
}

class Stage {
  readonly world = new World({ publishQueue: 4 });
  readonly delivered: Delivered[] = [];
  readonly courier: Courier;

  constructor(readonly outbox: MemoryOutbox) {
    this.courier = new Courier(outbox, new Asking(this.world.session), 4, (one) => this.delivered.push(one));
  }

  publish(key: string, signal?: AbortSignal): Promise<unknown> {
    const published = this.courier.publish({ channel: 'chat:1', key, data: '1' }, signal);
    published.catch(() => undefined);
    return published;
  }
}

const keys = (node: FakeTransport): (string | undefined)[] => node.all('publish').map(({ key }) => key);
const kept = (stage: Stage): string[] => [...stage.outbox.entries.keys()];

/** Answers all publishes that were not answered. */
async function answer(node: FakeTransport, answered = new Set<number>()): Promise<void> {
  for (const { id, channel } of node.all('publish')) {
    if (answered.has(id)) continue;
    answered.add(id);
    node.says(['published', { id, channel, origin: 'eu', epoch: 'e', offset: answered.size }]);
  }
  await settled();
  await settled();
  await settled();
}

describe('a publication in an outbox', () => {
  it('that cannot be stored says why, where the browser has no words for it as well', async () => {
    const stage = new Stage(new MemoryOutbox());
    await settled();
    await settled();
    stage.outbox.failures = [new DOMException('', 'QuotaExceededError'), new Error('no disk')];
    await assert.rejects(stage.publish('a'), { code: 110, transient: true, message: 'the outbox failed: QuotaExceededError' });
    await assert.rejects(stage.publish('b'), { code: 110, transient: true, message: 'the outbox failed: no disk' });
  });

  it('is stored before it is sent, and gone once it is answered', async () => {
    const stage = new Stage(new MemoryOutbox());
    const published = stage.publish('a');
    await settled();
    await settled();
    assert.deepEqual(kept(stage), ['a']);
    await answer(stage.world.connected());
    assert.deepEqual(await published, { origin: 'eu', epoch: 'e', offset: 1 });
    assert.deepEqual(kept(stage), []);
  });

  it('that is taken back before it was sent is not delivered by a later page', async () => {
    const stage = new Stage(new MemoryOutbox());
    const [whileStored, stored] = [new AbortController(), new AbortController()];
    const first = stage.publish('a', stored.signal);
    await settled();
    await settled();
    const second = stage.publish('b', whileStored.signal);
    stored.abort();
    whileStored.abort();
    for (const one of [first, second]) await assert.rejects(one, { name: 'AbortError' });
    await settled();
    await settled();
    assert.deepEqual(kept(stage), []);
    assert.deepEqual(keys(stage.world.connected()), []);
  });

  it('that nobody waits for after it was sent is kept until it is answered', async () => {
    const stage = new Stage(new MemoryOutbox());
    const node = stage.world.connected();
    const stop = new AbortController();
    const published = stage.publish('a', stop.signal);
    await settled();
    await settled();
    stop.abort();
    await assert.rejects(published, { name: 'AbortError' });
    assert.deepEqual(kept(stage), ['a']);
    await answer(node);
    assert.deepEqual(kept(stage), []);
  });

  it('beyond the bound is refused and not stored', async () => {
    const stage = new Stage(new MemoryOutbox());
    const published = ['a', 'b', 'c', 'd', 'e'].map((key) => stage.publish(key));
    await assert.rejects(published[4] ?? Promise.resolve(), { code: 106, transient: true });
    await settled();
    await settled();
    assert.deepEqual(kept(stage), ['a', 'b', 'c', 'd']);
    await answer(stage.world.connected());
    await Promise.all(published.slice(0, 4));
    await assert.doesNotReject(Promise.race([stage.publish('f'), settled()]));
  });

  it('is delivered by the next page, however many there are, before what is new', async () => {
    const stage = new Stage(new MemoryOutbox('1', '2', '3', '4', '5', '6'));
    const node = stage.world.connected();
    await settled();
    const early = stage.publish('7');
    await settled();
    const answered = new Set<number>();
    for (let round = 0; round < 6; round += 1) await answer(node, answered);
    await assert.rejects(early, { code: 106 }, 'the outbox was full');
    assert.deepEqual(keys(node), ['1', '2', '3', '4', '5', '6']);
    assert.deepEqual(stage.delivered.map(({ key, published }) => [key, published?.origin]), ['1', '2', '3', '4', '5', '6'].map((key) => [key, 'eu']));
    assert.deepEqual(kept(stage), []);
  });

  it('waits for its turn while one before it is being stored', async () => {
    const outbox = new MemoryOutbox();
    let free = (): void => undefined;
    outbox.holds.set('a', new Promise((resolve) => (free = resolve)));
    const stage = new Stage(outbox);
    const node = stage.world.connected();
    void stage.publish('a');
    void stage.publish('b');
    await settled();
    await settled();
    assert.deepEqual(keys(node), []);
    free();
    await settled();
    assert.deepEqual(keys(node), ['a', 'b']);
  });

  it('that cannot be stored is rejected as an error of this package, and the next one is tried anew', async () => {
    const outbox = new MemoryOutbox();
    outbox.failures = [new Error('no database'), new Error('no database'), new DOMException('it is full', 'QuotaExceededError')];
    const stage = new Stage(outbox);
    await settled();
    await settled();
    const node = stage.world.connected();
    for (const message of [/no database/, /it is full/]) {
      await assert.rejects(stage.publish('a'), (error: SkywaveError) => error.code === 110 && error.transient && message.test(error.message));
    }
    const published = stage.publish('b');
    await settled();
    await settled();
    await answer(node);
    await published;
  });

  it('that could not be removed is removed before the next one is stored', async () => {
    const outbox = new MemoryOutbox();
    const stage = new Stage(outbox);
    const node = stage.world.connected();
    const published = stage.publish('a');
    await settled();
    await settled();
    outbox.failures = [new Error('away for a moment')];
    const answered = new Set<number>();
    await answer(node, answered);
    await published;
    assert.deepEqual(kept(stage), ['a']);
    void stage.publish('b');
    await settled();
    await settled();
    assert.deepEqual(kept(stage), ['b']);
  });

  it('survives that the node does not want this client, and goes out at the next connect', async () => {
    const stage = new Stage(new MemoryOutbox());
    const node = stage.world.connected();
    const before = stage.publish('a');
    await settled();
    await settled();
    node.says(['disconnect', { code: 3503, reason: 'unauthenticated', reconnect: false }]);
    const meanwhile = stage.publish('b');
    await settled();
    assert.deepEqual(kept(stage), ['a', 'b']);
    const next = stage.world.connected();
    assert.deepEqual(keys(next), ['a', 'b']);
    await answer(next);
    await Promise.all([before, meanwhile]);
    assert.deepEqual(kept(stage), []);
  });

  it('that was sent before the node refused this client is not sent again once its key may be forgotten', async () => {
    const stage = new Stage(new MemoryOutbox());
    const node = stage.world.connected();
    const published = stage.publish('a');
    while (keys(node).length === 0) await settled();
    node.says(['disconnect', { code: 3503, reason: 'unauthenticated', reconnect: false }]);
    stage.world.pass(3_600_000);
    assert.deepEqual(keys(stage.world.connected()), []);
    await assert.rejects(published, { name: 'OutcomeUnknownError' });
    assert.deepEqual(kept(stage), []);
  });

  it('that an earlier page has sent so long ago that its key may be forgotten is told, and not sent again', async () => {
    const stage = new Stage(new MemoryOutbox());
    const { time } = stage.world;
    const entry = { channel: 'chat:1', data: '1' };
    stage.outbox.entries.set('sent', { ...entry, key: 'sent', sentAtMs: time - 300_000 });
    stage.outbox.entries.set('just sent', { ...entry, key: 'just sent', sentAtMs: time - 100_000 });
    stage.outbox.entries.set('never sent', { ...entry, key: 'never sent' });
    await settled();
    await settled();
    const node = stage.world.connected();
    await settled();
    await settled();
    assert.deepEqual(keys(node), ['just sent', 'never sent']);
    assert.deepEqual(stage.delivered.map(({ key, error }) => [key, error?.name]), [['sent', 'OutcomeUnknownError']]);
    assert.deepEqual(kept(stage), ['just sent', 'never sent']);
  });

  it('that an earlier page has sent at a time to come, by a clock that was ahead, is not sent again', async () => {
    const stage = new Stage(new MemoryOutbox());
    stage.outbox.entries.set('sent', { channel: 'chat:1', data: '1', key: 'sent', sentAtMs: stage.world.time + 3_600_000 });
    await settled();
    await settled();
    const node = stage.world.connected();
    for (let turn = 0; turn < 3; turn += 1) await settled();
    assert.deepEqual(keys(node), []);
    assert.equal(stage.delivered[0]?.error?.name, 'OutcomeUnknownError');
  });

  it('is noted as sent by the time at which it may be', async () => {
    const stage = new Stage(new MemoryOutbox());
    void stage.publish('before');
    await settled();
    await settled();
    assert.equal(stage.outbox.entries.get('before')?.sentAtMs, undefined);
    stage.world.connected();
    void stage.publish('after');
    await settled();
    await settled();
    for (const key of ['before', 'after']) assert.equal(stage.outbox.entries.get(key)?.sentAtMs, stage.world.time, key);
  });

  it('that another page leaves when it ends is published, and told', async () => {
    const stage = new Stage(new MemoryOutbox());
    await settled();
    const node = stage.world.connected();
    stage.outbox.leaves({ channel: 'chat:1', data: '1', key: 'left' });
    await settled();
    assert.deepEqual(keys(node), ['left']);
    await answer(node);
    assert.deepEqual(stage.delivered.map(({ key }) => key), ['left']);
  });

  it('that another page leaves waits for its turn when there are many, and none is dropped', async () => {
    const stage = new Stage(new MemoryOutbox());
    await settled();
    const own = stage.publish('own');
    while (kept(stage).length === 0) await settled();
    for (const key of ['a', 'b', 'c', 'd', 'e']) stage.outbox.leaves({ channel: 'chat:1', key, data: '1' });
    for (let turn = 0; turn < 5; turn += 1) await settled();
    assert.deepEqual(kept(stage), ['own', 'a', 'b', 'c', 'd', 'e']);
    assert.ok(!stage.delivered.some(({ error }) => error !== undefined));
    const node = stage.world.connected();
    for (let offset = 0; offset < 6; offset += 1) {
      while (node.all('publish').length <= offset) await settled();
      const id = node.all('publish')[offset]?.id ?? 0;
      node.says(['published', { id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset }]);
    }
    await own;
    assert.deepEqual(new Set(keys(node)), new Set(['own', 'a', 'b', 'c', 'd', 'e']));
    while (stage.delivered.length < 5) await settled();
    assert.ok(stage.delivered.every(({ error }) => error === undefined));
  });

  it('is kept for the next page when the client is closed', async () => {
    const stage = new Stage(new MemoryOutbox());
    const published = stage.publish('a');
    await settled();
    await settled();
    stage.world.session.close();
    await assert.rejects(published, { code: 110, transient: false });
    assert.deepEqual(kept(stage), ['a']);
  });

  it('that is being stored when the client is closed is kept for the next page, and nobody waits for it', async () => {
    const outbox = new MemoryOutbox();
    let free = (): void => undefined;
    outbox.holds.set('a', new Promise((resolve) => (free = resolve)));
    const stage = new Stage(outbox);
    const published = stage.publish('a');
    await settled();
    stage.world.session.close();
    free();
    await assert.rejects(published, { code: 110, transient: false });
    assert.deepEqual(kept(stage), ['a']);
  });
});
