/** Where publications wait so that they outlive the page: `skywave/outbox` has one in IndexedDB. */
import type { Payload } from './frames.js';

/** A publication that has not been answered. */
export interface OutboxEntry {
  readonly channel: string;
  /** Its idempotency key, by which it is known here and to the nodes. */
  readonly key: string;
  readonly data: Payload;
  /** Since when it may have been sent, in milliseconds since 1970; absent: it has not been. */
  readonly sentAtMs?: number | undefined;
}

/** A store of publications. What fails there is told to whoever publishes. */
export interface Outbox {
  /**
   * All entries that are for this client to publish, oldest first. `left` may be called later, with what other clients
   * leave when they end. `signal` aborts when this one is closed: it takes nothing any more, and what it leaves is for
   * others.
   */
  load(left: (entries: readonly OutboxEntry[]) => void, signal?: AbortSignal): Promise<readonly OutboxEntry[]>;
  /**
   * Adds an entry, or takes note of when one with the same key was sent. `signal` is that of the client's `load`: by it
   * clients are told apart that share an outbox.
   */
  add(entry: OutboxEntry, signal?: AbortSignal): Promise<void>;
  remove(key: string): Promise<void>;
}
