/** What channels ask of the session, as promises: subscriptions, publishes, requests. */
import { requestError, type SkywaveError } from './errors.js';
import type { ClientFrame, Payload, ServerFrame, SubscribeOptions } from './frames.js';
import type { Published } from './messages.js';
import type { Outbox, OutboxEntry } from './outbox.js';
import type { Session } from './session.js';
import type { ChannelReader } from './session/subscription.js';
import type { Traffic } from './session/traffic.js';

export interface AskOptions {
  readonly signal?: AbortSignal | undefined;
  /** Whether doing it twice does no harm. */
  readonly isRepeatable?: boolean;
  readonly timeoutMs?: number | undefined;
}

/** What became of a publication that an earlier page left in the outbox. */
export interface Delivered extends OutboxEntry {
  readonly published?: Published;
  readonly error?: SkywaveError;
}

export class Outgoing {
  readonly #session: Session;
  readonly #outbox: Outbox | undefined;
  /** Before the counter in idempotency keys; unique for this client. */
  readonly #keyPrefix = randomPrefix();
  #keys = 0;
  /** All that was left by earlier pages is on its way. */
  readonly #loaded: Promise<void>;

  constructor(session: Session, outbox: Outbox | undefined, delivered: (one: Delivered) => void) {
    this.#session = session;
    this.#outbox = outbox;
    this.#loaded = outbox === undefined ? Promise.resolve() : this.#takeUp(outbox, delivered);
    // Whoever publishes hears of it.
    this.#loaded.catch(() => undefined);
  }

  get traffic(): Traffic {
    return this.#session.traffic;
  }

  get isClosed(): boolean {
    return this.#session.state === 'closed';
  }

  subscribe(channel: string, options: SubscribeOptions, reader: ChannelReader): void {
    this.traffic.subscribe(channel, options, reader);
    this.#session.settle();
  }

  unsubscribe(channel: string): void {
    this.traffic.unsubscribe(channel);
    this.#session.settle();
  }

  /** The channel's reader has room again. */
  resume(channel: string): void {
    this.traffic.resume(channel);
    this.#session.settle();
  }

  async publish(channel: string, data: Payload, key = this.#nextKey(), signal?: AbortSignal): Promise<Published> {
    signal?.throwIfAborted();
    const outbox = this.#outbox;
    if (outbox === undefined) return this.#publish({ channel, data, key }, signal);
    await this.#loaded;
    await outbox.add({ channel, data, key });
    return this.#stored(outbox, { channel, data, key }, signal);
  }

  #nextKey(): string {
    this.#keys += 1;
    return `${this.#keyPrefix}-${this.#keys}`;
  }

  /** Sends what earlier pages left, before anything new. */
  async #takeUp(outbox: Outbox, delivered: (one: Delivered) => void): Promise<void> {
    for (const entry of await outbox.load()) {
      this.#stored(outbox, entry).then(
        (published) => {
          delivered({ ...entry, published });
        },
        (error: unknown) => {
          delivered({ ...entry, error: error as SkywaveError });
        },
      );
    }
  }

  /** Publishes what is in the outbox, and takes it out once it is settled. */
  async #stored(outbox: Outbox, entry: OutboxEntry, signal?: AbortSignal): Promise<Published> {
    try {
      return await this.#publish(entry, signal, () => outbox.remove(entry.key));
    } catch (error) {
      // What may succeed later, and what ended with the client alone, stays for the next page.
      if (isRefused(error) && !this.isClosed && this.#session.state !== 'disconnected') await outbox.remove(entry.key);
      throw error;
    }
  }

  #publish({ channel, data, key }: OutboxEntry, signal?: AbortSignal, settled?: () => Promise<void>): Promise<Published> {
    if (this.isClosed) return Promise.reject(requestError('unavailable', 'the client is closed'));
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        if (number !== undefined && this.traffic.publishes.withdraw(number)) void settled?.();
        reject(signal?.reason as Error);
      };
      const end = (): void => signal?.removeEventListener('abort', abort);
      signal?.addEventListener('abort', abort, { once: true });
      const number: number | undefined = this.traffic.publish({
        channel,
        data,
        key,
        done: ({ origin, epoch, offset }) => {
          end();
          const published = { origin, epoch, offset };
          // Published it is; that it stays in the store only means that it is sent once more, to no effect.
          (settled?.() ?? Promise.resolve()).then(
            () => {
              resolve(published);
            },
            () => {
              resolve(published);
            },
          );
        },
        failed: (error) => {
          end();
          reject(error);
        },
      });
      this.#session.settle();
    });
  }

  /** Sends a request, now or once there is a connection, and waits for its reply. */
  ask(frame: (id: number) => ClientFrame, { signal, isRepeatable = true, timeoutMs }: AskOptions): Promise<ServerFrame> {
    if (this.isClosed) return Promise.reject(requestError('unavailable', 'the client is closed'));
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = (): void => {
        forget();
        reject(signal?.reason as Error);
      };
      const end = (): void => signal?.removeEventListener('abort', abort);
      signal?.addEventListener('abort', abort, { once: true });
      const forget = this.traffic.ask({
        frame,
        isRepeatable,
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
        done: (reply) => {
          end();
          resolve(reply);
        },
        failed: (error) => {
          end();
          reject(error);
        },
      });
      this.#session.settle();
    });
  }
}

function isRefused(error: unknown): boolean {
  return (error as Partial<SkywaveError>).transient === false;
}

/** 128 random bits. Where there is no better source, chance has to do: a key is unique, not secret. */
function randomPrefix(): string {
  const words = new Uint32Array(4).map(() => Math.random() * 2 ** 32);
  // Absent in React Native, whatever its declared type says.
  (globalThis.crypto as Crypto | undefined)?.getRandomValues(words);
  return [...words].map((word) => word.toString(36)).join('');
}
