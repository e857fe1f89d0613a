/** Opens transports: nodes one after the other, at each of them its transports with a head start for one. */
import type { Address } from './address.js';
import type { Encoding } from './encoding.js';
import { lost, messageOf, requestError, SkywaveError } from './errors.js';
import type { Plan } from './race_memory.js';
import type { Dialled, DialRequest } from './session/opening.js';
import { STAGGER_MS } from './session/route.js';
import { type Attempt, firstOf } from './staggered.js';
import type { Transport } from './transport.js';
import { openWebSocket, type WebSocketConstructor } from './transport/websocket.js';
import { openWebTransport, type WebTransportConstructor } from './transport/webtransport.js';
import type { TransportKind } from './transport_kind.js';

/** Once one transport has failed for certain, the others get this long: the node is there, or gone. */
const LAST_CHANCE_MS = 1_000;

/** What transports are made of. */
export interface DialerOptions {
  readonly encoding: Encoding;
  /** The runtime's own by default. */
  readonly webSocket: WebSocketConstructor | undefined;
  readonly webTransport: WebTransportConstructor | undefined;
  /** What WebTransport trusts; asked for at each attempt. */
  serverCertificateHashes(signal: AbortSignal): Promise<WebTransportHash[]>;
}

/** Opens one transport; a seam for tests and for other kinds of transports. */
export type OpenTransport = (kind: TransportKind, address: Address, signal: AbortSignal) => Promise<Transport>;

/** Opens one transport of a kind. */
type OpenKind = (address: Address, signal: AbortSignal) => Promise<Transport>;

/** What opens transports in this runtime. */
export function transportOpener({ encoding, webSocket, webTransport, ...given }: DialerOptions): OpenTransport {
  const openers: Record<TransportKind, OpenKind> = {
    websocket: (address, signal) => openWebSocket(urlOf(address, 'websocket'), encoding, webSocket, signal),
    webtransport: async (address, signal) => {
      if (webTransport === undefined) throw requestError('bad_request', 'no WebTransport here');
      const hashes = await given.serverCertificateHashes(signal);
      if (signal.aborted) throw lost('given up');
      return openWebTransport(urlOf(address, 'webtransport'), encoding, webTransport, hashes, signal);
    },
  };
  return async (kind, address, signal) => openers[kind](address, signal);
}

function urlOf(address: Address, kind: TransportKind): string {
  const url = address[kind];
  if (url === undefined) throw lost(`the address has no ${kind}`);
  return url;
}

/** Opens a transport to the first of the targets whose handshake completes. Rejects with a `SkywaveError`. */
export async function dial(request: DialRequest, open: OpenTransport, signal: AbortSignal): Promise<Dialled> {
  const { targets, headStartMs, timeoutMs } = request;
  const attempts = targets.map(
    (target): Attempt<Pick<Dialled, 'target' | 'transport'>> =>
      async (aborted) => {
        const transport = await race(target.plan, timeoutMs, (kind, given) => open(kind, target.address, given), aborted);
        return { target, transport };
      },
  );
  try {
    const { value, tookMs, failed } = await firstOf(attempts, { headStartMs, staggerMs: STAGGER_MS, timeoutMs }, signal);
    return { ...value, tookMs, failed: targets.filter((_, place) => failed.includes(place)) };
  } catch (error) {
    throw summary(error);
  }
}

async function race(
  { kinds, headStartMs = 0 }: Plan,
  timeoutMs: number,
  open: (kind: TransportKind, signal: AbortSignal) => Promise<Transport>,
  signal: AbortSignal,
): Promise<Transport> {
  const attempts = kinds.map((kind): Attempt<Transport> => (given) => open(kind, given));
  const pace = { headStartMs, staggerMs: 0, timeoutMs, lastChanceMs: LAST_CHANCE_MS };
  try {
    return (await firstOf(attempts, pace, signal)).value;
  } catch (error) {
    throw summary(error);
  }
}

/** One error for those of all attempts. It is final where all of them are: something is missing here. */
function summary(error: unknown): SkywaveError {
  const errors = error instanceof AggregateError ? (error.errors as Partial<SkywaveError>[]) : [];
  if (errors.every(({ transient }) => transient === false) && errors[0] instanceof SkywaveError) return errors[0];
  return error instanceof SkywaveError ? error : lost(messageOf(error), error);
}
