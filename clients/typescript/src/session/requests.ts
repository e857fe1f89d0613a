/** Requests and their replies, by id: ids are unique over all connections of the session. Time is an argument. */
import { requestError, type RequestError, tooLarge } from '../errors.js';
import type { ClientFrame, ServerFrame } from '../frames.js';
import type { Link } from './link.js';
import { RoundTrips } from './round_trips.js';

/** How many requests of the application may wait. */
const MAX_REQUESTS = 1_024;

/** A request on its way: exactly one of its ends comes. */
export interface Request {
  /** The name of the frame that answers it; what another one brings is an error. */
  readonly reply?: ServerFrame[0];
  done?(body: never): void;
  failed?(error: RequestError): void;
}

/** A request that the application waits for. */
export interface Query extends Request {
  frame(id: number): ClientFrame;
  /** Whether doing it twice does no harm: it is sent again after a break. */
  readonly isRepeatable: boolean;
  /** How long its reply may take; the session's own time by default. */
  readonly timeoutMs?: number | undefined;
  failed(error: RequestError): void;
}

/** What waits for its reply; without a connection, to be sent. */
interface Pending<One extends Request> {
  readonly request: One;
  link: Link | undefined;
  sentAt: number;
}

interface Asked extends Pending<Query> {
  readonly expiresAt: number;
}

export class Requests {
  readonly trips = new RoundTrips();
  readonly #timeoutMs: number;
  /** Those of the session itself. */
  readonly #sent = new Map<number, Pending<Request>>();
  /** Those of the application, which keep their ids from one connection to the next. */
  readonly #asked = new Map<number, Asked>();
  #lastId = 0;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** An id that no pending request has. */
  nextId(): number {
    do this.#lastId = (this.#lastId % 0xffffffff) + 1;
    while (this.#sent.has(this.#lastId) || this.#asked.has(this.#lastId));
    return this.#lastId;
  }

  /** Sends a request of the session itself; answers its id, none when the node takes no frames of that size. */
  send(link: Link, now: number, frame: (id: number) => ClientFrame, request: Request): number | undefined {
    const id = this.nextId();
    if (!link.send(frame(id))) return undefined;
    if (!this.#isWaiting) this.trips.begin(now);
    this.#sent.set(id, { request, link, sentAt: now });
    return id;
  }

  /** Takes a request of the application, which is sent when there is a connection. Answers how to forget it. */
  ask(query: Query, link: Link | undefined, now: number): () => void {
    if (this.#asked.size >= MAX_REQUESTS) throw requestError('limit_reached', 'too much waits', true);
    const id = this.nextId();
    const expiresAt = now + (query.timeoutMs ?? this.#timeoutMs);
    this.#asked.set(id, { request: query, link: undefined, sentAt: now, expiresAt });
    if (link !== undefined) this.sendWaiting(link, now);
    return () => {
      this.#asked.delete(id);
    };
  }

  /** Sends what waits for a connection. */
  sendWaiting(link: Link, now: number): void {
    for (const [id, asked] of this.#asked) {
      if (asked.link !== undefined) continue;
      if (!this.#isWaiting) this.trips.begin(now);
      asked.link = link;
      asked.sentAt = now;
      if (!link.send(asked.request.frame(id))) this.#fail(id, tooLarge(link.frameBytes));
    }
  }

  #fail(id: number, error: RequestError): void {
    this.#take(id)?.request.failed?.(error);
  }

  /** Takes the request that the reply belongs to which has come now: none where nobody has asked. */
  replied(id: number | undefined, now: number): Request | undefined {
    const pending = this.#take(id ?? 0);
    if (pending !== undefined) this.trips.replied(pending.sentAt, now);
    return pending?.request;
  }

  /** Takes a request that does not wait any longer. */
  #take(id: number): Pending<Request> | undefined {
    const pending = this.#sent.get(id) ?? this.#asked.get(id);
    this.#sent.delete(id);
    this.#asked.delete(id);
    return pending;
  }

  /** Whether somebody waits for a reply on this connection that no other can give. */
  needs(link: Link): boolean {
    return [...this.#asked.values()].some((asked) => asked.link === link && !asked.request.isRepeatable);
  }

  /** The connection is gone: what may be asked twice waits for the next one, the rest failed. */
  lost(link: Link): void {
    for (const [id, sent] of this.#sent) if (sent.link === link) this.#sent.delete(id);
    for (const [id, asked] of this.#asked) {
      if (asked.link !== link) continue;
      asked.link = undefined;
      if (!asked.request.isRepeatable) this.#fail(id, requestError('unavailable', 'connection lost'));
    }
  }

  /** Whether a reply is on its way. */
  get #isWaiting(): boolean {
    return this.#sent.size > 0 || [...this.#asked.values()].some(({ link }) => link !== undefined);
  }

  /** When the next one has waited for too long, or it is time to look. */
  get nextAt(): number {
    return Math.min(this.#isWaiting ? this.trips.nextAt : Infinity, ...[...this.#asked.values()].map((asked) => asked.expiresAt));
  }

  expire(now: number): void {
    if (this.#isWaiting) this.trips.look(now);
    for (const [id, { expiresAt }] of this.#asked) if (now >= expiresAt) this.#fail(id, requestError('timeout', 'no answer in time'));
  }

  /** Those of the application: all, or with an id below `end`, but for new tokens, which say themselves whose they are. */
  failAll(error: RequestError, end?: number): void {
    for (const [id, { request }] of this.#asked) if (!end || (id < end && request.reply !== 'refreshed')) this.#fail(id, error);
  }
}
