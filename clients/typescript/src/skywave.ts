/** The whole client: both transports raced, nodes and regions learned, the page followed, an outbox. */
import { onAbort } from './abort.js';
import { type Address, type NodeUrl, parseAddress } from './address.js';
import { type ClientEvents, type CoreOptions, SkywaveCore } from './client.js';
import { Courier, type Delivered } from './courier.js';
import { dial, transportOpener } from './dialer.js';
import { Emitter, type Listener, type ListenOptions } from './emitter.js';
import { json } from './encoding.js';
import type { Network } from './frames.js';
import type { Outbox } from './outbox.js';
import { followPage, networkOf } from './page_life.js';
import type { Parts } from './parts.js';
import { checkText } from './payload.js';
import { reasonToAvoidWebTransport } from './quirks.js';
import type { MemoryStorage } from './race_memory.js';
import { networkChanged, pageFollower } from './session/network.js';
import { Route } from './session/route.js';
import { switchTo } from './session/switching.js';
import type { TransportChoice } from './transport_kind.js';

/** Of certificates, as bytes or in hexadecimal. */
export type CertificateHashes = readonly (string | BufferSource)[];
export type GetCertificateHashes = (request: { readonly signal: AbortSignal }) => CertificateHashes | Promise<CertificateHashes>;

export interface SkywaveOptions extends CoreOptions {
  /** By default WebTransport where it works, WebSocket where it does not. */
  readonly transport?: TransportChoice | undefined;
  /** By how much WebTransport is ahead of WebSocket, in milliseconds; 500. */
  readonly headStartMs?: number | undefined;
  /**
   * The SHA-256 of the certificates that WebTransport trusts, as bytes or in hexadecimal: for development. A function
   * is asked at each attempt to connect, since a node that was restarted may have another certificate.
   */
  readonly serverCertificateHashes?: CertificateHashes | GetCertificateHashes | undefined;
  /** Where publications wait so that they outlive the page; by default they do not. */
  readonly outbox?: Outbox | undefined;
  /** Where it is remembered which transport works on which network; `localStorage` where there is one. */
  readonly storage?: MemoryStorage | undefined;
  /** Whether to follow the page's life and the network's; by default so. */
  readonly followPage?: boolean | undefined;
}

/** What a client with an outbox tells as well. */
export interface SkywaveEvents extends ClientEvents {
  /** What became of a publication that an earlier page left in the outbox. */
  delivered: Delivered;
}

/** A session with a node, kept up over breaks, transports, nodes and regions. */
export class Skywave extends SkywaveCore {
  readonly #delivered = new Emitter<Pick<SkywaveEvents, 'delivered'>>();
  readonly #closing = new AbortController();

  /** @throws TypeError for what is no address of a node. */
  constructor(url: NodeUrl | readonly NodeUrl[], options: SkywaveOptions = {}) {
    const { transport = 'auto', headStartMs = 500, storage = localStorageIfAny() } = options;
    super(url, options, parts(options, transport), { transport, headStartMs, storage });
    const { signal } = this.#closing;
    if (options.outbox !== undefined) {
      const delivered = (one: Delivered): void => {
        this.#delivered.emit('delivered', one);
      };
      const courier = new Courier(options.outbox, this.asking, options.publishQueue ?? 1_024, delivered, signal);
      this.asking.publish = (entry, given) => courier.publish(entry, given);
    }
    if (options.followPage !== false) onAbort(signal, followPage(pageFollower(this.session)));
  }

  override on<Name extends keyof SkywaveEvents>(
    name: Name,
    listener: Listener<SkywaveEvents[Name]>,
    options?: ListenOptions,
  ): () => void {
    return name === 'delivered'
      ? this.#delivered.on(name, listener as Listener<Delivered>, options)
      : super.on(name, listener as Listener<ClientEvents[keyof ClientEvents]>, options);
  }

  /**
   * Tells what is known of the network, where the page does not: in React Native.
   *
   * @throws RequestError for a `kind` of more than 32 bytes.
   */
  setNetwork(network: Network): void {
    checkText(network.kind, 32);
    networkChanged(this.session, network, network.kind !== this.session.network.kind);
  }

  /**
   * Moves to another transport, make before break. It is the choice until the next one; `auto` leaves it to the client.
   * Where the move fails, or `signal` aborts, the present transport and the choice before go on. It fails with a
   * transient error at once where there is no connection, or another one is being opened already, as beside one that is
   * silent.
   */
  switchTransport(choice: TransportChoice, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    return this.asking.promise<undefined>(signal, (resolve, reject) =>
      switchTo(this.session, choice, (error) => {
        if (error === undefined) resolve(undefined);
        else reject(error);
      }),
    );
  }

  override close(): void {
    super.close();
    this.#closing.abort();
  }
}

function parts(options: SkywaveOptions, transport: TransportChoice): Parts {
  const { encoding = json, serverCertificateHashes = [] } = options;
  const runtime = globalThis as Partial<Pick<typeof globalThis, 'WebTransport' | 'navigator'>>;
  const isAvoided = transport === 'auto' && reasonToAvoidWebTransport(runtime.navigator?.userAgent ?? '') !== undefined;
  const webTransport = isAvoided ? undefined : runtime.WebTransport;
  const open = transportOpener({
    encoding,
    webSocket: options.WebSocket,
    webTransport,
    async serverCertificateHashes(signal) {
      const hashes = typeof serverCertificateHashes === 'function' ? await serverCertificateHashes({ signal }) : serverCertificateHashes;
      return hashes.map((hash) => ({ algorithm: 'sha-256', value: toBytes(hash) }));
    },
  });
  const address = (url: NodeUrl): Address => {
    const parsed = parseAddress(url);
    // Without WebTransport where there is none.
    return webTransport === undefined && parsed.websocket !== undefined ? { ...parsed, webtransport: undefined } : parsed;
  };
  const parse = (url: string): Address | undefined => {
    try {
      return address(url);
    } catch {
      // A node told an address that this client does not understand.
      return undefined;
    }
  };
  const network = (): Network => (options.followPage === false ? {} : networkOf());
  return {
    address,
    dial: (request, signal) => dial(request, open, signal),
    route: (route, now) => new Route(route, { now, parse, network: () => network().kind ?? '' }),
    network,
  };
}

function toBytes(hash: string | BufferSource): BufferSource {
  return typeof hash === 'string' ? Uint8Array.from(hash.match(/../g) ?? [], (pair) => parseInt(pair, 16)) : hash;
}

/** A page that may not keep anything has none, and says so by an exception. */
function localStorageIfAny(): MemoryStorage | undefined {
  try {
    // Node warns of it where it has no file to keep it in.
    return typeof document === 'undefined' ? undefined : localStorage;
  } catch {
    return undefined;
  }
}
