/** What an application can rely on, wherever it runs, over both transports, against real nodes. */
import { after, afterEach, before, describe } from 'node:test';
import type { TransportKind } from 'skywave';
import { describeBreaks } from './breaks.js';
import { describeCalls } from './calls.js';
import { describeChoice } from './choice.js';
import { describeDemo } from './demo.js';
import { describePages } from './pages.js';
import { TestNode } from './node.js';
import { PageServer, type Place } from './places.js';
import { CUTS_TIMEOUT_MS, SLEEP_MS, Stage } from './stage.js';
import { describeTabs } from './tabs.js';
import { describeTabStorms, STORM_MS } from './tab_storms.js';

const SUITE_TIMEOUT_MS = 600_000 + 2 * CUTS_TIMEOUT_MS + 4 * SLEEP_MS + 4 * STORM_MS;
// A browser that does not answer any more fails the tests, and does not hold them up.
const CLEANING_TIMEOUT_MS = 30_000;

/** Tests the package in the place that `launch` starts. */
export function describeSdk(name: string, launch: (server: PageServer) => Promise<Place>, kinds: TransportKind[]): void {
  describe(`in ${name}`, { timeout: SUITE_TIMEOUT_MS }, () => {
    const stage = new Stage();
    before(async () => {
      const server = (stage.server = await PageServer.start());
      stage.whole.unshift(() => { server.stop(); });
      const node = (stage.node = await TestNode.start());
      stage.whole.unshift(() => node.stop());
      const place = (stage.place = await launch(server));
      stage.whole.unshift(() => place.close());
    });
    afterEach(() => stage.clean(), { timeout: CLEANING_TIMEOUT_MS });
    after(async () => {
      for (const end of stage.whole) await end();
    }, { timeout: CLEANING_TIMEOUT_MS });
    for (const kind of kinds) {
      void describe(`over ${kind}`, () => {
        describeCalls(stage, kind);
        describeBreaks(stage, kind);
      });
    }
    // In browsers, which have both transports and pages.
    if (kinds.length === 2) {
      describeChoice(stage);
      describePages(stage);
      describeTabs(stage);
      describeTabStorms(stage);
      describeDemo(stage);
    }
  });
}

/** Both transports, or the one that the environment names. */
export function transportsToTest(): TransportKind[] {
  const all: TransportKind[] = ['webtransport', 'websocket'];
  const { SKYWAVE_TRANSPORT: only } = process.env;
  return only === undefined ? all : all.filter((kind) => kind === only);
}
