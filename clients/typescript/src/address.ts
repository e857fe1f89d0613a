/** The address of a node: where each transport connects. */

/**
 * Where a node is reached. `https://` is WebTransport and WebSocket over TLS on the same port, `wss://` WebSocket
 * alone, `ws://` and `http://` the same without TLS; without a path it is `/v1/connect`. The two apart are for a
 * node whose WebSocket is behind something else, as in development.
 */
export type NodeUrl = string | { readonly webtransport?: string; readonly websocket?: string };

/** A node's address, taken apart. */
export interface Address {
  /** Equal for equal addresses. */
  readonly key: string;
  readonly webtransport: string | undefined;
  readonly websocket: string | undefined;
  /** Whether nothing of it is without TLS. */
  readonly isSecure: boolean;
}

const PATH = '/v1/connect';

/** @throws TypeError for what is no address of a node. */
export function parseAddress(url: NodeUrl): Address {
  const webtransport = typeof url === 'string' ? url : url.webtransport;
  const websocket = typeof url === 'string' ? url : url.websocket;
  const first = webtransport === undefined ? undefined : endpoint(webtransport);
  const second = websocket === undefined ? undefined : endpoint(websocket);
  const address = {
    webtransport: first?.protocol === 'https:' ? first.href : undefined,
    websocket: second?.href.replace(/^http/, 'ws'),
  };
  if (address.webtransport === undefined && address.websocket === undefined) {
    throw new TypeError('the address names no transport');
  }
  const isSecure = !address.websocket?.startsWith('ws:');
  return { ...address, isSecure, key: `${address.webtransport ?? ''} ${address.websocket ?? ''}`.trim() };
}

function endpoint(text: string): URL {
  const url = new URL(text);
  if (!/^(https?|wss?):$/.test(url.protocol)) throw new TypeError(`\`${url.protocol}\` is no scheme of a node`);
  if (url.pathname === '/') url.pathname = PATH;
  return url;
}
