/** As much of IndexedDB for tests in Node as the outbox needs, shared by all pages that are given it. */

interface Entry {
  number?: number;
  readonly key: string;
}

interface Request {
  result: unknown;
  onsuccess?: () => void;
}

export class FakeIndexedDb {
  readonly entries = new Map<number, Entry>();
  /** Has no room, and as in Firefox removes nothing either, but for the next transaction of a connection that has learned of it. */
  isFull = false;
  #next = 0;
  #isTakingAway = false;
  #connections: { onclose?: () => void }[] = [];

  get factory(): IDBFactory {
    return { open: () => later({}, () => this.#connection()) } as unknown as IDBFactory;
  }

  /** From now on transactions hear nothing any more, as it may be in Chromium while it takes a database away. */
  fallSilent(): void {
    this.#isTakingAway = true;
  }

  /** The browser has taken it away: its connections are told, and there is an empty one. */
  takeAway(): void {
    this.#isTakingAway = false;
    this.entries.clear();
    for (const connection of this.#connections.splice(0)) connection.onclose?.();
  }

  #connection(): object {
    let hasLearned = false;
    const transaction = (): object => {
      if (this.#isTakingAway) return { objectStore: () => SILENT };
      if (!this.isFull) return this.#transaction();
      hasLearned = !hasLearned;
      return hasLearned ? this.#full() : this.#transaction({ isTidying: true });
    };
    const connection: { onclose?: () => void; transaction: typeof transaction } = { transaction };
    this.#connections.push(connection);
    return connection;
  }

  #full(): object {
    const transaction: { objectStore: () => object; error: Error; onabort?: () => void } = {
      objectStore: () => store,
      error: new DOMException('no room', 'QuotaExceededError'),
    };
    const request = (): Request => {
      setImmediate(() => transaction.onabort?.());
      return { result: undefined };
    };
    const store = { getAll: request, count: request, index: () => ({ get: request, getKey: request }) };
    return transaction;
  }

  get keys(): string[] {
    return [...this.entries.values()].map(({ key }) => key);
  }

  #transaction({ isTidying = false } = {}): object {
    let pending = 0;
    const transaction: { objectStore: () => object; oncomplete?: () => void } = { objectStore: () => store };
    const request = (act: () => unknown): Request => {
      pending += 1;
      return later({}, act, () => {
        pending -= 1;
        if (pending === 0) transaction.oncomplete?.();
      });
    };
    const find = (key: string): Entry | undefined => [...this.entries.values()].find((entry) => entry.key === key);
    const put = (entry: Entry): void => {
      if (isTidying) throw new DOMException('this transaction only removes', 'InvalidStateError');
      const number = entry.number ?? (this.#next += 1);
      this.entries.set(number, { ...entry, number });
    };
    const store = {
      getAll: () => request(() => [...this.entries.values()]),
      add: (entry: Entry) => request(() => { put(entry); }),
      put: (entry: Entry) => request(() => { put(entry); }),
      count: () => request(() => { if (isTidying) this.isFull = false; }),
      delete: (number: number) => request(() => this.entries.delete(number)),
      index: () => ({
        get: (key: string) => request(() => find(key)),
        getKey: (key: string) => request(() => find(key)?.number),
      }),
    };
    return transaction;
  }
}

const silentRequest = (): object => ({});
const SILENT = {
  getAll: silentRequest,
  count: silentRequest,
  index: () => ({ get: silentRequest, getKey: silentRequest }),
};

function later(request: Partial<Request>, act: () => unknown, then?: () => void): Request {
  setImmediate(() => {
    request.result = act();
    request.onsuccess?.();
    then?.();
  });
  return request as Request;
}
