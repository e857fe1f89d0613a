/** By which of its transports a node is reached, and by which it may be. */

/** By what a session's bytes may travel, the best first. Which of them a node has, its address says. */
export const TRANSPORTS: readonly TransportKind[] = ['webtransport', 'websocket'];
export type TransportKind = 'webtransport' | 'websocket';

/** Which transport to use; `auto` is the best one that works: WebTransport, or else WebSocket. */
export type TransportChoice = 'auto' | TransportKind;
