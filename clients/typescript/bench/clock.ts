/** The machine's clock, as Node and pages have it alike. */

/** Milliseconds since 1970, with fractions. */
export function clock(): number {
  return performance.timeOrigin + performance.now();
}
