/** How long to wait before the next try. */

/** Bounds of the wait between tries, in milliseconds. */
export interface Backoff {
  /** The longest wait before the first retry; each further one doubles it. */
  readonly firstMs: number;
  /** The longest wait at all. */
  readonly maxMs: number;
}

/**
 * The wait before retry number `attempt` (from 0) by "full jitter": anything from nothing to
 * `min(maxMs, firstMs · 2^attempt)`. `random` is uniform in 0 ≤ `random` < 1.
 *
 * Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
export function fullJitter({ firstMs, maxMs }: Backoff, attempt: number, random: number): number {
  return Math.min(maxMs, firstMs * 2 ** attempt) * random;
}
