/** What a channel can be told, and what it tells. */
import type { InvalidDataError, RequestError } from './errors.js';
import type { ChannelEvent, Gap, PresenceChange, Publication, Subscribed } from './messages.js';
import type { StandardSchema } from './payload_schema.js';
import type { Position } from './position.js';

export interface ChannelOptions<Message = unknown, Event = unknown> {
  /** Begin with the last so many publications; at most 1,000. */
  readonly history?: number | undefined;
  /** Begin after this position, where an earlier visit ended. */
  readonly position?: Position | undefined;
  /** Keep track of who is there. */
  readonly presence?: boolean | undefined;
  /** What publications have to be; others are told by `invalid` and not by `publication`. */
  readonly schema?: StandardSchema<Message> | undefined;
  /** The same for events. */
  readonly eventSchema?: StandardSchema<Event> | undefined;
  /**
   * Whether to be told what is published by this very channel object, known by its key, like anything else; by default
   * so.
   */
  readonly echo?: boolean | undefined;
  /** How many publications an iteration holds for a reader that takes its time; 1,024, at least 1. */
  readonly queue?: number | undefined;
}

/** What a channel tells. */
export interface ChannelEvents<Message, Event> {
  publication: Publication<Message>;
  event: ChannelEvent<Event>;
  presence: PresenceChange;
  subscribed: Subscribed;
  gap: Gap;
  /** A payload that is not what the schema asks for. */
  invalid: InvalidDataError;
  /** The subscription is over: the node refuses it. */
  error: RequestError;
}

export interface PublishOptions {
  /** The idempotency key, at most 64 bytes; a random one by default. */
  readonly key?: string | undefined;
  /** Stops waiting for the answer; takes the publication back only if it has not been sent. */
  readonly signal?: AbortSignal | undefined;
}

export interface HistoryOptions {
  /** 1 … 1,000; by default 100. */
  readonly limit?: number | undefined;
  /** The first ones after this position; by default the last ones. */
  readonly after?: Position | undefined;
  /**
   * The last ones before the `cursor` of an earlier answer; rejected with `bad_request` after a move to another region.
   */
  readonly before?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Retained publications, oldest first. */
export interface HistoryPage<Message> {
  readonly publications: readonly Publication<Message>[];
  /** Leads further back, as `before`; absent: there is no more. */
  readonly cursor: string | undefined;
  /**
   * Whether more is retained: after the last of these with `after`, before the first of them otherwise. A node bounds
   * pages in bytes as well, so one with fewer than `limit` need not be the last.
   */
  readonly more: boolean;
}
