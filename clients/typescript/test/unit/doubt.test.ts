/** A node that owes an answer and says nothing: it is asked, and in case it is gone another connection is opened beside it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ServerFrame } from '../../src/frames.js';
import type { SessionOptions } from '../../src/session/state.js';
import { type FakeTransport, World } from './world.js';

const HEARTBEAT = { interval_ms: 7_000, timeout_ms: 4_000 };
const EVENT: ServerFrame = ['event', { channel: 'chat:9', session: 's', data: 1 }];

/** A client that has published, and heard nothing since. */
function waiting(options: Partial<SessionOptions> = {}, heartbeat = HEARTBEAT): { world: World; node: FakeTransport } {
  const world = new World(options);
  const node = world.connected({ heartbeat });
  world.pass(3_000);
  world.publish('chat:1', 1);
  return { world, node };
}

/** It answers all that it was asked. */
function answers(node: FakeTransport): void {
  const { id } = node.last('unsubscribe');
  node.says(['error', { id, code: 104, reason: 'not_subscribed', message: 'no', transient: false }]);
  node.says(['published', { id: node.last('publish').id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 }]);
}

/** How often it has been asked for a sign of life. */
const asked = (node: FakeTransport): number => node.all('unsubscribe').length;

describe('a node that owes an answer and says nothing', () => {
  it('is left within about two seconds for a connection that is opened beside it', () => {
    const { world, node } = waiting();
    world.pass(749);
    assert.equal(asked(node), 0);
    world.pass(1);
    assert.equal(asked(node), 1);
    assert.equal(world.dials.length, 1);
    world.pass(900);
    assert.equal(world.dials.length, 2);
    assert.ok(!node.isClosed, 'it may live');
    const second = world.opens();
    second.welcomes({ node: 'n2' });
    assert.ok(node.isClosed);
    assert.equal(second.last('publish').key, node.last('publish').key);
    assert.ok(!world.told.slice(2).some(({ state }) => state !== 'connected'), 'nobody notices');
  });

  it('is kept where it says anything once it is asked', () => {
    const { world, node } = waiting();
    world.pass(750);
    const { id } = node.last('unsubscribe');
    node.says(['error', { id, code: 104, reason: 'not_subscribed', message: 'no', transient: false }]);
    world.pass(800);
    node.says(EVENT);
    world.pass(700);
    assert.equal(world.dials.length, 1);
  });

  it('is kept where it speaks while another connection is opened, which is given up', () => {
    const { world, node } = waiting();
    world.pass(2_000);
    const { dialing } = world;
    node.says(EVENT);
    assert.ok(dialing.isCancelled);
    answers(node);
    world.pass(5_000);
    assert.equal(world.dials.length, 2);
    assert.equal(world.session.state, 'connected');
    assert.ok(!node.isClosed);
  });

  it('is looked away from no more than once in half a minute', () => {
    const { world, node } = waiting();
    world.pass(2_000);
    world.fails();
    for (let silences = 0; silences < 18; silences += 1) {
      node.says(EVENT);
      world.pass(3_900);
    }
    assert.equal(world.dials.length, 4, 'after half a minute each');
    assert.ok(!node.isClosed);
  });

  for (const [code, reason] of [[3006, 'overloaded'], [3005, 'token_expired']] as const) {
    it(`is left alone once it has refused the second connection: ${reason}`, () => {
      const { world, node } = waiting({ canRefresh: true });
      world.pass(2_000);
      const second = world.opens();
      node.says(EVENT);
      answers(node);
      assert.ok(!second.isClosed, 'it was told already');
      second.says(['disconnect', { code, reason, reconnect: true }]);
      world.pass(6_000);
      assert.equal(world.dials.length, 2);
      assert.equal(world.session.state, 'connected');
      assert.ok(!node.isClosed);
    });
  }

  it('counts as gone after the time-out of its heartbeat, with nobody else to go to', () => {
    const { world, node } = waiting();
    world.pass(4_749);
    assert.ok(!node.isClosed);
    world.pass(1);
    assert.ok(node.isClosed);
    assert.equal(world.session.state, 'connecting');
  });

  it('is given more time on a path on which replies take long', () => {
    const { world, node } = waiting();
    world.pass(400);
    node.says(['published', { id: node.last('publish').id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 }]);
    world.publish('chat:1', 2);
    world.pass(1_799);
    assert.equal(asked(node), 0);
    world.pass(1);
    assert.equal(asked(node), 1);
    world.pass(2_159);
    assert.equal(world.dials.length, 1);
    world.pass(1);
    assert.equal(world.dials.length, 2);
  });

  it('is moved away from as it wanted where it drains', () => {
    const { world, node } = waiting();
    node.says(['drain', { after_ms: 20_000, url: 'https://b.example' }]);
    world.pass(3_500);
    const { dialing } = world;
    node.says(EVENT);
    assert.ok(dialing.isCancelled);
    assert.equal(world.session.due?.purpose, 'drain');
    assert.equal(world.dials.length, 2);
    world.pass(1_500);
    assert.equal(world.dials.length, 3);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect');
  });

  it('is left for where it sends this client where it falls silent long before that is due', () => {
    const { world, node } = waiting();
    node.says(['drain', { after_ms: 3_600_000, url: 'https://b.example' }]);
    world.pass(2_000);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect');
    assert.ok(!node.isClosed, 'it may live');
    world.opens().welcomes({ node: 'n2' });
    assert.ok(node.isClosed);
  });

  it('is not doubted where it has no time-out, as a tab that holds the connection for others', () => {
    const { world, node } = waiting({}, { interval_ms: 86_400_000, timeout_ms: 0 });
    world.pass(60_000);
    assert.equal(asked(node), 0);
    assert.equal(world.dials.length, 1);
  });

  it('is doubted where it owes nothing once its beat is missed', () => {
    const world = new World();
    const node = world.connected({ heartbeat: HEARTBEAT });
    world.pass(7_749);
    assert.equal(asked(node), 0);
    world.pass(1);
    assert.equal(asked(node), 1);
    assert.equal(world.dials.length, 1);
    world.pass(900);
    assert.equal(world.dials.length, 2);
  });
});
