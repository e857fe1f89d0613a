/** One iteration over a channel's publications: a bounded queue for a reader that takes its time. */

export class Reading<T> implements AsyncIterableIterator<T, undefined> {
  readonly #limit: number;
  readonly #left: (reading: Reading<T>) => void;
  readonly #queue: T[] = [];
  /** Readers that wait for something to read. */
  readonly #waiting: (() => void)[] = [];
  #isOver = false;
  #error: unknown;

  /** `left` is called when the reader has made room, and when it goes. */
  constructor(limit: number, left: (reading: Reading<T>) => void) {
    this.#limit = limit;
    this.#left = left;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get hasRoom(): boolean {
    return this.#queue.length < this.#limit;
  }

  /** Whether so much has been read that it is worth asking for more. */
  get hasMuchRoom(): boolean {
    return this.#queue.length <= this.#limit / 2;
  }

  push(value: T): void {
    this.#queue.push(value);
    this.#wake();
  }

  /** No more will come. An error is thrown to the reader once it has read what waits. */
  end(error?: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    this.#wake();
    this.#left(this);
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.#queue.length === 0 && !this.#isOver) await new Promise<void>((wake) => this.#waiting.push(wake));
    const value = this.#queue.shift();
    if (value !== undefined) {
      this.#left(this);
      return { value, done: false };
    }
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error as Error;
    return { value: undefined, done: true };
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#queue.length = 0;
    this.end();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
