/** A channel as an application uses it. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { Asking } from '../../src/asking.js';
import { Channel } from '../../src/channel.js';
import { InvalidDataError } from '../../src/errors.js';
import type { StandardSchema } from '../../src/payload_schema.js';
import { confirm, connected, settled, type Stage, told } from './channel_stage.js';
import { publication, World } from './world.js';

/** A schema of texts. */
const text: StandardSchema<string> = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value) => (typeof value === 'string' ? { value } : { issues: [{ message: 'no text' }] }),
  },
};

describe('a channel', () => {
  it('is subscribed from the first listener to the last', async () => {
    const { node, channel } = connected();
    const stops = [channel.on('publication', () => undefined), channel.on('event', () => undefined)];
    await settled();
    assert.equal(node.all('subscribe').length, 1);
    stops[0]?.();
    await settled();
    assert.equal(node.all('unsubscribe').length, 0);
    stops[1]?.();
    await settled();
    assert.equal(node.all('unsubscribe').length, 1);
  });

  it('notices nothing when listeners are exchanged within a task', async () => {
    const { node, channel } = connected();
    const listening = new AbortController();
    channel.on('publication', () => undefined, { signal: listening.signal });
    await settled();
    listening.abort();
    channel.on('publication', () => undefined);
    await settled();
    assert.deepEqual([node.all('subscribe').length, node.all('unsubscribe').length], [1, 0]);
  });

  it('without an echo tells all but what was published by itself, and goes on behind that', async () => {
    const stage = connected({ echo: false });
    const { channel, node } = stage;
    const heard: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    const reading = channel.publications();
    await settled();
    confirm(stage);
    for (const key of [undefined, 'mine']) void channel.publish(0, { key }).catch(() => undefined);
    await settled();
    const [random, given] = node.all('publish').map(({ key }) => key);
    assert.ok(random !== undefined && given === 'mine');
    node.says(publication(1, { key: random }), publication(2, { key: "another's" }), publication(3, { key: given }));
    assert.deepEqual(heard, [2]);
    assert.equal((await reading.next()).value?.data, 2);
    assert.deepEqual(channel.position, { eu: { epoch: 'e', offset: 3 } });
  });

  it('says how many publications its subscription recovers', async () => {
    const { channel, node } = connected();
    const subscribed = channel.subscribe();
    const { id } = node.last('subscribe');
    node.says(['subscribed', { id, channel: channel.name, position: {}, recovered: true, recovers: 7 }]);
    assert.equal((await subscribed).recovers, 7);
  });

  it('gives what comes to every listener and every iteration', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const heard: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(publication(1), publication(2));
    assert.deepEqual(heard, [1, 2]);
    assert.equal((await reading.next()).value?.data, 1);
    assert.equal((await reading.next()).value?.data, 2);
    const waiting = reading.next();
    node.says(publication(3));
    assert.equal((await waiting).value?.data, 3);
  });

  it('is left while an iteration is full, and taken up when half of its queue is free', async () => {
    const stage = connected({ queue: 4 });
    const { channel, node } = stage;
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3, 4, 5].map((offset) => publication(offset)));
    assert.equal(node.all('unsubscribe').length, 1);
    await reading.next();
    assert.equal(node.all('subscribe').length, 1);
    await reading.next();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 4 } });
  });

  it('tells its listeners all, whatever an iteration leaves unread, which misses nothing either', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const heard: unknown[] = [];
    const invalid: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    channel.on('invalid', ({ issues }) => invalid.push(issues));
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3, 4, 5, 6, 7].map((offset) => publication(offset)));
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6, 7]);
    assert.equal(node.all('unsubscribe').length, 0);
    const read: unknown[] = [];
    for (let before = node.all('subscribe').length; read.length < 9; before = node.all('subscribe').length) {
      read.push((await reading.next()).value?.data);
      if (node.all('subscribe').length > before) told(stage);
    }
    assert.deepEqual(read, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('tells a listener nothing more once another one has removed it', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const heard: string[] = [];
    const removing = new AbortController();
    let isLast = false;
    channel.on('publication', () => {
      heard.push('first');
      if (isLast) channel.release();
      else removing.abort();
    });
    channel.on('publication', () => heard.push('second'), { signal: removing.signal });
    channel.on('publication', () => heard.push('third'));
    await settled();
    confirm(stage);
    node.says(publication(1));
    isLast = true;
    node.says(publication(2));
    assert.deepEqual(heard, ['first', 'third', 'first']);
  });

  it('lets no slow iteration hold up another one', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const [slow, quick] = [channel.publications(), channel.publications()];
    await settled();
    confirm(stage);
    const read: unknown[] = [];
    for (const offset of [1, 2, 3, 4, 5]) {
      node.says(publication(offset));
      read.push((await quick.next()).value?.data);
    }
    assert.deepEqual(read, [1, 2, 3, 4, 5]);
    const late: unknown[] = [];
    for (let before = node.all('subscribe').length; late.length < 5; before = node.all('subscribe').length) {
      late.push((await slow.next()).value?.data);
      if (node.all('subscribe').length > before) told(stage);
    }
    assert.deepEqual(late, [1, 2, 3, 4, 5]);
    assert.equal((await quick.next()).value?.data, 6);
  });

  it('stands where its slowest reader has read to', async () => {
    const stage = connected();
    const { channel, node } = stage;
    channel.on('publication', () => undefined);
    const reading = channel.publications();
    await settled();
    confirm(stage, 10);
    node.says(...[11, 12, 13].map((offset) => publication(offset)));
    assert.deepEqual(channel.position, { eu: { epoch: 'e', offset: 10 } });
    await reading.next();
    assert.deepEqual(channel.position, { eu: { epoch: 'e', offset: 11 } });
    await reading.return?.();
    assert.deepEqual(channel.position, { eu: { epoch: 'e', offset: 13 } }, 'of those who are there');
  });

  it('begins at the position that it is given once, and anew after that', async () => {
    const stage = connected({ position: { eu: { epoch: 'e', offset: 5 } } });
    const { channel, node } = stage;
    const stop = channel.on('publication', () => undefined);
    await settled();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 5 } });
    confirm(stage, 5);
    stop();
    await settled();
    channel.on('publication', () => undefined);
    await settled();
    assert.equal(node.last('subscribe').position, undefined);
  });

  it('tells who is there as soon as anybody asks for it', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const heard: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    await settled();
    confirm(stage);
    node.says(publication(1));
    channel.configure({ presence: true });
    channel.configure({ presence: true });
    assert.equal(node.all('subscribe').length, 2);
    const { id, position, presence } = node.last('subscribe');
    assert.deepEqual([position, presence], [{ eu: { epoch: 'e', offset: 1 } }, true]);
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    const members = [{ session: 'a', since_ms: 0 }];
    node.says(['subscribed', { id, channel: 'chat:1', position: position ?? {}, recovered: true, presence: { count: 1, members } }]);
    assert.deepEqual(channel.members.map(({ session }) => session), ['a']);
    node.says(publication(2));
    assert.deepEqual(heard, [1, 2]);
  });

  it('asks for no page that no node gives', async () => {
    const { channel, node } = connected();
    const position = { eu: { epoch: 'e', offset: 5 } };
    for (const options of [{ limit: 0 }, { limit: 1_001 }, { limit: 1.5 }, { before: 'x'.repeat(129) }, { before: 'x', after: position }]) {
      await assert.rejects(channel.history(options), { code: 107, transient: false });
    }
    assert.throws(() => {
      channel.configure({ history: 1_001 });
    }, { code: 107 });
    assert.equal(node.all('history').length, 0);
    channel.configure({ history: 0 });
    channel.on('publication', () => undefined);
    await settled();
    assert.deepEqual(node.last('subscribe'), { id: node.last('subscribe').id, channel: 'chat:1' });
  });

  it('says of a page whether more is retained', async () => {
    const { channel, node } = connected();
    for (const more of [true, false]) {
      const page = channel.history({ after: {} });
      node.says(['history', { id: node.last('history').id, channel: 'chat:1', publications: [], more }]);
      assert.equal((await page).more, more);
    }
  });

  it('asks for nothing in words that no node takes for text, since the tenth time would end the session', async () => {
    const { channel, node } = connected();
    const half = '\ud83d';
    for (const key of [half, 'x'.repeat(65)]) {
      await assert.rejects(channel.publish(1, { key }), { code: 107 });
      assert.throws(() => channel.emit(1, { slot: key }), { code: 107 });
    }
    await assert.rejects(channel.history({ before: half }), { code: 107 });
    await assert.rejects(channel.history({ after: { eu: 5 } as never }), { code: 107 });
    const giveUp = new AbortController();
    const published = channel.publish('half', { key: 'é😀', signal: giveUp.signal });
    giveUp.abort();
    await assert.rejects(published);
    assert.deepEqual(node.sent.map(([name]) => name), ['connect', 'publish']);
  });

  it('ends its iterations when they are not wanted any more, and with an error when it is refused', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const stop = new AbortController();
    const given = channel.publications({ signal: stop.signal });
    const refused = channel.publications();
    await settled();
    const ends = [given.next(), refused.next()];
    stop.abort();
    assert.deepEqual(await ends[0], { value: undefined, done: true });
    node.says(['error', { id: node.last('subscribe').id, code: 103, reason: 'forbidden', message: 'no', transient: false }]);
    await assert.rejects(ends[1] ?? Promise.resolve(), { code: 103, transient: false });
    assert.deepEqual(await refused.next(), { value: undefined, done: true });
  });

  it('keeps track of who is there', async () => {
    const stage = connected({ presence: true });
    const { channel, node } = stage;
    const told: [number, string[], string[]][] = [];
    channel.on('presence', ({ count, joined, left }) =>
      told.push([count, joined.map(({ session }) => session), left.map(({ session }) => session)]),
    );
    await settled();
    confirm(stage, 0, { count: 1, members: [{ session: 'a', since_ms: 0 }] });
    node.says([
      'presence_changed',
      { channel: 'chat:1', count: 1, joined: [{ session: 'b', since_ms: 0 }], left: [{ session: 'a', since_ms: 0 }] },
    ]);
    assert.deepEqual(told, [
      [1, ['a'], []],
      [1, ['b'], ['a']],
    ]);
    assert.deepEqual(channel.members.map(({ session }) => session), ['b']);
  });

  it('whose subscription is ended before it was confirmed tells those who wait for it', async () => {
    const { channel } = connected();
    const waiting = channel.subscribe();
    channel.unsubscribe();
    await assert.rejects(waiting, { code: 104, transient: false });
  });

  it('forgets the signal of an iteration that is over', async () => {
    const { channel } = connected();
    const { signal } = new AbortController();
    const reading = channel.publications({ signal });
    assert.equal(getEventListeners(signal, 'abort').length, 1);
    await reading.return?.();
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('asks who is there when changes were dropped on the way, one question at a time', async () => {
    const stage = connected({ presence: true });
    const { channel, node } = stage;
    const counts: number[] = [];
    channel.on('presence', ({ count, members }) => counts.push(count - members.length));
    await settled();
    confirm(stage, 0, { count: 1, members: [{ session: 'a', since_ms: 0 }] });
    for (const count of [3, 4]) node.says(['presence_changed', { channel: 'chat:1', count, joined: [], left: [] }]);
    assert.equal(node.all('presence').length, 1);
    const members = ['a', 'b', 'c', 'd'].map((session) => ({ session, since_ms: 0 }));
    node.says(['presence', { id: node.last('presence').id, channel: 'chat:1', count: 4, members }]);
    await settled();
    assert.deepEqual(channel.members.map(({ session }) => session), ['a', 'b', 'c', 'd']);
    assert.deepEqual(counts, [0, 2, 3, 0]);
    node.says(['presence_changed', { channel: 'chat:1', count: 5, joined: [{ session: 'e', since_ms: 0 }], left: [] }]);
    assert.equal(node.all('presence').length, 1, 'nothing is missing');
  });

  it('asks for no list of more members than a node lists', async () => {
    const stage = connected({ presence: true });
    const { channel, node } = stage;
    const members = Array.from({ length: 1_000 }, (_, number) => ({ session: `s${number}`, since_ms: 0 }));
    channel.on('presence', () => undefined);
    await settled();
    confirm(stage, 0, { count: 1_500, members });
    node.says(['presence_changed', { channel: 'chat:1', count: 1_499, joined: [], left: [] }]);
    assert.equal(node.all('presence').length, 0);
    node.says(['presence_changed', { channel: 'chat:1', count: 999, joined: [], left: [] }]);
    assert.equal(node.all('presence').length, 1);
  });

  it('with a schema gives what fits it, and tells the rest', async () => {
    const stage = connected({ schema: text });
    const { channel, node } = stage;
    const [heard, invalid]: [unknown[], string[]] = [[], []];
    channel.on('publication', ({ data }) => heard.push(data));
    channel.on('invalid', ({ issues }) => invalid.push(...issues.map(({ message }) => message)));
    await settled();
    confirm(stage);
    node.says(publication(1, { data: 'hi' }), publication(2), publication(3, { data: 'there' }));
    assert.deepEqual([heard, invalid], [['hi', 'there'], ['no text']]);
    await assert.rejects(channel.publish(5), InvalidDataError);
    assert.equal(node.all('publish').length, 0);
  });

  it('with a schema that throws, or answers by a promise, tells what came as invalid and goes on', async () => {
    const answers = [
      () => { throw new Error('a bug of the schema'); },
      () => Promise.resolve({ value: 1 }),
      () => ({ value: 'fine' }),
    ];
    const schema: StandardSchema = { '~standard': { version: 1, vendor: 'test', validate: () => (answers.shift() as () => { value: unknown })() } };
    const stage = connected({ schema });
    const { channel, node } = stage;
    const [heard, invalid]: [unknown[], string[]] = [[], []];
    channel.on('publication', ({ data }) => heard.push(data));
    channel.on('invalid', ({ message }) => invalid.push(message));
    await settled();
    confirm(stage);
    node.says(publication(1), publication(2), publication(3));
    assert.deepEqual([heard, invalid], [['fine'], ['a bug of the schema', 'the schema answers by a promise']]);
  });

  it('takes a publication back that was not sent, and stops waiting for one that was', async () => {
    const world = new World();
    const channel = new Channel('chat:1', new Asking(world.session));
    const stop = new AbortController();
    const unsent = channel.publish(1, { signal: stop.signal });
    stop.abort();
    await assert.rejects(unsent, { name: 'AbortError' });
    const node = world.connected();
    assert.equal(node.all('publish').length, 0);
    const again = new AbortController();
    const sent = channel.publish(2, { signal: again.signal });
    await settled();
    again.abort();
    await assert.rejects(sent, { name: 'AbortError' });
    node.breaks();
    assert.equal(world.comesBack().all('publish').length, 1, 'its effect is one, known or not');
  });

  it('has a name of the protocol', () => {
    const { world } = connected();
    const asking = new Asking(world.session);
    for (const name of ['', 'chat', ':x', 'chat:', 'Chat:1', '@', `chat:${'x'.repeat(251)}`, 'chat:a\nb']) {
      assert.throws(() => new Channel(name, asking), { code: 107 }, name);
    }
    for (const name of ['chat:1', '@alice', `chat:${'x'.repeat(250)}`, 'a-b_c:d:e']) {
      assert.equal(new Channel(name, asking).name, name);
    }
  });

  it('publishes what JSON can say, and bytes', async () => {
    const { node, channel } = connected();
    for (const data of [null, 'text', { a: [1] }, Uint8Array.of(1), 5n, { big: [5n] }]) channel.publish(data).catch(() => undefined);
    await settled();
    assert.deepEqual(node.all('publish').map(({ data }) => data), ['null', '"text"', '{"a":[1]}', Uint8Array.of(1), '5', '{"big":[5]}']);
    const circular: { self?: unknown } = {};
    circular.self = circular;
    for (const data of [undefined, circular, new Map([[1, 2]]), new Set([1]), new Blob(['x']), Symbol('x'), () => undefined]) {
      await assert.rejects(channel.publish(data), { name: 'RequestError', code: 107, transient: false });
    }
    const others = [{}, new Date(0), Object.create(null), Float32Array.of(1), Buffer.from('ab').buffer.slice(0, 0)] as unknown[];
    for (const data of others) channel.publish(data).catch(() => undefined);
    await settled();
    const [, , , , , , ...published] = node.all('publish').map(({ data }) => data);
    assert.deepEqual(published, ['{}', '"1970-01-01T00:00:00.000Z"', '{}', Uint8Array.of(0, 0, 128, 63), new Uint8Array()]);
    await assert.rejects(channel.publish(1, { key: 'k'.repeat(65) }), { code: 107 });
  });
});

