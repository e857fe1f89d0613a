/** Tabs that come and go at random, held against what the node has accepted. */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { Skywave } from 'skywave';
import WebSocket from 'ws';
import type { Kit } from './kit.js';
import type { Package, Tab } from './places.js';
import type { Relay } from './relay.js';
import { freshChannel, SEED, type Stage, test, TEST_TIMEOUT_MS } from './stage.js';

// In the tabs.
declare const skywave: Package;
declare const kit: Kit;

/** How long tabs come and go, and how many there are at most. */
export const STORM_MS = Number(process.env['SKYWAVE_STORM_MS'] ?? 15_000);
const MOST_TABS = Number(process.env['SKYWAVE_STORM_TABS'] ?? 8);
const CHANNELS = 3;
/** Longer than tabs wait for the one that holds the connection. */
const HANG_MS = 9_000;
/** How long it may take until all has come. */
const SETTLED_MS = 40_000;

/** What a tab saw and did; channels by their place. */
interface Record {
  name: string;
  /** Of each channel, by subscription: offset and data of each publication. */
  runs: { channel: number; seen: [number, string][] }[];
  gaps: string[];
  accepted: [channel: number, data: string, offset: number][];
  failures: string[];
  unanswered: number;
  uncaught: string[];
  state: string;
}

/** In a tab: publishes numbers at random to all channels, and keeps what it sees. */
interface Player {
  record: () => Record;
  stop: () => void;
  /** Closes its client and makes another one. */
  renew: () => void;
  /** Goes without the connection for a moment. */
  leave: () => Promise<void>;
  /** As a page that the browser puts aside and takes up again. */
  putAside: () => Promise<void>;
  hang: (milliseconds: number) => void;
}
declare const player: Player;

type Begin = [name: string, urls: string, options: object, channels: string[], useOutbox: boolean];

function begin([name, urls, options, channels, useOutbox]: Begin): void {
  const record: Record = { name, runs: [], gaps: [], accepted: [], failures: [], unanswered: 0, uncaught: [], state: '' };
  globalThis.addEventListener('error', ({ message }) => record.uncaught.push(message));
  globalThis.addEventListener('unhandledrejection', ({ reason }) => record.uncaught.push(String(reason)));
  const create = (): InstanceType<Package['SharedSkywave']> => {
    const made = new skywave.SharedSkywave(urls, { ...options, ...(useOutbox ? { outbox: skywave.indexedDbOutbox() } : {}) });
    channels.forEach((channel, place) => {
      const seen: [number, string][] = [];
      record.runs.push({ channel: place, seen });
      const one = made.channel<string>(channel);
      one.on('publication', ({ offset, data }) => seen.push([offset, data]));
      one.on('gap', ({ reason, offset }) => record.gaps.push(`${place}: ${reason} ${offset}`));
      one.on('error', (error) => {
        if (made.state !== 'closed') record.failures.push(`channel: ${error.message}`);
      });
    });
    return made;
  };
  let client = create();
  kit.share(client);
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 300));
  let number = 0;
  let isOver = false;
  const say = (): void => {
    if (isOver) return;
    const place = Math.floor(Math.random() * channels.length);
    const data = `${name} ${(number += 1)}`;
    record.unanswered += 1;
    const own = client;
    own
      .channel<string>(channels[place] ?? '')
      .publish(data)
      .then(
        ({ offset }) => record.accepted.push([place, data, offset]),
        (error: unknown) => {
          if (own.state !== 'closed') record.failures.push(String(error));
        },
      )
      .finally(() => (record.unanswered -= 1));
    setTimeout(say, Math.random() * 60);
  };
  say();
  const made: Player = {
    record: () => ({ ...record, state: client.state }),
    stop() {
      isOver = true;
    },
    renew() {
      client.close();
      client = create();
      kit.share(client);
    },
    async leave() {
      client.disconnect();
      await pause();
      client.connect().catch(() => undefined);
    },
    async putAside() {
      globalThis.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
      await pause();
      globalThis.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));
    },
    hang(milliseconds) {
      for (const end = Date.now() + milliseconds; Date.now() < end; );
    },
  };
  Object.assign(globalThis, { player: made });
}

