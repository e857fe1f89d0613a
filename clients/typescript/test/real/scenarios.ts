/** What an application can rely on, wherever it runs, over both transports, against real nodes. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { NodeUrl, SkywaveOptions } from '../../src/index.js';
import type { Kit, Seen } from './kit.js';
import { TestNode } from './node.js';
import { type Package, PageServer, type Place, type Tab, token, TOKEN_SECRET } from './places.js';
import { Relay } from './relay.js';

// In the tabs.
declare const skywave: Package;
declare const kit: Kit;

const TEST_TIMEOUT_MS = 90_000;
const WAIT_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

/** How a tab reaches a node. */
interface Target {
  urls: NodeUrl | NodeUrl[];
  options: SkywaveOptions;
}

type Kind = 'webtransport' | 'websocket';

/** Looks until `isRight`; answers what is seen then. */
async function until<Result>(what: string, look: () => Promise<Result>, isRight: (result: Result) => boolean): Promise<Result> {
  const deadline = Date.now() + WAIT_TIMEOUT_MS;
  for (;;) {
    const seen = await look();
    if (isRight(seen)) return seen;
    if (Date.now() > deadline) assert.fail(`never saw ${what}, but ${JSON.stringify(seen)}`);
    await pause(POLL_MS);
  }
}

const saw = (tab: Tab, id: string, channel: string): Promise<Seen> =>
  tab.evaluate(([client, name]) => kit.saw(client, name), [id, channel] as const);
const states = (tab: Tab, id: string): Promise<string[]> => tab.evaluate((client) => kit.states.get(client) ?? [], id);
const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

function reach(node: TestNode, kind: Kind, relay?: Relay): Target {
  const udp = relay?.udpPort ?? node.places.public.split(':').pop() ?? '';
  const tcp = relay === undefined ? node.places.plain : `127.0.0.1:${relay.tcpPort}`;
  return {
    urls: { webtransport: `https://127.0.0.1:${udp}`, websocket: `ws://${tcp}` },
    options: { transport: kind, serverCertificateHashes: [node.certificateHash] },
  };
}

function open(tab: Tab, id: string, target: Target): Promise<void> {
  return tab.evaluate(([client, { urls, options }]) => kit.open(client, urls, options), [id, target] as const);
}

function listen(tab: Tab, id: string, channel: string, options = {}): Promise<void> {
  return tab.evaluate(
    async ([client, name, given]) => {
      await kit.listen(client, name, given);
    },
    [id, channel, options] as const,
  );
}

function say(tab: Tab, id: string, channel: string, ...texts: unknown[]): Promise<void> {
  return tab.evaluate(
    ([client, name, all]) => {
      kit.say(client, name, ...all);
    },
    [id, channel, texts] as const,
  );
}

/** What the tests of a place have, and clean up. */
class Stage {
  place!: Place;
  node!: TestNode;
  server!: PageServer;
  /** Undone after all tests. */
  readonly whole: (() => unknown)[] = [];
  #endings: (() => unknown)[] = [];

  async tab(profile?: string): Promise<Tab> {
    const tab = await this.place.open(profile);
    this.#endings.unshift(async () => {
      await tab.evaluate(() => {
        kit.close();
      });
      await tab.close();
    });
    return tab;
  }

  async start(environment: Record<string, string> = {}): Promise<TestNode> {
    const node = await TestNode.start(environment);
    this.#endings.unshift(() => node.stop());
    return node;
  }

  async relay(node = this.node): Promise<Relay> {
    const relay = await Relay.start(node);
    this.#endings.unshift(() => {
      relay.stop();
    });
    return relay;
  }

  async clean(): Promise<void> {
    const endings = this.#endings;
    this.#endings = [];
    for (const end of endings) await end();
  }
}

/** Tests the package in the place that `launch` starts. */
export function describeSdk(name: string, launch: (server: PageServer) => Promise<Place>, kinds: Kind[]): void {
  describe(`in ${name}`, { timeout: 20 * TEST_TIMEOUT_MS }, () => {
    const stage = new Stage();
    before(async () => {
      const server = (stage.server = await PageServer.start());
      stage.whole.unshift(() => { server.stop(); });
      const node = (stage.node = await TestNode.start());
      stage.whole.unshift(() => node.stop());
      const place = (stage.place = await launch(server));
      stage.whole.unshift(() => place.close());
    });
    afterEach(() => stage.clean());
    after(async () => {
      for (const end of stage.whole) await end();
    });
    for (const kind of kinds) {
      describe(`over ${kind}`, () => {
        describeCalls(stage, kind);
        describeBreaks(stage, kind);
      });
    }
    if (kinds.length === 2) describeChoice(stage);
  });
}

