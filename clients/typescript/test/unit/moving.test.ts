/** Moves without a gap: the new connection stands before the old one goes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAddress } from '../../src/address.js';
import { lost } from '../../src/errors.js';
import type { ServerFrame } from '../../src/frames.js';
import { RaceMemory } from '../../src/race_memory.js';
import { networkChanged } from '../../src/session/network.js';
import { CONNECTED, publication, World } from './world.js';

describe('a move', () => {
  it('from a node that drains goes to the address that it names, within half of the time', () => {
    const world = new World();
    const node = world.connected();
    node.says(['drain', { after_ms: 10_000, url: 'https://b.example' }]);
    world.pass(2_499);
    assert.equal(world.dials.length, 1);
    world.pass(1);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect');
    assert.ok(!node.isClosed);
    world.opens().welcomes({ resume: 'r2' });
    assert.ok(node.isClosed);
    assert.equal(world.session.state, 'connected');
    assert.ok(!world.told.some(({ state }, index) => index > 1 && state !== 'connected'), 'nobody noticed');
  });

  it('takes a channel that is confirmed meanwhile up from there, whatever the next node begins with', () => {
    for (const isEarly of [true, false]) {
      const world = new World();
      const old = world.connected({ node: 'n1' });
      const reader = world.subscribe('chat:1');
      // Waits for its answer, and with it the old connection.
      world.session.traffic.ask('call', { method: 'x', data: '1' }, { isRepeatable: false, failed: () => undefined });
      world.switchTo('websocket', () => undefined);
      const next = world.opens('websocket');
      const confirm = (): void => {
        old.says(['subscribed', { id: old.last('subscribe').id, channel: 'chat:1', position: { eu: { epoch: 'e', offset: 8 } } }]);
      };
      if (isEarly) confirm();
      next.says(['connected', { ...CONNECTED, id: next.last('connect').id }]);
      if (!isEarly) confirm();
      next.says(['subscribed', { channel: 'chat:1', position: { eu: { epoch: 'e', offset: 10 } } }]);
      if (isEarly) {
        const { id, position } = next.last('subscribe');
        assert.deepEqual(position, { eu: { epoch: 'e', offset: 8 } });
        next.says(['unsubscribed', { id: next.last('unsubscribe').id, channel: 'chat:1' }]);
        next.says(['subscribed', { id, channel: 'chat:1', position, recovered: true }], publication(9), publication(10));
      }
      next.says(publication(11));
      assert.deepEqual(reader.publications, isEarly ? [9, 10, 11] : [11], String(isEarly));
    }
  });

  it('from a node that said so while another move was under way is not forgotten', () => {
    for (const works of [true, false]) {
      const world = new World();
      const node = world.connected({ node: 'n1' });
      world.switchTo('websocket', () => undefined);
      node.says(['drain', { after_ms: 10_000, url: 'https://b.example' }]);
      if (works) world.opens('websocket').welcomes({ node: 'n1' });
      else world.fails();
      world.pass(2_500);
      assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect', String(works));
      world.opens().welcomes({ node: 'n2' });
      world.pass(20_000);
      assert.equal(world.session.connection?.node, 'n2');
      assert.ok(world.told.slice(2).every(({ state }) => state === 'connected'), 'nobody noticed');
    }
  });

  it('from a node that drains is not made once the session is elsewhere', () => {
    const world = new World();
    const node = world.connected({ node: 'n1' });
    world.switchTo('websocket', () => undefined);
    node.says(['drain', { after_ms: 10_000 }]);
    world.opens('websocket').welcomes({ node: 'n2' });
    world.pass(20_000);
    assert.equal(world.dials.length, 2);
  });

  it('that each node directs at once is paced like a connection that breaks each time', () => {
    const directions: [string, ServerFrame | undefined][] = [
      ['drain', ['drain', { after_ms: 0, url: 'https://b.example' }]],
      ['rotate', ['disconnect', { code: 3007, reason: 'rotate', reconnect: true }]],
      ['token_expired', ['disconnect', { code: 3005, reason: 'token_expired', reconnect: true }]],
      ['prefer_url', undefined],
    ];
    for (const [name, frame] of directions) {
      const world = new World({ canRefresh: true });
      world.session.connect();
      const end = world.time + 12_000;
      for (let seen = 0; world.time < end; ) {
        world.pass(10);
        if (world.dials.length === seen) continue;
        seen = world.dials.length;
        const node = world.opens();
        node.welcomes({ node: `n${seen}`, prefer_url: `https://${seen % 2 ? 'b' : 'a'}.example` });
        if (frame !== undefined) node.says(frame);
      }
      assert.ok(world.dials.length <= 12, `${name}: ${world.dials.length} connects`);
      assert.ok(world.dials.length > 1, `${name}: it is followed`);
    }
  });

  it('that is directed again goes where the newest word says, when the earliest one says', () => {
    const world = new World();
    const node = world.connected();
    node.says(['drain', { after_ms: 10_000, url: 'https://b.example' }]);
    world.pass(1_000);
    node.says(['drain', { after_ms: 9_000, url: 'https://c.example' }]);
    world.pass(1_500);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://c.example/v1/connect');
  });

  it('that fails is tried again until the old connection ends', () => {
    const world = new World();
    const node = world.connected();
    node.says(['drain', { after_ms: 10_000 }]);
    world.pass(2_500);
    world.fails();
    world.pass(1_000);
    assert.ok(world.dials.length > 2);
    assert.ok(!node.isClosed);
    node.says(['disconnect', { code: 3000, reason: 'drain', reconnect: true }]);
    world.opens().welcomes();
    assert.equal(world.session.state, 'connected');
  });

  it('that fails goes where the node said meanwhile', () => {
    const world = new World();
    const node = world.connected();
    node.says(['drain', { after_ms: 10_000, url: 'https://full.example' }]);
    world.pass(2_500);
    node.says(['drain', { after_ms: 2_000, url: 'https://b.example' }]);
    world.fails();
    world.pass(1_000);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect');
  });

  it('that a node has asked for is made though the application moves to another transport before', () => {
    const world = new World();
    const node = world.connected({ node: 'n1' });
    node.says(['drain', { after_ms: 10_000, url: 'https://b.example' }]);
    world.switchTo('websocket', () => undefined);
    world.opens('websocket').welcomes({ node: 'n1' });
    assert.ok(node.isClosed);
    world.pass(2_500);
    assert.equal(world.dialing.request.targets[0].address.webtransport, 'https://b.example/v1/connect');
  });

  it('that the next node refuses for want of another token is tried more and more rarely', () => {
    const world = new World({ canRefresh: true });
    const node = world.connected({ node: 'n1' });
    node.says(['drain', { after_ms: 0 }]);
    for (const end = world.time + 30_000; world.time < end;) {
      world.pass(100);
      if (world.session.opening) world.opens().says(['disconnect', { code: 3005, reason: 'token_expired', reconnect: true }]);
    }
    assert.ok(world.dials.length > 4 && world.dials.length < 20, String(world.dials.length));
    assert.ok(!node.isClosed);
  });

  it('that is given up leaves the session where it is', () => {
    const world = new World();
    const node = world.connected();
    let error: unknown;
    const giveUp = world.switchTo('websocket', (told) => (error = told));
    const next = world.opens('websocket');
    giveUp();
    giveUp();
    assert.ok(next.isClosed);
    assert.ok(!node.isClosed);
    assert.equal((error as { code: number }).code, 110);
    world.pass(1_000);
    assert.equal(world.session.connection?.transport, 'webtransport');
  });

  it('survives that the old connection hears of its successor first', () => {
    const world = new World();
    const node = world.connected();
    world.switchTo('websocket', assert.ifError);
    const next = world.opens('websocket');
    node.says(['disconnect', { code: 3500, reason: 'replaced', reconnect: false }]);
    assert.equal(world.session.state, 'connecting');
    next.welcomes();
    assert.equal(world.session.state, 'connected');
    assert.equal(world.session.connection?.transport, 'websocket');
  });

  it('to a node that suits better happens once a minute at most', () => {
    const world = new World();
    world.connected({ prefer_url: 'https://b.example' });
    world.pass(0);
    assert.equal(world.dials.length, 2);
    world.opens().welcomes({ prefer_url: 'https://a.example' });
    world.pass(1_000);
    assert.equal(world.dials.length, 2, 'two nodes cannot play ball with a client');
  });

  it('keeps the old connection for a reply that only it can give', () => {
    const world = new World();
    const node = world.connected();
    let answer: unknown;
    world.session.traffic.ask('call', { method: 'x', data: '1' }, {
      isRepeatable: false,
      done: (body) => (answer = body),
      failed: assert.ifError,
    });
    world.switchTo('websocket', assert.ifError);
    world.opens('websocket').welcomes();
    assert.ok(!node.isClosed);
    node.says(['result', { id: node.last('call').id, data: 5 }]);
    assert.deepEqual(answer, { id: node.last('call').id, data: 5 });
    world.pass(2_000);
    assert.ok(node.isClosed);
  });
});

describe('a request that was not answered before a move', () => {
  it('keeps it though a channel begins again on the new one, from before what the old one brings', () => {
    const world = new World();
    const reader = world.subscribe('chat:1');
    const node = world.connected();
    node.says(publication(1), publication(2));
    let answer: unknown;
    world.session.traffic.ask('call', { method: 'x', data: '1' }, {
      isRepeatable: false,
      done: (body) => (answer = body),
      failed: () => undefined,
    });
    world.switchTo('websocket', () => undefined);
    world.opens('websocket').welcomes();
    world.session.traffic.subscribe('chat:1', { position: { eu: { epoch: 'e', offset: 1 } } }, reader);
    node.says(publication(3));
    node.says(['result', { id: node.last('call').id, data: 5 }]);
    assert.deepEqual(answer, { id: node.last('call').id, data: 5 });
  });

  it('fails nothing that is under way on the new connection for what the old one refuses late', () => {
    const world = new World();
    const old = world.connected({ node: 'n1' });
    // Waits for its answer, and with it the old connection.
    world.session.traffic.ask('call', { method: 'x', data: '1' }, { isRepeatable: false, failed: () => undefined });
    const published = world.publish('chat:1', 1);
    const { id } = old.last('publish');
    world.switchTo('websocket', () => undefined);
    const next = world.opens('websocket');
    next.welcomes({ node: 'n2' });
    old.says(['error', { id, code: 103, reason: 'forbidden', message: 'no', transient: false }]);
    assert.equal(published.error, undefined);
    next.says(['published', { id: next.last('publish').id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 }]);
    assert.equal(published.at?.offset, 1);
  });

  it('brings the next node the token that came while its connection was opened with the one before', () => {
    const world = new World({ token: 'old' });
    world.session.connect();
    const old = world.opens('webtransport', { token: 'old' });
    old.welcomes({ node: 'n1' });
    old.says(['drain', { after_ms: 0 }]);
    world.pass(200);
    const next = world.opens('webtransport', { token: 'old' });
    // The application has brought it, and the old node has taken it.
    world.session.tokens.current = 'new';
    world.session.tokens.taken('new', undefined);
    next.welcomes({ node: 'n2' });
    for (const fetched of world.tokenRequests) fetched(world.session.tokens.current);
    assert.equal(next.last('refresh').token, 'new');
    next.says(['refreshed', { id: next.last('refresh').id, expires_at_ms: 5_000 }]);
    assert.equal(world.session.connection?.expiresAtMs, 5_000);
    assert.equal(next.all('refresh').length, 1);
  });

  it('is asked again on the new connection when the old one goes', () => {
    const world = new World();
    const node = world.connected();
    let answers = 0;
    const asker = { done: () => (answers += 1), failed: () => undefined };
    world.session.traffic.ask('history', { channel: 'chat:1', limit: 1 }, { ...asker, isRepeatable: true });
    world.session.traffic.ask('call', { method: 'x', data: '1' }, { ...asker, isRepeatable: false });
    world.switchTo('websocket', assert.ifError);
    const next = world.opens('websocket');
    next.welcomes();
    world.pass(2_000);
    assert.ok(node.isClosed);
    next.says(['history', { id: next.last('history').id, channel: 'chat:1', publications: [] }]);
    assert.equal(answers, 1);
  });
});

describe('the choice of a transport', () => {
  it('is WebTransport first, with a head start', () => {
    const world = new World();
    world.session.connect();
    const [target] = world.dialing.request.targets;
    assert.deepEqual(target.plan, { kinds: ['webtransport', 'websocket'], headStartMs: 250 });
  });

  it('remembers that WebTransport lost, for each network', () => {
    const stored = new Map<string, string>();
    const storage = {
      getItem: (key: string) => stored.get(key) ?? null,
      setItem: (key: string, value: string) => void stored.set(key, value),
    };
    const world = new World({ storage });
    world.networkName = 'office';
    world.connected({}, 'websocket');

    const planIn = (network: string): string | undefined => {
      const next = new World({ storage });
      next.networkName = network;
      next.session.connect();
      return next.dialing.request.targets[0].plan.kinds[0];
    };
    assert.equal(planIn('office'), 'websocket');
    assert.equal(planIn('home'), 'webtransport');
  });

  it('does not avoid WebTransport for years because a clock was ahead when it lost', () => {
    const now = Date.now();
    const address = parseAddress('https://a.example');
    const kept = JSON.stringify([[`webtransport  ${address.key}`, { avoidUntil: now + 1e11, avoidanceMs: 30_000 }]]);
    const memory = new RaceMemory({ getItem: () => kept, setItem: () => undefined });
    assert.equal(memory.plan(address, 'auto', 500, '', now).kinds[0], 'websocket');
    assert.equal(memory.plan(address, 'auto', 500, '', now + 31_000).kinds[0], 'webtransport');
  });

  it('goes up to WebTransport when UDP comes back, and stays away longer after each failure', () => {
    const world = new World();
    const node = world.connected({ heartbeat: { interval_ms: 3_600_000, timeout_ms: 1_000 } }, 'websocket');
    world.pass(29_999);
    assert.equal(world.dials.length, 1);
    world.pass(1);
    assert.deepEqual(world.dialing.request.targets[0].plan, { kinds: ['webtransport'], headStartMs: 250 });
    world.fails(lost('UDP is blocked'));
    world.pass(59_999);
    assert.equal(world.dials.length, 2);
    world.pass(1);
    world.opens('webtransport').welcomes();
    assert.ok(node.isClosed);
    assert.equal(world.session.connection?.transport, 'webtransport');
  });

  it('tries WebTransport at once on another network', () => {
    const world = new World();
    const node = world.connected({}, 'websocket');
    networkChanged(world.session, { kind: 'wifi' }, true);
    world.pass(0);
    assert.equal(world.dialing.request.targets[0].plan.kinds[0], 'webtransport');
    assert.ok(!node.isClosed);
  });

  it('holds nobody up who loses the connection while WebTransport is tried in vain', () => {
    const world = new World();
    world.chance = 0;
    const node = world.connected({}, 'websocket');
    networkChanged(world.session, { kind: 'wifi' }, true);
    world.pass(2_000);
    assert.ok(node.isClosed);
    world.pass(0);
    assert.deepEqual(world.dialing.request.targets.map(({ plan }) => plan.kinds), [['websocket', 'webtransport']]);
    world.opens('websocket').welcomes();
    assert.equal(world.session.state, 'connected');
    assert.equal(world.dials.length, 3);
  });

  it('stays what the application has switched to, until it chooses again', () => {
    const world = new World();
    const heartbeat = { interval_ms: 3_600_000, timeout_ms: 1_000 };
    world.connected({ heartbeat });
    world.switchTo('websocket', assert.ifError);
    const node = world.opens('websocket');
    node.welcomes({ heartbeat });
    world.pass(600_000);
    assert.equal(world.dials.length, 2, 'it is left alone');
    node.breaks();
    world.pass(1_000);
    assert.deepEqual(world.dialing.request.targets[0].plan, { kinds: ['websocket'], headStartMs: 250 });
    world.opens('websocket').welcomes({ heartbeat });
    world.switchTo('auto', assert.ifError);
    const { targets } = world.dialing.request;
    assert.deepEqual(targets.map(({ plan }) => plan.kinds[0]), ['webtransport']);
  });

  it('is what it was after a switch that failed', () => {
    const world = new World();
    const node = world.connected({}, 'websocket');
    world.switchTo('webtransport', () => undefined);
    world.fails();
    node.breaks();
    world.pass(1_000);
    assert.equal(world.dialing.request.targets[0].plan.kinds.length, 2);
  });

  it('is left to the application that wants one', () => {
    const world = new World({ transport: 'websocket' });
    world.session.connect();
    assert.deepEqual(world.dialing.request.targets[0].plan, { kinds: ['websocket'], headStartMs: 250 });
    world.opens('websocket').welcomes();
    world.pass(20_000);
    assert.equal(world.dials.length, 1);
  });
});

describe('a token that has expired', () => {
  it('when a connection breaks is no reason to leave a node', () => {
    const world = new World({ canRefresh: true });
    world.connected({ regions: [{ name: 'us', url: 'https://b.example' }] }).breaks();
    world.pass(1_000);
    const [{ address }] = world.dialing.request.targets;
    world.opens().says(['disconnect', { code: 3005, reason: 'token_expired', reconnect: true }]);
    world.pass(0);
    assert.deepEqual([world.dials.length, world.dialing.request.targets[0].address], [3, address]);
  });
});
