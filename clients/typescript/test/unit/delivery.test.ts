/** What a channel's reader gets, whatever the connections do: each publication once, in order, and every gap told. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { json } from '../../src/encoding.js';
import type { ServerFrame } from '../../src/frames.js';
import { CONNECTED, publication, World } from './world.js';

describe('a subscription', () => {
  it('is asked for in `connect`, and begins at the position that the node names', () => {
    const world = new World();
    const reader = world.subscribe('chat:1', { history: 20, presence: true });
    const node = world.connected();
    assert.deepEqual(node.last('connect').subscriptions, { 'chat:1': { history: 20, presence: true } });
    node.says(publication(1), publication(2));
    assert.deepEqual(reader.publications, [1, 2]);
  });

  it('is asked for at once on a connection that stands', () => {
    const world = new World();
    const node = world.connected();
    const reader = world.subscribe('chat:1');
    const { id } = node.last('subscribe');
    node.says(['subscribed', { id, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 41 } } }]);
    node.says(publication(42));
    assert.deepEqual(reader.publications, [42]);
  });

  it('whose confirmation is not understood is asked for again', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    world.session.connect();
    const node = world.opens();
    node.says(['connected', { ...CONNECTED, id: node.last('connect').id }]);
    node.says(...json.fromMessage('{"subscribed":{"channel":"chat:1","position":{"eu":1}}}'));
    world.pass(5_000);
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: {} }], publication(1));
    assert.deepEqual(reader.publications, [1]);
  });

  it('holds what overtakes `connected` and `subscribed`', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    world.session.connect();
    const node = world.opens();
    node.says(publication(1), publication(2));
    assert.deepEqual(reader.publications, []);
    node.welcomes();
    assert.deepEqual(reader.publications, [1, 2]);
  });

  it('holds publications before `connected` and `subscribed` however many events come as well', () => {
    const event: ServerFrame = ['event', { channel: 'chat:1', session: 's', data: 1 }];
    const world = new World();
    const reader = world.subscribe('chat:1');
    world.session.connect();
    const node = world.opens();
    for (let count = 0; count < 9_000; count += 1) node.says(event);
    node.says(publication(3), ['connected', { ...CONNECTED, id: node.last('connect').id }]);
    for (let count = 0; count < 9_000; count += 1) node.says(event);
    node.says(publication(4), ['subscribed', { channel: 'chat:1', position: { eu: { epoch: 'e', offset: 2 } } }]);
    assert.ok(!node.isClosed);
    assert.deepEqual(reader.publications, [3, 4]);
    assert.ok(reader.events.length < 9_000);
  });

  it('drops duplicates by their position, and repeated messages by their key', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1, { key: 'a' }), publication(1, { key: 'a' }), publication(2, { key: 'a' }), publication(3));
    assert.deepEqual(reader.publications, [1, 3]);
  });

  it('moves past a gap that is told, and tells it', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1));
    node.says(['gap', { channel: 'chat:1', origin: 'eu', reason: 'trimmed', epoch: 'e', offset: 9 }]);
    node.says(publication(10));
    assert.deepEqual(reader.publications, [1, 10]);
    assert.deepEqual(reader.gaps.map(({ reason, offset }) => [reason, offset]), [['trimmed', 9]]);
  });

  it('goes on in a new epoch that a gap announced', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1));
    node.says(['gap', { channel: 'chat:1', origin: 'eu', reason: 'epoch_changed', epoch: 'f', offset: 0 }]);
    node.says(publication(1, { epoch: 'f', data: 'new' }));
    assert.deepEqual(reader.publications, [1, 'new']);
    assert.deepEqual(world.session.traffic.positionOf('chat:1'), { eu: { epoch: 'f', offset: 1 } });
  });

  it('resumes from its position when something is missing that no gap told of', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1), publication(3));
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    world.pass(1_000);
    const { id, position = {} } = node.last('subscribe');
    assert.deepEqual(position, { eu: { epoch: 'e', offset: 1 } });
    node.says(['subscribed', { id, channel: 'chat:1', position, recovered: true }], publication(2), publication(3));
    assert.deepEqual(reader.publications, [1, 2, 3]);
    assert.equal(world.dials.length, 1, 'the other channels notice nothing');
  });

  it('on which something is missing again and again is asked for more and more rarely', () => {
    const world = new World();
    world.subscribe('chat:1');
    const node = world.connected({ heartbeat: { interval_ms: 3_600_000, timeout_ms: 0 } });
    const waits: number[] = [];
    for (let round = 0; round < 9; round += 1) {
      node.says(publication(3));
      node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
      const begun = world.time;
      while (node.all('subscribe').length === round) world.pass(50);
      waits.push(world.time - begun);
      node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: {}, recovered: true }]);
    }
    assert.ok((waits[0] ?? 0) <= 1_000, String(waits));
    assert.ok((waits.at(-1) ?? 0) >= 10_000, String(waits));
    // It went well for a while.
    world.pass(61_000);
    node.says(publication(3));
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    world.pass(1_000);
    assert.equal(node.all('subscribe').length, 10);
  });

  it('gets nothing that comes after its end, and all of its next life', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1));
    world.session.traffic.unsubscribe('chat:1');
    const second = world.subscribe('chat:1');
    // In order: what comes before `unsubscribed` is the old subscription's, which may be further on.
    node.says(publication(8), publication(9));
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 6 } } }]);
    node.says(publication(7));
    assert.deepEqual(reader.publications, [1]);
    assert.deepEqual(second.publications, [7]);
    assert.equal(node.all('subscribe').length, 1);
  });

  it('gets nothing from the stream of the one before, whenever that comes', () => {
    const world = new World();
    world.subscribe('chat:1');
    const node = world.connected();
    world.session.traffic.unsubscribe('chat:1');
    node.says(['subscribed', { channel: 'chat:1', subscription: 4, position: {} }]);
    const second = world.subscribe('chat:1');
    // It may be further on.
    node.streams(4, publication(8));
    // Its own stream may be faster than the control stream.
    node.streams(9, publication(7));
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.streams(4, publication(9));
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', subscription: 9, position: { eu: { epoch: 'e', offset: 6 } } }]);
    node.streams(4, publication(10));
    node.streams(9, publication(8));
    assert.deepEqual(second.publications, [7, 8]);
    assert.equal(node.all('subscribe').length, 1);
  });

  it('is confirmed by the answer to its own request alone', () => {
    const world = new World();
    const node = world.connected();
    const first = world.subscribe('chat:1');
    const { id: firstId } = node.last('subscribe');
    world.session.traffic.unsubscribe('chat:1');
    const { id: leaving } = node.last('unsubscribe');
    const second = world.subscribe('chat:1');
    node.says(['subscribed', { id: firstId, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 2 } } }], publication(3));
    node.says(['unsubscribed', { id: leaving, channel: 'chat:1' }]);
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 5 } } }], publication(6));
    assert.deepEqual([first.publications, second.publications], [[], [6]]);
  });

  it('that the node does not let go for the moment is left until it is gone', () => {
    const world = new World();
    world.subscribe('chat:1');
    const node = world.connected();
    world.session.traffic.unsubscribe('chat:1');
    const refuse = (id: number): void => {
      node.says(['error', { id, code: 111, reason: 'rate_limited', message: 'slowly', transient: true, retry_after_ms: 300 }]);
    };
    refuse(node.last('unsubscribe').id);
    const second = world.subscribe('chat:1');
    node.says(['error', { id: node.last('subscribe').id, code: 105, reason: 'already_subscribed', message: 'still', transient: false }]);
    assert.equal(node.all('unsubscribe').length, 1);
    world.pass(600);
    assert.equal(node.all('unsubscribe').length, 2);
    // What comes meanwhile is the old one's.
    node.says(publication(1));
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    assert.equal(node.all('subscribe').length, 2);
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 1 } } }], publication(2));
    assert.deepEqual(second.publications, [2]);
    world.pass(20_000);
    assert.equal(node.all('unsubscribe').length, 2);
  });

  it('for which there is room once others are gone is asked for again', () => {
    const world = new World();
    world.subscribe('chat:1');
    const node = world.connected();
    world.session.traffic.unsubscribe('chat:1');
    const second = world.subscribe('chat:2');
    node.says(['error', { id: node.last('subscribe').id, code: 106, reason: 'limit_reached', message: 'too many', transient: false }]);
    assert.equal(second.end, undefined);
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    world.pass(2_000);
    assert.equal(node.all('subscribe').length, 2);
  });

  it('is left while its reader has no room, and taken up from where it was', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    reader.room = 2;
    node.says(publication(1), publication(2), publication(3), publication(4));
    assert.deepEqual(reader.publications, [1, 2]);
    assert.equal(node.last('unsubscribe').channel, 'chat:1');
    reader.room = 10;
    world.session.traffic.resume('chat:1');
    assert.deepEqual(node.last('subscribe').position, { eu: { epoch: 'e', offset: 2 } });
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: {}, recovered: true }]);
    node.says(publication(3), publication(4));
    assert.deepEqual(reader.publications, [1, 2, 3, 4]);
  });

  it('that the node refuses for now is asked for again, and one that it refuses for good is over', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const forbidden = world.subscribe('chat:2');
    const node = world.connected();
    node.says(['unsubscribed', { channel: 'chat:1', code: 110, reason: 'unavailable' }]);
    node.says(['unsubscribed', { channel: 'chat:2', code: 103, reason: 'forbidden' }]);
    assert.equal(forbidden.end?.code, 103);
    assert.equal(forbidden.end.transient, false);
    assert.equal(node.all('subscribe').length, 0);
    world.pass(1_000);
    assert.equal(node.last('subscribe').channel, 'chat:1');
    assert.equal(reader.end, undefined);
  });

  it('that the node has already is made anew from the position held', () => {
    const world = new World();
    const node = world.connected();
    const reader = world.subscribe('chat:1', { position: { eu: { epoch: 'e', offset: 3 } } });
    node.says(['error', { id: node.last('subscribe').id, code: 105, reason: 'already_subscribed', message: 'no', transient: false }]);
    assert.equal(reader.end, undefined);
    node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
    node.says(['subscribed', { id: node.last('subscribe').id, channel: 'chat:1', position: {}, recovered: true }]);
    node.says(publication(4));
    assert.deepEqual(reader.publications, [4]);
  });

  it('refused for now waits as long as that takes, whatever room its reader makes', () => {
    const world = new World();
    world.subscribe('chat:1');
    const node = world.connected();
    node.says(['unsubscribed', { channel: 'chat:1', code: 110, reason: 'unavailable' }]);
    world.session.traffic.resume('chat:1');
    assert.equal(node.all('subscribe').length, 0);
    world.pass(1_000);
    assert.equal(node.all('subscribe').length, 1);
  });

  it('that does not fit into `connect` is asked for after it', () => {
    const world = new World();
    for (let index = 0; index < 500; index += 1) world.subscribe(`chat:${String(index).padStart(200, '0')}`);
    const node = world.connected();
    const first = Object.keys(node.last('connect').subscriptions ?? {}).length;
    assert.ok(first > 10 && first < 500, String(first));
    assert.equal(first + node.all('subscribe').length, 500);
  });

  it('gets each publication of two overlapping connections once', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1));
    world.switchTo('websocket', assert.ifError);
    const next = world.opens('websocket');
    node.says(publication(2));
    next.says(publication(2), publication(3));
    node.says(publication(3));
    next.welcomes({ resume: 'r2' });
    next.says(publication(4));
    assert.deepEqual(reader.publications, [1, 2, 3, 4]);
    assert.ok(node.isClosed);
  });
});
