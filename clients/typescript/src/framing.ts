/** Frames in streams and binary messages: each has its length before it, a QUIC varint (RFC 9000, section 16). */

/**
 * The largest frame that is taken from a node, in bytes: twice the largest that any node takes. Base64 makes payloads
 * larger, and a `publication` says more than its `publish`.
 */
export const MAX_FRAME_BYTES = 32 * 1024 * 1024;

const MAX_LENGTH = 2 ** 30 - 1;

/** A frame with its length before it, in the shortest form. */
export function prefixed(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const length = frame.length;
  const size = length < 0x40 ? 1 : length < 0x4000 ? 2 : 4;
  if (length > MAX_LENGTH) throw new RangeError(`a frame of ${length} bytes`);
  const bytes = new Uint8Array(size + length);
  const view = new DataView(bytes.buffer);
  if (size === 1) view.setUint8(0, length);
  else if (size === 2) view.setUint16(0, 0x4000 | length);
  else view.setUint32(0, 0x80000000 + length);
  bytes.set(frame, size);
  return bytes;
}

/** The length at the beginning of `bytes` and how many bytes it takes, or `undefined` when it is incomplete. */
export function readVarint(bytes: Uint8Array): { value: number; size: number } | undefined {
  const first = bytes[0];
  if (first === undefined) return undefined;
  const size = 1 << (first >> 6);
  if (bytes.length < size) return undefined;
  let value = first & 0x3f;
  for (const byte of bytes.subarray(1, size)) value = value * 256 + byte;
  return { value, size };
}

/** Takes bytes in pieces of any size, and gives the frames in them. */
export class FrameBuffer {
  readonly #maximum: number;
  /** What has come and is no whole frame yet; joined only once it is enough. */
  #pieces: Uint8Array[] = [];
  #length = 0;
  /** How many bytes the next frame needs with its prefix, as far as that is known. */
  #needed = 1;

  /** `maximum`: the largest frame in bytes. */
  constructor(maximum = MAX_FRAME_BYTES) {
    this.#maximum = maximum;
  }

  /** Whether a frame has begun and is not complete. */
  get isPartial(): boolean {
    return this.#length > 0;
  }

  /**
   * Takes a piece and gives the frames that are complete now.
   *
   * @throws RangeError when a frame announces itself larger than the maximum; those before it have been given.
   */
  *push(piece: Uint8Array): Generator<Uint8Array, void, undefined> {
    this.#pieces.push(piece);
    this.#length += piece.length;
    while (this.#length >= this.#needed) {
      const bytes = this.#join();
      const prefix = readVarint(bytes);
      if (prefix === undefined) {
        this.#needed = 1 << ((bytes[0] ?? 0) >> 6);
        continue;
      }
      if (prefix.value > this.#maximum) throw new RangeError(`a frame of ${prefix.value} bytes`);
      this.#needed = prefix.size + prefix.value;
      if (bytes.length < this.#needed) return;
      const frame = bytes.subarray(prefix.size, this.#needed);
      this.#keep(bytes.subarray(this.#needed));
      yield frame;
    }
  }

  #join(): Uint8Array {
    const only = this.#pieces[0];
    if (only !== undefined && this.#pieces.length === 1) return only;
    const joined = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      joined.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [joined];
    return joined;
  }

  #keep(rest: Uint8Array): void {
    this.#pieces = [rest];
    this.#length = rest.length;
    this.#needed = 1;
  }
}

/**
 * The frames of a binary message, which holds whole ones.
 *
 * @throws RangeError when it ends within a frame, or a frame is too large.
 */
export function splitFrames(message: Uint8Array): Uint8Array[] {
  const buffer = new FrameBuffer();
  const frames = [...buffer.push(message)];
  if (buffer.isPartial) throw new RangeError('a message that ends within a frame');
  return frames;
}
