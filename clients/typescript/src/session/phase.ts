/** How far a connection is with one channel, and which of the channel's frames belong to its present subscription. */
import type { ServerFrame } from '../frames.js';
import { UNNAMED } from '../transport.js';

/** The most frames that wait for `connected`, or of one channel for its `subscribed`. */
const MAX_HELD = 8_192;
/** What asked for a channel when it was `connect`: its answer has no id, and no request has this one. */
export const BY_CONNECT = 0;

/** A frame that waits, and the stream that brought it. */
export interface Held {
  readonly frame: ServerFrame;
  readonly stream: number | undefined;
}

export class Phase {
  /** The request whose `subscribed` is awaited, or has come; none while the channel is only being left. */
  asked: number | undefined;
  /** The last `unsubscribe` that is not answered: until then the old subscription's frames may come. */
  leaving: number | undefined;
  isJoined = false;
  held: Held[] = [];
  #subscription: number | undefined;
  /** Subscriptions up to this number are over. */
  #past = -1;

  /** Asks anew. Subscriptions up to the number `past` are older ones. */
  ask(request: number, past: number): void {
    this.end(past);
    this.asked = request;
  }

  leave(request: number): void {
    this.end();
    this.leaving = request;
  }

  /** Whatever comes of the present subscription from now on is dropped. */
  end(past = -1): void {
    this.#past = Math.max(this.#past, past, this.#subscription ?? -1);
    this.asked = this.#subscription = undefined;
    this.isJoined = false;
    this.held = [];
  }

  /** A `subscribed` came. Answers whether it is the one that is awaited. */
  confirm(request: number, subscription = -1): boolean {
    if (request !== this.asked || this.isJoined) {
      this.#past = Math.max(this.#past, subscription);
      return false;
    }
    this.isJoined = true;
    this.leaving = undefined;
    this.#subscription = subscription < 0 ? undefined : subscription;
    return true;
  }

  /** Whether a frame of the channel is the present subscription's, by where it came from. */
  isOwn(stream: number | undefined): boolean {
    if (this.asked === undefined) return false;
    // Order says whose it is: before `unsubscribed` it is the old subscription's.
    if (stream === undefined) return this.leaving === undefined;
    if (stream === UNNAMED) return true;
    return this.isJoined ? stream === (this.#subscription ?? stream) : stream > this.#past;
  }
}

/** Holds a frame; answers whether there was room for it. Events may be lost: they leave half of it to the others. */
export function hold(held: Held[], frame: ServerFrame, stream: number | undefined): boolean {
  return (frame[0] === 'event' && held.length >= MAX_HELD / 2) || held.push({ frame, stream }) <= MAX_HELD;
}
