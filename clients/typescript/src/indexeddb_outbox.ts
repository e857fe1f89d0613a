/** An outbox in IndexedDB: what was published survives the page, the browser and the battery. */
import { requestError } from './errors.js';
import type { Outbox, OutboxEntry } from './outbox.js';
import { randomKey } from './outgoing.js';

const STORE = 'publications';

interface Stored extends OutboxEntry {
  /** In the order of their acceptance. */
  readonly number?: number;
  /** The page whose it is, by the name of the lock that the page holds as long as it lives. */
  readonly owner?: string | undefined;
}

/** The lock of this page for each database: one page may have several clients, one after the other. */
const owners = new Map<string, Promise<string | undefined>>();

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
  /** Makes those of `from` this page's, in one transaction, so that no other page does. */
  const claim = async (owner: string | undefined, from: ReadonlySet<string | undefined>): Promise<OutboxEntry[]> => {
    const claimed: OutboxEntry[] = [];
    await run('readwrite', (store) => {
      when(store.getAll() as IDBRequest<Stored[]>, (all) => {
        for (const entry of all.filter((one) => from.has(one.owner))) {
          if (entry.owner !== owner) store.put({ ...entry, owner });
          claimed.push(withoutOwner(entry));
        }
      });
    });
    return claimed;
  };
  return {
    async load(left) {
      const owner = await own(name);
      const watch = watcher(name, owner, async (ended) => {
        left(await claim(owner, new Set([ended])));
      });
      whenAnotherComes(name, watch);
      let all: Stored[] = [];
      await run('readonly', (store) => {
        when(store.getAll() as IDBRequest<Stored[]>, (stored) => (all = stored));
      });
      const ended = new Set(all.map((entry) => entry.owner));
      for (const other of await watch()) if (other !== owner) ended.delete(other);
      return claim(owner, ended);
    },
    async add({ channel, key, data, sentAtMs }) {
      const owner = await own(name);
      await run('readwrite', (store) => {
        when(store.index('key').get(key) as IDBRequest<Stored | undefined>, (known) => {
          if (known === undefined) store.add({ channel, key, data, sentAtMs, owner });
          else if (known.sentAtMs === undefined) store.put({ ...known, sentAtMs });
        });
      });
    },
    remove: (key) =>
      run('readwrite', (store) => {
        when(store.index('key').getKey(key), (number) => number !== undefined && store.delete(number));
      }),
  };
}

function locks(): LockManager | undefined {
  return (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
}

/** What the locks of a database's pages begin with. */
function pagesOf(database: string): string {
  return `${database}:outbox:`;
}

/** The locks of all pages that live. */
async function living(database: string): Promise<string[]> {
  const { held = [] } = (await locks()?.query()) ?? {};
  return held.flatMap(({ name = '' }) => (name.startsWith(pagesOf(database)) ? name : []));
}

/** Waits for the end of all other pages that live by the time when it is called, and answers which they are. */
function watcher(database: string, owner: string | undefined, ended: (page: string) => Promise<void>): () => Promise<string[]> {
  const watched = new Set([owner]);
  return async function watch() {
    const others = owner === undefined ? [] : await living(database);
    for (const other of others) {
      if (watched.has(other)) continue;
      watched.add(other);
      whenEnded(other, async () => {
        // It may have been the only one to know of a page that came later.
        await watch();
        await ended(other);
      });
    }
    return others;
  };
}

/** Each page takes a lock from the one that came before it, which learns of it by that. */
function whenAnotherComes(database: string, then: () => Promise<unknown>): void {
  locks()
    ?.request(`${database}:outbox`, { steal: true }, () => new Promise(() => undefined))
    .catch(then)
    .catch(() => undefined);
}

/** Its lock is granted once a page has ended. */
function whenEnded(page: string, then: () => Promise<void>): void {
  locks()
    ?.request(page, {}, then)
    .catch(() => undefined);
}

function withoutOwner({ channel, key, data, sentAtMs }: Stored): OutboxEntry {
  return { channel, key, data, sentAtMs };
}

/** Names this page, once it holds its lock; without locks no page is told from another. */
function own(database: string): Promise<string | undefined> {
  const held = owners.get(database) ?? holdLock(`${pagesOf(database)}${randomKey()}`);
  owners.set(database, held);
  return held;
}

function holdLock(name: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const held = locks()?.request(name, {}, () => {
      resolve(name);
      // Until the page ends.
      return new Promise(() => undefined);
    });
    if (held === undefined) resolve(undefined);
    else held.catch(() => {
      resolve(undefined);
    });
  });
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
function when<Result>(request: IDBRequest<Result>, then: (result: Result) => unknown): void {
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
