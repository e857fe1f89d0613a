/** What the tests of a place have, do and clean up. */
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { NodeUrl, SkywaveOptions, TransportKind } from 'skywave';
import type { Kit, Seen, Tally } from './kit.js';
import { TestNode } from './node.js';
import type { FreezableTab, PageServer, Place, Tab, Visit } from './places.js';
import { Relay } from './relay.js';

// In the tabs.
declare const kit: Kit;

export const TEST_TIMEOUT_MS = 90_000;
/** How many times a transport is cut in a row. */
export const CUTS = Number(process.env['SKYWAVE_CUTS'] ?? 12);
/** What the cuts' times are drawn from; printed, so that a run can be repeated. */
export const SEED = Number(process.env['SKYWAVE_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
export const CUTS_TIMEOUT_MS = TEST_TIMEOUT_MS + CUTS * 5_000;
/** How long a lid is closed: longer than a connection lives that nobody hears of. */
export const SLEEP_MS = Number(process.env['SKYWAVE_SLEEP_MS'] ?? 12_000);
const WAIT_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

/** How a tab reaches a node. */
export interface Target {
  urls: NodeUrl | NodeUrl[];
  options: SkywaveOptions;
}

/** Looks until `isRight`; answers what is seen then. */
export async function until<Result>(what: string, look: () => Promise<Result>, isRight: (result: Result) => boolean): Promise<Result> {
  const deadline = Date.now() + WAIT_TIMEOUT_MS;
  for (;;) {
    const seen = await look();
    if (isRight(seen)) return seen;
    if (Date.now() > deadline) assert.fail(`never saw ${what}, but ${JSON.stringify(seen)}`);
    await pause(POLL_MS);
  }
}

export const saw = (tab: Tab, id: string, channel: string): Promise<Seen> =>
  tab.evaluate(([client, name]) => kit.saw(client, name), [id, channel] as const);
export const states = (tab: Tab, id: string): Promise<string[]> => tab.evaluate((client) => kit.states.get(client) ?? [], id);
export const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

/** Waits for `count` numbered publications, for as long as more come. */
export async function allOf(tab: Tab, id: string, channel: string, count: number): Promise<Tally> {
  for (let before = -1; ;) {
    const tally = await until(
      `more than ${before} of ${count}`,
      () => tab.evaluate(([client, name, said]) => kit.tally(client, name, said), [id, channel, count] as const),
      (seen) => seen.count > before,
    );
    if (tally.count >= count) return tally;
    before = tally.count;
  }
}

export function reach(node: TestNode, kind: TransportKind, relay?: Relay): Target {
  const udp = relay?.udpPort ?? node.places.public.split(':').pop() ?? '';
  const tcp = relay === undefined ? node.places.plain : `127.0.0.1:${relay.tcpPort}`;
  return {
    urls: { webtransport: `https://127.0.0.1:${udp}`, websocket: `ws://${tcp}` },
    options: { transport: kind, serverCertificateHashes: [node.certificateHash] },
  };
}

export function open(tab: Tab, id: string, target: Target): Promise<void> {
  return tab.evaluate(([client, { urls, options }]) => kit.open(client, urls, options), [id, target] as const);
}

export function listen(tab: Tab, id: string, channel: string, options = {}): Promise<void> {
  return tab.evaluate(
    async ([client, name, given]) => {
      await kit.listen(client, name, given);
    },
    [id, channel, options] as const,
  );
}

export function say(tab: Tab, id: string, channel: string, ...texts: unknown[]): Promise<void> {
  return tab.evaluate(
    ([client, name, all]) => {
      kit.say(client, name, ...all);
    },
    [id, channel, texts] as const,
  );
}

/** What the tests of a place have, and clean up. */
export class Stage {
  place!: Place;
  node!: TestNode;
  server!: PageServer;
  /** Undone after all tests. */
  readonly whole: (() => unknown)[] = [];
  #endings: (() => unknown)[] = [];

  async tab(profile?: string): Promise<Tab> {
    return this.#keep(await this.place.open(profile));
  }

  /** A tab that can be frozen, where the browser can be told so. */
  async freezable(): Promise<FreezableTab | undefined> {
    const tab = await this.place.openFreezable?.();
    return tab && this.#keep(tab);
  }

  #keep<One extends Tab>(tab: One): One {
    this.#endings.unshift(async () => {
      await tab.evaluate(() => {
        kit.close();
      });
      await tab.close();
    });
    return tab;
  }

  /** Opens a page that is not the tests' own. */
  async visit(url: string): Promise<Visit> {
    const visit = await this.place.visit?.(url);
    assert.ok(visit, `${this.place.name} has no pages`);
    this.#endings.unshift(() => visit.close());
    return visit;
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

export const test = (name: string, run: (context: TestContext) => Promise<void>, timeout = TEST_TIMEOUT_MS): void => {
  void it(name, { timeout }, run);
};
export const freshChannel = (): string => `test:${crypto.randomUUID()}`;
