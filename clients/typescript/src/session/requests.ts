/** Requests and their replies, by id: ids are unique over all connections of the session. Time is an argument. */
import { requestError, type RequestError, tooLarge } from '../errors.js';
import type { ClientFrame } from '../frames.js';
import type { Question, Reply, RequestFields, RequestName } from '../replies.js';
import type { Link } from './link.js';
import { RoundTrips } from './round_trips.js';

/** How many requests of the application may wait. */
const MAX_REQUESTS = 1_024;

/** Who waits for a request: exactly one of its ends comes. */
export interface Waiter<Name extends RequestName = RequestName> {
  done?(reply: Reply<Name>): void;
  failed?(error: RequestError): void;
}

/** The application, which waits for what it has asked. */
export interface Asker<Name extends Question = Question> extends Waiter<Name> {
  /** Whether doing it twice does no harm: it is sent again after a break. */
  readonly isRepeatable: boolean;
  /** How long its reply may take; the session's own time by default. */
  readonly timeoutMs?: number | undefined;
  failed(error: RequestError): void;
}

/**
 * What waits for its reply; without a connection, to be sent. Those of the application keep their ids from one to the
 * next.
 */
export interface Pending extends Waiter, Partial<Pick<Asker, 'isRepeatable'>> {
  readonly name: RequestName;
  /** Of those that are sent again. */
  readonly fields?: object;
  link?: Link | undefined;
  sentAt: number;
  /** Never, of those of the session itself, which are not sent again. */
  readonly expiresAt: number;
}

export class Requests {
  readonly trips = new RoundTrips();
  readonly #timeoutMs: number;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** An id that no pending request has. */
  nextId(): number {
    do this.#lastId = (this.#lastId % 0xffffffff) + 1;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }

  /** Sends a request of the session itself; answers its id, none when the node takes no frames of that size. */
  send<Name extends RequestName>(link: Link, now: number, name: Name, fields: RequestFields<Name>, waiter: Waiter<Name>): number | undefined {
    const id = this.nextId();
    if (!link.send(frame(name, id, fields))) return undefined;
    this.#begin(id, { ...waiter, name, link, sentAt: now, expiresAt: Infinity });
    return id;
  }

  #begin(id: number, pending: Pending): void {
    if (this.#pending.size === 0) this.trips.look(pending.sentAt);
    this.#pending.set(id, pending);
  }

  /** Takes a request of the application, which is sent when there is a connection. Answers how to forget it. */
  ask<Name extends Question>(name: Name, fields: RequestFields<Name>, asker: Asker<Name>, link: Link | undefined, now: number): () => void {
    const asked = [...this.#pending.values()].filter(({ fields: again }) => again);
    if (asked.length >= MAX_REQUESTS) throw requestError('limit_reached', 'too much waits', true);
    const id = this.nextId();
    this.#begin(id, { ...asker, name, fields, sentAt: now, expiresAt: now + (asker.timeoutMs ?? this.#timeoutMs) });
    if (link) this.sendWaiting(link, now);
    return () => {
      this.#pending.delete(id);
    };
  }

  /** Sends what waits for a connection. */
  sendWaiting(link: Link, now: number): void {
    for (const [id, pending] of this.#pending) {
      if (pending.link) continue;
      pending.link = link;
      pending.sentAt = now;
      if (pending.fields && !link.send(frame(pending.name, id, pending.fields))) this.#fail(id, tooLarge(link.frameBytes));
    }
  }

  #fail(id: number, error: RequestError): void {
    this.#take(id)?.failed?.(error);
  }

  /** Takes the request that the reply belongs to which has come now: none where nobody has asked. */
  replied(id = 0, now: number): Pending | undefined {
    const pending = this.#take(id);
    if (pending) this.trips.replied(pending.sentAt, now);
    return pending;
  }

  /** Takes a request that does not wait any longer. */
  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  /** Whether somebody waits for a reply on this connection that no other can give. */
  needs(link: Link): boolean {
    return [...this.#pending.values()].some((pending) => pending.link === link && pending.isRepeatable === false);
  }

  /** The connection is gone: what may be asked twice waits for the next one, the rest failed. */
  lost(link: Link): void {
    for (const [id, pending] of this.#pending) {
      if (pending.link !== link) continue;
      pending.link = undefined;
      if (!pending.fields) this.#pending.delete(id);
      else if (!pending.isRepeatable) this.#fail(id, requestError('unavailable', 'connection lost'));
    }
  }

  /** Since when whoever has waited the longest waits for a reply. */
  get waitsSince(): number {
    return Math.min(...[...this.#pending.values()].map(({ sentAt }) => sentAt));
  }

  /** When the next one has waited for too long, or it is time to look. */
  get nextAt(): number {
    return Math.min(...[...this.#pending.values()].map(({ expiresAt }) => Math.min(expiresAt, this.trips.nextAt)));
  }

  expire(now: number): void {
    this.trips.look(now);
    for (const [id, { expiresAt }] of this.#pending) if (now >= expiresAt) this.#fail(id, requestError('timeout', 'no answer in time'));
  }

  /**
   * Those of the application: all, or with an id below `end`, but for new tokens, which say themselves whose they are.
   */
  failAll(error: RequestError, end?: number): void {
    for (const [id, { fields, name }] of this.#pending) if (fields && (!end || (id < end && name !== 'refresh'))) this.#fail(id, error);
  }
}

/** The fields are those of the frame, all but its id. */
function frame(name: RequestName, id: number, fields: object): ClientFrame {
  return [name, { id, ...fields }] as unknown as ClientFrame;
}
