/** Publishes that a tab has handed to a hub: since when each may have been sent to a node, for the next hub to know. */
import type { ClientFrames } from '../frames.js';

type Publish = ClientFrames['publish'];

export class Handed {
  /** Since when; `undefined`: by no hub so far. */
  readonly #since = new Map<string, number | undefined>();

  /** Hands one on. Answers since when it may have been sent by an earlier hub. */
  hand(publish: Publish, isUp: boolean, now: number): number | undefined {
    const before = this.#since.get(nameOf(publish));
    this.#since.set(nameOf(publish), before ?? (isUp ? now : undefined));
    return before;
  }

  /** The hub has a connection: what it was handed goes out. */
  sent(now: number): void {
    for (const [name, since] of this.#since) this.#since.set(name, since ?? now);
  }

  answered(publish: Publish): void {
    this.#since.delete(nameOf(publish));
  }

  /** Nobody waits for any of them. */
  clear(): void {
    this.#since.clear();
  }
}

function nameOf({ channel, key = '' }: Publish): string {
  return `${key} ${channel}`;
}
