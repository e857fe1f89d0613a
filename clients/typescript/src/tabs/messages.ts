/** What tabs say to each other over a BroadcastChannel. */
import type { Delivered } from '../courier.js';
import type { ClientFrame, Network, ServerFrame } from '../frames.js';
import type { TransportChoice } from '../transport_kind.js';
import type { Status, ToldError } from './status.js';

/**
 * Counts the forms that these messages have had: tabs of another form share a connection among themselves. Tabs that
 * were loaded at different times may have other builds of one form, so no name in a message is one that the build makes
 * short.
 */
const FORM = 4;

/** What has happened to a tab's page, for the holder's client to look at its connection. */
export type PageNews = 'network' | 'check' | 'woke';

export interface Asked {
  readonly kind: 'asked';
  readonly from: string;
  readonly hub: string;
  readonly content: ClientFrame;
  /** When, by the clock on the wall, which is one for all tabs. */
  readonly askedAtMs: number;
  /** Since when the publish that it is may have been sent, by an earlier hub. */
  readonly sentAtMs?: number;
}

/** From a tab, under the name of the lock that it holds for its life, to the hub, under its random name; and back. */
export type TabMessage =
  /** Asks whoever holds the connection for a place, and the connection to be made if it was given up. */
  | { readonly kind: 'open'; readonly from: string; readonly network: Network }
  | Asked
  /** The tab's transport is closed; perhaps it opens another one. */
  | { readonly kind: 'closed'; readonly from: string; readonly hub: string }
  /** The tab does not want the connection any more. */
  | { readonly kind: 'left'; readonly from: string }
  /** Asks for the status. */
  | { readonly kind: 'probe' }
  | { readonly kind: 'page'; readonly from: string; readonly network: Network; readonly news: PageNews | undefined }
  | { readonly kind: 'switch'; readonly from: string; readonly transport: TransportChoice }
  /** A newer token, for whoever holds the connection now or later. */
  | { readonly kind: 'token'; readonly token: string }
  /** A token that the node does not take. */
  | { readonly kind: 'refused'; readonly token: string }
  /** A hub has begun: the transports to any other end. */
  | { readonly kind: 'hub'; readonly hub: string }
  | { readonly kind: 'gone'; readonly hub: string }
  | { readonly kind: 'opened'; readonly to: string; readonly hub: string; readonly status: Status }
  | { readonly kind: 'told'; readonly to: readonly string[]; readonly hub: string; readonly content: ServerFrame }
  | { readonly kind: 'status'; readonly hub: string; readonly status: Status }
  | { readonly kind: 'switched'; readonly to: string; readonly error: ToldError | undefined }
  | { readonly kind: 'delivered'; readonly delivered: Omit<Delivered, 'error'>; readonly error: ToldError | undefined };

export type TabChannel = BroadcastChannel;

/** The channel over which the tabs that share `name` talk. */
export function openTabChannel(name: string): TabChannel {
  return new BroadcastChannel(lockOf(name));
}

/** The lock of the tab that holds the connection that is shared under `name`. */
export function lockOf(name: string): string {
  return `skywave/${FORM}:${name}`;
}

/** Listens; answers how to stop. */
export function hear(channel: TabChannel, listener: (message: TabMessage) => void): () => void {
  const own = ({ data }: MessageEvent<TabMessage>): void => {
    listener(data);
  };
  channel.addEventListener('message', own);
  return () => {
    channel.removeEventListener('message', own);
  };
}
