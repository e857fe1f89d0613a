/** What both transports share: frames are decoded and told, the end is told once. */
import { DecodeError } from '../encoding.js';
import { messageOf, report } from '../errors.js';
import type { ServerFrame } from '../frames.js';
import type { TransportEvents } from '../transport.js';

export class Receiving {
  isOver = false;
  #events: TransportEvents | undefined;

  listen(events: TransportEvents): void {
    this.#events = events;
  }

  /** Tells the frames that `decode` gives, and which stream they came on. Answers whose stream it is from here on. */
  frames(decode: () => Iterable<ServerFrame>, stream?: number): number | undefined {
    try {
      // Decoded as they are told: what came before something wrong is right. Whoever is told may end it all.
      for (const frame of this.isOver ? [] : decode()) {
        if (this.isOver) break;
        if (frame[0] !== 'stream') this.#events?.frame(frame, stream);
        else if (stream !== undefined) stream = frame[1].subscription;
      }
    } catch (error) {
      // Not the node's fault, but a bug: to be seen. What it left undone comes again over the next connection.
      if (!(error instanceof DecodeError || error instanceof RangeError)) report(error);
      this.#events?.fault(messageOf(error));
    }
    return stream;
  }

  /** It is over, unless it was before. */
  end(code: number | undefined, reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#events?.ended(code, reason);
  }

  /** Nothing is told any more. */
  stop(): void {
    this.isOver = true;
  }
}
