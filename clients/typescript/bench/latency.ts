/**
 * Measures in Chromium, over a path that delays and loses packets, how long publications take to arrive: WebTransport
 * beside WebSocket, one busy channel beside nine quiet ones. `make browser-latency` runs it.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import type { TransportKind } from 'skywave';
import { TestNode } from '../test/real/node.js';
import { Chromium } from './chromium.js';
import { clock } from './clock.js';
import { BUSY, CHANNELS, type Counts, type Load, LOADS, Publisher, QUIET } from './loads.js';
import type { Measured } from './measured.js';
import { Quantiles } from './quantiles.js';
import { table, write } from './report.js';
import type { Arrivals, Recorder } from './tab.js';

const KINDS: readonly TransportKind[] = ['webtransport', 'websocket'];
const SECONDS = Number(process.env['SKYWAVE_LATENCY_SECONDS'] ?? 120);
const WARM_UP_SECONDS = 5;
/** How long the last ones may take. */
const ARRIVAL_TIMEOUT_MS = 60_000;
const SET_UP_TIMEOUT_MS = 120_000;
const LIMIT_MS = SET_UP_TIMEOUT_MS + (LOADS.length + 1) * (SECONDS * 1_000 + ARRIVAL_TIMEOUT_MS);
/** More than that between the clocks of publisher and tabs, and nothing was measured. */
const CLOCK_LIMIT_MS = 2;
const CLOCK_LOOKS = 50;

// In the tabs.
declare const recorder: Recorder;

/** Where this script is, from `skywave-regions path`. */
function surroundings(): { address: string; enter: string; conditions: string } {
  const variable = (name: string): string => {
    const value = process.env[`SKYWAVE_PATH_${name}`];
    if (value === undefined) throw new Error('there is no path: run this by `make browser-latency`, as root, on Linux with /dev/net/tun');
    return value;
  };
  return { address: variable('ADDRESS'), enter: variable('ENTER'), conditions: variable('CONDITIONS') };
}

function say(text: string): void {
  console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);
}

/** By how much a tab's clock is ahead, at most this far off: the least of many looks decides. */
async function clockDifference(tab: Page): Promise<number> {
  let [least, difference] = [Infinity, 0];
  for (let look = 0; look < CLOCK_LOOKS; look += 1) {
    const before = clock();
    const there = await tab.evaluate(() => recorder.now());
    const after = clock();
    if (after - before < least) [least, difference] = [after - before, there - (before + after) / 2];
  }
  return Math.abs(difference) + least / 2;
}

async function checkClocks(tabs: Map<TransportKind, Page>): Promise<number> {
  const differences: number[] = [];
  for (const tab of tabs.values()) differences.push(await clockDifference(tab));
  const most = Math.max(...differences);
  if (most > CLOCK_LIMIT_MS) throw new Error(`the clocks of the publisher and a tab may differ by ${most.toFixed(2)} ms`);
  return most;
}

async function openTab(browser: Chromium, node: TestNode, address: string, kind: TransportKind): Promise<Page> {
  const tab = await browser.open();
  const place = `${address}:${node.places.public.split(':').pop() ?? ''}`;
  await tab.evaluate(
    ([url, transport, hash, channels]) =>
      recorder.open({ webtransport: `https://${url}`, websocket: `wss://${url}` }, { transport, serverCertificateHashes: [hash] }, [...channels]),
    [place, kind, node.certificateHash, CHANNELS] as const,
  );
  return tab;
}

