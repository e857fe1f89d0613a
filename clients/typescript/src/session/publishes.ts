/** Publishes on their way: kept until answered, sent again with the same key. Time is an argument. */
import { type Backoff, fullJitter } from '../backoff.js';
import { RequestError } from '../errors.js';
import type { Payload, ServerFrames } from '../frames.js';

/**
 * The longest wait before a publish that failed for the moment is sent again, unless the node names a longer one.
 * Asking again costs a node little, and whoever published waits.
 */
const LONGEST_HOLD_MS = 1_000;
/** The node lets so many seconds' worth of publishes come at once. */
const BURST_SECONDS = 2;

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
  /** The node's limit, 0 for none, and how many may go out now: what goes beyond would be refused. */
  #perSecond = 0;
  #allowance = Infinity;
  #allowanceAt = 0;

  /** `limit`: how many may wait for their answer. */
  constructor(limit: number, backoff: Backoff, random: () => number) {
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
      const message = `${this.#limit} publishes wait for their answer already`;
      publish.failed(new RequestError(106, 'limit_reached', message, true));
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

  /** A node tells its limit. What was let out before still counts, at whichever node that was. */
  limit(perSecond: number, now: number): void {
    this.#perSecond = perSecond;
    this.#allowance = Math.min(this.#allowance, perSecond === 0 ? Infinity : perSecond * BURST_SECONDS);
    if (perSecond === 0) this.#allowance = Infinity;
    this.#allowanceAt = now;
  }

  /** Those that go out now on `connection`, oldest first; they count as sent there. */
  take(connection: number, now: number): [number, Publish][] {
    this.#allow(now);
    const taken: [number, Publish][] = [];
    if (this.#waiting.size === 0) return taken;
    const heldUp = new Set<string>();
    for (const [number, waiting] of this.#waiting) {
      const { publish } = waiting;
      if (waiting.sentOn === connection) continue;
      if (now < (this.#holds.get(publish.channel)?.until ?? 0)) continue;
      if (this.#allowance < 1) heldUp.add(publish.channel);
      if (heldUp.has(publish.channel)) continue;
      this.#allowance -= 1;
      waiting.sentOn = connection;
      waiting.wasSent = true;
      taken.push([number, publish]);
    }
    return taken;
  }

  #allow(now: number): void {
    if (this.#perSecond === 0) return;
    const earned = (Math.max(0, now - this.#allowanceAt) / 1_000) * this.#perSecond;
    this.#allowance = Math.min(this.#allowance + earned, this.#perSecond * BURST_SECONDS);
    this.#allowanceAt = now;
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
    if (this.#holds.size === 0 && this.#allowance >= 1) return Infinity;
    const allowedAt = this.#allowance >= 1 ? 0 : this.#allowanceAt + ((1 - this.#allowance) / this.#perSecond) * 1_000;
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
