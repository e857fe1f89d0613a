/** What tabs that share a connection can rely on, however one of them ends. */
import assert from 'node:assert/strict';
import type { SharedOptions } from 'skywave/tabs';
import type { Kit } from './kit.js';
import type { TestNode } from './node.js';
import { type Package, type Tab, TOKEN_SECRET } from './places.js';
import { freshChannel, listen, open, reach, saw, say, SLEEP_MS, type Stage, states, test, until, upTo } from './stage.js';

// In the tabs.
declare const skywave: Package;
declare const kit: Kit;

const isHolder = (tab: Tab): Promise<boolean> => tab.evaluate(() => kit.shared?.isHolder === true);

/** Tabs of one person, that share a connection to a node. */
class Sharing {
  readonly #stage: Stage;
  readonly #name = crypto.randomUUID();
  readonly #node: TestNode;

  constructor(stage: Stage, node = stage.node) {
    this.#stage = stage;
    this.#node = node;
  }

  /** Opens a tab, which the test closes by itself. */
  async open(options: SharedOptions = {}): Promise<Tab> {
    return this.begin(await this.#stage.place.open(this.#name), options);
  }

  async tab(options: SharedOptions = {}): Promise<Tab> {
    return this.begin(await this.#stage.tab(this.#name), options);
  }

  async begin(tab: Tab, given: SharedOptions = {}): Promise<Tab> {
    const { urls, options } = reach(this.#node, 'websocket');
    await tab.evaluate(
      async ([where, all]) => {
        kit.share(new skywave.SharedSkywave(where, all));
        await kit.client('shared').connect();
      },
      [urls, { ...options, share: this.#name, ...given }] as const,
    );
    return tab;
  }

  /** Opens a tab of somebody else, with a connection of its own. */
  async witness(channel: string): Promise<Tab> {
    const tab = await this.#stage.tab();
    await open(tab, 'b', reach(this.#node, 'websocket'));
    await listen(tab, 'b', channel, { presence: true });
    return tab;
  }
}

const lastCount = async (tab: Tab, channel: string): Promise<number> => (await saw(tab, 'b', channel)).counts.at(-1) ?? 0;

/** Publishes numbers, and waits until they have come, each once. */
async function sayAndSee(from: Tab, to: Tab, channel: string, numbers: number[], upToNow: number): Promise<void> {
  await say(from, 'b', channel, ...numbers);
  const { data, gaps } = await until(`up to ${upToNow}`, () => saw(to, 'shared', channel), (seen) => seen.data.length >= upToNow);
  assert.deepEqual(data, upTo(upToNow));
  assert.deepEqual(gaps, []);
}

export function describeTabs(stage: Stage): void {
  test('tabs share one connection, and another one takes it over when its tab is closed', async () => {
    const [sharing, channel] = [new Sharing(stage), freshChannel()];
    const holder = await sharing.open();
    await listen(holder, 'shared', channel, { presence: true });
    await say(holder, 'shared', channel, 1, 2);
    await until('both', () => saw(holder, 'shared', channel), ({ data }) => data.length === 2);
    const [second, third] = [await sharing.tab(), await sharing.tab()];
    for (const tab of [second, third]) {
      await listen(tab, 'shared', channel, { history: 10, presence: true });
      assert.equal(await isHolder(tab), false);
    }
    assert.equal(await isHolder(holder), true);
    await say(second, 'shared', channel, 3);
    await until('three', () => saw(third, 'shared', channel), ({ data }) => data.length === 3);
    assert.deepEqual((await saw(third, 'shared', channel)).data, [1, 2, 3]);
    const { count } = await third.evaluate((name) => kit.client('shared').channel(name).presence(), channel);
    assert.equal(count, 1, 'all tabs are one session');

    await say(second, 'shared', channel, 4);
    await holder.close();
    await say(second, 'shared', channel, 5, 6);
    await until('a new holder', async () => (await isHolder(second)) || (await isHolder(third)), Boolean);
    await say(third, 'shared', channel, 'last');
    for (const tab of [second, third]) {
      const { data, gaps } = await until('the last', () => saw(tab, 'shared', channel), (seen) => seen.data.includes('last') && seen.data.length === 7);
      assert.deepEqual(data.filter((one) => one !== 'last'), upTo(6));
      assert.deepEqual(gaps, []);
    }
  });

  test('a tab that is closed leaves the channels that only it was on', async () => {
    const [sharing, channel] = [new Sharing(stage), freshChannel()];
    await sharing.tab();
    const closing = await sharing.open();
    const witness = await sharing.witness(channel);
    await listen(closing, 'shared', channel);
    await until('both', () => lastCount(witness, channel), (count) => count === 2);
    await closing.close();
    await until('one', () => lastCount(witness, channel), (count) => count === 1);
  });

  test('a page that is put aside leaves, and comes again with all that it missed when it is taken up', async () => {
    const [sharing, channel] = [new Sharing(stage), freshChannel()];
    const tab = await sharing.tab();
    const witness = await sharing.witness(channel);
    await listen(tab, 'shared', channel);
    await sayAndSee(witness, tab, channel, [1], 1);
    await tab.evaluate(() => {
      globalThis.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
    });
    const held = await tab.evaluate(async () => (await navigator.locks.query()).held?.length);
    assert.equal(held, 0, 'nothing keeps it out of the cache');
    await say(witness, 'b', channel, 2);
    await tab.evaluate(() => {
      globalThis.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));
    });
    await sayAndSee(witness, tab, channel, [3], 3);
  });

  test('the connection of a tab that hangs is taken over by one that is seen, and stays there', async () => {
    const [sharing, channel] = [new Sharing(stage), freshChannel()];
    const hanging = await sharing.tab();
    const witness = await sharing.witness(channel);
    // Opened last: the one that is seen.
    const other = await sharing.tab();
    await listen(other, 'shared', channel);
    await listen(hanging, 'shared', channel);
    await sayAndSee(witness, other, channel, [1], 1);
    const ended = hanging.evaluate((milliseconds) => {
      const end = Date.now() + milliseconds;
      while (Date.now() < end);
      return Date.now();
    }, SLEEP_MS);
    await until('a takeover', () => isHolder(other), Boolean);
    await sayAndSee(witness, other, channel, [2, 3], 3);
    assert.ok(Date.now() < (await ended), 'it did not wait for the tab that hangs');
    await sayAndSee(witness, other, channel, [4], 4);
    await sayAndSee(witness, hanging, channel, [5], 5);
    assert.deepEqual([await isHolder(hanging), await isHolder(other)], [false, true]);
    await until('that one connection is left', () => lastCount(witness, channel), (count) => count === 2);
  });

  test('a tab that keeps its lock and says nothing loses the connection', async () => {
    const [sharing, channel] = [new Sharing(stage), freshChannel()];
    const silent = await sharing.tab();
    const witness = await sharing.witness(channel);
    // Opened last: the one that is seen.
    const other = await sharing.tab();
    await listen(other, 'shared', channel);
    await sayAndSee(witness, other, channel, [1], 1);
    await silent.evaluate(() => {
      BroadcastChannel.prototype.postMessage = () => undefined;
    });
    await say(witness, 'b', channel, 2);
    await until('a takeover', () => isHolder(other), Boolean);
    await sayAndSee(witness, other, channel, [3], 3);
    assert.equal(await isHolder(silent), false);
    await until('that one connection is left', () => lastCount(witness, channel), (count) => count === 2);
  });

  test('a tab that the browser freezes gives the connection to another one at once, and comes again with all that it missed', async (context) => {
    const [sharing, channel] = [new Sharing(stage), freshChannel()];
    const frozen = await stage.freezable();
    if (frozen === undefined) {
      context.skip(`${stage.place.name} cannot be told to freeze a page`);
      return;
    }
    await sharing.begin(frozen);
    const other = await sharing.begin(await frozen.beside());
    const witness = await sharing.witness(channel);
    for (const tab of [frozen, other]) await listen(tab, 'shared', channel);
    await sayAndSee(witness, other, channel, [1], 1);
    const thawed = frozen.freeze(SLEEP_MS);
    await until('another holder', () => isHolder(other), Boolean);
    await say(other, 'shared', channel, 2);
    await until('what it published', () => saw(other, 'shared', channel), ({ data }) => data.length === 2);
    await sayAndSee(witness, other, channel, [3], 3);
    await thawed;
    await sayAndSee(witness, frozen, channel, [4], 4);
    await until('that one connection is left', () => lastCount(witness, channel), (count) => count === 2);
  });

  test('a bad token is told in all tabs, and mended in all of them by connect()', async () => {
    const node = await stage.start({ SKYWAVE_AUTH__HMAC_SECRET: TOKEN_SECRET, SKYWAVE_AUTH__ANONYMOUS: 'false' });
    const { urls, options } = reach(node, 'websocket');
    const share = crypto.randomUUID();
    const tabs = [await stage.tab(share), await stage.tab(share)] as const;
    for (const tab of tabs) {
      const refused = await tab.evaluate(
        async ([where, given]) => {
          Object.assign(globalThis, { query: 'seconds=x' });
          const getToken = async (): Promise<string> => {
            const { query } = globalThis as unknown as { query: string };
            return query === 'seconds=x' ? 'nonsense' : (await fetch(`/token?${query}`)).text();
          };
          kit.share(new skywave.SharedSkywave(where, { ...given, getToken }));
          return kit.client('shared').connect().then(String, (error: unknown) => (error as { reason: string }).reason);
        },
        [urls, { ...options, share }] as const,
      );
      assert.equal(refused, 'unauthenticated');
    }
    for (const tab of tabs) {
      assert.match((await states(tab, 'shared')).at(-1) ?? '', /^disconnected \(.*unauthenticated/);
      await tab.evaluate(() => {
        Object.assign(globalThis, { query: 'user=alice&seconds=600' });
      });
    }
    const user = await tabs[1].evaluate(async () => (await kit.client('shared').connect()).user);
    assert.equal(user, 'alice');
    await until('the other one', () => tabs[0].evaluate(() => kit.client('shared').connection?.user), (seen) => seen === 'alice');
  });
}