const test = (name: string, run: () => Promise<void>): void => {
  void it(name, { timeout: TEST_TIMEOUT_MS }, run);
};
const freshChannel = (): string => `test:${crypto.randomUUID()}`;

/** Each call of the API. */
function describeCalls(stage: Stage, kind: Kind): void {
  test('a client connects and says how', async () => {
    const tab = await stage.tab();
    await open(tab, 'a', reach(stage.node, kind));
    const { transport, region, resumed, connects } = await tab.evaluate(() => ({ ...kit.client('a').connection }));
    assert.deepEqual({ transport, region, resumed, connects }, { transport: kind, region: 'local', resumed: false, connects: 1 });
  });

  test('a publication reaches everyone, its sender included, in both encodings', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const shown = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        await kit.open('b', where, { ...given, encoding: skywave.messagePack });
        await kit.listen('a', name);
        await kit.listen('b', name);
        const channels = ['a', 'b'].map((id) => kit.client(id).channel(name));
        const offsets = [];
        for (const one of channels) {
          offsets.push((await one.publish({ text: 'hé 🛰' })).offset);
          offsets.push((await one.publish(Uint8Array.of(0, 255, 128))).offset);
        }
        return offsets;
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(shown, [1, 2, 3, 4]);
    for (const id of ['a', 'b']) {
      const payloads = await until(
        'four publications',
        () =>
          tab.evaluate(
            ([client, name]) =>
              kit.saw(client, name).data.map((data) => (data instanceof Uint8Array ? [...data] : data)),
            [id, channel] as const,
          ),
        (data) => data.length >= 4,
      );
      const [text, bytes] = [{ text: 'hé 🛰' }, [0, 255, 128]];
      assert.deepEqual(payloads, [text, bytes, text, bytes]);
    }
  });

  test('publications are iterated over until the iteration ends', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const read = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        const subscription = kit.client('a').channel(name, { history: 10 });
        for (const text of ['one', 'two', 'three']) await subscription.publish(text);
        const texts = [];
        for await (const { data } of subscription) {
          texts.push(data);
          if (data === 'three') break;
        }
        await Promise.resolve();
        return { texts, isSubscribed: subscription.isSubscribed };
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(read, { texts: ['one', 'two', 'three'], isSubscribed: false });
  });

  test('an event reaches the others, and not its sender', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    for (const id of ['a', 'b']) {
      await open(tab, id, reach(stage.node, kind));
      await listen(tab, id, channel);
    }
    await until(
      'the event',
      async () => {
        // It may be lost, as a datagram is.
        await tab.evaluate((name) => kit.client('a').channel(name).emit({ x: 3 }, { slot: 'cursor' }), channel);
        return saw(tab, 'b', channel);
      },
      ({ events }) => events.length > 0,
    );
    assert.deepEqual((await saw(tab, 'b', channel)).events[0], [{ x: 3 }, 'cursor']);
    assert.deepEqual((await saw(tab, 'a', channel)).events, []);
  });

  test('history is read page by page, further back', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const pages = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        const subject = kit.client('a').channel(name);
        for (let number = 1; number <= 5; number += 1) await subject.publish(number);
        const last = await subject.history({ limit: 2 });
        const before = await subject.history({ limit: 10, ...(last.cursor === undefined ? {} : { before: last.cursor }) });
        const { origin, epoch } = last.publications[0] ?? { origin: '', epoch: '' };
        const after = await subject.history({ limit: 10, after: { [origin]: { epoch, offset: 3 } } });
        return [last, before, after].map(({ publications }) => publications.map(({ data }) => data));
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(pages, [[4, 5], [1, 2, 3], [4, 5]]);
  });

  test('presence tells who is there, who comes and who goes', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', reach(stage.node, kind));
    await listen(tab, 'a', channel, { presence: true });
    await open(tab, 'b', reach(stage.node, kind));
    await listen(tab, 'b', channel, { presence: true });
    await until('two members', () => saw(tab, 'a', channel), ({ counts }) => counts.at(-1) === 2);
    const { count, members } = await tab.evaluate((name) => kit.client('a').channel(name).presence(), channel);
    assert.equal(count, 2);
    const sessions = await tab.evaluate(() => ['a', 'b'].map((id) => kit.client(id).connection?.session));
    assert.deepEqual(members.map(({ session }) => session).sort(), sessions.sort());
    await tab.evaluate((name) => { kit.client('b').channel(name).unsubscribe(); }, channel);
    await until('one member', () => saw(tab, 'a', channel), ({ counts }) => counts.at(-1) === 1);
  });

  test('what the node refuses is an error with its code', async () => {
    const tab = await stage.tab();
    const { urls, options } = reach(stage.node, kind);
    const errors = await tab.evaluate(
      async ([where, given]) => {
        await kit.open('a', where, given);
        const client = kit.client('a');
        const tried = await Promise.allSettled([
          client.call('rooms.create', { name: 'standup' }),
          client.channel('nowhere:1').publish(1),
          client.channel('nowhere:1').subscribe(),
          client.channel('nowhere:1').history({ signal: AbortSignal.abort() }),
        ]);
        return tried.map((one) => {
          const error = one.status === 'rejected' ? (one.reason as InstanceType<Package['RequestError']>) : undefined;
          return [error instanceof skywave.SkywaveError, error?.name, error?.code, error?.transient];
        });
      },
      [urls, options] as const,
    );
    assert.deepEqual(errors, [
      [true, 'RequestError', 108, false],
      [true, 'RequestError', 102, false],
      [true, 'RequestError', 102, false],
      [false, 'AbortError', 20, undefined],
    ].map((row) => row.map((cell) => cell ?? (stage.place.name === 'Node' ? undefined : cell))));
  });

  test('a channel that is left and taken again begins anew', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', reach(stage.node, kind));
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    await tab.evaluate(async (name) => {
      kit.client('a').channel(name).unsubscribe();
      await kit.client('a').channel(name).publish(2);
    }, channel);
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 3);
    assert.deepEqual((await until('the third', () => saw(tab, 'a', channel), ({ data }) => data.length === 1)).data, [3]);
  });

  test('joining a channel with 200 messages while more arrive misses none', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const node = await stage.start({ SKYWAVE_CHANNELS__TEST__HISTORY: '1000' });
    await open(tab, 'writer', reach(node, kind));
    await say(tab, 'writer', channel, ...upTo(200));
    await until('200 answers', () => tab.evaluate(() => kit.published.length), (count) => count === 200);
    await open(tab, 'reader', reach(node, kind));
    await say(tab, 'writer', channel, ...upTo(100).map((number) => number + 200));
    await listen(tab, 'reader', channel, { history: 200 });
    await until('300 answers', () => tab.evaluate(() => kit.published.length), (count) => count === 300);
    const { offsets, gaps } = await until('the last', () => saw(tab, 'reader', channel), (seen) => seen.offsets.at(-1) === 300);
    const first = offsets[0] ?? 0;
    assert.ok(first <= 101 && offsets.length >= 200, `${first}, ${offsets.length}`);
    assert.deepEqual(offsets, upTo(300).slice(first - 1));
    assert.deepEqual(gaps, []);
  });
}