describe('a client that the node does not want', () => {
  const refused = { code: 3504, transient: false };
  const refuse = ({ node }: Stage): void => {
    node.says(['disconnect', { code: 3504, reason: 'disconnected', reconnect: false }]);
  };

  it('fails all that waits', async () => {
    const stage = connected();
    const { channel } = stage;
    const reading = channel.publications();
    const waiting = [channel.subscribe(), reading.next(), channel.history(), channel.presence(), channel.publish(1)];
    await settled();
    refuse(stage);
    for (const one of waiting) await assert.rejects(one, refused);
    assert.deepEqual(await reading.next(), { value: undefined, done: true });
  });

  it('rejects what is asked for then at once, until it is to connect again', async () => {
    const stage = connected();
    const { channel, world } = stage;
    refuse(stage);
    await assert.rejects(channel.subscribe(), refused);
    await assert.rejects(channel.publications().next(), refused);
    await assert.rejects(channel.history(), refused);
    await assert.rejects(channel.publish(1), refused);
    const node = world.connected();
    assert.deepEqual(node.sent.map(([name]) => name), ['connect'], 'what was rejected is over');
    const published = channel.publish(2);
    await settled();
    const { id } = node.last('publish');
    node.says(['published', { id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 }]);
    assert.equal((await published).offset, 1);
  });

  it('keeps its listeners and the subscriptions that stood, from where they were', async () => {
    const stage = connected();
    const { channel, world } = stage;
    const heard: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    await settled();
    confirm(stage);
    stage.node.says(publication(1));
    refuse(stage);
    await settled();
    const node = world.connected();
    assert.deepEqual(node.last('connect').subscriptions, { 'chat:1': { position: { eu: { epoch: 'e', offset: 1 } } } });
    node.says(publication(2));
    assert.deepEqual(heard, [1, 2]);
  });
});

describe('a client that is closed', () => {
  it('ends iterations, also those that begin then, and leaves no timer', async () => {
    const { channel, world } = connected();
    const reading = channel.publications();
    const waiting = [channel.history(), channel.subscribe()];
    await settled();
    world.session.close();
    for (const one of waiting) await assert.rejects(one, { code: 110, transient: false });
    assert.deepEqual(await reading.next(), { value: undefined, done: true });
    assert.deepEqual(await channel.publications().next(), { value: undefined, done: true });
    await assert.rejects(channel.publish(1), { code: 110, transient: false });
    assert.equal(world.nextTick, Infinity);
  });
});
