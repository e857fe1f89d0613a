/** Where the package runs in these tests: Chromium, Firefox, and Node itself, behind one shape. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { launch as launchPuppeteer, type Page as PuppeteerPage } from 'puppeteer-core';
import WebSocket from 'ws';
import * as index from 'skywave';
import { Skywave as Core } from 'skywave/core';
import * as outbox from 'skywave/outbox';
import * as tabs from 'skywave/tabs';
import * as msgpack from 'skywave/msgpack';
import { Kit } from './kit.js';

const CHROMIUM = process.env['CHROMIUM_BIN'] ?? '/usr/bin/chromium';
const FIREFOX = process.env['FIREFOX_BIN'] ?? '/usr/bin/firefox-esr';
const LAUNCH_TIMEOUT_MS = 60_000;
// Without a sandbox, because test machines are containers that run as root.
const CHROMIUM_ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'];
/** Of the nodes whose tokens the page's server gives out. */
export const TOKEN_SECRET = 'a secret of at least thirty-two bytes';

/** What the page's script has as `skywave`. */
export type Package = typeof index & typeof msgpack & typeof outbox & typeof tabs & { Core: typeof Core };

/** One tab. */
export interface Tab {
  /** Runs a function in it. It sees nothing of what is around it here, only its argument and the tab's globals. */
  evaluate<Result, Argument = undefined>(run: (argument: Argument) => Result | Promise<Result>, argument?: Argument): Promise<Result>;
  close(): Promise<void>;
}

/** A tab that its browser can freeze, as it does in the background. */
export interface FreezableTab extends Tab {
  /** Brings another tab to the front and freezes this one for a while. */
  freeze(milliseconds: number): Promise<void>;
  /** Opens a tab of the same person. */
  beside(): Promise<Tab>;
}

/** A page of somebody else's, as a person uses it. */
export interface Visit extends Pick<Tab, 'evaluate' | 'close'> {
  click(selector: string): Promise<void>;
  type(selector: string, text: string): Promise<void>;
}

export interface Place {
  readonly name: string;
  /** The processes of the browser, to be stopped and continued as a whole. */
  readonly pid: number | undefined;
  /** Opens a tab; `profile` keeps what it stores beside that of other profiles. */
  open(profile?: string): Promise<Tab>;
  /** Opens a tab that can be frozen, where the browser can be told so. */
  openFreezable?(): Promise<FreezableTab>;
  /** Opens any page as a new person does, where there are pages. */
  visit?(url: string): Promise<Visit>;
  close(): Promise<void>;
}

