/** What a session is, as it is told outside, and what it is given. */
import type { SkywaveError } from '../errors.js';
import type { TransportKind } from '../transport_kind.js';
import type { DialOutcome, DialRequest } from './opening.js';
import type { RouteOptions } from './route.js';
import type { Router } from './router.js';
import type { TrafficOptions } from './traffic.js';

/**
 * What a session is doing. `disconnected`: nothing, until `connect`. `connecting`: there is no connection, and one is
 * being opened, or will be after a wait. `connected`: requests are answered. `closed`: over for good.
 */
export type State = 'disconnected' | 'connecting' | 'connected' | 'closed';

/** The session and the connection that carries it. */
export interface Connection {
  readonly transport: TransportKind;
  readonly node: string;
  readonly region: string;
  /** The session's public id, as others see it in presence. */
  readonly session: string;
  /** Whom the token names. */
  readonly user: string | undefined;
  /** Whether the node knew the session. */
  readonly resumed: boolean;
  /** Whether this session takes the place of one of the same user that the node did not know any more. */
  readonly hasExpired: boolean;
  /** When the token expires, in milliseconds since 1970. */
  readonly expiresAtMs: number | undefined;
  /** How often this session has been connected, this time included. */
  readonly connects: number;
}

export interface SessionOptions extends TrafficOptions, RouteOptions {
  readonly connectTimeoutMs: number;
  /** Whether a new token can be fetched when one expires. */
  readonly canRefresh: boolean;
  /** The one to begin with. */
  readonly token?: string | undefined;
  readonly client: { readonly name: string; readonly version?: string | undefined };
}

/** The world around a session. What it is given to call is called later, never at once. */
export interface SessionIo {
  now(): number;
  /** What says where to go. */
  route(options: RouteOptions): Router;
  /** Uniform in 0 ≤ x < 1. */
  random(): number;
  /** Opens a transport, with a token where there are any. Answers how to give up. */
  dial(request: DialRequest, done: (outcome: DialOutcome) => void): () => void;
  /** Fetches a token. Answers how to give up. */
  fetchToken(done: (token: string | undefined) => void): () => void;
  /** Asks for a `tick` at that time; a later call replaces an earlier one. */
  schedule(at: number): void;
  /** `error`: why there is no connection; `retryAt`: when the next attempt begins. */
  stateChanged(state: State, error?: SkywaveError, retryAt?: number): void;
}
