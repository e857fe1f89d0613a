/**
 * The two transports of skywave.v1 in a browser, behind one shape: frames in, frames out, one end.
 *
 * A transport has `kind`, `send(frame)`, `sendDatagram(frame)`, `abandon()` and `close()`, and calls
 * `onframe(frame, lane)` and, once, `onend({code, reason})`. Frames are plain objects; both transports carry them as JSON
 * here. The lane is `socket`, `control`, `stream` or `datagram`.
 */

const SUBPROTOCOL = 'skywave.v1.json';
/** The largest frame that is accepted from a node, in bytes: a `history` of many publications fits. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;
/** How long WebTransport may take alone, before WebSocket is tried as well: UDP is often dropped in silence. */
const HEAD_START_MS = 1500;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** The bytes of `length` as a QUIC varint (RFC 9000, section 16). Up to 2³⁰−1. */
export function encodeVarint(length) {
  if (length < 0x40) return Uint8Array.of(length);
  if (length < 0x4000) return Uint8Array.of(0x40 | (length >> 8), length & 0xff);
  if (length < 0x40000000) {
    return Uint8Array.of(0x80 | (length >> 24), (length >> 16) & 0xff, (length >> 8) & 0xff, length & 0xff);
  }
  throw new RangeError('a frame of more than 2^30-1 bytes');
}

/** The varint at the beginning of `bytes`, `{value, size}`, or `null` when it is incomplete. */
export function decodeVarint(bytes) {
  if (bytes.length === 0) return null;
  const size = 1 << (bytes[0] >> 6);
  if (bytes.length < size) return null;
  let value = bytes[0] & 0x3f;
  for (let index = 1; index < size; index += 1) value = value * 256 + bytes[index];
  return { value, size };
}

/** Takes bytes in pieces of any size, and gives the frames in them. */
export class FrameBuffer {
  #bytes = new Uint8Array(0);

