/** Subscriptions of a channel that end, and begin again. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Asking } from '../../src/asking.js';
import { Channel } from '../../src/channel.js';
import type { ServerFrame } from '../../src/frames.js';
import type { StandardSchema } from '../../src/payload_schema.js';
import { confirm, connected, settled, told } from './channel_stage.js';
import { publication } from './world.js';

describe('a subscription that begins again', () => {
  it('keeps the position of one component when another one asks for more before the confirmation', async () => {
    const stored = { eu: { epoch: 'e', offset: 5 } };
    const stage = connected({ position: stored });
    const { channel, node } = stage;
    const reading = channel.publications();
    await settled();
    channel.configure({ presence: true, position: undefined });
    const { id, position, presence } = node.last('subscribe');
    assert.deepEqual([position, presence], [stored, true]);
    node.says(['subscribed', { id: 1, channel: 'chat:1', position: stored, recovered: true }]);
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id, channel: 'chat:1', position: stored, recovered: true }], publication(6));
    assert.equal((await reading.next()).value?.data, 6);
  });

  it('begins as all components say that name its channel, whatever the last one leaves out', async () => {
    const { channel, node } = connected({ history: 5 });
    channel.configure({ presence: true });
    channel.configure({});
    channel.on('publication', () => undefined);
    await settled();
    const { id, channel: name } = node.last('subscribe');
    assert.deepEqual(node.last('subscribe'), { id, channel: name, history: 5, presence: true });
  });

  it('begins where an iteration wants to that comes before the confirmation', async () => {
    const stage = connected();
    const { channel, node } = stage;
    channel.on('publication', () => undefined);
    await settled();
    const { id: first } = node.last('subscribe');
    channel.configure({ position: { eu: { epoch: 'e', offset: 1 } } });
    const reading = channel.publications();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 1 } });
    node.says(['subscribed', { id: first, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 4 } } }], publication(5));
    told(stage);
    const read = [];
    for (let count = 0; count < 3; count += 1) read.push((await reading.next()).value?.data);
    assert.deepEqual(read, [2, 3, 4]);
  });

  it('gives each iteration what comes after its own position, whoever else begins earlier or later', async () => {
    for (const offsets of [[3, 1], [1, 3]]) {
      const stage = connected();
      const readings = offsets.map((offset) => {
        stage.channel.configure({ position: { eu: { epoch: 'e', offset } } });
        return stage.channel.publications();
      });
      await settled();
      confirm(stage, 1);
      stage.node.says(...[2, 3, 4].map((offset) => publication(offset)));
      const firsts = await Promise.all(readings.map((reading) => reading.next()));
      assert.deepEqual(firsts.map(({ value }) => value?.data), offsets.map((offset) => offset + 1));
      assert.deepEqual(stage.node.last('subscribe').position, { eu: { epoch: 'e', offset: 1 } });
    }
  });

  it('goes back for an iteration that names an earlier position, and repeats nothing to listeners', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const heard: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    await settled();
    confirm(stage, 2);
    node.says(publication(3));
    channel.configure({ position: { eu: { epoch: 'e', offset: 1 } } });
    const reading = channel.publications();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 1 } });
    told(stage);
    const read = [];
    for (let count = 0; count < 3; count += 1) read.push((await reading.next()).value?.data);
    assert.deepEqual(read, [2, 3, 4]);
    assert.deepEqual(heard, [3, 4, 5, 6, 7, 8, 9]);
  });

  it('goes back into an epoch that is over for the iteration that is there, whoever else is in the next one', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const slow = channel.publications();
    channel.configure({ queue: 100 });
    channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3].map((offset) => publication(offset)));
    node.says(['gap', { channel: 'chat:1', origin: 'eu', reason: 'epoch_changed', epoch: 'f', offset: 0 }]);
    node.says(publication(1, { epoch: 'f' }));
    for (const data of [1, 2]) assert.equal((await slow.next()).value?.data, data);
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 2 } });
  });

  it('repeats nothing to those who are ahead by an epoch where an iteration names a position before it', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const heard: string[] = [];
    channel.on('publication', ({ epoch, offset }) => heard.push(`${epoch}${offset}`));
    channel.on('gap', ({ epoch, offset }) => heard.push(`gap ${epoch}${offset}`));
    const ahead = channel.publications();
    await settled();
    confirm(stage);
    const change: ServerFrame = ['gap', { channel: 'chat:1', origin: 'eu', epoch: 'f', offset: 0, reason: 'epoch_changed' }];
    node.says(publication(1), publication(2), change, publication(1, { epoch: 'f' }));
    const position = { eu: { epoch: 'e', offset: 1 } };
    channel.configure({ position });
    const behind = channel.publications();
    const { id } = node.last('subscribe');
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id, channel: 'chat:1', position, recovered: false, reason: 'epoch_changed' }]);
    node.says(publication(2), change, publication(1, { epoch: 'f' }), publication(2, { epoch: 'f' }));
    const read: string[][] = [[], []];
    for (const [index, reading] of [ahead, behind].entries()) {
      while (read[index]?.at(-1) !== 'f2') {
        const { value } = await reading.next();
        assert.ok(value);
        read[index]?.push(`${value.epoch}${value.offset}`);
      }
    }
    // What the other one misses of the former epoch is told as well.
    assert.deepEqual(heard, ['e1', 'e2', 'gap f0', 'f1', 'gap f0', 'f2']);
    assert.deepEqual(read, [['e1', 'e2', 'f1', 'f2'], ['e2', 'f1', 'f2']]);
  });

  it('tells listeners of a gap before an iteration takes them into an epoch that they have not heard of', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const told: unknown[] = [];
    channel.on('publication', ({ epoch, offset }) => told.push([epoch, offset]));
    channel.on('gap', ({ origin, epoch, offset, reason }) => told.push([origin, epoch, offset, reason]));
    await settled();
    confirm(stage, 7);
    node.says(publication(8));
    channel.configure({ position: { eu: { epoch: 'f', offset: 2 } } });
    const reading = channel.publications();
    const { id, position } = node.last('subscribe');
    assert.deepEqual(position, { eu: { epoch: 'f', offset: 2 } });
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id, channel: 'chat:1', position, recovered: true }]);
    assert.deepEqual(told, [['e', 8], ['eu', 'f', 2, 'epoch_changed']]);
    node.says(publication(3, { epoch: 'f' }));
    assert.deepEqual(told.slice(2), [['f', 3]]);
    assert.equal((await reading.next()).value?.offset, 3);
    // Nobody is told again after a break.
    node.breaks();
    const next = stage.world.comesBack({ resumed: true });
    next.says(publication(4, { epoch: 'f' }));
    assert.deepEqual(told.slice(3), [['f', 4]]);
  });

  it('tells listeners of a gap where an epoch has ended in a region of which a slow iteration has seen nothing', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const told: unknown[] = [];
    channel.on('publication', ({ origin, epoch, offset }) => told.push([origin, epoch, offset]));
    channel.on('gap', ({ origin, epoch, offset, reason }) => told.push([origin, epoch, offset, reason]));
    const slow = channel.publications();
    await settled();
    confirm(stage);
    node.says(publication(1), publication(2), publication(3), publication(1, { origin: 'us' }));
    await slow.next();
    const { id, position } = node.last('subscribe');
    assert.deepEqual(position, { eu: { epoch: 'e', offset: 2 } });
    // What followed in the epoch that is over is lost.
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id, channel: 'chat:1', position, recovered: true }], publication(3), publication(1, { origin: 'us', epoch: 'f' }));
    assert.deepEqual(told.slice(3), [['us', 'e', 1], ['us', 'f', 0, 'epoch_changed'], ['us', 'f', 1]]);
  });

  it('goes on in an epoch that it was led back from, once a gap leads there again', async () => {
    const stage = connected();
    const { channel, node } = stage;
    const told: unknown[] = [];
    channel.on('publication', ({ epoch, offset }) => told.push([epoch, offset]));
    const reading = channel.publications();
    await settled();
    confirm(stage, 7);
    node.says(publication(8));
    // Who says so has not heard of that epoch yet, as a tab may be that holds the connection in another region.
    const next = stage.world;
    node.breaks();
    const later = next.comesBack({}, 'websocket');
    later.says(['unsubscribed', { channel: 'chat:1', code: 110, reason: 'unavailable' }]);
    next.pass(5_000);
    const { id, position = {} } = later.last('subscribe');
    const leads = (epoch: string, offset: number): void => {
      later.says(['gap', { channel: 'chat:1', origin: 'eu', epoch, offset, reason: 'epoch_changed' }]);
    };
    later.says(['subscribed', { id, channel: 'chat:1', position, recovered: false, reason: 'epoch_changed' }]);
    leads('d', 3);
    later.says(publication(4, { epoch: 'd' }));
    leads('e', 8);
    later.says(publication(9));
    assert.deepEqual(told, [['e', 8], ['d', 4], ['e', 9]]);
    const read = [await reading.next(), await reading.next(), await reading.next()];
    assert.deepEqual(read.map(({ value }) => value?.offset), [8, 4, 9]);
  });

  it('takes nothing from listeners for an iteration that begins later, once one that had gone back has left', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const heard: unknown[] = [];
    channel.on('publication', ({ epoch, data }) => heard.push(`${epoch}${String(data)}`));
    const slow = channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3].map((offset) => publication(offset)));
    node.says(['gap', { channel: 'chat:1', origin: 'eu', reason: 'epoch_changed', epoch: 'f', offset: 0 }], publication(1, { epoch: 'f' }));
    for (const data of [1, 2]) assert.equal((await slow.next()).value?.data, data);
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 2 } });
    await slow.return?.();
    channel.configure({ position: { eu: { epoch: 'f', offset: 3 } } });
    channel.publications();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'f', offset: 1 } });
    assert.deepEqual(heard, ['e1', 'e2', 'e3', 'f1']);
  });

  it('tells once what does not fit the schema', async () => {
    const even: StandardSchema = {
      '~standard': { version: 1, vendor: 'test', validate: (value) => (value === 3 ? { issues: [{ message: 'odd' }] } : { value }) },
    };
    const stage = connected({ queue: 1, schema: even });
    const { channel, node } = stage;
    let invalid = 0;
    channel.on('invalid', () => (invalid += 1));
    channel.on('publication', () => undefined);
    const slow = channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3].map((offset) => publication(offset)));
    await slow.next();
    told(stage);
    assert.equal((await slow.next()).value?.data, 2);
    assert.equal(invalid, 1);
  });

  it('is over when the node ends it, whatever a slow iteration still reads', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    channel.on('publication', () => undefined);
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3, 4].map((offset) => publication(offset)));
    node.says(['unsubscribed', { channel: 'chat:1', code: 103, reason: 'forbidden' }]);
    await reading.next();
    await reading.next();
    await assert.rejects(reading.next(), { code: 103 });
    await settled();
    assert.equal(node.all('subscribe').length, 1);
  });

  it('is over after `unsubscribe()`, even with an iteration that is behind', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    channel.on('publication', () => undefined);
    channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3, 4].map((offset) => publication(offset)));
    channel.unsubscribe();
    await settled();
    assert.deepEqual([node.all('subscribe').length, node.all('unsubscribe').length], [1, 1]);
  });

  it('goes on for a later iteration when an earlier one is full and abandoned', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3].map((offset) => publication(offset)));
    assert.equal(node.all('unsubscribe').length, 1);
    const later = channel.publications();
    assert.equal(node.all('subscribe').length, 2);
    told(stage);
    assert.equal((await later.next()).value?.data, 3);
  });

  it('goes back for an iteration that is behind as far as that one is, and no further', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    channel.on('publication', () => undefined);
    const abandoned = channel.publications();
    const good = channel.publications();
    await settled();
    confirm(stage);
    node.says(publication(1), publication(2));
    await good.next();
    await good.next();
    node.says(publication(3), publication(4), publication(5));
    await good.next();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 4 } });
    told(stage);
    await abandoned.next();
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 2 } });
  });

  it('tells what an iteration has lost, though its listeners have heard it', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const gaps: number[] = [];
    channel.on('gap', ({ offset }) => gaps.push(offset));
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(...[1, 2, 3, 4, 5].map((offset) => publication(offset)));
    await reading.next();
    const { id, position = {} } = node.last('subscribe');
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id, channel: 'chat:1', position, recovered: false, reason: 'trimmed' }]);
    node.says(['gap', { channel: 'chat:1', origin: 'eu', reason: 'trimmed', epoch: 'e', offset: 5 }], publication(6));
    assert.deepEqual(gaps, [5]);
    await reading.next();
    assert.equal((await reading.next()).value?.data, 6);
  });

  it('that was asked for in vain does not come back with the next connection', async () => {
    const { world, node, channel } = connected();
    const asked = channel.subscribe();
    node.says(['disconnect', { code: 3504, reason: 'disconnected', reconnect: false }]);
    await assert.rejects(asked);
    await settled();
    world.session.connect();
    assert.equal(world.opens().last('connect').subscriptions?.['chat:1'], undefined);
  });

  it('that is given up before it is confirmed is left', async () => {
    const { node, channel } = connected();
    const stop = new AbortController();
    const asked = channel.subscribe({ signal: stop.signal });
    stop.abort();
    await assert.rejects(asked);
    await settled();
    assert.equal(node.all('unsubscribe').length, 1);
  });

  it('stands behind a gap that was told, which nobody is told again', async () => {
    const stage = connected({ queue: 2 });
    const { channel, node } = stage;
    const gaps: number[] = [];
    channel.on('gap', ({ offset }) => gaps.push(offset));
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(['gap', { channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 4, reason: 'trimmed' }]);
    assert.deepEqual(channel.position, { eu: { epoch: 'e', offset: 4 } });
    node.says(publication(5));
    assert.equal((await reading.next()).value?.data, 5);
    assert.deepEqual(gaps, [4]);
  });

  it('stands behind what was published twice, in two regions, as do its iterations', async () => {
    const stage = connected();
    const { node, channel } = stage;
    channel.on('publication', () => undefined);
    const reading = channel.publications();
    await settled();
    confirm(stage);
    node.says(publication(1, { key: 'k' }), publication(1, { key: 'k', origin: 'us' }));
    assert.deepEqual((await reading.next()).value?.origin, 'eu');
    assert.deepEqual(channel.position, { eu: { epoch: 'e', offset: 1 }, us: { epoch: 'e', offset: 1 } });
  });

  it('is not revived by a listener whose signal has aborted', async () => {
    const stage = connected();
    const { channel, node } = stage;
    channel.on('publication', () => undefined);
    await settled();
    channel.unsubscribe();
    channel.on('publication', () => undefined, { signal: AbortSignal.abort() });
    await settled();
    assert.equal(node.all('subscribe').length, 1);
  });

  it('takes no name and no position that would cost the others their connection', () => {
    const { channel, world } = connected();
    assert.throws(() => new Channel('chat:\ud83d', new Asking(world.session)), { code: 107 });
    for (const position of [{ eu: { epoch: 'e', offset: -1 } }, { eu: 5 }, { eu: { epoch: '\ud83d', offset: 1 } }, { eu: { epoch: 'e'.repeat(33), offset: 1 } }, []]) {
      assert.throws(() => {
        channel.configure({ position: position as never });
      }, { code: 107 });
    }
  });
});
