/** The parts of a client that can be had smaller or larger: transports, routes, the page. */
import type { Address, NodeUrl } from './address.js';
import type { Network } from './frames.js';
import type { DialRequest } from './session/opening.js';
import type { RouteOptions } from './session/route.js';
import type { Router } from './session/router.js';
import type { Transport } from './transport.js';

/** A handshake that completed. */
export interface Dialled {
  /** Of the target. */
  readonly index: number;
  readonly value: Transport;
  /** How long it took. */
  readonly tookMs: number;
  /** The targets that failed before. */
  readonly failed: readonly number[];
}

export interface Parts {
  /** @throws TypeError for what is no address of a node. */
  address(url: NodeUrl): Address;
  /** Opens a transport to one of the targets. Rejects with a `SkywaveError`. */
  dial(request: DialRequest, signal: AbortSignal): Promise<Dialled>;
  route(options: RouteOptions, now: () => number): Router;
  /** What is known of the network now. */
  network(): Network;
}
