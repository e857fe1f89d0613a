/** A WebSocket that is none, and says what it is made to say. */
import type { WebSocketLike } from '../../src/transport/websocket.js';

export abstract class SilentWebSocket implements WebSocketLike {
  binaryType = 'blob';
  bufferedAmount = 0;
  onopen: WebSocketLike['onopen'] = null;
  onmessage: WebSocketLike['onmessage'] = null;
  onclose: WebSocketLike['onclose'] = null;
  onerror: WebSocketLike['onerror'] = null;

  abstract send(data: string | Uint8Array): void;

  abstract close(code?: number): void;

  fire(name: 'onopen' | 'onmessage' | 'onclose' | 'onerror', event: unknown): void {
    (this[name] as ((event: unknown) => void) | null)?.(event);
  }
}