/** What happens to connections. */
function describeBreaks(stage: Stage, kind: Kind): void {
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

  test('many cuts under continuous publishing lose, repeat and reorder nothing', async () => {
    const cuts = Number(process.env['SKYWAVE_CUTS'] ?? 20);
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
        }, 5);
        Object.assign(globalThis, { stopTalking: () => { clearInterval(timer); return number; } });
      },
      channel,
    );
    for (let cut = 0; cut < cuts; cut += 1) {
      await pause(20 + ((cut * 7919) % 100));
      relay.cut();
      if (kind === 'webtransport') await tab.evaluate(() => { kit.client('a').check(); });
      await until('that it is back', () => tab.evaluate(() => kit.client('a').connection?.connects ?? 0), (connects) => connects >= cut + 2);
    }
    const count = await tab.evaluate(() => (globalThis as unknown as { stopTalking(): number }).stopTalking());
    assert.ok(count > cuts);
    const { data, offsets, gaps } = await until('the last', () => saw(tab, 'a', channel), (seen) => seen.data.length >= count);
    assert.deepEqual(data, upTo(count));
    assert.deepEqual(offsets, upTo(count));
    assert.deepEqual(gaps, []);
  });

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
    const other = await stage.tab();
    void other;
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    // The lid is closed for so long that the node takes the session for dead.
    await stopped(pid, 10_000);
    await say(tab, 'a', channel, 2);
    const { data, gaps } = await until('the second', () => saw(tab, 'a', channel), (seen) => seen.data.length === 2);
    assert.deepEqual(data, [1, 2]);
    assert.deepEqual(gaps, []);
    const connection = await tab.evaluate(() => kit.client('a').connection);
    assert.equal(connection?.transport, kind);
  });
}

