/** Work that is given up when it takes too long. */
import { onAbort } from './abort.js';
import { lost } from './errors.js';

/** What `work` gives, unless `timeoutMs` pass or `signal` aborts: then it is told to stop, and nobody waits for it. */
export async function within<Result>(
  timeoutMs: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Result | Promise<Result>,
): Promise<Result> {
  const attempt = new AbortController();
  const abort = (): void => {
    attempt.abort();
  };
  const timer = setTimeout(abort, timeoutMs);
  const forget = onAbort(signal, abort);
  const late = new Promise<never>((_, reject) => {
    onAbort(attempt.signal, () => {
      reject(lost('no answer in time'));
    });
  });
  try {
    return await Promise.race([work(attempt.signal), late]);
  } finally {
    clearTimeout(timer);
    forget();
  }
}
