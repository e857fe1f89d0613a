/**
 * Attempts at several places, each begun when those before it have not succeeded quickly; the first one wins.
 *
 * Source: RFC 8305 ("Happy Eyeballs Version 2"), section 5, with nodes and transports in place of addresses.
 */
import { onAbort } from './abort.js';
import { lost } from './errors.js';

/** Attempts under way at once. */
const MAX_CONCURRENT = 4;
/** What an attempt may take when others wait for its place. */
const CROWDED_TIMEOUT_MS = 2_000;

/** How fast attempts follow each other. */
export interface Pace {
  /** By how much the first one is ahead. */
  readonly headStartMs: number;
  /** The time between the begins of two later ones. */
  readonly staggerMs: number;
  /** What one attempt may take. */
  readonly timeoutMs: number;
  /** What those under way may still take once another one has failed. */
  readonly lastChanceMs?: number;
}

/** The attempt that succeeded. */
export interface Winner<T> {
  readonly index: number;
  readonly value: T;
  /** How long it took. */
  readonly tookMs: number;
  /** Those that failed before. */
  readonly failed: readonly number[];
}

/** An attempt: given up when its signal aborts, which it tells by a rejection. */
export type Attempt<T> = (signal: AbortSignal) => Promise<T>;

/**
 * Runs attempts, at least one, in their order. A failure begins the next one at once. Attempts still under way when one
 * succeeds are aborted. Rejects with the errors of all, in their order, once all have failed, and when `signal` aborts.
 */
export function firstOf<T>(attempts: readonly Attempt<T>[], pace: Pace, signal: AbortSignal): Promise<Winner<T>> {
  return new Promise((resolve, reject) => {
    const race = new Race(attempts, pace, { resolve, reject });
    const abort = (): void => {
      race.giveUp([lost('given up')]);
    };
    if (signal.aborted) abort();
    else race.begin();
    race.whenOver(onAbort(signal, abort));
  });
}

interface Settle<T> {
  resolve(winner: Winner<T>): void;
  reject(error: AggregateError): void;
}

class Race<T> {
  readonly #attempts: readonly Attempt<T>[];
  readonly #pace: Pace;
  readonly #settle: Settle<T>;
  readonly #running = new Map<number, AbortController>();
  readonly #errors = new Map<number, unknown>();
  #next = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastChance: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;
  #over: () => void = () => undefined;

  constructor(attempts: readonly Attempt<T>[], pace: Pace, settle: Settle<T>) {
    this.#attempts = attempts;
    this.#pace = pace;
    this.#settle = settle;
  }

  whenOver(over: () => void): void {
    this.#over = over;
    if (this.#isOver) over();
  }

  /** Begins the next attempt, if there is one and room for it. */
  begin(): void {
    clearTimeout(this.#timer);
    const attempt = this.#attempts[this.#next];
    if (this.#isOver || attempt === undefined || this.#running.size >= MAX_CONCURRENT) return;
    const index = this.#next;
    this.#next += 1;
    void this.#run(index, attempt);
    const delayMs = index === 0 ? this.#pace.headStartMs : this.#pace.staggerMs;
    this.#timer = setTimeout(() => {
      this.begin();
    }, delayMs);
  }

  async #run(index: number, attempt: Attempt<T>): Promise<void> {
    const controller = new AbortController();
    this.#running.set(index, controller);
    const isCrowded = this.#attempts.length > MAX_CONCURRENT;
    const timeoutMs = isCrowded ? Math.min(this.#pace.timeoutMs, CROWDED_TIMEOUT_MS) : this.#pace.timeoutMs;
    const timer = setTimeout(() => {
      this.#failed(index, lost('no handshake in time'));
    }, timeoutMs);
    const begunAt = performance.now();
    try {
      const value = await attempt(controller.signal);
      if (!controller.signal.aborted) this.#won({ index, value, tookMs: performance.now() - begunAt, failed: [...this.#errors.keys()] });
    } catch (error) {
      this.#failed(index, error);
    } finally {
      clearTimeout(timer);
    }
  }

  #won(winner: Winner<T>): void {
    if (this.#isOver) return;
    this.#running.delete(winner.index);
    this.#end();
    this.#settle.resolve(winner);
  }

  #failed(index: number, error: unknown): void {
    const controller = this.#running.get(index);
    if (this.#isOver || controller === undefined) return;
    this.#running.delete(index);
    this.#errors.set(index, error);
    controller.abort();
    if (this.#errors.size === this.#attempts.length) {
      this.giveUp([...this.#errors].sort(([a], [b]) => a - b).map(([, reason]) => reason));
      return;
    }
    // One that begins now has its whole time.
    const underWay = [...this.#running.keys()];
    this.begin();
    if (this.#pace.lastChanceMs === undefined || underWay.length === 0) return;
    this.#lastChance = setTimeout(() => {
      for (const other of underWay) this.#failed(other, lost('no handshake in time'));
    }, this.#pace.lastChanceMs);
  }

  giveUp(errors: unknown[]): void {
    this.#end();
    this.#settle.reject(new AggregateError(errors, errors.map((error) => (error instanceof Error ? error.message : '')).join('; ')));
  }

  #end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#lastChance);
    for (const controller of this.#running.values()) controller.abort();
    this.#over();
  }
}
