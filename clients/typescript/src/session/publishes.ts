/** Publishes on their way: kept until answered, sent again with the same key. Time is an argument. */
import { type Backoff, fullJitter } from '../backoff.js';
import { OutcomeUnknownError, type RequestError, requestError } from '../errors.js';
import type { Payload } from '../frames.js';
import type { Published } from '../messages.js';
import type { Link } from './link.js';
import { Pacer } from './pacer.js';

/**
 * The longest wait before a publish that failed for the moment is sent again, unless the node names a longer one.
 * Asking again costs a node little, and whoever published waits.
 */
const LONGEST_HOLD_MS = 1_000;

/** How long nodes remember a key that do not say so. */
const USUAL_KEY_MS = 300_000;
/** How much of it is set aside for the time that a publish is under way, at most; a tenth of a short one. */
const LONGEST_WAY_MS = 10_000;

/** What is to be published, and whom to tell. */
export interface Publish {
  readonly channel: string;
  readonly data: Payload;
  readonly key: string;
  /** Since when it may have been sent, by an earlier page. */
  readonly sentAtMs?: number | undefined;
  /** It is being sent for the first time. */
  readonly sent?: ((atMs: number) => void) | undefined;
  done(published: Published): void;
  failed(error: RequestError): void;
}

interface Waiting {
  readonly publish: Publish;
  /** The connection on which it was sent last. */
  sentOn: Link | undefined;
  /** When it was sent first. */
  sentAt: number | undefined;
}

interface Hold {
  readonly until: number;
  readonly failures: number;
  /** The one that is tried first; the others go out once it is answered. */
  tried: number | undefined;
}

export class Publishes {
  readonly pacer = new Pacer();
  /** How long the nodes remember a key at least, less what a publish may be under way. */
  #keyMs!: number;
  readonly #limit: number;
  readonly #backoff: Backoff;
  readonly #random: () => number;
  /** In the order of their acceptance. */
  readonly #waiting = new Map<number, Waiting>();
  /** After a transient error a channel's publishes wait, the newer ones behind the older. */
  readonly #holds = new Map<string, Hold>();

  /** `limit`: how many may wait for their answer. */
  constructor(limit: number, backoff: Backoff, random: () => number) {
    this.#limit = limit;
    this.#backoff = { ...backoff, maxMs: Math.min(backoff.maxMs, LONGEST_HOLD_MS) };
    this.#random = random;
    this.remembers();
  }

  /** The node says how long it remembers a key; 0 where it does not say. */
  remembers(saidMs = 0): void {
    const keyMs = saidMs || USUAL_KEY_MS;
    this.#keyMs = Math.max(0.9 * keyMs, keyMs - LONGEST_WAY_MS);
  }

  /** When a publish that was sent is given up: once its key is forgotten it would take effect again. */
  #expiresAt({ sentAt = Infinity }: Waiting): number {
    return sentAt + this.#keyMs;
  }

  /** Gives up what must not be sent again, though its answer may be on its way: no node takes that long. */
  expire(now: number): void {
    for (const [number, waiting] of this.#waiting) {
      if (this.#expiresAt(waiting) <= now) this.refuse(number, new OutcomeUnknownError());
    }
  }

  /** Takes one in under a number above all others, which it gives; a full queue answers it at once. */
  push(number: number, publish: Publish): number | undefined {
    if (this.#waiting.size >= this.#limit) {
      publish.failed(requestError('limit_reached', 'too much waits', true));
      return undefined;
    }
    this.#waiting.set(number, { publish, sentOn: undefined, sentAt: publish.sentAtMs });
    return number;
  }

  /** Takes one back that never was sent; answers whether that was so. */
  withdraw(number = 0): boolean {
    return this.#waiting.get(number)?.sentAt === undefined && this.#waiting.delete(number);
  }

  /** Those that go out now on `connection`, oldest first; they count as sent there. */
  take(connection: Link, now: number): [number, Publish][] {
    const taken: [number, Publish][] = [];
    for (const [number, waiting] of this.#waiting) {
      if (this.#readyAt(number, waiting, connection) > now) continue;
      if (!this.pacer.take(now)) break;
      const { publish } = waiting;
      const hold = this.#holds.get(publish.channel);
      if (hold) hold.tried = number;
      waiting.sentOn = connection;
      if (waiting.sentAt === undefined) publish.sent?.(now);
      waiting.sentAt ??= now;
      taken.push([number, publish]);
    }
    return taken;
  }

  /** When one may go out on `connection`, as far as its channel is concerned. */
  #readyAt(number: number, { publish, sentOn }: Waiting, connection: Link | undefined): number {
    const { until, tried = number } = this.#holds.get(publish.channel) ?? { until: 0 };
    return !connection || sentOn === connection || tried !== number ? Infinity : until;
  }

  answer(number: number, published: Published): void {
    this.#remove(number)?.done(published);
  }

  refuse(number: number, error: RequestError): void {
    this.#remove(number)?.failed(error);
  }

  #remove(number: number): Publish | undefined {
    const publish = this.#waiting.get(number)?.publish;
    this.#waiting.delete(number);
    if (publish && this.#holds.get(publish.channel)?.tried === number) this.#holds.delete(publish.channel);
    return publish;
  }

  /** The node answered with an error on `connection`: a transient one puts the channel on hold. */
  failed(number: number, connection: Link, error: RequestError, now: number): void {
    // It may be on its way again already, and then that is answered.
    const waiting = this.#waiting.get(number);
    if (waiting?.sentOn !== connection) return;
    if (!error.transient) {
      this.refuse(number, error);
      return;
    }
    const { channel } = waiting.publish;
    // Those that were sent behind it are sent again behind it, but for those that the node takes all the same.
    for (const other of this.#waiting.values()) if (other.publish.channel === channel) other.sentOn = undefined;
    const failures = this.#holds.get(channel)?.failures ?? 0;
    const waitMs = (error.retryAfterMs ?? 0) + fullJitter(this.#backoff, failures, this.#random());
    this.#holds.set(channel, { until: now + waitMs, failures: failures + 1, tried: undefined });
  }

  /** Forgets all holds: the node that caused them is no longer asked. */
  releaseAll(): void {
    this.#holds.clear();
  }

  /**
   * When the next of those that are not sent on `connection` may go out, perhaps a moment ago already, or is given up.
   */
  nextAt(connection: Link | undefined): number {
    let at = Infinity;
    for (const [number, waiting] of this.#waiting) {
      const readyAt = Math.max(this.#readyAt(number, waiting, connection), this.pacer.nextAt);
      at = Math.min(at, readyAt, this.#expiresAt(waiting));
    }
    return at;
  }

  /** Answers all of them with the same error, or those with a number below `end`. */
  failAll(error: RequestError, end?: number): void {
    for (const number of [...this.#waiting.keys()]) if (!end || number < end) this.refuse(number, error);
  }
}
