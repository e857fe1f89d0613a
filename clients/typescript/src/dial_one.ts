/** Opens the one transport of clients that have no choice of transports or nodes. */
import type { Dialled } from './parts.js';
import type { DialRequest } from './session/opening.js';

/** Opens a transport to the one target that a fixed route gives. */
export async function dialOne(
  { targets: [target], timeoutMs }: DialRequest,
  open: (url: string, signal: AbortSignal) => Promise<Dialled['value']>,
  signal: AbortSignal,
): Promise<Dialled> {
  const attempt = new AbortController();
  const abort = (): void => {
    attempt.abort();
  };
  const timer = setTimeout(abort, timeoutMs);
  signal.addEventListener('abort', abort);
  try {
    return { index: 0, value: await open(target?.address.websocket ?? '', attempt.signal), tookMs: 0, failed: [] };
  } finally {
    clearTimeout(timer);
  }
}
