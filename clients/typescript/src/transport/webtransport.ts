/** WebTransport as a transport: a control stream, the node's streams, datagrams. */
import { onAbort } from '../abort.js';
import { type Carrier, decoded, type Encoding } from '../encoding.js';
import { lost, messageOf } from '../errors.js';
import type { ClientFrame, ServerFrame } from '../frames.js';
import { FrameBuffer, prefixed } from '../framing.js';
import { datagramWritable } from '../quirks.js';
import { toUtf8 } from '../text.js';
import { type Lane, type Transport, type TransportEvents, UNNAMED } from '../transport.js';
import { Nudge } from './nudge.js';
import { Receiving } from './receiving.js';

/** With so many bytes unsent, events are better dropped. */
const CONGESTED_BYTES = 256 * 1024;
/** After the control stream has ended, how long the close with its code may take to come. */
const CODE_TIMEOUT_MS = 1_000;

type Reader = ReadableStreamDefaultReader<Uint8Array>;
type Writer = WritableStreamDefaultWriter<Uint8Array>;

class WebTransportTransport implements Transport {
  readonly kind = 'webtransport';
  readonly #session: WebTransport;
  readonly #encoding: Encoding;
  readonly #control: Writer;
  readonly #readable: ReadableStream<Uint8Array>;
  readonly #datagrams: Writer | undefined;
  readonly #receiving = new Receiving();
  readonly #nudge = new Nudge((seq) => this.send(['pong', { seq }], 'datagram', Infinity));
  #unsentBytes = 0;

  constructor(session: WebTransport, control: WebTransportBidirectionalStream, encoding: Encoding) {
    this.#session = session;
    this.#encoding = encoding;
    this.#control = (control.writable as WritableStream<Uint8Array>).getWriter();
    this.#datagrams = datagramWritable(session.datagrams)?.getWriter();
    this.#readable = control.readable as ReadableStream<Uint8Array>;
  }

  listen(events: TransportEvents): void {
    this.#receiving.listen({
      ...events,
      frame: (frame, stream) => {
        this.#nudge.heard(frame[0] === 'ping' ? frame[1] : undefined);
        events.frame(frame, stream);
      },
    });
    const ended = (code: number | undefined, reason = ''): void => {
      this.#nudge.stop();
      this.#receiving.end(code, reason);
    };
    this.#session.closed.then(
      ({ closeCode, reason }) => {
        ended(closeCode, reason);
      },
      (error: unknown) => {
        ended(undefined, messageOf(error));
      },
    );
    void this.#readControl(reader(this.#readable));
    void this.#readDatagrams(reader(this.#session.datagrams.readable));
    void this.#acceptStreams();
  }

  send(frame: ClientFrame, lane: Lane, maxBytes: number): boolean {
    const encoded = this.#encoding.encode(frame, lane === 'datagram' ? lane : 'control');
    const bytes = typeof encoded === 'string' ? toUtf8(encoded) : encoded;
    if (bytes.length > maxBytes) return false;
    if (this.#receiving.isOver) return true;
    const fits = bytes.length <= this.#session.datagrams.maxDatagramSize;
    if (lane === 'datagram' && fits && this.#datagrams !== undefined) this.#write(this.#datagrams, bytes);
    else this.#write(this.#control, prefixed(bytes));
    return true;
  }

  #write(writer: Writer, bytes: Uint8Array): void {
    this.#unsentBytes += bytes.length;
    const written = (): void => {
      this.#unsentBytes -= bytes.length;
    };
    // A write fails only when the session ends, which `closed` tells.
    writer.write(bytes).then(written, written);
  }

  get isCongested(): boolean {
    return this.#unsentBytes > CONGESTED_BYTES;
  }

  close(): void {
    this.#receiving.stop();
    this.#nudge.stop();
    this.#session.close({ closeCode: 0, reason: '' });
  }

  async #readControl(stream: Reader): Promise<void> {
    await this.#readFrames(stream, 'control');
    // Without it nothing can be asked any more. The close with its code may be about to come.
    setTimeout(() => {
      this.#receiving.end(undefined, 'the control stream has ended');
    }, CODE_TIMEOUT_MS);
  }

  async #acceptStreams(): Promise<void> {
    const streams = this.#session.incomingUnidirectionalStreams as ReadableStream<ReadableStream<Uint8Array>>;
    const accepting = streams.getReader();
    try {
      for (;;) {
        const { done, value } = await accepting.read();
        if (done) return;
        // Not awaited: a lost packet on one channel must hold up no other.
        void this.#readFrames(reader(value), 'stream');
      }
    } catch {
      // The session is over, which `closed` tells.
    }
  }

  /** Reads a stream to its end. One that is reset belonged to a subscription that is over. */
  async #readFrames(stream: Reader, carrier: Carrier): Promise<void> {
    const buffer = new FrameBuffer();
    const encoding = this.#encoding;
    let subscription = carrier === 'stream' ? UNNAMED : undefined;
    try {
      for (;;) {
        const { done, value } = await stream.read();
        if (done) return;
        const frames = (): Iterable<ServerFrame> => decoded(buffer.push(value), (frame) => encoding.decode(frame, carrier));
        subscription = this.#receiving.frames(frames, subscription);
      }
    } catch {
      // Reset, or the session is over, which `closed` tells.
    }
  }

  async #readDatagrams(stream: Reader): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await stream.read();
        if (done) return;
        this.#receiving.frames(() => decoded([value], (frame) => this.#encoding.decode(frame, 'datagram')));
      }
    } catch {
      // The session is over, which `closed` tells.
    }
  }
}

function reader(stream: ReadableStream): Reader {
  return (stream as ReadableStream<Uint8Array>).getReader();
}

export type WebTransportConstructor = new (url: string, options?: WebTransportOptions) => WebTransport;

/** Opens a WebTransport session and its control stream. Aborting `signal` closes it while it opens. */
export async function openWebTransport(
  url: string,
  encoding: Encoding,
  constructor: WebTransportConstructor,
  serverCertificateHashes: WebTransportHash[],
  signal: AbortSignal,
): Promise<Transport> {
  const address = new URL(url);
  if (encoding.name === 'json') address.searchParams.set('encoding', 'json');
  const session = new constructor(address.href, { serverCertificateHashes });
  // What `ready` rejects with says it all; this one would be reported as unhandled.
  session.closed.catch(() => undefined);
  const forget = onAbort(signal, () => {
    session.close();
  });
  try {
    await session.ready;
    const control = await session.createBidirectionalStream();
    if (signal.aborted) throw lost('given up');
    return new WebTransportTransport(session, control, encoding);
  } catch (error) {
    throw lost(`no WebTransport: ${messageOf(error)}`, error);
  } finally {
    forget();
  }
}
