/** Opening a connection: whom to try, why, and what came of it. */
import type { Address } from '../address.js';
import { ConnectionError, lost, type SkywaveError } from '../errors.js';
import type { ServerFrames } from '../frames.js';
import type { Plan } from '../race_memory.js';
import type { Transport } from '../transport.js';
import type { TransportKind } from '../transport_kind.js';
import type { Link } from './link.js';

/**
 * Why a connection is opened: there is none; the node drains; the node knows of a better one; the application wants
 * another transport; a better one may work again.
 */
export type Purpose = 'connect' | 'drain' | 'prefer' | 'switch' | 'up';

/** A node to try. */
export interface Target {
  readonly address: Address;
  readonly plan: Plan;
}

/** Whom to try, in that order: at least one. */
export type Targets = readonly [Target, ...Target[]];

/** Handshakes to begin; the first one to complete wins. */
export interface DialRequest {
  readonly targets: Targets;
  /** By how much the first one is ahead of the others. */
  readonly headStartMs: number;
  /** What one attempt may take. */
  readonly timeoutMs: number;
}

/** A handshake that completed. */
export interface Dialled {
  readonly transport: Transport;
  readonly target: Target;
  /** How long it took. */
  readonly tookMs: number;
  /** The targets that failed before. */
  readonly failed: readonly Target[];
}

/** A handshake that completed, with the token for it, or why none did. */
export type DialOutcome = (Dialled & { readonly token: string | undefined }) | { readonly error: SkywaveError };

/** A connection that is to be opened at its time. */
export interface Due {
  readonly at: number;
  readonly purpose: Purpose;
  readonly address?: Address | undefined;
  readonly kind?: TransportKind;
  /** The node has named the time: it is not to be sooner. */
  readonly isTold?: boolean;
  /** The move that its node has asked for, unless this one succeeds. */
  readonly later?: Due | undefined;
}

/** A connection on its way. */
export interface Opening {
  readonly purpose: Purpose;
  readonly targets: Targets;
  /** Once a handshake has completed: the connection that waits for `connected`, and until when it may. */
  link?: Link;
  greetBy: number;
  cancel?: () => void;
  /** Tells whoever asked for it. */
  readonly settle?: ((error?: SkywaveError) => void) | undefined;
}

/** How a connection ended, as the node's last frame or the transport says. */
type Ending = Pick<ServerFrames['disconnect'], 'reason'> & Partial<Omit<ServerFrames['disconnect'], 'code'>> & { code?: number | undefined };

/** The end of a connection, as an error. */
export function ending({ code = 0, reason, message, reconnect = code < 3500, retry_after_ms: retryAfterMs }: Ending): ConnectionError {
  // Any other code is the transport's own: whatever broke it, the client comes back.
  if (code < 3000 || code > 3999) return lost(`connection lost: ${reason}`);
  const text = `ended by the node: ${reason} (${code})${message ? `: ${message}` : ''}`;
  return new ConnectionError(code, reason, text, reconnect, { retryAfterMs });
}

/** Whether the session cannot stay where it is. */
export function isNeeded({ purpose }: Pick<Opening, 'purpose'>): boolean {
  return purpose === 'connect' || purpose === 'drain';
}
