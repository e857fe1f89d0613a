/** What a session has to know of where to go. */
import type { Address } from '../address.js';
import type { TransportChoice, TransportKind } from '../transport_kind.js';
import type { Due, Opening, Target, Targets } from './opening.js';

/** What a node has said of when to come back. */
export interface Told {
  readonly retryAfterMs?: number | undefined;
}

/** Where a session goes. One that learns nothing on its way leaves out what it would be told, and where that leads. */
export interface Router {
  /** Whether nobody is left to be tried in this round. */
  readonly isExhausted: boolean;
  /** From here on everybody may be tried again. */
  beginRound(): void;
  /**
   * Whom to try: `named` first, then those that are left of this round, without `leaving`; without `named`, `leaving`
   * last. Or `named` alone, over another transport than the usual one, if one is named.
   */
  targets(named?: Address, leaving?: Address, isAlone?: boolean, choice?: TransportChoice): Targets;
  /** The application wants this transport from now on. Answers which one it has wanted. */
  choose?(choice: TransportChoice): TransportChoice;
  /** How long the first one is tried alone, in milliseconds. */
  headStartMs?(first: Address, isNamed: boolean): number;
  /** A handshake completed. */
  dialed?(target: Target, kind: TransportKind, tookMs: number): void;
  /** It is not to be tried again in this round, nor sooner than it has said. */
  failed(target: Target, told?: Told): void;
  /** What whoever may be asked the soonest has said, once all have failed. */
  soonest?(): Told;
  /** The session is there; `regions`: where else it could go. */
  arrived(address: Address, region: string, regions: readonly { name: string; url: string }[]): void;
  /** A node that is gone had named this one. */
  sendOn?(address: Address): void;
  /** An address that a node gave, if a token may go there. */
  trusted?(url: string | undefined): Address | undefined;
  /**
   * Where the session goes next, while it stands. To a node that suits the user better, if the one at `address` has
   * just named one; or back to the best transport, in place of `kind`.
   */
  next?(address: Address, kind: TransportKind, preferUrl?: string): Due;
  /**
   * Whether an attempt, at one place alone that it has named, is given up with the connection beside which it was
   * begun.
   */
  isSpare?(opening: Opening): boolean;
  /** The best transport was tried, and does not work there yet. */
  upFailed?(address: Address): void;
}
