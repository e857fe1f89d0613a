/** A browser's processes, all of them together. */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

/** Stops a browser with all its processes for a while, as a system does that sleeps. */
export async function stopped(pid: number, milliseconds: number): Promise<void> {
  const all = await family(pid);
  for (const one of all) process.kill(one, 'SIGSTOP');
  try {
    await pause(milliseconds);
  } finally {
    for (const one of all) process.kill(one, 'SIGCONT');
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
