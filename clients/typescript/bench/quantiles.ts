/** How latencies are spread. */

/** A part of all arrivals, by size. */
export class Quantiles {
  readonly #sorted: Float64Array;

  constructor(delaysMs: Iterable<number>) {
    this.#sorted = Float64Array.from(delaysMs).sort();
    if (this.#sorted.length === 0) throw new Error('nothing was measured');
  }

  get count(): number {
    return this.#sorted.length;
  }

  /** The least latency that a share of `part` does not exceed (nearest rank), in milliseconds; `part` is 0 … 1. */
  at(part: number): number {
    const rank = Math.max(1, Math.ceil(part * this.count));
    return this.#sorted[rank - 1] ?? NaN;
  }

  /** The share of those that took longer. */
  laterThan(limitMs: number): number {
    return this.#sorted.filter((delay) => delay > limitMs).length / this.count;
  }
}
