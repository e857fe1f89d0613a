/** An outbox in IndexedDB: what was published survives the page, the browser and the battery. */
import { aborted } from './abort.js';
import { requestError } from './errors.js';
import type { Outbox, OutboxEntry } from './outbox.js';
import { randomKey } from './random_key.js';

const STORE = 'publications';
/**
 * How long the database may take to open: while somebody deletes it and another page does not let it go, it never does.
 */
const OPEN_TIMEOUT_MS = 5_000;

interface Stored extends OutboxEntry {
  /** In the order of their acceptance. */
  readonly number?: number;
  /** The client whose it is, by the name of the lock that it holds as long as it and its page live. */
  readonly owner?: string | undefined;
}

export interface IndexedDbOutboxOptions {
  /** The database's name; one for each user, whose publications these are. `skywave` by default. */
  readonly name?: string;
  /** The browser's IndexedDB by default. */
  readonly factory?: IDBFactory;
}

type Begin = (store: IDBObjectStore, owner: string | undefined) => void;
/** The name of a client, once it holds its lock. */
type Owned = Promise<string | undefined>;

/** A connection to the database. */
interface Opened {
  readonly database: IDBDatabase;
  /** Fails when the browser takes it away, as where its data are cleared: what is under way may hear nothing any more. */
  readonly lost: Promise<never>;
}

/** The database, opened when it is needed. */
class Database {
  readonly #name: string;
  readonly #factory: IDBFactory | undefined;
  #opened: Promise<Opened> | undefined;
  #done: Promise<unknown> = Promise.resolve();

  constructor(name: string, factory: IDBFactory | undefined) {
    this.#name = name;
    this.#factory = factory;
  }

  /** All that was begun is done: nothing is to be written in the name of a client whose lock is free. */
  get done(): Promise<unknown> {
    return this.#done;
  }

  /**
   * `owned`: the client in whose name it is done, where that matters. `whenFull`: what is done where the disk is full.
   */
  run(mode: IDBTransactionMode, begin: Begin, owned?: Owned, whenFull: readonly Begin[] = [look, begin]): Promise<void> {
    const work = this.#transact(mode, begin, owned, whenFull);
    this.#done = Promise.allSettled([this.#done, work]);
    return work;
  }

