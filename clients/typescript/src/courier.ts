/** Brings publications through an outbox to the session: stored before they are sent, removed when they are settled. */
import { onAbort } from './abort.js';
import type { Asking } from './asking.js';
import { messageOf, type RequestError, requestError, SkywaveError } from './errors.js';
import type { Published } from './messages.js';
import type { Outbox, OutboxEntry } from './outbox.js';

/** What became of a publication that an earlier page left in the outbox. */
export interface Delivered extends OutboxEntry {
  readonly published?: Published;
  readonly error?: SkywaveError;
}

/** By so much the clocks of two pages may differ. */
const CLOCKS_DIFFER_MS = 10_000;

export class Courier {
  readonly #outbox: Outbox;
  readonly #asking: Asking;
  readonly #limit: number;
  readonly #delivered: (one: Delivered) => void;
  readonly #closing: AbortSignal | undefined;
  /** How many the outbox holds, those on their way into it included. */
  #count = 0;
  /** All that was left by earlier pages is on its way; absent where that failed, so that it is tried again. */
  #loaded: Promise<void> | undefined;
  /** All that was published before is stored, or could not be. */
  #stored: Promise<unknown> = Promise.resolve();
  /** Settled, and still in the store because that failed. */
  readonly #stale = new Set<string>();
  /**
   * How many are on their way in the session, whose queue takes `limit`; and those that wait for a place there, in
   * order.
   */
  #underWay = 0;
  readonly #waiting: (() => void)[] = [];

  /** `limit`: how many may be in the outbox. `closing` aborts when the client is closed. */
  constructor(outbox: Outbox, asking: Asking, limit: number, delivered: (one: Delivered) => void, closing?: AbortSignal) {
    this.#outbox = outbox;
    this.#asking = asking;
    this.#limit = limit;
    this.#delivered = delivered;
    this.#closing = closing;
    // Whoever publishes hears of it.
    this.#load().catch(() => undefined);
  }

  /** Publishes, once it is stored, after all that was published before. */
  publish(entry: OutboxEntry, signal?: AbortSignal): Promise<Published> {
    return this.#asking.promise<Published>(
      signal,
      (resolve, reject) => {
        if (this.#count >= this.#limit) throw full();
        const abandoned = new AbortController();
        this.#bring(entry, abandoned.signal).then(resolve, reject);
        return () => {
          abandoned.abort();
        };
      },
      true,
    );
  }

  async #bring(entry: OutboxEntry, abandoned: AbortSignal): Promise<Published> {
    this.#count += 1;
    const [before, stored] = [this.#stored, this.#store(entry)];
    this.#stored = Promise.allSettled([before, stored]);
    await before;
    return this.#send(entry, await stored, abandoned);
  }

  /** Why nothing is brought any more: the client is closed. */
  get #ended(): RequestError | undefined {
    return this.#asking.isClosed ? this.#asking.refusal : undefined;
  }

  /** Answers whether it is noted as sent already. */
  async #store(entry: OutboxEntry): Promise<boolean> {
    try {
      await this.#load();
      if (this.#count > this.#limit) throw full();
      for (const key of this.#stale) await this.#remove(key);
      if (this.#ended !== undefined) throw this.#ended;
      const { session } = this.#asking;
      const sentAtMs = entry.sentAtMs ?? (session.live && session.now());
      await this.#outbox.add({ ...entry, sentAtMs }, this.#closing);
      return sentAtMs !== undefined;
    } catch (error) {
      this.#count -= 1;
      throw failure(error);
    }
  }

  #load(): Promise<void> {
    this.#loaded ??= this.#takeUp().catch((error: unknown) => {
      this.#loaded = undefined;
      throw failure(error);
    });
    return this.#loaded;
  }

  /** Sends what earlier pages left, before anything new. */
  async #takeUp(): Promise<void> {
    const entries = await this.#outbox.load((left) => {
      if (!this.#asking.isClosed) this.#deliverAll(left);
    }, this.#closing);
    this.#deliverAll(entries);
  }

  #deliverAll(entries: readonly OutboxEntry[]): void {
    this.#count += entries.length;
    for (const entry of entries) void this.#deliver(entry);
  }

  async #deliver(entry: OutboxEntry): Promise<void> {
    const { sentAtMs } = entry;
    // Sent at a time to come, by a clock that was ahead: nobody knows how long ago that was.
    const isDoubtful = sentAtMs !== undefined && sentAtMs > this.#asking.session.now() + CLOCKS_DIFFER_MS;
    try {
      const published = await this.#send(isDoubtful ? { ...entry, sentAtMs: 0 } : entry, sentAtMs !== undefined);
      this.#delivered({ ...entry, published });
    } catch (error) {
      this.#delivered({ ...entry, error: error as SkywaveError });
    }
  }

  /** Publishes what is in the outbox, and takes it out once it is settled. */
  async #send(entry: OutboxEntry, isNoted: boolean, abandoned?: AbortSignal): Promise<Published> {
    let noted: Promise<unknown> = Promise.resolve();
    const sent = (sentAtMs: number): void => {
      if (!isNoted) noted = this.#outbox.add({ ...entry, sentAtMs }, this.#closing).catch(() => undefined);
    };
    await this.#place();
    try {
      const published = await this.#sent(entry, sent, abandoned).finally(() => {
        this.#leave();
      });
      await noted;
      await this.#settled(entry.key);
      return published;
    } catch (error) {
      await noted;
      // What ended with the session alone stays for the next page.
      if (!this.#asking.isClosed) await this.#settled(entry.key);
      throw error;
    }
  }

  /** Waits for a place in the session's queue: an earlier page may have left more than it takes. */
  async #place(): Promise<void> {
    if (this.#underWay >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#underWay += 1;
  }

  /** Gives the place to whoever has waited for the longest time. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#underWay -= 1;
    else next();
  }

  /** What the node says. A publication that nobody waits for any more is taken back, unless it may have been sent. */
  #sent(entry: OutboxEntry, sent: (atMs: number) => void, abandoned?: AbortSignal): Promise<Published> {
    return new Promise((resolve, reject) => {
      let { sentAtMs } = entry;
      let withdraw = (): boolean => true;
      const abandon = (): void => {
        if (withdraw()) reject(abandoned?.reason as Error);
      };
      const send = (): void => {
        if (this.#ended !== undefined) {
          reject(this.#ended);
          return;
        }
        const failed = (error: RequestError): void => {
          // A node that does not want this client ends nothing here: the next `connect` sends what is kept.
          if (error === this.#asking.refusal) send();
          else reject(error);
        };
        withdraw = this.#asking.push({ ...entry, sentAtMs }, resolve, failed, (atMs) => {
          sentAtMs = atMs;
          sent(atMs);
        });
      };
      if (abandoned?.aborted) abandon();
      else send();
      onAbort(abandoned, abandon);
    });
  }

  async #settled(key: string): Promise<void> {
    this.#count -= 1;
    // Tried again before the next one is stored: once the nodes have forgotten its key, it would take effect again.
    await this.#remove(key).catch(() => this.#stale.add(key));
  }

  async #remove(key: string): Promise<void> {
    await this.#outbox.remove(key);
    this.#stale.delete(key);
  }
}

function full(): SkywaveError {
  return requestError('limit_reached', 'the outbox is full', true);
}

/** What an outbox throws is its own. */
function failure(error: unknown): SkywaveError {
  if (error instanceof SkywaveError) return error;
  return new SkywaveError(110, 'unavailable', `the outbox failed: ${messageOf(error) || String(error)}`, true, { cause: error });
}
