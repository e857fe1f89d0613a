/** What both transports share: frames are decoded and told, the end is told once. */
import { DecodeError } from '../encoding.js';
import type { ServerFrame } from '../frames.js';
import type { TransportEvents } from '../transport.js';

export class Receiving {
  #events: TransportEvents | undefined;
  #isOver = false;

  get isOver(): boolean {
    return this.#isOver;
  }

  listen(events: TransportEvents): void {
    this.#events = events;
  }

  /** Tells the frames that `decode` gives. A frame of another name is a later version's, and passed over. */
  frames(decode: () => Iterable<ServerFrame>): void {
    if (this.#isOver) return;
    try {
      // Decoded as they are told: what came before something wrong is right. Whoever is told may end it all.
      for (const frame of decode()) if (!this.isOver) this.#events?.frame(frame);
    } catch (error) {
      if (!(error instanceof DecodeError || error instanceof RangeError)) throw error;
      if (error instanceof DecodeError && error.problem === 'unknown') return;
      this.#events?.fault(error.message);
    }
  }

  /** It is over, unless it was before. */
  end(code: number | undefined, reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#events?.ended(code, reason);
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#isOver = true;
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
