/** What a channel's reader gets, with the names of this language. */
import { OUTCOME_UNKNOWN, OutcomeUnknownError, RequestError } from './errors.js';
import type { GapReason, ServerFrames, WireMember } from './frames.js';
import type { Position } from './position.js';

/** A message of a channel that has a position and can be recovered. */
export interface Publication<Data = unknown> {
  /** A JSON value, or a `Uint8Array` where bytes were published. */
  readonly data: Data;
  readonly channel: string;
  /** The region that accepted it; (`origin`, `epoch`, `offset`) is where it stands. */
  readonly origin: string;
  readonly epoch: string;
  readonly offset: number;
  /** A hybrid logical clock, in milliseconds since 1970, for those who want to sort across origins. */
  readonly timeMs: number;
  /** The publisher's idempotency key. */
  readonly key: string | undefined;
  /** Who published it; absent for anonymous sessions and the server API. */
  readonly user: string | undefined;
}

/** Something that concerned whoever was there: typing, cursors. It is never stored. */
export interface ChannelEvent<Data = unknown> {
  readonly data: Data;
  readonly channel: string;
  /** The sender's session. */
  readonly session: string;
  readonly user: string | undefined;
  /** What it is about: of each sender and slot the latest counts. */
  readonly slot: string | undefined;
}

/** A session on a channel. */
export interface Member {
  readonly session: string;
  readonly user: string | undefined;
  /** What the token says of the user, under `info`. */
  readonly data: unknown;
  /** When it joined, in milliseconds since 1970. */
  readonly sinceMs: number;
}

/** Who is on a channel, and who came and went. */
export interface PresenceChange {
  readonly count: number;
  readonly members: readonly Member[];
  readonly joined: readonly Member[];
  readonly left: readonly Member[];
}

/** The subscription stands: at first, and again whenever it was taken up after a break. */
export interface Subscribed {
  /** Before the first publication that follows. */
  readonly position: Position;
  /** Absent on a fresh subscription; `false` when some origin could not be recovered, which a gap tells, too. */
  readonly recovered: boolean | undefined;
  readonly reason: GapReason | undefined;
  /** With `recovered`: how many publications follow from what is retained, where the node says so. */
  readonly recovers: number | undefined;
}

/** Publications of one origin that this subscription will never get; delivery goes on after (`epoch`, `offset`). */
export interface Gap {
  readonly channel: string;
  readonly origin: string;
  readonly epoch: string;
  readonly offset: number;
  readonly reason: GapReason;
}

/** Where a publication was accepted. */
export interface Published {
  readonly origin: string;
  readonly epoch: string;
  readonly offset: number;
}

export function toError({ code, reason, message, transient, retry_after_ms: retryAfterMs }: ServerFrames['error']): RequestError {
  if (reason === OUTCOME_UNKNOWN) return new OutcomeUnknownError();
  return new RequestError(code, reason, message, transient, { retryAfterMs });
}

export function toPublished({ origin, epoch, offset }: ServerFrames['published']): Published {
  return { origin, epoch, offset };
}

export function toMember({ session, user, data, since_ms: sinceMs }: WireMember): Member {
  return { session, user, data, sinceMs };
}

export function toPublication<Data>(wire: ServerFrames['publication'], data: Data): Publication<Data> {
  const { channel, origin, epoch, offset, time_ms: timeMs, key, user } = wire;
  return { data, channel, origin, epoch, offset, timeMs, key, user };
}
