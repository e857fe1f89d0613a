/** Starts real nodes on free ports, freezes and stops them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

// The tests run in `clients/typescript`.
const BINARY = process.env['SKYWAVE_BIN'] ?? join(process.cwd(), '../../target/debug/skywave');
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 15_000;

const DEFAULTS = {
  SKYWAVE_LISTEN__PUBLIC: 'localhost:0',
  SKYWAVE_LISTEN__PLAIN: '127.0.0.1:0',
  SKYWAVE_LISTEN__ADMIN: '127.0.0.1:0',
  SKYWAVE_DRAIN__DEADLINE: '2s',
  SKYWAVE_LOG__LEVEL: 'error',
  SKYWAVE_LIMITS__PUBLISHES_PER_SECOND: '1000',
  SKYWAVE_LIMITS__REQUESTS_PER_SECOND: '1000',
  SKYWAVE_LIMITS__HANDSHAKES_PER_SECOND: '1000',
  // More than is published while a transport is away.
  SKYWAVE_CHANNELS__TEST__HISTORY: '10000',
  SKYWAVE_CHANNELS__TEST__PRESENCE: 'true',
};

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Where a node listens. */
export interface Places {
  public: string;
  plain: string;
  admin: string;
}

export class TestNode {
  readonly places: Places;
  /** By which a browser knows the development certificate. */
  readonly certificateHash: string;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, places: Places, certificateHash: string) {
    this.#child = child;
    this.places = places;
    this.certificateHash = certificateHash;
  }

  /** Starts `skywave serve --dev` with variables of the environment that configure it. */
  static async start(environment: Record<string, string> = {}): Promise<TestNode> {
    const child = spawn(BINARY, ['serve', '--dev'], {
      env: { ...process.env, ...DEFAULTS, ...environment },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    running.add(child);
    const places = await ready(child);
    const answer = await fetch(`http://${places.admin}/demo/config.json`);
    const { certificate_sha256: hash } = (await answer.json()) as { certificate_sha256: string };
    return new TestNode(child, places, hash);
  }

  /** Where its demo page is. */
  get page(): string {
    return `http://${this.places.admin}`;
  }

  /** Falls silent, as a node does behind a dead path, until `thaw()`. */
  freeze(): void {
    this.#child.kill('SIGSTOP');
  }

  thaw(): void {
    this.#child.kill('SIGCONT');
  }

  /** The variables that start another node at the same places. */
  get samePlaces(): Record<string, string> {
    const { admin, plain, public: listener } = this.places;
    return {
      SKYWAVE_LISTEN__ADMIN: admin,
      SKYWAVE_LISTEN__PLAIN: plain,
      SKYWAVE_LISTEN__PUBLIC: `localhost:${listener.split(':').pop() ?? ''}`,
    };
  }

  /** Asks the node to send its sessions elsewhere and to stop; answers when it has. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS);
      this.#child.kill('SIGTERM');
      this.#child.kill('SIGCONT');
      await once(this.#child, 'exit');
      clearTimeout(timer);
    }
    running.delete(this.#child);
  }

  /** Ends without a word. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
    running.delete(this.#child);
  }
}

/** The places that the node's `ready` line names. */
async function ready(child: ChildProcess): Promise<Places> {
  if (child.stdout === null) throw new Error('the node has no output');
  const lines = createInterface({ input: child.stdout });
  const signal = AbortSignal.timeout(START_TIMEOUT_MS);
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`the node ended with ${String(code)}`)));
  // Only an end before the `ready` line is of interest.
  ended.catch(() => undefined);
  try {
    const [line] = (await Promise.race([once(lines, 'line', { signal }), ended])) as [string];
    const [word, ...pairs] = line.split(' ');
    if (word !== 'ready') throw new Error(`the node said: ${line}`);
    const places = new Map(pairs.map((pair) => pair.split('=') as [string, string]));
    const place = (name: string): string => places.get(name) ?? '';
    return { public: place('public'), plain: place('plain'), admin: place('admin') };
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}
