/** What browsers get wrong or do differently, and what is done about it: all of it is here, and nowhere else. */

/** A bug of a browser because of which WebTransport is better not chosen there. */
export interface Quirk {
  readonly browser: 'Firefox' | 'WebKit';
  /** The first version without it; absent: none yet. */
  readonly mendedIn?: number;
}

/** Where `transport: 'auto'` means WebSocket alone. */
export const AVOIDING_WEBTRANSPORT: readonly Quirk[] = [
  // Delivers two streams that the node opens, and never a third.
  // https://bugzilla.mozilla.org/show_bug.cgi?id=2046262
  { browser: 'Firefox', mendedIn: 153 },
  // Never extends its flow control: stalls in silence after some 7,000 streams or 16 MiB.
  // https://github.com/moq-dev/moq/issues/2388
  { browser: 'WebKit' },
];

/** The quirk because of which this browser is better off with WebSocket, if there is one. */
export function reasonToAvoidWebTransport(userAgent: string): Quirk | undefined {
  const { browser, version } = identify(userAgent);
  return AVOIDING_WEBTRANSPORT.find((quirk) => quirk.browser === browser && version < (quirk.mendedIn ?? Infinity));
}

function identify(userAgent: string): { browser: string | undefined; version: number } {
  const firefox = /\bFirefox\/(\d+)/.exec(userAgent);
  if (firefox !== null) return { browser: 'Firefox', version: Number(firefox[1]) };
  // All of iOS's browsers are WebKit, whatever they are called. Chromium says "AppleWebKit" and "Safari", too.
  const isWebKit = /\bAppleWebKit\b/.test(userAgent) && !/Chrom(e|ium)\//.test(userAgent);
  return isWebKit ? { browser: 'WebKit', version: Number(/\bVersion\/(\d+)/.exec(userAgent)?.[1] ?? 0) } : { browser: undefined, version: 0 };
}

interface Datagrams {
  readonly writable?: WritableStream<Uint8Array>;
  createWritable?(): WritableStream<Uint8Array>;
}

/**
 * Where datagrams are written. The specification has `createWritable`, which Safari has alone; Chromium and Firefox
 * have the former `writable` (https://github.com/w3c/webtransport/pull/620).
 */
export function datagramWritable(datagrams: object): WritableStream<Uint8Array> | undefined {
  const either: Datagrams = datagrams;
  return either.createWritable?.() ?? either.writable;
}
