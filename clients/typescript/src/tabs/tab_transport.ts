/** The way from a tab to the hub, as a transport. */
import { lost } from '../errors.js';
import type { ClientFrame } from '../frames.js';
import { Receiving } from '../transport/receiving.js';
import type { Transport, TransportEvents } from '../transport.js';
import { hear, openTabChannel, type TabChannel } from './messages.js';

class TabTransport implements Transport {
  /** Which of the two carries the hub's frames is its own business. */
  readonly kind = 'websocket';
  readonly isCongested = false;
  readonly #channel: TabChannel;
  readonly #tab: string;
  readonly #hub: string;
  readonly #receiving = new Receiving();

  constructor(channel: TabChannel, tab: string, hub: string) {
    this.#channel = channel;
    this.#tab = tab;
    this.#hub = hub;
  }

  listen(events: TransportEvents): void {
    this.#receiving.listen(events);
    hear(this.#channel, (message) => {
      if (message.kind === 'told' && message.to === this.#tab && message.hub === this.#hub) {
        this.#receiving.frames(() => [message.frame]);
      } else if (message.kind === 'hub' && message.hub !== this.#hub) {
        this.#receiving.end(undefined, 'another tab holds the connection now');
        this.#channel.close();
      }
    });
  }

  send(frame: ClientFrame): boolean {
    if (!this.#receiving.isOver) this.#channel.postMessage({ kind: 'asked', from: this.#tab, hub: this.#hub, frame });
    return true;
  }

  close(): void {
    if (!this.#receiving.isOver) this.#channel.postMessage({ kind: 'closed', from: this.#tab, hub: this.#hub });
    this.#receiving.stop();
    this.#channel.close();
  }
}

/** Opens a transport to the hub, whichever tab it is in. */
export function openTabTransport(name: string, signal: AbortSignal): Promise<Transport> {
  return new Promise((resolve, reject) => {
    const channel = openTabChannel(name);
    const tab = crypto.randomUUID();
    const stop = hear(channel, (message) => {
      if (message.kind === 'opened' && message.to === tab) {
        stop();
        signal.removeEventListener('abort', abort);
        resolve(new TabTransport(channel, tab, message.hub));
        // Asked before it was there.
      } else if (message.kind === 'hub') channel.postMessage({ kind: 'open', from: tab });
    });
    const abort = (): void => {
      channel.close();
      reject(lost('no tab holds a connection'));
    };
    signal.addEventListener('abort', abort, { once: true });
    channel.postMessage({ kind: 'open', from: tab });
  });
}
