/**
 * The clients in Chromium of `skywave-regions faults`, in one region. It tells them by lines of JSON what to do, and is
 * told by lines of JSON what becomes of them: first all that they are, then what each is to publish, until the end.
 */
import { createInterface } from 'node:readline';
import type { Published, TransportChoice } from 'skywave';
import type { Page } from 'playwright-core';
import { Chromium } from './chromium.js';
import type { FaultMember, News } from './fault_tab.js';

/** The first line. */
interface Setting {
  /** Of the nodes' certificate, in hexadecimal. */
  readonly certificate_sha256: string;
  /** Each has a tab and a profile of its own. */
  readonly clients: readonly { urls: string[]; transport: TransportChoice; channels: string[] }[];
}

/** Each further one. */
interface Publish {
  readonly id: number;
  readonly client: number;
  readonly channel: string;
  readonly data: unknown;
}

type Line =
  | 'ready'
  | { news: { client: number; all: News[] } }
  | { published: { id: number; place: Published } }
  | { refused: { id: number; reason: string } };

// In the tabs.
declare const member: FaultMember;

function say(line: Line): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function openTab(browser: Chromium, client: number, { certificate_sha256, clients }: Setting): Promise<Page> {
  const tab = await browser.open(async (page) => {
    // As Playwright's own functions of pages do, but for an answer, which would double the cost.
    const session = await page.context().newCDPSession(page);
    session.on('Runtime.bindingCalled', ({ payload }) => {
      say({ news: { client, all: JSON.parse(payload) as News[] } });
    });
    await session.send('Runtime.enable');
    await session.send('Runtime.addBinding', { name: 'tell' });
  });
  // A client that fails by itself is told of, whatever else becomes of it.
  tab.on('pageerror', (error) => {
    console.error(`client ${client}:`, error);
  });
  await tab.evaluate(
    ([given, hash]) => given && member.open(given.urls, { transport: given.transport, serverCertificateHashes: [hash] }, given.channels),
    [clients[client], certificate_sha256] as const,
  );
  return tab;
}

async function publish(tabs: readonly Page[], { id, client, channel, data }: Publish): Promise<void> {
  try {
    const place = await tabs[client]?.evaluate(([name, content]) => member.publish(name, content), [channel, data] as const);
    if (place === undefined) throw new Error(`there is no client ${client}`);
    say({ published: { id, place } });
  } catch (error) {
    say({ refused: { id, reason: String(error) } });
  }
}

async function main(): Promise<void> {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done === true) throw new Error('nobody says which clients');
  const setting = JSON.parse(first.value) as Setting;
  const browser = await Chromium.launch({ module: './bench/fault_tab.ts', className: 'FaultMember', name: 'member' });
  const tabs = await Promise.all([...setting.clients.keys()].map((client) => openTab(browser, client, setting)));
  say('ready');
  for (;;) {
    const line = await lines.next();
    if (line.done === true) break;
    void publish(tabs, JSON.parse(line.value) as Publish);
  }
  await browser.close();
}

// Chromium ends when its pipes do.
try {
  await main();
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
process.exit();
