/**
 * A tab among those that share a connection: how it comes and goes, and what it hears of whoever holds the connection.
 */
import { onAbort } from '../abort.js';
import type { Delivered } from '../courier.js';
import { lost, type SkywaveError } from '../errors.js';
import type { Network } from '../frames.js';
import type { Transport } from '../transport.js';
import type { TransportChoice } from '../transport_kind.js';
import { Election } from './election.js';
import { Handed } from './handed.js';
import { HolderWatch } from './holder_watch.js';
import { hear, lockOf, openTabChannel, type PageNews, type TabChannel, type TabMessage } from './messages.js';
import { fromTold, type Status, UNKNOWN } from './status.js';
import { beginLife } from './tab_life.js';
import { isEnd, type TabLine, TabTransport } from './tab_transport.js';

/** What a tab does, and is told. */
export interface TabEvents {
  /** Holds the connection; answers how to let it go. */
  hold(): () => void;
  /** This tab cannot hold the connection. */
  failed(error: unknown): void;
  status(status: Status): void;
  delivered(delivered: Delivered): void;
  /** Another tab was given a newer token. */
  token(token: string): void;
  /** The node has refused one that another tab was given. */
  tokenRefused(token: string): void;
  /** Whether it wants the connection. */
  isWanting(): boolean;
  /** The time, by the clock of its publishes. */
  now(): number;
}

/** A move to another transport that somebody waits for. */
type Moving = (error?: SkywaveError) => void;

/** A tab's stay, from its coming to its going: one that comes back from the browser's cache is another one. */
interface Stay {
  readonly id: string;
  readonly channel: TabChannel;
  readonly life: AbortController;
  /** Its lock is held. */
  readonly begun: Promise<void>;
  readonly election: Election;
  readonly watch: HolderWatch;
}

export class Tab {
  /** What the holder told last. */
  status = UNKNOWN;
  network: Network;
  readonly #share: string;
  #events!: TabEvents;
  #stay: Stay | undefined;
  /** Who holds the connection, as far as this tab knows. */
  #hub = '';
  readonly #moving = new Set<Moving>();
  readonly #handed = new Handed();

  constructor(share: string, network: Network) {
    this.#share = share;
    this.network = network;
  }

  listen(events: TabEvents): void {
    this.#events = events;
  }

  get isHolder(): boolean {
    return this.#stay?.election.isHolder === true;
  }

  enter(): void {
    if (this.#stay !== undefined) return;
    const id = crypto.randomUUID();
    const life = new AbortController();
    const channel = openTabChannel(this.#share);
    const election = new Election(lockOf(this.#share), this.#events);
    const begun = beginLife(id, life.signal);
    begun.catch(() => undefined);
    const watch = new HolderWatch({
      isNeeded: () => this.network.background !== true && !election.isHolder && this.#events.isWanting(),
      ask: () => {
        this.post({ kind: 'probe' });
      },
      missing: () => {
        election.steal();
      },
    });
    this.#stay = { id, channel, life, begun, election, watch };
    hear(channel, (message) => {
      this.#hear(message);
    });
    election.stand();
  }

  leave(): void {
    const stay = this.#stay;
    if (stay === undefined) return;
    this.post({ kind: 'left', from: stay.id });
    this.#stay = undefined;
    stay.watch.stop();
    stay.election.leave();
    stay.life.abort();
    stay.channel.close();
    this.#moved(lost('the tab is closed'));
    this.#hub = '';
    this.status = UNKNOWN;
  }

  post(message: TabMessage): void {
    this.#stay?.channel.postMessage(message);
  }

  /** Opens a transport to the hub, whichever tab it is in, however long it takes until there is one. */
  async open(signal: AbortSignal): Promise<Transport> {
    const stay = this.#stay;
    if (stay === undefined) throw lost('the tab is closed');
    await stay.begun;
    return new Promise((resolve, reject) => {
      const ask = (): void => {
        stay.channel.postMessage({ kind: 'open', from: stay.id, network: this.network } satisfies TabMessage);
      };
      const abort = (): void => {
        stop();
        reject(lost('given up'));
      };
      const stop = hear(stay.channel, (message) => {
        if (message.kind === 'opened' && message.to === stay.id) {
          stop();
          forget();
          stay.watch.heard();
          this.#hub = message.hub;
          resolve(new TabTransport(this.#line(stay), message.hub));
          this.#told(message.status);
          // Asked before it was there.
        } else if (message.kind === 'hub') ask();
      });
      const forget = onAbort(signal, abort);
      if (signal.aborted) abort();
      else ask();
    });
  }

  #line({ id, channel, life }: Stay): TabLine {
    const isUp = (): boolean => this.status.state === 'connected';
    return {
      id,
      get isUp() {
        return isUp();
      },
      handed: this.#handed,
      now: () => this.#events.now(),
      post: (message) => {
        if (!life.signal.aborted) channel.postMessage(message);
      },
      hear: (listener) => hear(channel, listener),
    };
  }

  #hear(message: TabMessage): void {
    if (isEnd(message, this.#hub)) {
      this.#moved(lost('another tab holds the connection now'));
      this.#told(UNKNOWN);
    }
    switch (message.kind) {
      case 'hub':
        this.#hub = message.hub;
        this.#stay?.watch.heard();
        break;
      case 'status':
        if (message.hub !== this.#hub) break;
        this.#stay?.watch.heard();
        this.#told(message.status);
        break;
      case 'switched':
        if (message.to === this.#stay?.id) this.#moved(message.error && fromTold(message.error));
        break;
      case 'delivered':
        this.#events.delivered({ ...message.delivered, ...(message.error && { error: fromTold(message.error) }) });
        break;
      case 'token':
        this.#events.token(message.token);
        break;
      case 'refused':
        this.#events.tokenRefused(message.token);
        break;
      default:
    }
  }

  #told(status: Status): void {
    this.status = status;
    if (status.state === 'connected') this.#handed.sent(this.#events.now());
    this.#events.status(status);
  }

  /** Something has happened to the page, or the application told of its network. */
  page(network: Network, news?: PageNews): void {
    const isShown = this.network.background === true && network.background !== true;
    this.network = network;
    if (this.#stay === undefined) return;
    this.post({ kind: 'page', from: this.#stay.id, network, news });
    if (isShown) this.#stay.watch.begin();
  }

  /** Nobody waits any more for what was published: all of it was refused, and nobody keeps it. */
  refused(): void {
    this.#handed.clear();
  }

  /** It does not want the connection any more, for now. */
  goWithout(): void {
    if (this.#stay !== undefined) this.post({ kind: 'left', from: this.#stay.id });
  }

  /** Has the holder move to another transport. */
  switchTransport(transport: TransportChoice, settle: Moving): void {
    if (this.#stay === undefined) throw lost('the tab is closed');
    this.#moving.add(settle);
    this.post({ kind: 'switch', from: this.#stay.id, transport });
  }

  #moved(error?: SkywaveError): void {
    for (const settle of this.#moving) settle(error);
    this.#moving.clear();
  }
}
