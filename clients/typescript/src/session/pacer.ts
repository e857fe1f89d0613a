/** How fast publishes go out: no faster than the node takes them, since it would refuse the rest. Time is an argument. */

/** The node lets so many seconds' worth of publishes come at once. */
const BURST_SECONDS = 2;

/** Something that says how many publishes may go out. */
export interface Pacing {
  /** A node tells its limit, 0 for none. What was let out before still counts, at whichever node that was. */
  limit(perSecond: number, now: number): void;
  /** Whether one may go out now, which then counts. */
  take(now: number): boolean;
  /** When the next one may go out: perhaps a moment ago already. */
  readonly nextAt: number;
}

/** A token bucket. */
export class Pacer implements Pacing {
  #perSecond = 0;
  #allowance = Infinity;
  #at = 0;

  limit(perSecond: number, now: number): void {
    this.#perSecond = perSecond;
    this.#allowance = perSecond === 0 ? Infinity : Math.min(this.#allowance, perSecond * BURST_SECONDS);
    this.#at = now;
  }

  take(now: number): boolean {
    if (this.#perSecond > 0) {
      const earned = (Math.max(0, now - this.#at) / 1_000) * this.#perSecond;
      this.#allowance = Math.min(this.#allowance + earned, this.#perSecond * BURST_SECONDS);
      this.#at = now;
    }
    if (this.#allowance < 1) return false;
    this.#allowance -= 1;
    return true;
  }

  get nextAt(): number {
    return this.#allowance >= 1 ? 0 : this.#at + ((1 - this.#allowance) / this.#perSecond) * 1_000;
  }
}
