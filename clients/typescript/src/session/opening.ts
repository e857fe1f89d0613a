/** Opening a connection: whom to try, why, and what came of it. */
import type { Address } from '../address.js';
import { ConnectionError, type SkywaveError } from '../errors.js';
import type { Plan } from '../race_memory.js';
import type { Transport, TransportKind } from '../transport.js';
import { shouldReconnect } from '../codes.js';
import type { Link } from './link.js';

/**
 * Why a connection is opened: there is none; the node drains; the node knows of a better one; the application wants
 * another transport; WebTransport may work again.
 */
export type Purpose = 'connect' | 'drain' | 'prefer' | 'switch' | 'up';

/** A node to try. */
export interface Target {
  readonly address: Address;
  readonly plan: Plan;
}

/** Handshakes to begin; the first one to complete wins. */
export interface DialRequest {
  /** At least one, in the order in which they are tried. */
  readonly targets: readonly Target[];
  /** By how much the first one is ahead of the others. */
  readonly headStartMs: number;
  /** What one attempt may take. */
  readonly timeoutMs: number;
}

/** A handshake that completed, or why none did. */
export type DialOutcome =
  | {
      readonly transport: Transport;
      /** Of the target. */
      readonly index: number;
      readonly tookMs: number;
      /** The targets that failed before. */
      readonly failed: readonly number[];
      readonly token: string | undefined;
    }
  | { readonly error: SkywaveError };

/** A connection that is to be opened at its time. */
export interface Due {
  readonly at: number;
  readonly purpose: Purpose;
  readonly address?: Address | undefined;
  readonly kind?: TransportKind;
  /** The node has named the time: it is not to be sooner. */
  readonly isTold?: boolean;
}

/** A connection on its way. */
export interface Opening {
  readonly purpose: Purpose;
  readonly targets: readonly Target[];
  /** Once a handshake has completed: the connection that waits for `connected`, and until when it may. */
  link?: Link;
  greetBy: number;
  cancel?: () => void;
  /** Tells whoever asked for it. */
  readonly settle?: ((error?: SkywaveError) => void) | undefined;
}

/** The end of a connection, as an error. */
export function ending(code: number | undefined, reason: string, reconnect = shouldReconnect(code), retryAfterMs?: number): ConnectionError {
  const isTold = code !== undefined && code >= 3000 && code <= 3999;
  const message = isTold ? `ended by the node: ${reason} (${code})` : `connection lost: ${reason}`;
  return new ConnectionError(isTold ? code : 110, isTold ? reason : 'unavailable', message, reconnect, { retryAfterMs });
}
