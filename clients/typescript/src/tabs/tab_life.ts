/** The Web Lock that a tab holds for its life: however the tab ends, whoever has asked for the lock learns of it. */
import { aborted } from '../abort.js';

/** Holds the lock until `signal` aborts; resolves once it is held. */
export function beginLife(lock: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const life = navigator.locks.request(lock, { signal }, () => {
      resolve();
      return aborted(signal);
    });
    life.catch(reject);
  });
}

/** Calls `gone` when the lock is free, unless `signal` aborts before. */
export function whenGone(lock: string, signal: AbortSignal, gone: () => void): void {
  const waiting = navigator.locks.request(lock, { signal }, () => {
    if (!signal.aborted) gone();
  });
  // Rejected when that is of no interest any more.
  waiting.catch(() => undefined);
}
