/** Starts a real node on free ports, freezes it, and stops it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.SKYWAVE_BIN ?? fileURLToPath(new URL('../../target/debug/skywave', import.meta.url));
const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 10_000;

const DEFAULTS = {
  SKYWAVE_LISTEN__PUBLIC: 'localhost:0',
  SKYWAVE_LISTEN__PLAIN: '127.0.0.1:0',
  SKYWAVE_LISTEN__ADMIN: '127.0.0.1:0',
  SKYWAVE_DRAIN__DEADLINE: '1s',
  SKYWAVE_LOG__LEVEL: 'warn',
};

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/**
 * Starts `skywave serve --dev` with variables of the environment that configure it. Answers where it listens (`places`)
 * and the address of its page (`page`). `freeze()` makes it fall silent as a dead path does, until `thaw()`.
 */
export async function startNode(environment = {}) {
  const child = spawn(BINARY, ['serve', '--dev'], {
    env: { ...process.env, ...DEFAULTS, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  const places = await ready(child);
  return {
    places,
    page: `http://${places.admin}`,
    freeze: () => child.kill('SIGSTOP'),
    thaw: () => child.kill('SIGCONT'),
    stop: () => stop(child),
  };
}

/** The places that the node's `ready` line names. */
async function ready(child) {
  const lines = createInterface({ input: child.stdout });
  const signal = AbortSignal.timeout(START_TIMEOUT_MS);
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`the node ended with ${code}`)));
  // Only an end before the `ready` line is of interest.
  ended.catch(() => {});
  try {
    const [line] = await Promise.race([once(lines, 'line', { signal }), ended]);
    const [word, ...pairs] = line.split(' ');
    if (word !== 'ready') throw new Error(`the node said: ${line}`);
    return Object.fromEntries(pairs.map((pair) => pair.split('=')));
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}

async function stop(child) {
  if (child.exitCode === null && child.signalCode === null) {
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    child.kill('SIGTERM');
    child.kill('SIGCONT');
    await once(child, 'exit');
    clearTimeout(timer);
  }
  running.delete(child);
}
