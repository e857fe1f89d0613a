/** Chromium, with tabs that run a script of ours; it is told what to do by pipes alone. */
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

/** What tabs run: the instance of a class, under a name. */
export interface TabScript {
  /** The class's module, from the package's directory. */
  readonly module: string;
  readonly className: string;
  /** The global variable that holds the instance. */
  readonly name: string;
}

export class Chromium {
  readonly #browser: Browser;
  readonly #script: string;
  readonly #name: string;

  private constructor(browser: Browser, script: string, name: string) {
    this.#browser = browser;
    this.#script = script;
    this.#name = name;
  }

  /** `enter` is a command that starts programs in another network; without one, Chromium is in this one. */
  static async launch(script: TabScript, enter = ''): Promise<Chromium> {
    const directory = mkdtempSync(join(tmpdir(), 'skywave-chromium-'));
    process.once('exit', () => {
      rmSync(directory, { recursive: true, force: true });
    });
    try {
      const executable = join(directory, 'chromium');
      writeFileSync(executable, `#!/bin/sh\nexec ${enter} '${CHROMIUM}' "$@"\n`, { mode: 0o755 });
      const browser = await chromium.launch({ executablePath: executable, args: ARGUMENTS, timeout: LAUNCH_TIMEOUT_MS });
      return new Chromium(browser, await bundle(script), script.name);
    } catch (error) {
      throw new Error(`cannot start Chromium (${CHROMIUM}; CHROMIUM_BIN names another)`, { cause: error });
    }
  }

  get version(): string {
    return this.#browser.version();
  }

  /** A tab with a profile of its own, in which the script has run. It takes development certificates on TCP as well. */
  async open(prepare: (page: Page) => Promise<unknown> = () => Promise.resolve()): Promise<Page> {
    const context = await this.#browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await prepare(page);
    await page.route(`${ORIGIN}/**`, (route) => {
      const isScript = route.request().url().endsWith('/script.js');
      return route.fulfill(
        isScript
          ? { contentType: 'text/javascript', body: this.#script }
          : { contentType: 'text/html', body: '<!doctype html><script type="module" src="/script.js"></script>' },
      );
    });
    await page.goto(ORIGIN);
    await page.waitForFunction(`globalThis.${this.#name} !== undefined`);
    return page;
  }

  async close(): Promise<void> {
    await this.#browser.close();
  }
}

async function bundle({ module, className, name }: TabScript): Promise<string> {
  const { outputFiles } = await build({
    stdin: {
      contents: `
        import { ${className} } from '${module}';
        globalThis.${name} = new ${className}();`,
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
