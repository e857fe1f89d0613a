/** An outbox in IndexedDB: what was published survives the page, the browser and the battery. */
import { requestError } from './errors.js';
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

/**
 * An outbox in IndexedDB, to be given as the option `outbox`. Where there is no IndexedDB, on a server for example, whoever
 * publishes is told.
 */
export function indexedDbOutbox({ name = 'skywave', factory }: IndexedDbOutboxOptions = {}): Outbox {
  let opened: Promise<IDBDatabase> | undefined;
  // The browser may take a database away, and what failed once need not fail again.
  const forget = (): void => {
    opened = undefined;
  };
  const run = async (mode: IDBTransactionMode, begin: (store: IDBObjectStore) => void): Promise<void> => {
    opened ??= open(factory, name, forget);
    try {
      // Strict: answered only once it is on the disk.
      const transaction = (await opened).transaction(STORE, mode, { durability: 'strict' });
      begin(transaction.objectStore(STORE));
      await committed(transaction);
    } catch (error) {
      forget();
      throw error;
    }
  };
  return {
    async load() {
      let stored: Stored[] = [];
      await run('readonly', (store) => {
        when(store.getAll() as IDBRequest<Stored[]>, (all) => (stored = all));
      });
      return stored.map(({ channel, key, data, sentAtMs }) => ({ channel, key, data, sentAtMs }));
    },
    add: ({ channel, key, data, sentAtMs }) =>
      run('readwrite', (store) => {
        when(store.index('key').get(key) as IDBRequest<Stored | undefined>, (known) => {
          if (known === undefined) store.add({ channel, key, data, sentAtMs });
          else if (known.sentAtMs === undefined) store.put({ ...known, sentAtMs });
        });
      }),
    remove: (key) =>
      run('readwrite', (store) => {
        when(store.index('key').getKey(key), (number) => {
          if (number !== undefined) store.delete(number);
        });
      }),
  };
}

function open(given: IDBFactory | undefined, name: string, gone: () => void): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const factory = given ?? (globalThis as { indexedDB?: IDBFactory }).indexedDB;
    if (factory === undefined) throw requestError('bad_request', 'no IndexedDB here: an outbox in it is for browsers, the client works without one');
    const request = factory.open(`${name}:outbox`, 1);
    request.onupgradeneeded = () => {
      const store = request.result.createObjectStore(STORE, { keyPath: 'number', autoIncrement: true });
      // Two tabs may take up the same publication: its key tells that it is one.
      store.createIndex('key', 'key', { unique: true });
    };
    when(request, (database) => {
      database.onclose = gone;
      // Somebody deletes it, or has a later version.
      database.onversionchange = () => {
        database.close();
        gone();
      };
      resolve(database);
    });
    request.onerror = () => {
      reject(request.error ?? new Error('IndexedDB failed'));
    };
  });
}

/** Calls `then` with what a request gives. One that fails ends its transaction, which tells it. */
function when<Result>(request: IDBRequest<Result>, then: (result: Result) => void): void {
  request.onsuccess = () => {
    then(request.result);
  };
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
