/** One iteration over a channel's publications: a bounded queue for a reader that takes its time. */
import { moved, type Place, type Position } from './position.js';

export class Reading<T extends Place> implements AsyncIterableIterator<T, undefined> {
  isOver = false;
  /** It had no room, and has to go back to get what it has missed. */
  isBehind = false;
  /** What it has been given. */
  filled: Position | undefined;
  readonly #limit: number;
  readonly #left: () => void;
  readonly #queue: { readonly value: T; readonly after: Position }[] = [];
  /** Readers that wait for something to read. */
  readonly #waiting: (() => void)[] = [];
  #error: unknown;

  /** `left` is called when the reader has made room, and when it goes. */
  constructor(limit: number, left: () => void) {
    this.#limit = limit;
    this.#left = left;
  }

  /** What its reader has taken. */
  get taken(): Position | undefined {
    return this.#queue[0]?.after ?? this.filled;
  }

  get hasRoom(): boolean {
    return this.#queue.length < this.#limit && !this.isBehind;
  }

  /** Whether so much has been read that it is worth asking for more. */
  get hasMuchRoom(): boolean {
    return this.#queue.length <= this.#limit / 2;
  }

  /** Takes what is new to it, if there is room. */
  push(value: T): void {
    const { filled: after = {} } = this;
    this.isBehind = !this.hasRoom;
    if (this.isBehind) return;
    this.filled = moved(after, value);
    this.#queue.push({ value, after });
    this.#wake();
  }

  /** What lies before the place, which is new to it, will never come. Answers whether it is there already. */
  pass(place: Place): boolean {
    if (!this.isBehind) this.filled = moved(this.filled, place);
    return !this.isBehind;
  }

  /** No more will come. An error is thrown to the reader once it has read what waits. */
  end(error?: unknown): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#error = error;
    this.#wake();
    this.#left();
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.#queue.length === 0 && !this.isOver) await new Promise<void>((wake) => this.#waiting.push(wake));
    const next = this.#queue.shift();
    if (next !== undefined) {
      this.#left();
      return { value: next.value, done: false };
    }
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error as Error;
    return { value: undefined, done: true };
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#queue.length = 0;
    this.end();
    this.#error = undefined;
    return this.next();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
