/** The address of a node: where each transport connects. */

/**
 * Where a node is reached. `https://` is WebTransport and WebSocket over TLS on the same port, `wss://` WebSocket
 * alone, `ws://` and `http://` the same without TLS. A path is what a reverse proxy has nodes under: sessions are at
 * `/v1/connect` below it, which may be said or left out. The two apart are for a node whose WebSocket is behind
 * something else, as in development.
 */
export type NodeUrl = string | { readonly webtransport?: string; readonly websocket?: string };

/** A node's address, taken apart. */
export interface Address {
  /** Equal for equal addresses. */
  readonly key: string;
  readonly webtransport?: string | undefined;
  readonly websocket: string | undefined;
  /** Whether nothing of it is without TLS. */
  readonly isSecure: boolean;
}

/** Where sessions are, below whatever path an address has. */
const PATH = '/v1/connect';

/** @throws TypeError for what is no address of a node. */
export function parseAddress(url: NodeUrl): Address {
  // Plain JavaScript may give anything, an unset variable above all.
  const { webtransport, websocket } = typeof url === 'string' ? { webtransport: url, websocket: url } : ((url as typeof url | null | undefined) ?? {});
  const first = webtransport === undefined ? undefined : endpoint(webtransport);
  const second = websocket === undefined ? undefined : endpoint(websocket);
  const address = {
    webtransport: first?.protocol === 'https:' ? first.href : undefined,
    websocket: second?.href.replace(/^http/, 'ws'),
  };
  if (address.webtransport === undefined && address.websocket === undefined) {
    throw noAddress(typeof url === 'object' ? JSON.stringify(url) : url);
  }
  const isSecure = !address.websocket?.startsWith('ws:');
  return { ...address, isSecure, key: `${address.webtransport ?? ''} ${address.websocket ?? ''}`.trim() };
}

/**
 * Where sessions are at an address.
 *
 * @throws TypeError for what is no address of a node.
 */
export function endpoint(address: string | undefined): URL {
  let url: URL;
  try {
    url = new URL(String(address));
  } catch {
    throw noAddress(address);
  }
  if (!/^(https?|wss?):$/.test(url.protocol)) throw noAddress(address);
  url.pathname = url.pathname.replace(/(\/v1\/connect)?\/*$/, PATH);
  // Sent to nobody, and WebTransport refuses it.
  url.hash = '';
  return url;
}

function noAddress(given: unknown): TypeError {
  return new TypeError(`\`${String(given)}\` is no address like https://example.com`);
}
