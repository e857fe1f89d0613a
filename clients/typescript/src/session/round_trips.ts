/** How long replies take, smoothed. A sample that spans a suspension says nothing of the path. Time is an argument. */

/** How often somebody looks while replies are waited for. */
const LOOK_MS = 1_000;
/**
 * The least time after which a reply is late, whatever the path: RFC 6298 has a second, which is long for a sign of
 * life.
 */
const LEAST_RTO_MS = 200;
/** A look that is so late means that the process, the page or the system was suspended, or that the clock was set. */
const LATE_MS = 500;

export class RoundTrips {
  /** In milliseconds; 0: none yet. */
  smoothedMs = 0;
  /** After so long a reply is late (RFC 6298). */
  rtoMs = LEAST_RTO_MS;
  /** By how much they differ from what is usual. */
  #variationMs = 0;
  /** When the next look is due, while replies are waited for. */
  nextAt = 0;
  #suspendedAt = -Infinity;

  /** Looks, while a reply is waited for and from when that begins. */
  look(now: number): void {
    if (now - this.nextAt > LATE_MS) this.#suspendedAt = now;
    this.nextAt = now + LOOK_MS;
  }

  /** The reply to what was sent then has come. */
  replied(sentAt: number, now: number): void {
    this.look(now);
    if (sentAt < this.#suspendedAt) return;
    const tookMs = now - sentAt;
    // RFC 6298's smoothing, α = 1/8 and β = 1/4.
    const isFirst = this.smoothedMs === 0;
    this.#variationMs = isFirst ? tookMs / 2 : this.#variationMs + (Math.abs(tookMs - this.smoothedMs) - this.#variationMs) / 4;
    this.smoothedMs = isFirst ? tookMs : this.smoothedMs + (tookMs - this.smoothedMs) / 8;
    this.rtoMs = Math.max(LEAST_RTO_MS, this.smoothedMs + 4 * this.#variationMs);
  }
}
