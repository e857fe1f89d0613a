/** Publishes on their way: kept until answered, sent again with the same key. Time is an argument. */
import { type Backoff, fullJitter } from '../backoff.js';
import { RequestError } from '../errors.js';
import type { Payload, ServerFrames } from '../frames.js';
import type { Pacing } from './pacer.js';

/**
 * The longest wait before a publish that failed for the moment is sent again, unless the node names a longer one.
 * Asking again costs a node little, and whoever published waits.
 */
const LONGEST_HOLD_MS = 1_000;

/** What is to be published, and whom to tell. */
export interface Publish {
  readonly channel: string;
  readonly data: Payload;
  readonly key: string;
  done(published: ServerFrames['published']): void;
  failed(error: RequestError): void;
}

interface Waiting {
  readonly publish: Publish;
  /** The connection on which it was sent last. */
  sentOn: number | undefined;
  wasSent: boolean;
}

interface Hold {
  until: number;
  failures: number;
}

export class Publishes {
  readonly #limit: number;
  readonly #backoff: Backoff;
  readonly #random: () => number;
  /** In the order of their acceptance. */
  readonly #waiting = new Map<number, Waiting>();
  /** After a transient error a channel's publishes wait, the newer ones behind the older. */
  readonly #holds = new Map<string, Hold>();
  #next = 0;
  readonly #pacing: Pacing | undefined;

  /** `limit`: how many may wait for their answer. */
  constructor(limit: number, backoff: Backoff, random: () => number, pacing?: Pacing) {
    this.#pacing = pacing;
    this.#limit = limit;
    this.#backoff = { ...backoff, maxMs: Math.min(backoff.maxMs, LONGEST_HOLD_MS) };
    this.#random = random;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Takes one in and gives its number; a full queue answers it at once. */
  push(publish: Publish): number | undefined {
    if (this.#waiting.size >= this.#limit) {
      publish.failed(new RequestError(106, 'limit_reached', 'too many publishes wait', true));
      return undefined;
    }
    this.#next += 1;
    this.#waiting.set(this.#next, { publish, sentOn: undefined, wasSent: false });
    return this.#next;
  }

  /** Takes one back that never was sent; answers whether that was so. */
  withdraw(number: number): boolean {
    return this.#waiting.get(number)?.wasSent === false && this.#waiting.delete(number);
  }

  /** A node tells how many it takes in a second. */
  limit(perSecond: number, now: number): void {
    this.#pacing?.limit(perSecond, now);
  }

  /** Those that go out now on `connection`, oldest first; they count as sent there. */
  take(connection: number, now: number): [number, Publish][] {
    const taken: [number, Publish][] = [];
    for (const [number, waiting] of this.#waiting) {
      const { publish } = waiting;
      if (waiting.sentOn === connection) continue;
      if (now < (this.#holds.get(publish.channel)?.until ?? 0)) continue;
      if (this.#pacing?.take(now) === false) break;
      waiting.sentOn = connection;
      waiting.wasSent = true;
      taken.push([number, publish]);
    }
    return taken;
  }

  answer(number: number, published: ServerFrames['published'], now: number): void {
    this.#remove(number, now)?.done(published);
  }

  refuse(number: number, error: RequestError, now: number): void {
    this.#remove(number, now)?.failed(error);
  }

  /** Also forgets a hold that is over, unless others of the channel wait behind it. */
  #remove(number: number, now: number): Publish | undefined {
    const publish = this.#waiting.get(number)?.publish;
    if (publish === undefined) return undefined;
    this.#waiting.delete(number);
    const isOver = (this.#holds.get(publish.channel)?.until ?? Infinity) <= now;
    if (isOver && ![...this.#waiting.values()].some((other) => other.publish.channel === publish.channel)) {
      this.#holds.delete(publish.channel);
    }
    return publish;
  }

  /** The node answered with an error on `connection`: a transient one puts the channel on hold. */
  failed(number: number, connection: number, error: RequestError, now: number): void {
    if (!error.transient) {
      this.refuse(number, error, now);
      return;
    }
    const waiting = this.#waiting.get(number);
    // It may be on its way on a newer connection already.
    if (waiting?.sentOn !== connection) return;
    waiting.sentOn = undefined;
    const { channel } = waiting.publish;
    const hold = this.#holds.get(channel) ?? { until: now, failures: 0 };
    // Of several failures in one round the first one counts.
    if (hold.until > now) return;
    const waitMs = (error.retryAfterMs ?? 0) + fullJitter(this.#backoff, hold.failures, this.#random());
    this.#holds.set(channel, { until: now + waitMs, failures: hold.failures + 1 });
  }

  /** Forgets all holds: the node that caused them is no longer asked. */
  releaseAll(): void {
    this.#holds.clear();
  }

  /** When the next of those that are not sent on `connection` may go out: perhaps a moment ago already. */
  nextAt(connection: number): number {
    const allowedAt = this.#pacing?.nextAt ?? 0;
    let at = Infinity;
    for (const { publish, sentOn } of this.#waiting.values()) {
      if (sentOn === connection) continue;
      at = Math.min(at, Math.max(this.#holds.get(publish.channel)?.until ?? 0, allowedAt));
    }
    return at;
  }

  /** Answers all of them with the same error. */
  failAll(error: RequestError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { publish } of waiting) publish.failed(error);
  }
}
