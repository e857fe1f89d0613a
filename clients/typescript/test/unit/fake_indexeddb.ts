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
  #next = 0;

  get factory(): IDBFactory {
    const database = { transaction: () => this.#transaction() };
    return { open: () => later({}, () => database) } as unknown as IDBFactory;
  }

  get keys(): string[] {
    return [...this.entries.values()].map(({ key }) => key);
  }

  #transaction(): object {
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
      const number = entry.number ?? (this.#next += 1);
      this.entries.set(number, { ...entry, number });
    };
    const store = {
      getAll: () => request(() => [...this.entries.values()]),
      add: (entry: Entry) => request(() => { put(entry); }),
      put: (entry: Entry) => request(() => { put(entry); }),
      delete: (number: number) => request(() => this.entries.delete(number)),
      index: () => ({
        get: (key: string) => request(() => find(key)),
        getKey: (key: string) => request(() => find(key)?.number),
      }),
    };
    return transaction;
  }
}

function later(request: Partial<Request>, act: () => unknown, then?: () => void): Request {
  setImmediate(() => {
    request.result = act();
    request.onsuccess?.();
    then?.();
  });
  return request as Request;
}
