/** What happens to connections: cuts, restarts, drains, sleep, tokens that expire. */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { TransportKind } from 'skywave';
import type { Kit } from './kit.js';
import { type Package, token, TOKEN_SECRET } from './places.js';
import { stopped } from './processes.js';
import { allOf, CUTS, CUTS_TIMEOUT_MS, SEED, freshChannel, listen, open, reach, saw, say, SLEEP_MS, type Stage, states, test, TEST_TIMEOUT_MS, until, upTo } from './stage.js';

// In the tabs.
declare const kit: Kit;

/** Numbers from 0 to 1 that a seed determines: mulberry32, by Tommy Ettinger. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What happens to connections. */
export function describeBreaks(stage: Stage, kind: TransportKind): void {
  test('a session that is cut comes back with all it missed, once and in order', async () => {
    const [tab, channel, relay] = [await stage.tab(), freshChannel(), await stage.relay()];
    await open(tab, 'a', reach(stage.node, kind, relay));
    await listen(tab, 'a', channel);
    await open(tab, 'b', reach(stage.node, kind));
    const before = await tab.evaluate(() => kit.client('a').connection?.session);
    await say(tab, 'b', channel, 1, 2);
    await until('what comes before', () => saw(tab, 'a', channel), ({ data }) => data.length === 2);
    relay.udp = relay.tcp = false;
    relay.cut();
    await tab.evaluate(() => { kit.client('a').check(); });
    await say(tab, 'b', channel, 3, 4, 5);
    await say(tab, 'a', channel, 'from a');
    await until('that it is gone', () => states(tab, 'a'), (all) => all.some((state) => state.startsWith('connecting')));
    await until('that others go on', () => tab.evaluate(() => kit.published.length), (count) => count === 5);
    relay.udp = relay.tcp = true;
    await tab.evaluate(() => { kit.client('a').check(); });
    const { data, offsets, recovered } = await until('all', () => saw(tab, 'a', channel), (seen) => seen.data.length === 6);
    assert.deepEqual(data, [1, 2, 3, 4, 5, 'from a']);
    assert.deepEqual(offsets, upTo(6));
    assert.deepEqual(recovered, [undefined, true]);
    const after = await tab.evaluate(() => ({ ...kit.client('a').connection }));
    assert.equal(after.session, before);
    assert.equal(after.resumed, true);
  });

  test('many cuts under continuous publishing lose, repeat and reorder nothing', async (context) => {
    context.diagnostic(`SKYWAVE_SEED=${SEED}`);
    const random = randomFrom(SEED);
    const [tab, channel, relay] = [await stage.tab(), freshChannel(), await stage.relay()];
    const { urls, options } = reach(stage.node, kind, relay);
    // Cuts that follow each other so quickly would be answered by longer and longer waits.
    await open(tab, 'a', { urls, options: { ...options, backoff: { firstMs: 50, maxMs: 100 } } });
    await listen(tab, 'a', channel);
    await tab.evaluate(
      (name) => {
        let number = 0;
        const timer = setInterval(() => {
          number += 1;
          kit.say('a', name, number);
        }, 20);
        Object.assign(globalThis, { stopTalking: () => { clearInterval(timer); return number; } });
      },
      channel,
    );
    for (let cut = 0; cut < CUTS; cut += 1) {
      await pause(20 + random() * 100);
      relay.cut();
      // Now and then again, in the middle of the next connect.
      if (random() < 0.3) {
        if (kind === 'webtransport') await tab.evaluate(() => { kit.client('a').check(); });
        await pause(random() * 60);
        relay.cut();
      }
      if (kind === 'webtransport') await tab.evaluate(() => { kit.client('a').check(); });
      await until('that it is back', () => tab.evaluate(() => kit.client('a').connection?.connects ?? 0), (connects) => connects >= cut + 2);
    }
    const count = await tab.evaluate(() => (globalThis as unknown as { stopTalking(): number }).stopTalking());
    assert.ok(count > CUTS);
    const tally = await allOf(tab, 'a', channel, count);
    assert.deepEqual(tally, { ...tally, count, misplaced: undefined, gaps: [], failures: [] });
  }, CUTS_TIMEOUT_MS);

  test('a node that is restarted with its memory gone is told as a gap, and life goes on', async () => {
    const [tab, channel, node] = [await stage.tab(), freshChannel(), await stage.start()];
    // The new node has another certificate, which WebTransport has to know beforehand.
    const target = reach(node, kind);
    await open(tab, 'a', { ...target, options: { ...target.options, transport: 'auto' } });
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    await node.stop();
    await until('that it is gone', () => states(tab, 'a'), (all) => all.some((state) => state.startsWith('connecting')));
    await stage.start(node.samePlaces);
    await until('a new session', () => tab.evaluate(() => kit.client('a').state), (state) => state === 'connected');
    await say(tab, 'a', channel, 2);
    const { data, gaps, recovered } = await until('the second', () => saw(tab, 'a', channel), (seen) => seen.data.length === 2);
    assert.deepEqual(data, [1, 2]);
    assert.ok(gaps.length > 0, 'the loss is told');
    assert.deepEqual(recovered, [undefined, false]);
  });

  test('a node that drains sends its sessions on before it goes', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const first = await stage.start({ SKYWAVE_AUTH__SESSION_SECRET: TOKEN_SECRET, SKYWAVE_DRAIN__DEADLINE: '4s' });
    const second = await stage.start({ SKYWAVE_AUTH__SESSION_SECRET: TOKEN_SECRET });
    const [one, other] = [reach(first, kind), reach(second, kind)];
    const options = { ...one.options, serverCertificateHashes: [first.certificateHash, second.certificateHash] };
    await open(tab, 'a', { urls: [one.urls, other.urls].flat(), options });
    await listen(tab, 'a', channel);
    const before = await tab.evaluate(() => kit.client('a').connection);
    const stopping = first.stop();
    const after = await until('the other node', () => tab.evaluate(() => kit.client('a').connection), (connection) => connection !== undefined && connection.node !== before?.node);
    assert.equal(after?.session, before?.session);
    assert.equal(after?.resumed, true);
    await stopping;
    const told = await states(tab, 'a');
    assert.ok(!told.some((state) => state.startsWith('connecting')), `nobody noticed: ${told.join()}`);
  });

  test('a node that falls silent while it owes an answer is left for another one, and nobody notices', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const secret = { SKYWAVE_AUTH__SESSION_SECRET: TOKEN_SECRET };
    const [first, second] = [await stage.start(secret), await stage.start(secret)];
    const relay = await stage.relay(first);
    const [one, other] = [reach(first, kind, relay), reach(second, kind)];
    const options = { ...one.options, serverCertificateHashes: [first.certificateHash, second.certificateHash] };
    await open(tab, 'a', { urls: [one.urls, other.urls].flat(), options });
    const before = await tab.evaluate(() => kit.client('a').connection);
    relay.udp = relay.tcp = false;
    await say(tab, 'a', channel, 1);
    await until('that it is published', () => tab.evaluate(() => kit.published.length), (count) => count === 1);
    const after = await tab.evaluate(() => kit.client('a').connection);
    assert.notEqual(after?.node, before?.node);
    assert.equal(after?.session, before?.session);
    const told = await states(tab, 'a');
    assert.ok(!told.slice(told.indexOf('connected')).some((state) => state.startsWith('connecting')), told.join());
  });

  test('a token is replaced before it expires, and the session stays', async () => {
    const tab = await stage.tab();
    const node = await stage.start({ SKYWAVE_AUTH__HMAC_SECRET: TOKEN_SECRET, SKYWAVE_AUTH__ANONYMOUS: 'false' });
    const { urls, options } = reach(node, kind);
    await tab.evaluate(
      async ([where, given, origin]) => {
        Object.assign(globalThis, { tokens: 0 });
        await kit.open('a', where, {
          ...given,
          async getToken({ signal }) {
            (globalThis as unknown as { tokens: number }).tokens += 1;
            return (await fetch(`${origin}/token?user=alice&seconds=4`, { signal })).text();
          },
        });
      },
      [urls, options, stage.server.origin] as const,
    );
    await pause(8_000);
    const { connection, tokens } = await tab.evaluate(() => ({
      connection: kit.client('a').connection,
      tokens: (globalThis as unknown as { tokens: number }).tokens,
    }));
    assert.ok(tokens >= 3, String(tokens));
    assert.equal(connection?.user, 'alice');
    assert.equal(connection.connects, 1);
  });

  test('a token that the application brings is taken over, and one of somebody else is refused', async () => {
    const tab = await stage.tab();
    const node = await stage.start({ SKYWAVE_AUTH__HMAC_SECRET: TOKEN_SECRET, SKYWAVE_AUTH__ANONYMOUS: 'false' });
    const { urls, options } = reach(node, kind);
    const tokens = [token('alice', 60), token('alice', 600), token('bob', 600)] as const;
    const seen = await tab.evaluate(
      async ([where, given, [first, second, other]]) => {
        await kit.open('a', where, { ...given, token: first });
        const client = kit.client('a');
        const before = client.connection?.expiresAtMs ?? 0;
        const told = await client.refresh(second);
        const code = await client.refresh(other).then(() => undefined, (error: unknown) => (error as { code: number }).code);
        const after = client.connection?.expiresAtMs ?? 0;
        client.disconnect();
        const { user, connects } = await client.connect();
        return { gainedMs: after - before, isTold: told === after, code, user, connects };
      },
      [urls, options, tokens] as const,
    );
    assert.ok(seen.gainedMs >= 530_000 && seen.gainedMs <= 550_000, String(seen.gainedMs));
    assert.deepEqual({ ...seen, gainedMs: 0 }, { gainedMs: 0, isTold: true, code: 103, user: 'alice', connects: 2 });
  });

  test('a token that is good for nothing ends the attempts with an error', async () => {
    const tab = await stage.tab();
    const node = await stage.start({ SKYWAVE_AUTH__HMAC_SECRET: TOKEN_SECRET, SKYWAVE_AUTH__ANONYMOUS: 'false' });
    const { urls, options } = reach(node, kind);
    const outcome = await tab.evaluate(
      async ([where, given]) => {
        const client = kit.create('a', where, { ...given, token: 'nonsense' });
        const error = await client.connect().then(() => undefined, (reason: unknown) => reason as InstanceType<Package['SkywaveError']>);
        return { name: error?.name, code: error?.code, transient: error?.transient, state: client.state };
      },
      [urls, options] as const,
    );
    assert.deepEqual(outcome, { name: 'ConnectionError', code: 3503, transient: false, state: 'disconnected' });
    const expired = token('alice', -60);
    const second = await tab.evaluate(
      async ([where, given, old]) => {
        const client = kit.create('b', where, { ...given, token: old });
        return client.connect().then(() => undefined, (reason: unknown) => (reason as { code: number }).code);
      },
      [urls, options, expired] as const,
    );
    assert.equal(second, 3005);
  });

  test('what is published without a connection is delivered later, once', async () => {
    const [tab, channel, relay] = [await stage.tab(), freshChannel(), await stage.relay()];
    await open(tab, 'b', reach(stage.node, kind));
    await listen(tab, 'b', channel);
    relay.udp = relay.tcp = false;
    const { urls, options } = reach(stage.node, kind, relay);
    await tab.evaluate(([where, given]) => { kit.create('a', where, { ...given, connectTimeoutMs: 500 }); }, [urls, options] as const);
    await say(tab, 'a', channel, ...upTo(10));
    await pause(1_000);
    assert.deepEqual((await saw(tab, 'b', channel)).data, []);
    relay.cut();
    relay.udp = relay.tcp = true;
    await until('ten', () => saw(tab, 'b', channel), ({ data }) => data.length >= 10);
    await say(tab, 'b', channel, 'last');
    const { data } = await until('the last', () => saw(tab, 'b', channel), (seen) => seen.data.at(-1) === 'last');
    assert.deepEqual(data, [...upTo(10), 'last']);
  });

  test('a system that slept finds its way back', async () => {
    const { pid } = stage.place;
    if (pid === undefined) return;
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const node = await stage.start({ SKYWAVE_HEARTBEAT__FOREGROUND_MAX: '1s' });
    await open(tab, 'a', reach(node, kind));
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    // The lid is closed for so long that the node takes the session for dead.
    await stopped(pid, SLEEP_MS);
    await say(tab, 'a', channel, 2);
    const { data, gaps } = await until('the second', () => saw(tab, 'a', channel), (seen) => seen.data.length === 2);
    assert.deepEqual(data, [1, 2]);
    assert.deepEqual(gaps, []);
    const connection = await tab.evaluate(() => kit.client('a').connection);
    assert.equal(connection?.transport, kind);
  }, TEST_TIMEOUT_MS + SLEEP_MS);
}
