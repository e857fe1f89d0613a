/** An outbox in IndexedDB: what was published survives the page, the browser and the battery. */
import type { Outbox, OutboxEntry } from './outbox.js';

const STORE = 'publications';

interface Stored extends OutboxEntry {
  /** In the order of their acceptance. */
  readonly number?: number;
}

export interface IndexedDbOutboxOptions {
  /** The database's name; one for each user, whose publications these are. `skywave` by default. */
  readonly name?: string;
  /** The browser's IndexedDB by default. */
  readonly factory?: IDBFactory;
}

/** An outbox in IndexedDB, to be given as the option `outbox`. */
export function indexedDbOutbox({ name = 'skywave', factory = indexedDB }: IndexedDbOutboxOptions = {}): Outbox {
  let opened: Promise<IDBDatabase> | undefined;
  const database = (): Promise<IDBDatabase> => (opened ??= open(factory, name));
  return {
    async load() {
      const store = (await database()).transaction(STORE, 'readonly').objectStore(STORE);
      const entries = await settled(store.getAll() as IDBRequest<Stored[]>);
      return entries.map(({ channel, key, data }) => ({ channel, key, data }));
    },
    async add({ channel, key, data }) {
      // Strict: answered only once it is on the disk.
      const transaction = (await database()).transaction(STORE, 'readwrite', { durability: 'strict' });
      const done = committed(transaction);
      const store = transaction.objectStore(STORE);
      const known = await settled(store.index('key').getKey(key));
      if (known === undefined) store.add({ channel, key, data });
      await done;
    },
    async remove(key) {
      const transaction = (await database()).transaction(STORE, 'readwrite');
      const done = committed(transaction);
      const store = transaction.objectStore(STORE);
      const number = await settled(store.index('key').getKey(key));
      if (number !== undefined) store.delete(number);
      await done;
    },
  };
}

function open(factory: IDBFactory, name: string): Promise<IDBDatabase> {
  const request = factory.open(`${name}:outbox`, 1);
  request.onupgradeneeded = () => {
    const store = request.result.createObjectStore(STORE, { keyPath: 'number', autoIncrement: true });
    // Two tabs may take up the same publication: its key tells that it is one.
    store.createIndex('key', 'key', { unique: true });
  };
  return settled(request);
}

function settled<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => {
      resolve(request.result);
    };
    request.onerror = () => {
      reject(request.error ?? new Error('IndexedDB failed'));
    };
  });
}

function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => {
      resolve();
    };
    transaction.onabort = () => {
      reject(transaction.error ?? new Error('IndexedDB failed'));
    };
  });
}
