/** One iteration over a channel's publications: a bounded queue for a reader that takes its time. */

interface Waiter<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: unknown): void;
}

export class Reading<T> implements AsyncIterableIterator<T, undefined> {
  readonly #limit: number;
  readonly #left: (reading: Reading<T>) => void;
  readonly #queue: T[] = [];
  readonly #waiters: Waiter<T>[] = [];
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
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#queue.push(value);
    else waiter.resolve({ value, done: false });
  }

  /** No more will come. An error is thrown to the reader once it has read what waits. */
  end(error?: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    for (const waiter of this.#waiters.splice(0)) this.#finish(waiter);
  }

  #finish(waiter: Waiter<T>): void {
    const error = this.#error;
    this.#error = undefined;
    if (error === undefined) waiter.resolve({ value: undefined, done: true });
    else waiter.reject(error);
  }

  next(): Promise<IteratorResult<T, undefined>> {
    return new Promise((resolve, reject) => {
      if (this.#queue.length > 0) {
        resolve({ value: this.#queue.shift() as T, done: false });
        this.#left(this);
      } else if (this.#isOver) this.#finish({ resolve, reject });
      else this.#waiters.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#queue.length = 0;
    this.end();
    this.#left(this);
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
