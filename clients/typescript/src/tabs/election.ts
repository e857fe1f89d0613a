/** Which tab holds the connection: the one that has the Web Lock of their common name. */
import { aborted } from '../abort.js';

/** What a tab does that is elected. */
export interface Elected {
  /** Begins to hold the connection; answers how to let it go. */
  hold(): () => void;
  /** It cannot hold the connection, and does not stand any more. */
  failed(error: unknown): void;
}

export class Election {
  readonly #lock: string;
  readonly #elected: Elected;
  #candidacy = new AbortController();
  #isHolder = false;

  constructor(lock: string, elected: Elected) {
    this.#lock = lock;
    this.#elected = elected;
  }

  get isHolder(): boolean {
    return this.#isHolder;
  }

  /** Waits for this tab's turn, and holds the connection until `leave()`, or until another tab takes the lock away. */
  stand(): void {
    void this.#run(new AbortController(), false);
  }

  /** Takes the lock from a tab that does not answer. That one learns of it as soon as it runs again. */
  steal(): void {
    this.#candidacy.abort();
    void this.#run(new AbortController(), true);
  }

  leave(): void {
    this.#candidacy.abort();
  }

  async #run(candidacy: AbortController, steal: boolean): Promise<void> {
    this.#candidacy = candidacy;
    const { signal } = candidacy;
    try {
      await navigator.locks.request(this.#lock, steal ? { steal } : { signal }, () => this.#reign(signal));
    } catch (error) {
      // It left before its turn came.
      if (signal.aborted) return;
      candidacy.abort();
      if ((error as Error).name === 'AbortError') this.stand();
      else this.#elected.failed(error);
    }
  }

  async #reign(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const letGo = this.#elected.hold();
    this.#isHolder = true;
    await aborted(signal);
    this.#isHolder = false;
    letGo();
  }
}
