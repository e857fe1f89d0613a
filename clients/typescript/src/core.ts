/** The smallest client: over WebSocket alone, to the addresses that it is given. */
import { endpoint, type NodeUrl } from './address.js';
import { type CoreOptions, SkywaveCore } from './client.js';
import { json } from './encoding.js';
import type { Parts } from './parts.js';
import { FixedRoute } from './session/fixed_route.js';
import { openWebSocket } from './transport/websocket.js';
import { within } from './within.js';

/** A session with a node over WebSocket, kept up over breaks and the nodes that are given. */
export class Skywave extends SkywaveCore {
  /** @throws TypeError for what is no address of a node. */
  constructor(url: NodeUrl | readonly NodeUrl[], options: CoreOptions = {}) {
    super(url, options, webSocketParts(options), { transport: 'websocket', headStartMs: 0 });
  }
}

function webSocketParts({ encoding = json, WebSocket }: CoreOptions): Parts {
  return {
    address(url) {
      const { href } = endpoint(typeof url === 'string' ? url : (url as typeof url | undefined)?.websocket);
      return { key: href, websocket: href.replace(/^http/, 'ws'), isSecure: true };
    },
    // To the one target that a fixed route gives.
    dial: async ({ targets: [target], timeoutMs }, signal) => {
      const url = target.address.websocket ?? '';
      const transport = await within(timeoutMs, signal, (given) => openWebSocket(url, encoding, WebSocket, given));
      return { transport, target, tookMs: 0, failed: [] };
    },
    route: ({ addresses }) => new FixedRoute(addresses),
    network: () => ({}),
  };
}

export type { NodeUrl } from './address.js';
export { Channel } from './channel.js';
export type { ChannelEvents, ChannelOptions, HistoryOptions, HistoryPage, PublishOptions } from './channel_options.js';
export type { CallOptions, ClientEvents, CoreOptions, StateChange } from './client.js';
export { OutcomeUnknownError, SkywaveError } from './errors.js';