/** Serves the page with the package, and tokens. */
export class PageServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<PageServer> {
    const { outputFiles } = await build({
      stdin: {
        contents: `
          import * as index from 'skywave';
          import { Skywave as Core } from 'skywave/core';
          import * as tabs from 'skywave/tabs';
          import * as msgpack from 'skywave/msgpack';
          import * as outbox from 'skywave/outbox';
          import { Kit } from './test/real/kit.ts';
          globalThis.skywave = { ...index, ...msgpack, ...outbox, ...tabs, Core };
          globalThis.kit = new Kit();`,
        resolveDir: process.cwd(),
      },
      bundle: true,
      format: 'esm',
      target: 'es2022',
      write: false,
    });
    const script = outputFiles[0]?.contents;
    const server = createServer((request, response) => {
      const url = new URL(request.url ?? '/', 'http://localhost');
      if (url.pathname === '/script.js') response.setHeader('content-type', 'text/javascript').end(script);
      else if (url.pathname === '/plain.html') response.setHeader('content-type', 'text/html').end(example(url.searchParams.get('node') ?? ''));
      else if (/^\/dist\/(chunks\/)?[\w.-]+\.js$/.test(url.pathname)) response.setHeader('content-type', 'text/javascript').end(readFileSync(`.${url.pathname}`));
      else if (url.pathname === '/token') response.end(token(url.searchParams.get('user') ?? 'nobody', Number(url.searchParams.get('seconds'))));
      else response.setHeader('content-type', 'text/html').end('<!doctype html><script type="module" src="/script.js"></script>');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new PageServer(server);
  }

  get origin(): string {
    return `http://127.0.0.1:${String((this.#server.address() as AddressInfo).port)}`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** The example in plain HTML, with the package as it was built here, for the node at `place`. */
function example(place: string): string {
  const page = readFileSync('examples/plain.html', 'utf8');
  return page.replace(/https:[^"]*(\/dist\/index.js)/, '$1').replace('localhost:8081', place);
}

/** A JSON web token (RFC 7519) of `user`, signed with the tests' secret. */
export function token(user: string, seconds: number): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1_000);
  const content = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, iat: now, exp: now + seconds })}`;
  return `${content}.${createHmac('sha256', TOKEN_SECRET).update(content).digest('base64url')}`;
}

export async function launchChromium(server: PageServer): Promise<Place> {
  const launched = await chromium.launchServer({ executablePath: CHROMIUM, args: CHROMIUM_ARGUMENTS, timeout: LAUNCH_TIMEOUT_MS });
  const browser = await chromium.connect(launched.wsEndpoint());
  const profiles = new Map<string, ReturnType<typeof browser.newContext>>();
  return {
    name: 'Chromium',
    pid: launched.process().pid,
    async open(profile = crypto.randomUUID()) {
      let context = profiles.get(profile);
      if (context === undefined) profiles.set(profile, (context = browser.newContext()));
      const page = await (await context).newPage();
      await page.goto(server.origin);
      await page.waitForFunction('globalThis.kit !== undefined');
      return {
        evaluate: (run, argument) => page.evaluate(run as never, argument),
        close: () => page.close(),
      };
    },
    openFreezable: () => openFreezableChromium(server),
    async visit(url) {
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(url);
      return {
        evaluate: (run, argument) => page.evaluate(run as never, argument),
        click: (selector) => page.click(selector),
        type: (selector, text) => page.locator(selector).pressSequentially(text),
        close: () => context.close(),
      };
    },
    async close() {
      await browser.close();
      await launched.close();
    },
  };
}

/** With Puppeteer: Playwright keeps all of its pages visible, and Chromium freezes none that is. */
async function openFreezableChromium(server: PageServer): Promise<FreezableTab> {
  const browser = await launchPuppeteer({ executablePath: CHROMIUM, args: CHROMIUM_ARGUMENTS, headless: true, timeout: LAUNCH_TIMEOUT_MS });
  const open = async (): Promise<Tab & { page: PuppeteerPage }> => {
    const page = await browser.newPage();
    await page.goto(server.origin);
    await page.waitForFunction('globalThis.kit !== undefined');
    return { page, evaluate: (run, argument) => page.evaluate(run as never, argument), close: () => page.close() };
  };
  const first = await open();
  const devtools = await first.page.createCDPSession();
  return {
    ...first,
    beside: open,
    async freeze(milliseconds) {
      const other = await browser.newPage();
      await other.bringToFront();
      await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
      await pause(milliseconds);
      await devtools.send('Page.setWebLifecycleState', { state: 'active' });
      await first.page.bringToFront();
    },
    close: () => browser.close(),
  };
}

export async function launchFirefox(server: PageServer): Promise<Place> {
  const browser = await launchPuppeteer({ browser: 'firefox', executablePath: FIREFOX, headless: true, timeout: LAUNCH_TIMEOUT_MS });
  const profiles = new Map<string, ReturnType<typeof browser.createBrowserContext>>();
  return {
    name: 'Firefox',
    pid: browser.process()?.pid,
    async open(profile = crypto.randomUUID()) {
      let context = profiles.get(profile);
      if (context === undefined) profiles.set(profile, (context = browser.createBrowserContext()));
      const page = await (await context).newPage();
      await page.goto(server.origin);
      await page.waitForFunction('globalThis.kit !== undefined');
      return {
        evaluate: (run, argument) => page.evaluate(run as never, argument),
        close: () => page.close(),
      };
    },
    async visit(url) {
      const context = await browser.createBrowserContext();
      const page = await context.newPage();
      await page.goto(url);
      return {
        evaluate: (run, argument) => page.evaluate(run as never, argument),
        click: (selector) => page.click(selector),
        type: (selector, text) => page.type(selector, text),
        close: () => context.close(),
      };
    },
    async close() {
      await browser.close();
    },
  };
}

/** Node 20, with the WebSocket of `ws`. */
export function hereInNode(): Place {
  const scope = globalThis as { skywave?: Package; kit?: Kit; WebSocket?: unknown };
  scope.skywave = { ...index, ...msgpack, ...outbox, ...tabs, Core };
  scope.kit = new Kit();
  scope.WebSocket ??= WebSocket;
  return {
    name: 'Node',
    pid: undefined,
    open: () =>
      Promise.resolve({
        evaluate: async (run, argument) => run(argument as never),
        close: () => Promise.resolve(),
      }),
    close: () => Promise.resolve(),
  };
}
