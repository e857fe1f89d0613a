/**
 * How fast publishes go out: no faster than the node takes them, since it would refuse the rest. Time is an argument.
 */

/**
 * So much goes out at once as the node takes in this time. It lets as much come at once as it takes in two seconds. The
 * rest is kept for a path on which some come sooner after each other than they were sent.
 */
const BURST_MS = 1_000;

/** A leaky bucket, as a time: when the node will be ready for another burst. */
export class Pacer {
  #intervalMs = 0;
  #readyAt = 0;

  /** A node tells its limit, 0 for none. What was let out before still counts, at whichever node that was. */
  limit(perSecond: number): void {
    this.#intervalMs = perSecond === 0 ? 0 : 1_000 / perSecond;
  }

  /** Whether one may go out now, which then counts. */
  take(now: number): boolean {
    if (now < this.nextAt) return false;
    this.#readyAt = Math.max(this.#readyAt, now) + this.#intervalMs;
    return true;
  }

  /** When the next one may go out: perhaps a moment ago already. */
  get nextAt(): number {
    return this.#readyAt + this.#intervalMs - BURST_MS;
  }
}