/** Numbers at random, the same for the same seed (mulberry32). */
function chance(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** All that was accepted, as the node has it. */
async function logOf(client: Skywave, name: string): Promise<string[]> {
  const log: string[] = [];
  let before: string | undefined;
  do {
    const page = await client.channel<string>(name).history({ limit: 1_000, before });
    log.unshift(...page.publications.map(({ data }) => data));
    before = page.more ? page.cursor : undefined;
  } while (before !== undefined);
  return log;
}

/** What is wrong with a tab's record. */
function faults({ name, runs, gaps, accepted, failures, uncaught }: Record, log: string[][]): string[] {
  const all = [...gaps.map((gap) => `gap ${gap}`), ...failures, ...uncaught.map((one) => `uncaught ${one}`)];
  for (const { channel, seen } of runs) {
    seen.forEach(([offset, data], index) => {
      const before = seen[index - 1]?.[0];
      if (before !== undefined && offset !== before + 1) all.push(`saw ${offset} after ${before} on ${channel}`);
      if (log[channel]?.[offset - 1] !== data) all.push(`saw ${data} at ${offset}, where ${log[channel]?.[offset - 1]} is`);
    });
  }
  for (const [channel, data, offset] of accepted) if (log[channel]?.[offset - 1] !== data) all.push(`${data} is not at ${offset}`);
  return all.map((fault) => `${name}: ${fault}`);
}

/** What is repeated or out of order in what was accepted. */
function disorder(log: string[]): string[] {
  const last = new Map<string, string>();
  const all: string[] = [];
  for (const data of log) {
    const [tab = '', number = ''] = data.split(' ');
    const before = last.get(tab);
    if (before !== undefined && Number(number) <= Number(before)) all.push(`${tab}: ${number} comes after ${before}`);
    last.set(tab, number);
  }
  return all;
}

/** Tabs of one person, that share a connection over a path that breaks. */
class Storm {
  readonly #stage: Stage;
  readonly #relay: Relay;
  readonly #begin: (name: string) => Begin;
  readonly #tabs = new Map<string, Tab>();
  readonly #closed: Record[] = [];
  readonly #profile = crypto.randomUUID();
  readonly #random = chance(SEED);
  #opened = 0;

  constructor(stage: Stage, relay: Relay, begin: (name: string) => Begin) {
    this.#stage = stage;
    this.#relay = relay;
    this.#begin = begin;
  }

  async rage(): Promise<void> {
    await this.#open();
    for (const end = Date.now() + STORM_MS; Date.now() < end; ) {
      await this.#step(this.#random());
      await pause(this.#random() * 200);
    }
    for (const tab of this.#tabs.values()) await tab.evaluate(() => { player.stop(); });
  }

  /** What the tabs that are left saw and did. */
  left(): Promise<Record[]> {
    return Promise.all([...this.#tabs.values()].map((tab) => tab.evaluate(() => player.record())));
  }

  async all(): Promise<Record[]> {
    return [...this.#closed, ...(await this.left())];
  }

  async end(): Promise<void> {
    for (const tab of this.#tabs.values()) await tab.close();
  }

  async #open(): Promise<void> {
    const name = `t${(this.#opened += 1)}`;
    const tab = await this.#stage.place.open(this.#profile);
    await tab.evaluate(begin, this.#begin(name));
    this.#tabs.set(name, tab);
  }

  async #step(draw: number): Promise<void> {
    const [name, tab] = [...this.#tabs][Math.floor(this.#random() * this.#tabs.size)] ?? [];
    if (tab === undefined || this.#tabs.size < 3 || draw > 0.75) {
      if (this.#tabs.size < MOST_TABS) await this.#open();
    } else if (draw < 0.3) await this.#close(name ?? '', tab);
    else if (draw < 0.4) await tab.evaluate(() => { player.renew(); });
    else if (draw < 0.5) await tab.evaluate(() => player.leave());
    else if (draw < 0.6) await tab.evaluate(() => player.putAside());
    else if (draw < 0.7) this.#relay.cut();
    else if (draw < 0.73) await this.#silence();
    else await tab.evaluate((milliseconds) => { player.hang(milliseconds); }, HANG_MS);
  }

  async #close(name: string, tab: Tab): Promise<void> {
    this.#closed.push(await tab.evaluate(() => player.record()));
    this.#tabs.delete(name);
    await tab.close();
  }

  async #silence(): Promise<void> {
    this.#relay.tcp = false;
    await pause(this.#random() * 3_000);
    this.#relay.cut();
    this.#relay.tcp = true;
  }
}

/** What a tab has not got yet, or was not answered. */
function missing({ name, runs, unanswered, state }: Record, log: string[][]): string[] {
  const all = unanswered > 0 ? [`${name}: ${unanswered} unanswered, ${state}`] : [];
  for (const { channel, seen } of runs.slice(-log.length)) {
    const [last, length] = [seen.at(-1)?.[0], log[channel]?.length];
    if (last !== length) all.push(`${name}: saw ${last} of ${length} on ${channel}, ${state}`);
  }
  return all;
}

export function describeTabStorms(stage: Stage): void {
  for (const how of ['with an outbox', 'without an outbox']) {
    test(`tabs that come and go at random see all in its order, and publish each once, ${how}`, async () => {
      const node = await stage.start({ SKYWAVE_CHANNELS__TEST__HISTORY: '100000' });
      const relay = await stage.relay(node);
      const channels = Array.from({ length: CHANNELS }, freshChannel);
      const url = `ws://127.0.0.1:${relay.tcpPort}`;
      const options = { share: crypto.randomUUID(), backoff: { firstMs: 50, maxMs: 500 } };
      const storm = new Storm(stage, relay, (name) => [name, url, options, channels, how === 'with an outbox']);
      await storm.rage();
      const witness = new Skywave(url, { WebSocket });
      for (const channel of channels) await witness.channel(channel).publish('last 1');
      let log: string[][] = [];
      let late: string[] = [];
      for (const deadline = Date.now() + SETTLED_MS; ; ) {
        const left = await storm.left();
        log = await Promise.all(channels.map((channel) => logOf(witness, channel)));
        late = left.flatMap((record) => missing(record, log));
        if (late.length === 0 || Date.now() > deadline) break;
        await pause(500);
      }
      witness.close();
      const all = [...late, ...log.flatMap(disorder), ...(await storm.all()).flatMap((record) => faults(record, log))];
      await storm.end();
      assert.deepEqual(all.slice(0, 30), [], `seed ${SEED}, ${all.length} faults`);
    }, TEST_TIMEOUT_MS + STORM_MS + SETTLED_MS);
  }
}
