/** The smallest client: over WebSocket alone, to the addresses that it is given. */
import type { NodeUrl } from './address.js';
import { type CoreOptions, SkywaveCore } from './client.js';
import { json } from './encoding.js';
import { lost } from './errors.js';
import type { Dialled, Parts } from './parts.js';
import { FixedRoute } from './session/fixed_route.js';
import type { DialRequest } from './session/opening.js';
import { openWebSocket, type WebSocketConstructor } from './transport/websocket.js';

/** A session with a node over WebSocket, kept up over breaks and the nodes that are given. */
export class Skywave extends SkywaveCore {
  /** @throws TypeError for what is no address of a node. */
  constructor(url: NodeUrl | readonly NodeUrl[], options: CoreOptions = {}) {
    super(url, options, webSocketParts(options), { transport: 'websocket', headStartMs: 0, storage: undefined });
  }
}

function webSocketParts({ encoding = json, WebSocket }: CoreOptions): Parts {
  const constructor = WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  if (constructor === undefined) throw lost('this runtime has no WebSocket: give one as the option `WebSocket`');
  return {
    hasWebTransport: false,
    dial: (request, signal) => dialInTurn(request, (url, given) => openWebSocket(url, encoding, constructor, given), signal),
    route: ({ addresses }) => new FixedRoute(addresses),
    network: () => ({}),
  };
}

/** Tries the targets one after the other. */
async function dialInTurn(
  { targets, timeoutMs }: DialRequest,
  open: (url: string, signal: AbortSignal) => Promise<Dialled['value']>,
  signal: AbortSignal,
): Promise<Dialled> {
  const failed: number[] = [];
  let error: unknown = lost('no address of a WebSocket');
  for (const [index, { address }] of targets.entries()) {
    const attempt = new AbortController();
    const abort = (): void => {
      attempt.abort();
    };
    const timer = setTimeout(abort, timeoutMs);
    signal.addEventListener('abort', abort, { once: true });
    const begunAt = Date.now();
    try {
      const value = await open(address.websocket ?? '', attempt.signal);
      return { index, value, tookMs: Date.now() - begunAt, failed };
    } catch (reason) {
      error = reason;
      failed.push(index);
      if (signal.aborted) break;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    }
  }
  throw error;
}

export type { NodeUrl } from './address.js';
export { Channel, type ChannelEvents, type ChannelOptions, type HistoryOptions, type HistoryPage, type PublishOptions } from './channel.js';
export type { CallOptions, ClientEvents, CoreOptions, StateChange } from './client.js';
export { SkywaveError } from './errors.js';