  /** Appends a piece; answers the frames that are complete now, as bytes. Throws `RangeError` for one too large. */
  push(piece) {
    this.#bytes = this.#bytes.length === 0 ? piece : concatenate(this.#bytes, piece);
    const frames = [];
    for (;;) {
      const length = decodeVarint(this.#bytes);
      if (length === null) return frames;
      if (length.value > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${length.value} bytes`);
      const end = length.size + length.value;
      if (this.#bytes.length < end) return frames;
      frames.push(this.#bytes.subarray(length.size, end));
      this.#bytes = this.#bytes.subarray(end);
    }
  }

  /** Whether a frame has begun and is not complete. */
  get isPartial() {
    return this.#bytes.length > 0;
  }
}

function concatenate(first, second) {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

function prefixed(frame) {
  const bytes = encoder.encode(JSON.stringify(frame));
  return concatenate(encodeVarint(bytes.length), bytes);
}

const parse = (bytes) => JSON.parse(decoder.decode(bytes));

/** What both transports share: they end once, and say nothing when they were abandoned. */
class Transport {
  onframe = () => {};
  onend = () => {};
  #isOver = false;

  get isOver() {
    return this.#isOver;
  }

  /** Goes deaf and mute without a goodbye, like a phone in a tunnel: the node has to find out by itself. */
  abandon() {
    this.#isOver = true;
  }

  deliver(frame, lane) {
    if (!this.#isOver) this.onframe(frame, lane);
  }

  end(code, reason) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onend({ code, reason });
  }
}

class WebSocketTransport extends Transport {
  kind = 'websocket';
  #socket;

  constructor(socket) {
    super();
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.end(code, reason);
  }

  send(frame) {
    if (!this.isOver) this.#socket.send(JSON.stringify(frame));
  }

  /** Both lanes share the socket. */
  sendDatagram(frame) {
    this.send(frame);
  }

  close() {
    this.abandon();
    this.#socket.close(1000);
  }

  #receive(data) {
    try {
      if (typeof data === 'string') {
        const value = JSON.parse(data);
        for (const frame of Array.isArray(value) ? value : [value]) this.deliver(frame, 'socket');
      } else {
        for (const bytes of new FrameBuffer().push(new Uint8Array(data))) this.deliver(parse(bytes), 'socket');
      }
    } catch (error) {
      this.#socket.close(1000);
      this.end(0, `the node sent no frame: ${error.message}`);
    }
  }
}

class WebTransportTransport extends Transport {
  kind = 'webtransport';
  #session;
  #control;
  #datagrams;

  constructor(session, control) {
    super();
    this.#session = session;
    this.#control = control.writable.getWriter();
    const { datagrams } = session;
    this.#datagrams = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    session.closed.then(
      ({ closeCode, reason }) => this.end(closeCode, reason),
      (error) => this.end(0, error.message),
    );
    this.#readControl(control.readable);
    this.#readDatagrams(datagrams.readable);
    this.#acceptStreams(session.incomingUnidirectionalStreams);
  }

  send(frame) {
    if (this.isOver) return;
    // A write fails only when the session ends, which `closed` tells.
    this.#control.write(prefixed(frame)).catch(() => {});
  }

  sendDatagram(frame) {
    if (this.isOver) return;
    const bytes = encoder.encode(JSON.stringify(frame));
    if (bytes.length > this.#session.datagrams.maxDatagramSize) {
      this.send(frame);
    } else {
      this.#datagrams.write(bytes).catch(() => {});
    }
  }

  close() {
    this.abandon();
    this.#session.close({ closeCode: 0, reason: '' });
  }

  async #readControl(stream) {
    try {
      await this.#readFrames(stream, 'control');
      // Without the control stream nothing can be asked any more. The close with its code may be about to come.
      await Promise.race([this.#session.closed, pause(1000)]);
      this.end(0, 'the node ended the control stream');
    } catch (error) {
      this.end(0, error.message);
    }
  }

  async #acceptStreams(streams) {
    const reader = streams.getReader();
    try {
      for (;;) {
        const { done, value: stream } = await reader.read();
        if (done) return;
        // Not awaited: a lost packet on one channel must hold up no other.
        this.#readChannel(stream);
      }
    } catch (error) {
      this.end(0, error.message);
    }
  }

  async #readChannel(stream) {
    try {
      await this.#readFrames(stream, 'stream');
    } catch (error) {
      // A stream that is reset belonged to a subscription that is over; anything else is not the protocol.
      if (error instanceof RangeError || error instanceof SyntaxError || error instanceof TypeError) {
        this.#session.close({ closeCode: 0, reason: '' });
        this.end(0, `the node sent no frame: ${error.message}`);
      }
    }
  }

  async #readFrames(stream, lane) {
    const buffer = new FrameBuffer();
    const reader = stream.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const bytes of buffer.push(value)) this.deliver(parse(bytes), lane);
    }
  }

  async #readDatagrams(stream) {
    const reader = stream.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.deliver(parse(value), 'datagram');
      }
    } catch (error) {
      this.end(0, error.message);
    }
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Opens a WebSocket. Aborting `signal` closes it, open or not. */
async function openWebSocket({ websocket: url }, signal) {
  signal.throwIfAborted();
  if (!url) throw new Error('the node has no plain WebSocket listener');
  const socket = new WebSocket(url, SUBPROTOCOL);
  socket.binaryType = 'arraybuffer';
  return await new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => {
      socket.close();
      reject(signal.reason);
    });
    socket.onopen = () => resolve(new WebSocketTransport(socket));
    socket.onclose = ({ code }) => reject(new Error(`no WebSocket to the node (${code})`));
  });
}

/** Opens a WebTransport session and its control stream. Aborting `signal` closes it, open or not. */
async function openWebTransport({ webtransport: url, certificate_sha256: sha256 }, signal) {
  if (!url) throw new Error('the node has no public listener');
  if (typeof WebTransport === 'undefined') throw new Error('this browser has no WebTransport');
  const session = new WebTransport(`${url}?encoding=json`, {
    serverCertificateHashes: sha256 ? [{ algorithm: 'sha-256', value: fromHex(sha256) }] : [],
  });
  // What `ready` rejects with says it all; `closed` would be reported as unhandled.
  session.closed.catch(() => {});
  signal.addEventListener('abort', () => session.close());
  try {
    await session.ready;
    const control = await session.createBidirectionalStream();
    signal.throwIfAborted();
    return new WebTransportTransport(session, control);
  } catch (error) {
    signal.throwIfAborted();
    throw new Error(`no WebTransport to the node (${error.message})`, { cause: error });
  }
}

function fromHex(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

const openers = { websocket: openWebSocket, webtransport: openWebTransport };

/**
 * Opens the transport that `preference` names: `webtransport`, `websocket`, or `auto`, for which WebTransport races
 * WebSocket after a head start. Rejects when none opens, or `signal` aborts.
 */
export async function openTransport(preference, endpoints, signal) {
  if (preference !== 'auto') return await openers[preference](endpoints, signal);
  const losing = { webtransport: new AbortController(), websocket: new AbortController() };
  const within = (kind) => AbortSignal.any([signal, losing[kind].signal]);
  const first = openWebTransport(endpoints, within('webtransport'));
  const failed = new Promise((resolve) => first.catch(resolve));
  const second = Promise.race([failed, pause(HEAD_START_MS)]).then(() =>
    openWebSocket(endpoints, within('websocket')),
  );
  try {
    const winner = await Promise.any([first, second]);
    losing[winner.kind === 'websocket' ? 'webtransport' : 'websocket'].abort();
    return winner;
  } catch (error) {
    throw new Error(error.errors.map(({ message }) => message).join('; '), { cause: error });
  }
}
