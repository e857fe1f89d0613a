/** WebSocket as a transport: one socket for all frames. */
import { onAbort } from '../abort.js';
import type { Encoding } from '../encoding.js';
import { lost, requestError } from '../errors.js';
import type { ClientFrame } from '../frames.js';
import { byteLength } from '../text.js';
import type { Lane, Transport, TransportEvents } from '../transport.js';
import { Receiving } from './receiving.js';

/** As much of a WebSocket as is needed: a browser's, Node's, or that of the package `ws`. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** With so many bytes unsent, events are better dropped. */
const CONGESTED_BYTES = 256 * 1024;

class WebSocketTransport implements Transport {
  readonly kind = 'websocket';
  readonly #socket: WebSocketLike;
  readonly #encoding: Encoding;
  readonly #receiving = new Receiving();

  constructor(socket: WebSocketLike, encoding: Encoding) {
    this.#socket = socket;
    this.#encoding = encoding;
  }

  listen(events: TransportEvents): void {
    this.#receiving.listen(events);
    this.#socket.onmessage = ({ data }: { data: unknown }) => {
      const message = typeof data === 'string' ? data : new Uint8Array(data as ArrayBuffer);
      this.#receiving.frames(() => this.#encoding.fromMessage(message));
    };
    this.#socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      this.#receiving.end(code, reason || closed(code));
    };
    this.#socket.onerror = () => {
      // The close that follows says more. Not every WebSocket tells one.
      setTimeout(() => {
        this.#receiving.end(undefined, FAILED);
      });
    };
  }

  send(frame: ClientFrame, _lane: Lane, maxBytes: number): boolean {
    const encoded = this.#encoding.encode(frame);
    const length = typeof encoded === 'string' ? byteLength(encoded) : encoded.length;
    if (length > maxBytes) return false;
    // A socket that is over tells so by itself.
    if (!this.#receiving.isOver) this.#socket.send(this.#encoding.toMessage(encoded));
    return true;
  }

  get isCongested(): boolean {
    return this.#socket.bufferedAmount > CONGESTED_BYTES;
  }

  close(): void {
    this.#receiving.stop();
    this.#socket.close(1000);
  }
}

const FAILED = 'the WebSocket failed';

function closed(code: number): string {
  return `the WebSocket closed (${code})`;
}

/**
 * Opens a WebSocket, by default the runtime's. Aborting `signal` closes it while it opens. Rejects with a
 * `SkywaveError`, which is transient unless there is no WebSocket here.
 */
export function openWebSocket(
  url: string,
  encoding: Encoding,
  given: WebSocketConstructor | undefined,
  signal: AbortSignal,
): Promise<Transport> {
  return new Promise((resolve, reject) => {
    const constructor = given ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    if (constructor === undefined) {
      throw requestError('bad_request', 'no WebSocket here: the option `WebSocket` takes `ws`');
    }
    const socket = new constructor(url, [`skywave.v1.${encoding.name}`]);
    socket.binaryType = 'arraybuffer';
    const failed = (problem: string): void => {
      forget();
      reject(lost(problem));
    };
    const forget = onAbort(signal, () => {
      socket.close();
      failed('given up');
    });
    socket.onopen = () => {
      forget();
      resolve(new WebSocketTransport(socket, encoding));
    };
    // Nothing else comes from Node's own; others tell a close as well.
    socket.onerror = () => {
      failed(FAILED);
    };
    socket.onclose = ({ code }: { code: number }) => {
      failed(closed(code));
    };
  });
}
