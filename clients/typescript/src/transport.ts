/** What the session sees of a transport: frames in, frames out, one end. */
import type { ClientFrame, ServerFrame } from './frames.js';
import type { TransportKind } from './transport_kind.js';

/** A channel's stream that does not say to which subscription it belongs: from an older node. */
export const UNNAMED = -1;

/** How a frame travels: in order and never lost while the connection lives, or as a datagram that may be lost. */
export type Lane = 'reliable' | 'datagram';

/** What happens on a transport. */
export interface TransportEvents {
  /**
   * `stream`: the subscription whose stream brought it, or `UNNAMED`; absent where it came in the order of requests and
   * replies, or by datagram.
   */
  frame(frame: ServerFrame, stream?: number): void;
  /** What came is no frame: nothing that follows can be trusted. */
  fault(problem: string): void;
  /** It is over, with the peer's code where one was told. */
  ended(code: number | undefined, reason: string): void;
}

/** An open transport. */
export interface Transport {
  readonly kind: TransportKind;
  /** To be called at once by whoever opened it, before anything else happens. */
  listen(events: TransportEvents): void;
  /** Sends a frame of at most `maxBytes`; answers whether it was small enough. */
  send(frame: ClientFrame, lane: Lane, maxBytes: number): boolean;
  /** Whether so much waits to be written that events are better dropped. */
  readonly isCongested: boolean;
  /** Ends it; nothing is told any more. */
  close(): void;
}