/** Publishes a load, and waits until all of it has arrived in both tabs. */
async function run(load: Load, seconds: number, publisher: Publisher, tabs: Map<TransportKind, Page>): Promise<Counts> {
  for (const tab of tabs.values()) {
    await tab.evaluate((name) => {
      recorder.begin(name);
    }, load.name);
  }
  const counts = await publisher.run(load, seconds);
  const wanted = Object.values(counts).reduce((sum, count) => sum + count);
  for (const [kind, tab] of tabs) {
    const deadline = Date.now() + ARRIVAL_TIMEOUT_MS;
    for (;;) {
      const { count, breaks } = await tab.evaluate(() => ({ count: recorder.count, breaks: recorder.breaks }));
      if (breaks.length > 0) throw new Error(`${kind}: the connection broke: ${breaks.join(', ')}`);
      if (count >= wanted) break;
      if (Date.now() > deadline) throw new Error(`${kind}: of ${wanted} only ${count} arrived`);
      await pause(100);
    }
  }
  return counts;
}

/** All that was published arrived once, in its order. */
function check(kind: TransportKind, counts: Counts, arrivals: Record<string, Arrivals>): void {
  for (const channel of CHANNELS) {
    const sequences = (arrivals[channel] ?? []).map(([sequence]) => sequence);
    const isWhole = sequences.length === counts[channel] && sequences.every((sequence, index) => sequence === index);
    if (!isWhole) throw new Error(`${kind}, ${channel}: lost, repeated or out of order: ${sequences.join(' ')}`);
  }
}

async function measure(load: Load, publisher: Publisher, tabs: Map<TransportKind, Page>): Promise<Measured> {
  say(`${load.name}: ${load.words}, for ${SECONDS} s …`);
  const counts = await run(load, SECONDS, publisher, tabs);
  const arrivals = new Map<TransportKind, Record<string, Arrivals>>();
  for (const [kind, tab] of tabs) {
    const seen = await tab.evaluate(() => recorder.take());
    check(kind, counts, seen);
    arrivals.set(kind, seen);
  }
  const row = (kind: TransportKind, channels: readonly string[], isBusy: boolean): Measured['rows'][number] => {
    const delays = channels.flatMap((channel) => (arrivals.get(kind)?.[channel] ?? []).map(([, delayMs]) => delayMs));
    return { kind, isBusy, quantiles: new Quantiles(delays) };
  };
  const rows = [...KINDS.map((kind) => row(kind, QUIET, false)), ...KINDS.map((kind) => row(kind, [BUSY], true))];
  const measured = { load, rows };
  console.error(table([measured]));
  return measured;
}

async function main(): Promise<void> {
  const { address, enter, conditions } = surroundings();
  const [first] = LOADS;
  if (first === undefined) throw new Error('no load');
  const node = await TestNode.start({ SKYWAVE_LISTEN__PUBLIC: `${address}:0` });
  const browser = await Chromium.launch({ module: './bench/tab.ts', className: 'Recorder', name: 'recorder' }, enter);
  say(`Chromium ${browser.version}, ${conditions}`);
  const publisher = await Publisher.open(`ws://${node.places.plain}`);
  const tabs = new Map<TransportKind, Page>();
  for (const kind of KINDS) tabs.set(kind, await openTab(browser, node, address, kind));
  const before = await checkClocks(tabs);
  await run({ ...first, name: 'warm-up' }, WARM_UP_SECONDS, publisher, tabs);
  const measured: Measured[] = [];
  for (const load of LOADS) measured.push(await measure(load, publisher, tabs));
  const clocks = Math.max(before, await checkClocks(tabs));
  publisher.close();
  await browser.close();
  await node.stop();
  const root = process.env['SKYWAVE_LATENCY_ROOT'] ?? '';
  if (root === '') return;
  write(root, measured, conditions, `Chromium ${browser.version}; clocks within ${clocks.toFixed(1)} ms; ${SECONDS} s for each load`);
}

// Chromium ends when its pipes do, and the node with this process.
const limit = setTimeout(() => {
  console.error(`not done after ${LIMIT_MS / 1_000} s`);
  process.exit(1);
}, LIMIT_MS);
process.once('SIGTERM', () => process.exit(1));
try {
  await main();
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
clearTimeout(limit);
process.exit();
