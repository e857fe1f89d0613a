/** How a session comes back: by its newest secret, at the right time, to the right node. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Address, parseAddress } from '../../src/address.js';
import { lost, TokenError } from '../../src/errors.js';
import type { ServerFrame } from '../../src/frames.js';
import type { State } from '../../src/session/state.js';
import { publication, World } from './world.js';

const FULL: ServerFrame = ['disconnect', { code: 3006, reason: 'overloaded', reconnect: true, retry_after_ms: 60_000 }];

const hasExpired = ({ session }: World): boolean | undefined => session.connection?.hasExpired;

describe('a session', () => {
  it('tells what it does: disconnected, connecting, connected', () => {
    const world = new World();
    assert.equal(world.session.state, 'disconnected');
    world.connected();
    world.session.disconnect();
    assert.deepEqual(
      world.told.map(({ state }) => state),
      ['connecting', 'connected', 'disconnected'],
    );
  });

  it('begins nothing that is given up by whoever is told that it is about to begin', () => {
    class Reluctant extends World {
      override stateChanged(state: State): void {
        if (state === 'connecting') this.session.disconnect();
      }
    }
    const world = new Reluctant();
    world.session.connect();
    world.pass(60_000);
    assert.equal(world.session.state, 'disconnected');
    assert.equal(world.dials.length, 0);
  });

  it('resumes with the newest secret and all positions', () => {
    const world = new World();
    world.subscribe('chat:1');
    const node = world.connected({ resume: 'r1' });
    node.says(publication(1));
    node.breaks();
    const second = world.comesBack({ resume: 'r2' });
    assert.equal(second.last('connect').resume, 'r1');
    second.breaks();
    const third = world.comesBack({ resume: 'r3' });
    assert.equal(third.last('connect').resume, 'r2');
    assert.deepEqual(third.last('connect').subscriptions, { 'chat:1': { position: { eu: { epoch: 'e', offset: 1 } } } });
    assert.equal(world.session.connection?.connects, 3);
  });

  it('says that the one before has expired, where the node did not know it any more', () => {
    const world = new World();
    const node = world.connected({ user: 'alice' });
    assert.equal(hasExpired(world), false);
    node.breaks();
    const same = world.comesBack({ user: 'alice' });
    assert.equal(hasExpired(world), false);
    same.breaks();
    const other = world.comesBack({ user: 'alice', resumed: false });
    assert.equal(hasExpired(world), true);
    other.breaks();
    world.comesBack({ user: 'bob', resumed: false });
    assert.equal(hasExpired(world), false, "it is another user's");
  });

  it('waits with full jitter, longer after each failed round', () => {
    const world = new World();
    world.chance = 0.999;
    world.session.connect();
    const waits: number[] = [];
    for (let round = 0; round < 9; round += 1) {
      world.fails();
      const begin = world.time;
      const before = world.dials.length;
      while (world.dials.length === before) world.pass(10);
      waits.push(world.time - begin);
    }
    for (const [index, wait] of waits.entries()) {
      const bound = Math.min(20_000, 200 * 2 ** index);
      assert.ok(wait > bound * 0.9 && wait <= bound + 10, `${index}: ${wait}`);
    }
  });

  it('is at the next node at once when one does not answer, and tells why it waits', () => {
    const world = new World({ addresses: [parseAddress('https://a.example'), parseAddress('https://b.example')] });
    world.session.connect();
    const { targets } = world.dialing.request;
    assert.deepEqual(targets.map(({ address }) => address.webtransport), [
      'https://a.example/v1/connect',
      'https://b.example/v1/connect',
    ]);
    world.fails(lost('nobody there'));
    assert.equal(world.told.at(-1)?.error?.message, 'nobody there');
  });

  it('goes to the regions that nodes told it of, never from TLS to none', () => {
    const world = new World();
    const node = world.connected({
      regions: [
        { name: 'us', url: 'https://us.example:4433' },
        { name: 'ap', url: 'ws://ap.example' },
      ],
    });
    node.breaks();
    world.pass(1_000);
    const keys = world.dialing.request.targets.map(({ address }) => address.webtransport);
    assert.deepEqual(keys, ['https://a.example/v1/connect', 'https://us.example:4433/v1/connect']);
  });

  it('stays away after a final close code, and fails what waits', () => {
    const world = new World();
    const node = world.connected();
    const published = world.publish('chat:1', 1);
    node.says(['disconnect', { code: 3504, reason: 'disconnected', reconnect: false }]);
    assert.equal(world.session.state, 'disconnected');
    assert.equal(world.told.at(-1)?.error?.code, 3504);
    assert.equal(published.error?.code, 3504);
    world.pass(600_000);
    assert.equal(world.dials.length, 1);
  });

  it('comes back at once after `rotate`', () => {
    const world = new World();
    const node = world.connected();
    world.pass(6_000);
    node.says(['disconnect', { code: 3007, reason: 'rotate', reconnect: true }]);
    world.pass(0);
    assert.equal(world.dials.length, 2);
  });

  it('comes back no sooner than the node says, and at random within that time again, half a minute at most', () => {
    for (const [toldMs, spreadMs] of [[4_000, 4_000], [100_000, 30_000]] as const) {
      for (const isGreeted of [true, false]) {
        const world = new World();
        world.session.connect();
        const node = world.opens();
        if (isGreeted) node.welcomes();
        node.says(['disconnect', { code: 3006, reason: 'overloaded', reconnect: true, retry_after_ms: toldMs }]);
        assert.equal(world.told.at(-1)?.error?.retryAfterMs, toldMs);
        world.pass(toldMs + spreadMs / 2 - 1);
        // Nothing that the page notices makes it sooner.
        world.session.check();
        assert.equal(world.dials.length, 1);
        world.pass(1);
        assert.equal(world.dials.length, 2, `${toldMs} ${isGreeted}`);
      }
    }
  });

  it('is at another node at once when one has no room for a while', () => {
    const world = new World({ addresses: [parseAddress('https://a.example'), parseAddress('https://b.example')] });
    world.session.connect();
    world.opens().says(FULL);
    world.pass(0);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect');
  });

  it('does not come back sooner to the one that has no room, and waits no longer for another that is gone', () => {
    for (const isLast of [true, false]) {
      const world = new World({ addresses: ['a', 'b'].map((name) => parseAddress(`https://${name}.example`)) as [Address, Address] });
      world.session.connect();
      if (!isLast) {
        world.opens('webtransport', { index: 0 }).says(FULL);
        world.pass(0);
        world.fails();
      } else world.opens('webtransport', { index: 0, failed: [1] }).says(FULL);
      const before = world.dials.length;
      world.pass(30_000);
      const tried = world.dials.slice(before).flatMap(({ request }) => request.targets.map(({ address }) => address.key));
      assert.ok(tried.length > 0, 'nobody is tried');
      assert.ok(tried.every((key) => key.includes('b.example')), tried.join());
    }
  });

  it('gives up a connection that does not answer `connect`', () => {
    const world = new World();
    world.session.connect();
    const silent = world.opens();
    world.pass(5_000);
    assert.ok(silent.isClosed);
    world.comesBack();
    assert.equal(world.session.state, 'connected');
  });

  it('that was replaced by an attempt which it had given up comes back with a newer one', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected({ resume: 'r1' });
    node.says(publication(1));
    world.switchTo('websocket', () => undefined);
    // The node took this one for the newest, but its answer never came.
    world.opens('websocket');
    world.pass(5_000);
    node.says(['disconnect', { code: 3500, reason: 'replaced', reconnect: false }]);
    const next = world.comesBack({ resume: 'r9' });
    assert.equal(next.last('connect').resume, 'r1');
    assert.equal(next.last('connect').attempt, 3);
    next.says(publication(2));
    assert.deepEqual(reader.publications, [1, 2]);
  });

  it('counts its attempts over all transports', () => {
    const world = new World();
    const node = world.connected();
    assert.equal(node.last('connect').attempt, 1);
    node.breaks();
    assert.equal(world.comesBack().last('connect').attempt, 2);
  });

  it('of another user than before begins anew, and publishes nothing in that name', () => {
    const world = new World();
    const node = world.connected({ resume: 'of alice', user: 'alice' });
    const published = world.publish('chat:1', 1);
    world.session.disconnect();
    assert.ok(node.isClosed);
    world.session.connect();
    const refusing = world.opens();
    assert.equal(refusing.last('connect').resume, 'of alice');
    refusing.says(['disconnect', { code: 3503, reason: 'unauthenticated', reconnect: false }]);
    world.pass(0);
    const next = world.opens();
    assert.equal(next.last('connect').resume, undefined);
    next.welcomes({ user: 'bob' });
    assert.equal(world.session.state, 'connected');
    assert.equal(published.error?.code, 103);
    assert.equal(next.all('publish').length, 0);
  });

  it('that is refused without a secret as well stops', () => {
    const world = new World();
    world.connected({ resume: 'r1' }).breaks();
    for (const resume of ['r1', undefined]) {
      world.pass(1_000);
      const refusing = world.opens();
      assert.equal(refusing.last('connect').resume, resume);
      refusing.says(['disconnect', { code: 3503, reason: 'unauthenticated', reconnect: false }]);
    }
    assert.equal(world.session.state, 'disconnected');
  });

  it('that a node for development refuses tells why, beside the word for the code', () => {
    const world = new World();
    world.session.connect();
    world.opens().says(['disconnect', { code: 3503, reason: 'unauthenticated', message: 'it is malformed', reconnect: false }]);
    const { error } = world.told.at(-1) ?? {};
    assert.equal(error?.reason, 'unauthenticated');
    assert.equal(error.message, 'ended by the node: unauthenticated (3503): it is malformed');
  });

  it('that somebody else took over stops', () => {
    const world = new World();
    const node = world.connected();
    node.says(['disconnect', { code: 3500, reason: 'replaced', reconnect: false }]);
    assert.equal(world.session.state, 'disconnected');
    world.pass(600_000);
    assert.equal(world.dials.length, 1);
  });

  it('ends for good when it is closed', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    const published = world.publish('chat:1', 1);
    world.session.close();
    assert.ok(node.isClosed);
    assert.equal(world.session.state, 'closed');
    assert.ok(published.error);
    assert.ok(reader.end);
    world.session.connect();
    assert.equal(world.dials.length, 1);
  });
});

describe('a heartbeat', () => {
  it('is answered at once, as a datagram', () => {
    const world = new World();
    const node = world.connected();
    node.says(['ping', { seq: 7, interval_ms: 1_000, timeout_ms: 500 }]);
    assert.deepEqual(node.last('pong'), { seq: 7 });
    assert.equal(node.lanes.at(-1), 'datagram');
  });

  it('that stays away for interval and time-out means that the connection is dead', () => {
    const world = new World();
    const node = world.connected({ heartbeat: { interval_ms: 10_000, timeout_ms: 3_000 } });
    world.pass(12_999);
    assert.ok(!node.isClosed);
    world.pass(1);
    assert.ok(node.isClosed);
    assert.equal(world.session.state, 'connecting');
  });

  it('is any frame', () => {
    const world = new World();
    const node = world.connected({ heartbeat: { interval_ms: 10_000, timeout_ms: 3_000 } });
    for (let round = 0; round < 5; round += 1) {
      world.pass(10_700);
      node.says(['event', { channel: 'chat:9', session: 's', data: 1 }]);
    }
    assert.ok(!node.isClosed);
  });

  it('counts though it is read late, by a page that was busy when the time was over', () => {
    const world = new World();
    const node = world.connected();
    world.session.check();
    world.time += 2_500;
    world.session.tick();
    node.says(['error', { id: node.last('unsubscribe').id, code: 104, reason: 'not_subscribed', message: '', transient: false }]);
    world.pass(1_000);
    assert.equal(world.session.state, 'connected');
    world.session.check();
    world.time += 2_500;
    world.session.tick();
    world.pass(50);
    assert.ok(node.isClosed, 'nothing came');
  });

  it('may be late by one time-out more after a sleep, while the path is checked', () => {
    const world = new World();
    const node = world.connected({ heartbeat: { interval_ms: 10_000, timeout_ms: 3_000 } });
    world.sleep(60_000);
    assert.ok(!node.isClosed);
    // Asked at once, instead of waiting for the time-out; a dead path is left after two seconds.
    assert.equal(node.all('unsubscribe').length, 1);
    world.pass(1_999);
    assert.ok(!node.isClosed);
    world.pass(1);
    assert.ok(node.isClosed);
  });

  it('that comes after a sleep spares the connection', () => {
    const world = new World();
    const node = world.connected({ heartbeat: { interval_ms: 10_000, timeout_ms: 3_000 } });
    world.sleep(60_000);
    const { id } = node.last('unsubscribe');
    node.says(['error', { id, code: 104, reason: 'not_subscribed', message: 'no', transient: false }]);
    world.pass(10_000);
    assert.ok(!node.isClosed);
  });
});

describe('a token', () => {
  const untilExpiry = 600_000;

  it('is fetched anew ahead of its expiry, and sent on the same connection', () => {
    const world = new World({ canRefresh: true });
    const heartbeat = { interval_ms: 3_600_000, timeout_ms: 1_000 };
    const node = world.connected({ expires_at_ms: world.time + untilExpiry, heartbeat });
    world.pass(untilExpiry * 0.75);
    world.tokenRequests[0]?.('second');
    const { id, token } = node.last('refresh');
    assert.equal(token, 'second');
    node.says(['refreshed', { id, expires_at_ms: world.time + untilExpiry }]);
    world.pass(untilExpiry * 0.75);
    assert.equal(world.tokenRequests.length, 2);
  });

  const jwt = (lifeSeconds: number): string => `x.${btoa(JSON.stringify({ sub: 'ä?>', iat: 1, exp: 1 + lifeSeconds }))}.x`;

  for (const [wrong, clockMs] of [['ahead by more than a token lives', 3_600_000], ['ahead', 590_000], ['behind', -3_600_000]] as const) {
    it(`is fetched anew within its life and not much more often when the clock here is ${wrong}`, () => {
      const world = new World({ canRefresh: true });
      const heartbeat = { interval_ms: 36_000_000, timeout_ms: 1_000 };
      const expiry = (): number => world.time - clockMs + untilExpiry;
      world.session.connect();
      const node = world.opens('webtransport', { token: jwt(untilExpiry / 1_000) });
      node.welcomes({ expires_at_ms: expiry(), heartbeat });
      const refreshedAt = [world.time];
      const end = world.time + 6 * untilExpiry;
      while (world.time < end) {
        world.pass(100);
        world.tokenRequests.shift()?.(jwt(untilExpiry / 1_000));
        const { id } = node.all('refresh').at(-1) ?? {};
        if (id === undefined || node.all('refresh').length < refreshedAt.length) continue;
        node.says(['refreshed', { id, expires_at_ms: expiry() }]);
        refreshedAt.push(world.time);
      }
      assert.ok(refreshedAt.length >= 7 && refreshedAt.length < 26, String(refreshedAt.length));
      for (const [index, at] of refreshedAt.entries()) assert.ok(at - (refreshedAt[index - 1] ?? at) < untilExpiry);
    });
  }

  it('whose life nobody can tell is not fetched again and again', () => {
    const world = new World({ canRefresh: true });
    world.connected({ expires_at_ms: world.time - 1, heartbeat: { interval_ms: 3_600_000, timeout_ms: 1_000 } });
    world.pass(3_000_000);
    assert.equal(world.tokenRequests.length, 0, 'the node says when it has expired');
  });

  it('whose life nobody can tell, and that seems to end at once, is fetched less and less often', () => {
    const world = new World({ canRefresh: true });
    const node = world.connected({ expires_at_ms: world.time + 100, heartbeat: { interval_ms: 3_600_000, timeout_ms: 1_000 } });
    let count = 0;
    const end = world.time + 600_000;
    while (world.time < end) {
      world.pass(100);
      if (world.tokenRequests.length === 0) continue;
      world.tokenRequests.shift()?.('opaque');
      node.says(['refreshed', { id: node.last('refresh').id, expires_at_ms: world.time + 100 }]);
      count += 1;
    }
    assert.ok(count > 3 && count < 13, String(count));
  });

  it('that could not be had is fetched again while the old one lives', () => {
    const world = new World({ canRefresh: true });
    world.connected({ expires_at_ms: world.time + 40_000, heartbeat: { interval_ms: 90_000, timeout_ms: 90_000 } });
    world.pass(30_000);
    world.tokenRequests[0]?.(undefined);
    world.pass(9_000);
    assert.equal(world.tokenRequests.length, 2);
  });

  it('that is being fetched is not needed any more when the session ends', () => {
    for (const end of ['close', 'disconnect', 'lost'] as const) {
      const world = new World({ canRefresh: true });
      const node = world.connected({ expires_at_ms: world.time + 40_000, heartbeat: { interval_ms: 90_000, timeout_ms: 90_000 } });
      world.pass(30_000);
      assert.equal(world.givenUp, 0);
      if (end === 'lost') node.breaks();
      else world.session[end]();
      assert.equal(world.givenUp, 1, end);
    }
  });

  it('that has expired is replaced at once', () => {
    const world = new World({ canRefresh: true });
    const node = world.connected();
    world.pass(6_000);
    node.says(['disconnect', { code: 3005, reason: 'token_expired', reconnect: true }]);
    world.pass(0);
    const next = world.opens('webtransport', { token: 'fresh' });
    assert.equal(next.last('connect').token, 'fresh');
  });

  it('that cannot be replaced ends the session when it has expired', () => {
    const world = new World();
    const node = world.connected();
    node.says(['disconnect', { code: 3005, reason: 'token_expired', reconnect: true }]);
    assert.equal(world.session.state, 'disconnected');
  });

  it('that is denied for good ends the attempts', () => {
    const world = new World({ canRefresh: true });
    world.session.connect();
    world.fails(new TokenError('signed out', { transient: false }));
    assert.equal(world.session.state, 'disconnected');
    assert.equal(world.told.at(-1)?.error?.message, 'signed out');
  });
});