  async #transact(mode: IDBTransactionMode, begin: Begin, owned: Owned | undefined, whenFull: readonly Begin[]): Promise<void> {
    // The browser may take a database away, and what failed once need not fail again.
    const forget = (): void => {
      this.#opened = undefined;
    };
    this.#opened ??= open(this.#factory, this.#name, forget);
    try {
      const [{ database, lost }, owner] = await Promise.all([this.#opened, owned]);
      const once = (what: Begin): Promise<void> => {
        // Strict: answered only once it is on the disk.
        const transaction = database.transaction(STORE, mode, { durability: 'strict' });
        what(transaction.objectStore(STORE), owner);
        return Promise.race([committed(transaction), lost]);
      };
      await once(begin).catch(async (error: unknown) => {
        if ((error as Error).name !== 'QuotaExceededError') throw error;
        // Without room Firefox removes nothing either, but for the next transaction of this very connection, which
        // tidies up.
        for (const what of whenFull) await once(what);
      });
    } catch (error) {
      forget();
      throw error;
    }
  }
}

/**
 * An outbox in IndexedDB, to be given as the option `outbox`. Where there is no IndexedDB, on a server for example,
 * whoever publishes is told.
 */
export function indexedDbOutbox({ name = 'skywave', factory }: IndexedDbOutboxOptions = {}): Outbox {
  const database = new Database(name, factory);
  /**
   * The clients that it was given to, by what ends them, and the last one, which is any other's that does not say who
   * it is.
   */
  const clients = new WeakMap<AbortSignal, Owned>();
  let newest: Owned | undefined;
  /** Makes those of `from` this client's, in one transaction, so that no other one does. */
  const claim = async (owner: string | undefined, from: ReadonlySet<string | undefined>): Promise<OutboxEntry[]> => {
    const claimed: OutboxEntry[] = [];
    await database.run('readwrite', (store) => {
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
    async load(left, signal) {
      newest = holdLock(name, aborted(signal).then(() => database.done));
      if (signal !== undefined) clients.set(signal, newest);
      const owner = await newest;
      const watch = watcher(name, owner, signal, async (ended) => {
        left(await claim(owner, new Set([ended])));
      });
      whenAnotherComes(name, signal, watch);
      let all: Stored[] = [];
      await database.run('readonly', (store) => {
        when(store.getAll() as IDBRequest<Stored[]>, (stored) => (all = stored));
      });
      const ended = new Set(all.map((entry) => entry.owner));
      for (const other of await watch()) if (other !== owner) ended.delete(other);
      return claim(owner, ended);
    },
    add({ channel, key, data, sentAtMs }, signal) {
      newest ??= holdLock(name, aborted(undefined));
      const begin: Begin = (store, owner) => {
        when(store.index('key').get(key) as IDBRequest<Stored | undefined>, (known) => {
          if (known === undefined) store.add({ channel, key, data, sentAtMs, owner });
          else if (known.sentAtMs === undefined) store.put({ ...known, sentAtMs });
        });
      };
      return database.run('readwrite', begin, (signal && clients.get(signal)) ?? newest);
    },
    remove(key) {
      const begin: Begin = (store) => {
        when(store.index('key').getKey(key), (number) => number !== undefined && store.delete(number));
      };
      return database.run('readwrite', begin, undefined, [begin]);
    },
  };
}

function locks(): LockManager | undefined {
  return (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
}

/** What the locks of a database's clients begin with. */
function clientsOf(database: string): string {
  return `${database}:outbox:`;
}

/** The locks of all clients that live. */
async function living(database: string): Promise<string[]> {
  const { held = [] } = (await locks()?.query()) ?? {};
  return held.flatMap(({ name = '' }) => (name.startsWith(clientsOf(database)) ? name : []));
}

/** Waits for the end of all other clients that live by the time when it is called, and answers which they are. */
function watcher(
  database: string,
  owner: string | undefined,
  signal: AbortSignal | undefined,
  ended: (client: string) => Promise<void>,
): () => Promise<string[]> {
  const watched = new Set([owner]);
  return async function watch() {
    const others = owner === undefined ? [] : await living(database);
    for (const other of others) {
      if (watched.has(other)) continue;
      watched.add(other);
      whenEnded(other, signal, async () => {
        // It may have been the one to learn of the next, and the only one to know of one that came later.
        whenAnotherComes(database, signal, watch);
        await watch();
        if (!signal?.aborted) await ended(other);
      });
    }
    return others;
  };
}

/** Each client takes a lock from the one that came before it, which learns of it by that. */
function whenAnotherComes(database: string, signal: AbortSignal | undefined, then: () => Promise<unknown>): void {
  locks()
    ?.request(`${database}:outbox`, { steal: true }, () => aborted(signal))
    .catch(then)
    .catch(() => undefined);
}

/** Its lock is granted once a client has ended, or its page. */
function whenEnded(client: string, signal: AbortSignal | undefined, then: () => Promise<void>): void {
  locks()
    ?.request(client, signal === undefined ? {} : { signal }, then)
    .catch(() => undefined);
}

function withoutOwner({ channel, key, data, sentAtMs }: Stored): OutboxEntry {
  return { channel, key, data, sentAtMs };
}

/**
 * Names a client, once it holds its lock, which it does until its `end`; without locks no client is told from another.
 */
function holdLock(database: string, end: Promise<unknown>): Owned {
  const name = `${clientsOf(database)}${randomKey()}`;
  return new Promise((resolve) => {
    const held = locks()?.request(name, {}, () => {
      resolve(name);
      return end;
    });
    if (held === undefined) resolve(undefined);
    else held.catch(() => {
      resolve(undefined);
    });
  });
}

function open(given: IDBFactory | undefined, name: string, gone: () => void): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const factory = given ?? (globalThis as { indexedDB?: IDBFactory }).indexedDB;
    if (factory === undefined) throw requestError('bad_request', 'no IndexedDB here: an outbox in it is for browsers, the client works without one');
    const request = factory.open(`${name}:outbox`, 1);
    request.onupgradeneeded = () => {
      const store = request.result.createObjectStore(STORE, { keyPath: 'number', autoIncrement: true });
      // Two tabs may take up the same publication: its key tells that it is one.
      store.createIndex('key', 'key', { unique: true });
    };
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      reject(new Error('the database is blocked: another page keeps it from being deleted or upgraded'));
    }, OPEN_TIMEOUT_MS);
    when(request, (database) => {
      clearTimeout(timer);
      if (isLate) database.close();
      const lost = new Promise<never>((_, fail) => {
        database.onclose = () => {
          gone();
          fail(new Error('the browser took the database away'));
        };
      });
      lost.catch(() => undefined);
      // Somebody deletes it, or has a later version.
      database.onversionchange = () => {
        database.close();
        gone();
      };
      resolve({ database, lost });
    });
    request.onerror = () => {
      clearTimeout(timer);
      reject(request.error ?? new Error('IndexedDB failed'));
    };
  });
}

/** Changes nothing. */
function look(store: IDBObjectStore): void {
  store.count();
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
