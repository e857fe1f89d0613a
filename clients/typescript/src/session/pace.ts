/**
 * How long a session waits before the next connection: longer with each failure, and no sooner than a node has said.
 */
import { type Backoff, fullJitter } from '../backoff.js';
import type { Told } from './router.js';

/** A connection that held so long was a good one: the next failure begins with the shortest wait. */
const STABLE_MS = 5_000;
/** The longest time that a node may keep a client away, in case it says something absurd. */
const HOUR_MS = 3_600_000;
/** By how much those who were told to come back at the same time spread at most. */
const LONGEST_SPREAD_MS = 30_000;

export class Pace {
  /** In a row. */
  failures = 0;
  readonly #backoff: Backoff;
  readonly #random: () => number;

  constructor(backoff: Backoff, random: () => number) {
    this.#backoff = backoff;
    this.#random = random;
  }

  /** How long to wait after one more failure, at random, so that not all come at once. */
  backOff(told?: Told): number {
    const waitMs = fullJitter(this.#backoff, this.failures, this.#random());
    this.failures += 1;
    const toldMs = Math.min(told?.retryAfterMs ?? 0, HOUR_MS);
    return Math.max(waitMs, toldMs + Math.min(toldMs, LONGEST_SPREAD_MS) * this.#random());
  }

  /** What failed before is made good by a connection that held for so long, if that is long enough. */
  credit(heldMs: number): void {
    if (heldMs >= STABLE_MS) this.failures = 0;
  }

  /**
   * How long to wait after a connection that is over: where nothing is wrong, not at all, but for the one after another
   * that did not hold.
   */
  pause(isWell: boolean, told: Told): number {
    const isAtOnce = isWell && this.failures === 0 && told.retryAfterMs === undefined;
    const waitMs = this.backOff(told);
    return isAtOnce ? 0 : waitMs;
  }
}
