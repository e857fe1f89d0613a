/** When a new token is fetched: ahead of the old one's expiry. Time is an argument. */

/** The least time before a token is fetched again, however short tokens live. */
const LEAST_INTERVAL_MS = 200;
/** The least time before it is tried again after a failure. */
const LEAST_RETRY_MS = 1_000;
/** A token is fetched when so much of its life from now is over. */
const SHARE_OF_LIFE = 0.75;

export class TokenSchedule {
  refreshAt = Infinity;
  #expiresAt = Infinity;

  /** The token in use expires then, in milliseconds since 1970; never when absent. */
  expires(at: number | undefined, now: number): void {
    this.#expiresAt = at ?? Infinity;
    this.#schedule(now, LEAST_INTERVAL_MS);
  }

  /** No new one could be had: tried again as long as the old one lives; after that, the node asks for it. */
  failed(now: number): void {
    this.refreshAt = Infinity;
    if (now < this.#expiresAt) this.#schedule(now, LEAST_RETRY_MS);
  }

  #schedule(now: number, leastMs: number): void {
    this.refreshAt = now + Math.max((this.#expiresAt - now) * SHARE_OF_LIFE, leastMs);
  }

  stop(): void {
    this.refreshAt = Infinity;
  }
}
