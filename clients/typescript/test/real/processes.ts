/** A browser's processes, all of them together. */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

/** Stops a browser with all its processes for a while, as a system does that sleeps. */
export async function stopped(pid: number, milliseconds: number): Promise<void> {
  const all = new Set<number>();
  try {
    // Until one is stopped it may start others.
    for (let others = [pid]; others.length > 0; others = (await family(pid)).filter((one) => !all.has(one))) {
      for (const one of others) {
        all.add(one);
        signal(one, 'SIGSTOP');
      }
    }
    await pause(milliseconds);
  } finally {
    for (const one of all) signal(one, 'SIGCONT');
  }
}

/** Browsers end processes of their own at any time: one that is gone needs no signal. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** The processes that descend from `pid`, itself included. */
async function family(pid: number): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const status = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
    const parent = /\) \S (\d+)/.exec(status)?.[1];
    if (parent !== undefined) parents.set(Number(entry), Number(parent));
  }
  const all = [pid];
  for (const one of all) for (const [child, parent] of parents) if (parent === one) all.push(child);
  return all;
}
