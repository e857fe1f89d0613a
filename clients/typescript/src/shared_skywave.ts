/** One connection for all tabs of an origin: one of them holds it, elected by a Web Lock; the others talk to that one. */
import type { NodeUrl } from './address.js';
import { SkywaveCore } from './client.js';
import type { Parts } from './parts.js';
import { FixedRoute } from './session/fixed_route.js';
import { Skywave, type SkywaveOptions } from './skywave.js';
import { Hub, type Upstream } from './tabs/hub.js';
import { openTabChannel } from './tabs/messages.js';
import { openTabTransport } from './tabs/tab_transport.js';

export interface SharedOptions extends SkywaveOptions {
  /** Tabs with the same name share a connection; one for each user. `skywave` by default. */
  readonly share?: string;
}

/** Whether this runtime has what sharing needs: Web Locks and BroadcastChannel. */
export function canShare(): boolean {
  const runtime = globalThis as { navigator?: { locks?: unknown }; BroadcastChannel?: unknown };
  return runtime.navigator?.locks !== undefined && runtime.BroadcastChannel !== undefined;
}

/** The client of the tab that holds the connection. */
class Holder extends Skywave {
  readonly hub: Hub;

  constructor(url: NodeUrl | readonly NodeUrl[], options: SkywaveOptions, name: string) {
    super(url, { ...options, autoConnect: true });
    const upstream: Upstream = { outgoing: this.outgoing, state: () => this.state, connection: () => this.connection };
    this.hub = new Hub(openTabChannel(name), upstream);
    this.on('state', () => {
      this.hub.changed();
    });
  }
}

/**
 * A client whose connection all tabs share that name it alike. When the tab that holds it is closed, another one takes
 * over, from the positions that each tab has reached: nothing is lost or repeated.
 */
export class SharedSkywave extends SkywaveCore {
  readonly #leaving = new AbortController();
  #holder: Holder | undefined;

  /** @throws TypeError for what is no address of a node. */
  constructor(url: NodeUrl | readonly NodeUrl[], options: SharedOptions = {}) {
    const { share = 'skywave', ...rest } = options;
    // Tokens are the holder's business.
    const own = Object.entries(rest).filter(([name]) => name !== 'token' && name !== 'getToken');
    super('ws://tab', Object.fromEntries(own), tabParts(share), { transport: 'websocket', headStartMs: 0, storage: undefined });
    this.#stand(share, () => new Holder(url, rest, share));
  }

  /** Whether this tab holds the connection. */
  get isHolder(): boolean {
    return this.#holder !== undefined;
  }

  /** Waits until it is this tab's turn to hold the connection, and holds it until it is closed. */
  #stand(name: string, hold: () => Holder): void {
    const { signal } = this.#leaving;
    const held = navigator.locks.request(`skywave:${name}`, { signal }, async () => {
      this.#holder = hold();
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => {
          resolve();
        });
      });
      this.#holder.hub.stop();
      this.#holder.close();
      this.#holder = undefined;
    });
    // Rejected when it was closed before its turn came.
    held.catch(() => undefined);
  }

  override close(): void {
    super.close();
    this.#leaving.abort();
  }
}

function tabParts(name: string): Parts {
  return {
    address: () => ({ key: name, webtransport: undefined, websocket: name, isSecure: true }),
    dial: async ({ timeoutMs }, signal) => {
      const attempt = new AbortController();
      const abort = (): void => {
        attempt.abort();
      };
      const timer = setTimeout(abort, timeoutMs);
      signal.addEventListener('abort', abort);
      try {
        return { index: 0, value: await openTabTransport(name, attempt.signal), tookMs: 0, failed: [] };
      } finally {
        clearTimeout(timer);
      }
    },
    route: ({ addresses }) => new FixedRoute(addresses),
    network: () => ({}),
  };
}
