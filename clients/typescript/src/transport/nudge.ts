/**
 * A packet on a silent UDP path: a NAT that has forgotten the path learns it again, and the node's next probe comes
 * through.
 */
import type { ServerFrames } from '../frames.js';

const LEAST_PATIENCE_MS = 1_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Nudge {
  readonly #send: (seq: number) => void;
  #ping: ServerFrames['ping'] | undefined;
  #heardAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `send` sends the `pong` that nobody asked for, once in each silence. */
  constructor(send: (seq: number) => void) {
    this.#send = send;
  }

  /** Something came: perhaps a `ping`, which says when to expect something. */
  heard(ping?: ServerFrames['ping']): void {
    this.#ping = ping ?? this.#ping;
    this.#heardAt = performance.now();
    this.#timer ??= this.#wait(0);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#ping = undefined;
  }

  /** Half of the time-out before the connection counts as dead. */
  #wait(silentMs: number): ReturnType<typeof setTimeout> | undefined {
    const ping = this.#ping;
    if (ping === undefined) return undefined;
    const patienceMs = Math.min(Math.max(ping.interval_ms + ping.timeout_ms / 2, LEAST_PATIENCE_MS), LONGEST_TIMER_MS);
    return setTimeout(() => {
      const silent = performance.now() - this.#heardAt;
      const isSilent = silent >= patienceMs;
      if (isSilent) this.#send(ping.seq);
      this.#timer = isSilent ? undefined : this.#wait(silent);
    }, patienceMs - silentMs);
  }
}
