/** Requests and their replies, by id: ids are unique over all connections of the session. Time is an argument. */
import { requestError, type RequestError, tooLarge } from '../errors.js';
import type { ClientFrame, ServerFrame } from '../frames.js';
import type { Link } from './link.js';

/** How many requests of the application may wait. */
const MAX_REQUESTS = 1_024;

/** A request on its way: exactly one of its ends comes. */
export interface Request {
  done?(reply: ServerFrame): void;
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

interface Sent {
  readonly request: Request;
  readonly link: Link;
  readonly sentAt: number;
}

interface Asked {
  readonly query: Query;
  readonly expiresAt: number;
  id: number | undefined;
}

export class Requests {
  readonly #timeoutMs: number;
  readonly #sent = new Map<number, Sent>();
  readonly #asked = new Set<Asked>();
  #lastId = 0;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** An id that no pending request has. */
  nextId(): number {
    do this.#lastId = (this.#lastId % 0xffffffff) + 1;
    while (this.#sent.has(this.#lastId));
    return this.#lastId;
  }

  /** Sends a request of the session itself; answers `false` when the node takes no frames of that size. */
  send(link: Link, now: number, frame: (id: number) => ClientFrame, request: Request): boolean {
    const id = this.nextId();
    if (!link.send(frame(id))) return false;
    this.#sent.set(id, { request, link, sentAt: now });
    return true;
  }

  /** Takes a request of the application, which is sent when there is a connection. Answers how to forget it. */
  ask(query: Query, link: Link | undefined, now: number): () => void {
    if (this.#asked.size >= MAX_REQUESTS) {
      query.failed(requestError('limit_reached', 'too many requests wait'));
      return () => undefined;
    }
    const asked: Asked = { query, expiresAt: now + (query.timeoutMs ?? this.#timeoutMs), id: undefined };
    this.#asked.add(asked);
    if (link !== undefined) this.#sendQuery(asked, link, now);
    return () => {
      this.#forget(asked);
    };
  }

  /** Sends what waits for a connection. */
  sendWaiting(link: Link, now: number): void {
    for (const asked of this.#asked) if (asked.id === undefined) this.#sendQuery(asked, link, now);
  }

  #sendQuery(asked: Asked, link: Link, now: number): void {
    const { query } = asked;
    const id = this.nextId();
    asked.id = id;
    if (!link.send(query.frame(id))) {
      this.#forget(asked);
      query.failed(tooLarge(link.frameBytes));
      return;
    }
    const request: Request = {
      done: (reply) => {
        this.#forget(asked);
        query.done?.(reply);
      },
      failed: (error) => {
        this.#forget(asked);
        query.failed(error);
      },
    };
    this.#sent.set(id, { request, link, sentAt: now });
  }

  #forget(asked: Asked): void {
    this.#asked.delete(asked);
    if (asked.id !== undefined) this.#sent.delete(asked.id);
  }

  /** Takes the request that a reply belongs to. */
  take(id: number): Sent | undefined {
    const sent = this.#sent.get(id);
    this.#sent.delete(id);
    return sent;
  }

  /** Whether somebody waits for a reply on this connection that no other can give. */
  needs(link: Link): boolean {
    for (const { id, query } of this.#asked) {
      if (id !== undefined && !query.isRepeatable && this.#sent.get(id)?.link === link) return true;
    }
    return false;
  }

  /** The connection is gone: what may be asked twice waits for the next one, the rest failed. */
  lost(link: Link): void {
    for (const asked of this.#asked) {
      if (asked.id === undefined || this.#sent.get(asked.id)?.link !== link) continue;
      this.#sent.delete(asked.id);
      asked.id = undefined;
      if (asked.query.isRepeatable) continue;
      this.#asked.delete(asked);
      asked.query.failed(requestError('unavailable', 'the connection was lost before the reply'));
    }
    for (const [id, sent] of this.#sent) if (sent.link === link) this.#sent.delete(id);
  }

  /** When the next one has waited for too long. */
  get expiresAt(): number {
    let at = Infinity;
    for (const { expiresAt } of this.#asked) at = Math.min(at, expiresAt);
    return at;
  }

  expire(now: number): void {
    for (const asked of this.#asked) {
      if (now < asked.expiresAt) continue;
      this.#forget(asked);
      asked.query.failed(requestError('timeout', 'no reply in time'));
    }
  }

  failAll(error: RequestError): void {
    const asked = [...this.#asked];
    this.#asked.clear();
    this.#sent.clear();
    for (const { query } of asked) query.failed(error);
  }
}