/** Stops a browser with all its processes for a while, as a system does that sleeps. */
async function stopped(pid: number, milliseconds: number): Promise<void> {
  const all = await family(pid);
  for (const one of all) process.kill(one, 'SIGSTOP');
  try {
    await pause(milliseconds);
  } finally {
    for (const one of all) process.kill(one, 'SIGCONT');
  }
}

/** The processes that descend from `pid`, itself included. */
async function family(pid: number): Promise<number[]> {
  const { readdir, readFile } = await import('node:fs/promises');
  const parents = new Map<number, number>();
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const status = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
    const parent = /\) \S (\d+)/.exec(status)?.[1];
    if (parent !== undefined) parents.set(Number(entry), Number(parent));
  }
  const all = [pid];
  for (const one of all) for (const [child, parent] of parents) if (parent === one) all.push(child);
  return all;
}

/** Which transport carries a session. */
function describeChoice(stage: Stage): void {
  const auto = (target: Target): Target => ({ ...target, options: { ...target.options, transport: 'auto' } });

  test('WebTransport is taken where it works', async () => {
    const tab = await stage.tab();
    await open(tab, 'a', auto(reach(stage.node, 'webtransport')));
    assert.equal(await tab.evaluate(() => kit.client('a').connection?.transport), 'webtransport');
  });

  test('WebSocket carries on when UDP is blocked half-way, and WebTransport again when it is not', async () => {
    const [tab, channel, relay] = [await stage.tab(), freshChannel(), await stage.relay()];
    const { urls, options } = auto(reach(stage.node, 'webtransport', relay));
    await open(tab, 'a', { urls, options });
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    relay.udp = false;
    // As a page does when the browser says that the network changed.
    await tab.evaluate(() => { kit.client('a').check(); });
    await say(tab, 'a', channel, 2);
    await until('the second', () => saw(tab, 'a', channel), ({ data }) => data.length === 2);
    const transport = (): Promise<string | undefined> => tab.evaluate(() => kit.client('a').connection?.transport);
    assert.equal(await transport(), 'websocket');
    relay.udp = true;
    await tab.evaluate(() => { kit.client('a').setNetwork({ kind: 'wifi' }); });
    await until('WebTransport', transport, (kind) => kind === 'webtransport');
    await say(tab, 'a', channel, 3);
    const { data, offsets } = await until('the third', () => saw(tab, 'a', channel), (seen) => seen.data.length === 3);
    assert.deepEqual([data, offsets], [[1, 2, 3], [1, 2, 3]]);
  });

  test('a switch of the transport keeps the session and loses nothing', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', auto(reach(stage.node, 'webtransport')));
    await listen(tab, 'a', channel);
    const before = await tab.evaluate(() => kit.client('a').connection?.session);
    await say(tab, 'a', channel, ...upTo(20));
    await tab.evaluate(() => kit.client('a').switchTransport('websocket'));
    await say(tab, 'a', channel, ...upTo(20).map((number) => number + 20));
    await tab.evaluate(() => kit.client('a').switchTransport('webtransport'));
    const { data, offsets } = await until('all', () => saw(tab, 'a', channel), (seen) => seen.data.length >= 40);
    assert.deepEqual([data, offsets], [upTo(40), upTo(40)]);
    assert.equal(await tab.evaluate(() => kit.client('a').connection?.session), before);
  });
}
