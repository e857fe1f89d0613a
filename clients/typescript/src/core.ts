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
  if (constructor === undefined) throw lost('no WebSocket here: give one as the option `WebSocket`');
  return {
    address(url) {
      const { href } = new URL(typeof url === 'string' ? url : (url.websocket ?? ''));
      const websocket = href.replace(/^http/, 'ws').replace(/^(wss?:..[^/]+.)$/, '$1v1/connect');
      return { key: href, webtransport: undefined, websocket, isSecure: true };
    },
    dial: (request, signal) => dialOne(request, (url, given) => openWebSocket(url, encoding, constructor, given), signal),
    route: ({ addresses }) => new FixedRoute(addresses),
    network: () => ({}),
  };
}

/** Opens a WebSocket to the one target that a fixed route gives. */
async function dialOne(
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

export type { NodeUrl } from './address.js';
export { Channel, type ChannelEvents, type ChannelOptions, type HistoryOptions, type HistoryPage, type PublishOptions } from './channel.js';
export type { CallOptions, ClientEvents, CoreOptions, StateChange } from './client.js';
export { SkywaveError } from './errors.js';
