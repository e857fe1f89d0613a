/** What tabs say to each other over a BroadcastChannel. */
import type { ClientFrame, ServerFrame } from '../frames.js';

/** From a tab to the hub, and back. Tabs and hubs have random names. */
export type TabMessage =
  | { readonly kind: 'open'; readonly from: string }
  | { readonly kind: 'opened'; readonly to: string; readonly hub: string }
  /** A hub has begun, or goes: the transports to any other end. */
  | { readonly kind: 'hub'; readonly hub: string }
  | { readonly kind: 'asked'; readonly from: string; readonly hub: string; readonly frame: ClientFrame }
  | { readonly kind: 'told'; readonly to: string; readonly hub: string; readonly frame: ServerFrame }
  | { readonly kind: 'closed'; readonly from: string; readonly hub: string };

export type TabChannel = BroadcastChannel;

/** The channel over which the tabs that share `name` talk. */
export function openTabChannel(name: string): TabChannel {
  return new BroadcastChannel(`skywave:${name}`);
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
