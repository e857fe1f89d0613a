/** Publishes take effect once and in order, whatever happens to the connection. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OutcomeUnknownError } from '../../src/errors.js';
import type { ServerFrame } from '../../src/frames.js';
import type { FakeTransport } from './world.js';
import { World } from './world.js';

const keys = (node: FakeTransport): (string | undefined)[] => node.all('publish').map(({ key }) => key);

function accept(node: FakeTransport, offset = 1): void {
  const { id, channel } = node.last('publish');
  node.says(['published', { id, channel, origin: 'eu', epoch: 'e', offset }]);
}

function refuse(node: FakeTransport, index: number, code: number, fields = {}): void {
  const { id } = node.all('publish')[index] ?? { id: 0 };
  const transient = [100, 110, 111, 112].includes(code);
  node.says(['error', { id, code, reason: 'x', message: 'no', transient, ...fields }]);
}

describe('a publish', () => {
  it('gets its position', () => {
    const world = new World();
    const node = world.connected();
    const published = world.publish('chat:1', 'hi');
    assert.deepEqual(node.last('publish').data, '"hi"');
    accept(node, 42);
    assert.equal(published.at?.offset, 42);
  });

  it('made without a connection waits for one', () => {
    const world = new World();
    const published = [world.publish('chat:1', 1), world.publish('chat:1', 2)];
    const node = world.connected();
    assert.deepEqual(keys(node), ['key-1', 'key-2']);
    assert.deepEqual(published, [{}, {}]);
  });

  it('that was not answered is sent again with its key, in its order', () => {
    const world = new World();
    const node = world.connected();
    for (const data of [1, 2, 3]) world.publish('chat:1', data);
    node.breaks();
    world.publish('chat:1', 4);
    const next = world.comesBack();
    assert.deepEqual(keys(next), ['key-1', 'key-2', 'key-3', 'key-4']);
  });

  it('that was answered is not sent again', () => {
    const world = new World();
    const node = world.connected();
    world.publish('chat:1', 1);
    accept(node);
    node.breaks();
    assert.deepEqual(keys(world.comesBack()), []);
  });

  it('that fails for the moment holds up those behind it on its channel, and no other', () => {
    const world = new World();
    const node = world.connected();
    world.publish('chat:1', 1);
    refuse(node, 0, 110);
    world.publish('chat:1', 2);
    world.publish('chat:2', 3);
    assert.deepEqual(keys(node), ['key-1', 'key-3']);
    world.pass(1_000);
    assert.deepEqual(keys(node), ['key-1', 'key-3', 'key-1']);
    accept(node);
    world.pass(0);
    assert.deepEqual(keys(node), ['key-1', 'key-3', 'key-1', 'key-2']);
  });

  it('that fails for the moment is sent again before those that were on their way behind it', () => {
    const world = new World();
    const node = world.connected();
    const published = [1, 2, 3, 4].map((data) => world.publish('chat:1', data));
    refuse(node, 0, 110);
    const { id } = node.all('publish')[1] ?? { id: 0 };
    node.says(['published', { id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 }]);
    world.pass(1_000);
    // The last one is refused late, and must not go out ahead of the first.
    refuse(node, 3, 110);
    assert.deepEqual(keys(node).slice(4), ['key-1']);
    refuse(node, 4, 110);
    world.pass(1_000);
    assert.deepEqual(keys(node).slice(4), ['key-1', 'key-1']);
    accept(node, 2);
    world.pass(0);
    assert.deepEqual(keys(node).slice(4), ['key-1', 'key-1', 'key-3', 'key-4'], 'and not what was answered meanwhile');
    assert.deepEqual(published.map(({ at }) => at?.offset), [2, 1, undefined, undefined]);
  });

  it('that was being tried when the connection broke is tried first on the next one', () => {
    const world = new World();
    const node = world.connected();
    for (const data of [1, 2]) world.publish('chat:1', data);
    refuse(node, 0, 110);
    world.pass(1_000);
    node.breaks();
    const next = world.comesBack();
    assert.deepEqual(keys(next), ['key-1']);
    accept(next);
    world.pass(0);
    assert.deepEqual(keys(next), ['key-1', 'key-2']);
  });

  it('is sent again no sooner than the node says, and within a second of that however often it fails', () => {
    const world = new World();
    const node = world.connected();
    world.publish('chat:1', 1);
    for (let round = 0; round < 20; round += 1) {
      refuse(node, round, 110, { retry_after_ms: 300 });
      world.pass(299);
      assert.equal(keys(node).length, round + 1);
      world.pass(1_001);
      assert.equal(keys(node).length, round + 2);
      node.says(['ping', { seq: round, interval_ms: 60_000, timeout_ms: 60_000 }]);
    }
  });

  it('that was sent is not sent again once the nodes may have forgotten its key, and says that it may have taken effect', () => {
    for (const [limits, keyMs] of [[{}, 300_000], [{ idempotency_ms: 0 }, 300_000], [{ idempotency_ms: 60_000 }, 60_000]] as const) {
      for (const [waitMs, isSent] of [[keyMs - 12_000, true], [keyMs - 5_000, false]] as const) {
        const world = new World();
        const node = world.connected();
        const published = world.publish('chat:1', 1);
        node.breaks();
        const later = world.publish('chat:1', 2);
        world.time += waitMs;
        const next = world.comesBack({ limits: { frame_bytes: 0, publishes_per_second: 0, ...limits } });
        assert.deepEqual(keys(next), isSent ? ['key-1', 'key-2'] : ['key-2']);
        assert.equal(published.error instanceof OutcomeUnknownError, !isSent);
        assert.notEqual(published.error?.transient, true);
        assert.equal(later.error, undefined, 'what was never sent has no time to keep');
      }
    }
  });

  it('that was sent is given up without a connection, too, but not where none is wanted', () => {
    for (const isWanted of [true, false]) {
      const world = new World();
      const node = world.connected();
      const published = world.publish('chat:1', 1);
      if (isWanted) node.breaks();
      else world.session.disconnect();
      world.pass(300_000);
      assert.equal(published.error instanceof OutcomeUnknownError, isWanted);
      if (!isWanted) world.session.connect();
      world.pass(1);
      assert.ok(published.error instanceof OutcomeUnknownError);
    }
  });

  it('that a node never answers is given up once its key may be forgotten', () => {
    const world = new World();
    const limits = { frame_bytes: 0, publishes_per_second: 0, idempotency_ms: 10_000 };
    world.connected({ limits, heartbeat: { interval_ms: 60_000, timeout_ms: 60_000 } });
    const published = world.publish('chat:1', 1);
    const isGivenUp = (): boolean => published.error instanceof OutcomeUnknownError;
    world.pass(8_999);
    assert.ok(!isGivenUp());
    world.pass(1);
    assert.ok(isGivenUp());
    assert.equal(world.session.state, 'connected');
  });

  it('that the node fails at for the moment again and again is given up once its key may be forgotten', () => {
    const world = new World();
    const limits = { frame_bytes: 0, publishes_per_second: 0, idempotency_ms: 10_000 };
    const node = world.connected({ limits, heartbeat: { interval_ms: 60_000, timeout_ms: 60_000 } });
    const published = world.publish('chat:1', 1);
    const next = world.publish('chat:1', 2);
    for (let round = 0; published.error === undefined; round += 1) {
      assert.ok(round < 100, 'it is tried without end');
      if (node.all('publish').length > round) refuse(node, round, 110);
      world.pass(1_000);
    }
    assert.ok(published.error instanceof OutcomeUnknownError);
    assert.equal(next.at, undefined);
  });

  it('that fails for good tells why', () => {
    const world = new World();
    const node = world.connected();
    const published = world.publish('chat:1', 1);
    refuse(node, 0, 103);
    assert.equal(published.error?.code, 103);
    assert.equal(published.error.transient, false);
  });

  it('that is too large for the node is refused here', () => {
    const world = new World();
    const node = world.connected();
    const published = world.publish('chat:1', 'x'.repeat(70_000), 'k');
    assert.equal(published.error?.code, 107);
    assert.deepEqual(keys(node), []);
  });

  it('beyond the queue is refused, and may be tried later', () => {
    const world = new World({ publishQueue: 2 });
    const [, , third] = [1, 2, 3].map((data) => world.publish('chat:1', data));
    assert.equal(third?.error?.code, 106);
    assert.equal(third.error.transient, true);
  });

  it('can be taken back until it is sent', () => {
    const world = new World();
    const { traffic } = world.session;
    const nobody = { done: () => undefined, failed: () => undefined };
    const number = traffic.publish({ channel: 'chat:1', data: '1', key: 'k', ...nobody }) ?? 0;
    assert.equal(traffic.publishes.withdraw(number), true);
    const node = world.connected();
    assert.deepEqual(keys(node), []);
    const second = traffic.publish({ channel: 'chat:1', data: '1', key: 'k2', ...nobody }) ?? 0;
    assert.equal(traffic.publishes.withdraw(second), false);
  });

  it('goes out no faster than the node takes them, in order', () => {
    const world = new World();
    const limits = { frame_bytes: 0, publishes_per_second: 20 };
    const node = world.connected({ limits });
    for (let data = 0; data < 100; data += 1) world.publish('chat:1', data);
    // Less than the two seconds' worth that it would take.
    assert.equal(keys(node).length, 20);
    world.pass(1_000);
    assert.equal(keys(node).length, 40);
    world.pass(3_000);
    assert.deepEqual(
      keys(node),
      Array.from({ length: 100 }, (_, data) => `key-${data}`),
    );
  });

  it('moves with the session to another connection', () => {
    const world = new World();
    const node = world.connected();
    const published = world.publish('chat:1', 1);
    world.switchTo('websocket', assert.ifError);
    const next = world.opens('websocket');
    next.welcomes();
    assert.deepEqual(keys(next), ['key-1']);
    accept(next, 7);
    accept(node, 7);
    assert.equal(published.at?.offset, 7);
  });
});

describe('a request', () => {
  const history = (world: World, isRepeatable = true): { reply?: unknown; error?: unknown } => {
    const outcome: { reply?: unknown; error?: unknown } = {};
    world.session.traffic.ask('history', { channel: 'chat:1', limit: 10 }, {
      isRepeatable,
      done: (body) => (outcome.reply = body),
      failed: (error) => (outcome.error = error),
    });
    world.session.settle();
    return outcome;
  };

  it('made without a connection waits for one', () => {
    const world = new World();
    const outcome = history(world);
    const node = world.connected();
    const { id } = node.last('history');
    node.says(['history', { id, channel: 'chat:1', publications: [] }]);
    assert.deepEqual(outcome.reply, { id, channel: 'chat:1', publications: [] });
  });

  it('is asked again after a break if that does no harm, and fails otherwise', () => {
    const world = new World();
    const node = world.connected();
    const harmless = history(world);
    const once = history(world, false);
    node.breaks();
    assert.equal((once.error as { code: number }).code, 110);
    const next = world.comesBack();
    next.says(['history', { id: next.last('history').id, channel: 'chat:1', publications: [] }]);
    assert.ok(harmless.reply);
  });

  it('fails when its reply is another kind of frame, even one that says something of a channel', () => {
    const replies: ((id: number) => ServerFrame)[] = [
      (id) => ['subscribed', { id, channel: 'chat:1', position: {} }],
      (id) => ['unsubscribed', { id, channel: 'chat:1' }],
    ];
    for (const reply of replies) {
      const world = new World();
      const node = world.connected();
      let error: Error | undefined;
      world.session.traffic.ask('history', { channel: 'chat:1', limit: 1 }, { isRepeatable: true, failed: (reason) => (error = reason) });
      node.says(reply(node.last('history').id));
      assert.equal(error?.message, 'unexpected reply');
    }
  });

  it('fails when no reply comes in time', () => {
    const world = new World();
    world.connected({ heartbeat: { interval_ms: 60_000, timeout_ms: 1_000 } });
    const outcome = history(world);
    world.pass(10_000);
    assert.equal((outcome.error as { code: number }).code, 112);
  });
});
