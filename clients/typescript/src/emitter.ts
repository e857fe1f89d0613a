/** Listeners of typed events. */
import { onAbort } from './abort.js';
import { report } from './errors.js';

export type Listener<Event> = (event: Event) => void;

export interface ListenOptions {
  /** Removes the listener when it aborts. */
  readonly signal?: AbortSignal;
}

export class Emitter<Events> {
  /** And how to forget the signal of each. */
  readonly #listeners = new Map<keyof Events, Map<Listener<never>, () => void>>();
  readonly #removed: (() => void) | undefined;

  /** `removed` is called after a listener has gone. */
  constructor(removed?: () => void) {
    this.#removed = removed;
  }

  /** Whether anybody listens to one of these. */
  hasAny(names: readonly (keyof Events)[]): boolean {
    return names.some((name) => this.#listeners.get(name)?.size);
  }

  /** Adds a listener; answers how to remove it. */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>, { signal }: ListenOptions = {}): () => void {
    if (signal?.aborted) return () => undefined;
    // Its own function, so that a listener given twice is two. One before it may remove it while all are told.
    const own: Listener<Events[Name]> = (event) => {
      if (listeners.has(own)) listener(event);
    };
    const listeners = this.#listeners.get(name) ?? new Map<Listener<never>, () => void>();
    this.#listeners.set(name, listeners);
    const remove = (): void => {
      listeners.get(own)?.();
      listeners.delete(own);
      this.#removed?.();
    };
    listeners.set(own, onAbort(signal, remove));
    return remove;
  }

  /** Nobody listens any more. */
  clear(): void {
    for (const listeners of this.#listeners.values()) {
      for (const forget of listeners.values()) forget();
      listeners.clear();
    }
    this.#removed?.();
  }

  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    // Those that are added meanwhile are not told.
    for (const listener of new Map(this.#listeners.get(name)).keys() as Iterable<Listener<Events[Name]>>) {
      try {
        listener(event);
      } catch (error) {
        report(error);
      }
    }
  }
}
