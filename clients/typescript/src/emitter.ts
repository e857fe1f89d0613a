/** Listeners of typed events. */
import { onAbort } from './abort.js';
import { report } from './errors.js';

export type Listener<Event> = (event: Event) => void;

export interface ListenOptions {
  /** Removes the listener when it aborts. */
  readonly signal?: AbortSignal;
}

export class Emitter<Events> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();
  readonly #removed: (() => void) | undefined;

  /** `removed` is called after a listener has gone. */
  constructor(removed?: () => void) {
    this.#removed = removed;
  }

  /** Whether anybody listens to one of these. */
  hasAny(names: readonly (keyof Events)[]): boolean {
    return names.some((name) => (this.#listeners.get(name)?.size ?? 0) > 0);
  }

  /** Adds a listener; answers how to remove it. */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>, options: ListenOptions = {}): () => void {
    const { signal } = options;
    if (signal?.aborted) return () => undefined;
    // Its own function, so that a listener given twice is two.
    const own: Listener<Events[Name]> = (event) => {
      listener(event);
    };
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(own));
    const remove = (): void => {
      listeners.delete(own);
      forget();
      this.#removed?.();
    };
    const forget = onAbort(signal, remove);
    return remove;
  }

  /** Nobody listens any more. */
  clear(): void {
    this.#listeners.clear();
    this.#removed?.();
  }

  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])] as Listener<Events[Name]>[]) {
      try {
        listener(event);
      } catch (error) {
        report(error);
      }
    }
  }
}
