/** Chromium at the far end of a path: it reaches the node only through that, and this script by pipes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { type Browser, chromium, type Page } from 'playwright-core';

const CHROMIUM = process.env['CHROMIUM_BIN'] ?? '/usr/bin/chromium';
const LAUNCH_TIMEOUT_MS = 60_000;
// Without a sandbox, because network namespaces need root.
const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'];
/** Nothing listens there: the page is brought by the pipes, and loopback is a secure context. */
const ORIGIN = 'http://localhost';

export class FarBrowser {
  readonly #browser: Browser;
  readonly #script: string;

  private constructor(browser: Browser, script: string) {
    this.#browser = browser;
    this.#script = script;
  }

  /** `enter` is the command that starts programs at the far end. */
  static async launch(enter: string): Promise<FarBrowser> {
    const directory = mkdtempSync(join(tmpdir(), 'skywave-latency-'));
    process.once('exit', () => {
      rmSync(directory, { recursive: true, force: true });
    });
    try {
      const executable = join(directory, 'chromium');
      writeFileSync(executable, `#!/bin/sh\nexec ${enter} '${CHROMIUM}' "$@"\n`, { mode: 0o755 });
      const script = await bundle();
      const browser = await chromium.launch({ executablePath: executable, args: ARGUMENTS, timeout: LAUNCH_TIMEOUT_MS });
      return new FarBrowser(browser, script);
    } catch (error) {
      throw new Error(`cannot start Chromium (${CHROMIUM}; CHROMIUM_BIN names another) at the far end`, { cause: error });
    }
  }

  get version(): string {
    return this.#browser.version();
  }

  /** A tab with a `recorder`. It takes the node's development certificate on TCP as well. */
  async open(): Promise<Page> {
    const context = await this.#browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.route(`${ORIGIN}/**`, (route) => {
      const isScript = route.request().url().endsWith('/script.js');
      return route.fulfill(
        isScript
          ? { contentType: 'text/javascript', body: this.#script }
          : { contentType: 'text/html', body: '<!doctype html><script type="module" src="/script.js"></script>' },
      );
    });
    await page.goto(ORIGIN);
    await page.waitForFunction('globalThis.recorder !== undefined');
    return page;
  }

  async close(): Promise<void> {
    await this.#browser.close();
  }
}

async function bundle(): Promise<string> {
  const { outputFiles } = await build({
    stdin: {
      contents: `
        import { Recorder } from './bench/tab.ts';
        globalThis.recorder = new Recorder();`,
      resolveDir: process.cwd(),
    },
    bundle: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'error',
  });
  return outputFiles[0]?.text ?? '';
}
