/** Brings publications through an outbox to the session: stored before they are sent, removed when they are settled. */
import type { SkywaveError } from './errors.js';
import type { Published } from './messages.js';
import type { Outbox, OutboxEntry } from './outbox.js';
import type { Outgoing } from './outgoing.js';

/** What became of a publication that an earlier page left in the outbox. */
export interface Delivered extends OutboxEntry {
  readonly published?: Published;
  readonly error?: SkywaveError;
}

export class Courier {
  readonly #outbox: Outbox;
  readonly #outgoing: Outgoing;
  /** All that was left by earlier pages is on its way. */
  readonly #loaded: Promise<void>;

  constructor(outbox: Outbox, outgoing: Outgoing, delivered: (one: Delivered) => void) {
    this.#outbox = outbox;
    this.#outgoing = outgoing;
    this.#loaded = this.#takeUp(delivered);
    // Whoever publishes hears of it.
    this.#loaded.catch(() => undefined);
  }

  /** Sends what earlier pages left, before anything new. */
  async #takeUp(delivered: (one: Delivered) => void): Promise<void> {
    for (const entry of await this.#outbox.load()) {
      this.#send(entry).then(
        (published) => {
          delivered({ ...entry, published });
        },
        (error: unknown) => {
          delivered({ ...entry, error: error as SkywaveError });
        },
      );
    }
  }

  async publish(entry: OutboxEntry, signal?: AbortSignal): Promise<Published> {
    await this.#loaded;
    await this.#outbox.add(entry);
    return this.#send(entry, signal);
  }

  /** Publishes what is in the outbox, and takes it out once it is settled. */
  async #send(entry: OutboxEntry, signal?: AbortSignal): Promise<Published> {
    const removed = (): Promise<void> => this.#outbox.remove(entry.key);
    const remove = (): void => {
      // What stays in the store is only sent once more, to no effect.
      removed().catch(() => undefined);
    };
    try {
      const published = await this.#outgoing.send(entry, signal, remove);
      await removed().catch(() => undefined);
      return published;
    } catch (error) {
      // What may succeed later, and what ended with the session alone, stays for the next page.
      if ((error as Partial<SkywaveError>).transient === false && this.#outgoing.isAlive) remove();
      throw error;
    }
  }
}
