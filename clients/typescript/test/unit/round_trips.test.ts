/** How long replies take, as a client tells it. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { type FakeTransport, World } from './world.js';

let world: World;
let transport: FakeTransport;

beforeEach(() => {
  world = new World();
  transport = world.connected();
});

/** Asks the node something. Answers how the node replies. */
function asked(): () => void {
  world.session.traffic.ask('presence', { channel: 'chat:1' }, { isRepeatable: true, failed: (error) => assert.fail(error) });
  world.session.settle();
  const { id, channel } = transport.last('presence');
  return () => {
    transport.says(['presence', { id, channel, count: 0, members: [] }]);
  };
}

function rttMs(): number {
  return world.session.traffic.requests.trips.smoothedMs;
}

describe('the time to a reply', () => {
  it('is measured and smoothed, however long it is', () => {
    const first = asked();
    world.pass(40);
    first();
    assert.equal(rttMs(), 40);
    const slow = asked();
    world.pass(1_800);
    slow();
    assert.equal(rttMs(), 260);
  });

  it('does not count where the process slept, or the clock was set, before the reply', () => {
    for (const jumpMs of [20_000, 3_600_000]) {
      const reply = asked();
      world.time += jumpMs;
      reply();
      assert.equal(rttMs(), 0);
    }
  });

  it('does not count where a timer was the first to run after the sleep', () => {
    const reply = asked();
    world.sleep(4_000);
    world.pass(10);
    reply();
    assert.equal(rttMs(), 0);
    const next = asked();
    world.pass(30);
    next();
    assert.equal(rttMs(), 30, 'the next one counts again');
  });

  it('asks for no timer while no reply is waited for', () => {
    const reply = asked();
    world.pass(10);
    reply();
    world.pass(1_500);
    assert.ok(world.nextTick - world.time > 10_000);
  });
});
