/** What both transports share: frames are decoded and told, the end is told once. */
import { DecodeError } from '../encoding.js';
import type { ServerFrame } from '../frames.js';
import type { TransportEvents } from '../transport.js';

export class Receiving {
  #events: TransportEvents | undefined;
  #isOver = false;
  /** What happened before somebody listened. */
  #early: ((events: TransportEvents) => void)[] = [];

  get isOver(): boolean {
    return this.#isOver;
  }

  listen(events: TransportEvents): void {
    this.#events = events;
    for (const tell of this.#early.splice(0)) tell(events);
  }

  /** Tells the frames that `decode` gives. A frame of another name is a later version's, and passed over. */
  frames(decode: () => Iterable<ServerFrame>): void {
    if (this.#isOver) return;
    try {
      // Decoded as they are told: what came before something wrong is right.
      for (const frame of decode()) this.#tell((events) => { events.frame(frame); });
    } catch (error) {
      if (!(error instanceof DecodeError || error instanceof RangeError)) throw error;
      if (error instanceof DecodeError && error.problem === 'unknown') return;
      this.#tell((events) => { events.fault(error.message); });
    }
  }

  /** It is over, unless it was before. */
  end(code: number | undefined, reason: string): void {
    if (this.#isOver) return;
    this.#tell((events) => { events.ended(code, reason); });
    this.#isOver = true;
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#isOver = true;
  }

  #tell(tell: (events: TransportEvents) => void): void {
    if (this.#isOver) return;
    if (this.#events === undefined) this.#early.push(tell);
    else tell(this.#events);
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
