/** When a new token is fetched: ahead of the old one's expiry. Time is an argument. */

/** The least time before a token is fetched again, however short tokens live. */
const LEAST_INTERVAL_MS = 200;
/** The least time before it is tried again after a failure. */
const LEAST_RETRY_MS = 1_000;
/** A token is fetched when so much of its life from now is over. */
const SHARE_OF_LIFE = 0.75;
/** Whoever makes tokens makes none that live shorter: where one seems to, the clock may be wrong. */
const SHORTEST_LIFE_MS = 10_000;

export class TokenSchedule {
  refreshAt = Infinity;
  /** Gives up the fetch that is on its way. */
  giveUp: (() => void) | undefined;
  #expiresAt = Infinity;
  /** How many in a row seemed old already when the node took them. */
  #old = 0;

  /**
   * The node has just taken `token`, which expires at `at` by the node's clock, in milliseconds since 1970; never when
   * absent. The clock here may be wrong by more than the token's life, which the token itself tells.
   */
  expires(at: number | undefined, now: number, token: string | undefined): void {
    const lifeMs = lifeOf(token);
    let leftMs = Math.min((at ?? Infinity) - now, lifeMs);
    if (leftMs <= 0) leftMs = lifeMs;
    this.#expiresAt = now + leftMs;
    // Either it was kept somewhere for long, or the clock is wrong: then the next one seems as old.
    this.#old = leftMs < (lifeMs < Infinity ? lifeMs / 2 : SHORTEST_LIFE_MS) ? this.#old + 1 : 0;
    this.#schedule(now, Math.min(LEAST_INTERVAL_MS * 2 ** this.#old, lifeMs * SHARE_OF_LIFE));
  }

  /** No new one could be had: tried again as long as the old one lives; after that, the node asks for it. */
  failed(now: number): void {
    this.refreshAt = Infinity;
    if (now < this.#expiresAt) this.#schedule(now, LEAST_RETRY_MS);
  }

  #schedule(now: number, leastMs: number): void {
    this.refreshAt = now + Math.max((this.#expiresAt - now) * SHARE_OF_LIFE, leastMs);
  }

  /** Nothing is to be fetched, and what is on its way is not needed. */
  stop(): void {
    this.refreshAt = Infinity;
    this.giveUp?.();
  }
}

/**
 * How long a JSON Web Token lives in all, in milliseconds; for ever as far as one tells that only the node understands.
 */
function lifeOf(token = ''): number {
  try {
    const claims = atob((token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/'));
    const { iat, exp } = JSON.parse(claims) as { iat: number; exp: number };
    if (exp > iat) return (exp - iat) * 1_000;
  } catch {
    // It is none.
  }
  return Infinity;
}
