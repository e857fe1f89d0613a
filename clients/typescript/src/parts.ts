/** The parts of a client that can be had smaller or larger: transports, routes, the page. */
import type { Address, NodeUrl } from './address.js';
import type { Network } from './frames.js';
import type { Dialled, DialRequest } from './session/opening.js';
import type { RouteOptions } from './session/route.js';
import type { Router } from './session/router.js';

export interface Parts {
  /** @throws TypeError for what is no address of a node. */
  address(url: NodeUrl): Address;
  /** Opens a transport to one of the targets. Rejects with a `SkywaveError`. */
  dial(request: DialRequest, signal: AbortSignal): Promise<Dialled>;
  route(options: RouteOptions, now: () => number): Router;
  /** What is known of the network now. */
  network(): Network;
}
