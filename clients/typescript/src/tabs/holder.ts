/** The client of the tab that holds the connection, and its hub. */
import type { NodeUrl } from '../address.js';
import { pageFollower } from '../session/network.js';
import { Skywave, type SkywaveOptions } from '../skywave.js';
import { Hub } from './hub.js';

export class Holder extends Skywave {
  readonly #hub: Hub;

  /**
   * It connects when a tab wants it to, and follows the pages of all of them. `brought`: the token to begin with, where
   * another one than that of the options was brought since; that one counts again where the node refuses it.
   */
  constructor(url: NodeUrl | readonly NodeUrl[], options: SkywaveOptions, share: string, brought = options.token) {
    // Each tab has a bound of its own: one more here would refuse a publish and take those behind it.
    super(url, { ...options, publishQueue: Infinity, autoConnect: false, followPage: false });
    const { session, asking } = this;
    session.tokens.current = brought;
    const hub = (this.#hub = new Hub(share, {
      asking,
      parse: options.encoding?.parse ?? JSON.parse,
      page: pageFollower(session),
      status: () => ({ state: this.state, error: this.error, connection: this.connection }),
      connect: () => {
        session.connect();
      },
      disconnect: () => {
        session.disconnect();
      },
      look: () => {
        session.tick();
      },
      refresh: (token) => this.refresh(token),
      switchTransport: (kind) => this.switchTransport(kind),
    }));
    this.on('state', ({ retryAtMs }) => {
      hub.changed(retryAtMs);
    });
    this.on('delivered', (delivered) => {
      hub.delivered(delivered);
    });
  }

  override close(): void {
    this.#hub.stop();
    super.close();
  }
}
