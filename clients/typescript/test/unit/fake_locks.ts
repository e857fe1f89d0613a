/** Web Locks for tests in Node: as the standard has them, for all tabs of one process. */
import { AsyncLocalStorage } from 'node:async_hooks';

interface Request {
  readonly tab: object | undefined;
  readonly run: () => unknown;
  readonly signal: AbortSignal | undefined;
  readonly settle: (result: Promise<unknown>) => void;
}

interface Held {
  readonly tab: object | undefined;
  readonly end: (error?: Error) => void;
}

export class FakeLocks {
  /** Whose code runs, where a test tells tabs apart. */
  readonly tab = new AsyncLocalStorage<object>();
  readonly #held = new Map<string, Held>();
  readonly #waiting = new Map<string, Request[]>();

  /** Takes the place of the browser's. */
  install(): void {
    Object.defineProperty(globalThis, 'navigator', { value: { locks: this }, configurable: true });
  }

  request(name: string, { signal, steal = false }: LockOptions, run: () => unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) throw new DOMException('aborted', 'AbortError');
      const request: Request = { tab: this.tab.getStore(), run: AsyncLocalStorage.bind(run), signal, settle: (result) => void result.then(resolve, reject) };
      const queue = this.#waiting.get(name) ?? [];
      this.#waiting.set(name, queue);
      signal?.addEventListener('abort', () => {
        const place = queue.indexOf(request);
        if (place < 0) return;
        queue.splice(place, 1);
        reject(new DOMException('aborted', 'AbortError'));
      });
      if (steal) queue.unshift(request);
      else queue.push(request);
      if (steal) this.#held.get(name)?.end(new DOMException('stolen', 'AbortError'));
      this.#grant(name);
    });
  }

  query(): Promise<LockManagerSnapshot> {
    return Promise.resolve({ held: this.names.map((name) => ({ name })), pending: [] });
  }

  /** Ends whoever holds a lock, as a browser does with a tab that crashes: nothing of it runs any more. */
  crash(name: string): void {
    const held = this.#held.get(name);
    if (held?.tab !== undefined) {
      for (const queue of this.#waiting.values()) queue.splice(0, queue.length, ...queue.filter(({ tab }) => tab !== held.tab));
    }
    held?.end();
  }

  /** Whose a lock is. */
  holder(name: string): object | undefined {
    return this.#held.get(name)?.tab;
  }

  /** The locks that are held. */
  get names(): string[] {
    return [...this.#held.keys()];
  }

  #grant(name: string): void {
    if (this.#held.has(name)) return;
    const request = this.#waiting.get(name)?.shift();
    if (request === undefined) return;
    request.settle(
      new Promise((resolve, reject) => {
        const end = (error?: Error): void => {
          if (this.#held.get(name) !== held) return;
          this.#held.delete(name);
          if (error === undefined) resolve(undefined);
          else reject(error);
          this.#grant(name);
        };
        const held: Held = { tab: request.tab, end };
        this.#held.set(name, held);
        // As in browsers, the lock is told of later.
        queueMicrotask(() => {
          Promise.resolve(request.run()).then(
            () => {
              end();
            },
            (error: unknown) => {
              end(error as Error);
            },
          );
        });
      }),
    );
  }
}
