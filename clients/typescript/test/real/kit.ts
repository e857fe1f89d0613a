/** What a tab keeps between the steps of a test: clients, and all that their channels told. */
import { type Channel, type ChannelOptions, type NodeUrl, Skywave, type SkywaveClient, type SkywaveOptions, type StateChange } from 'skywave';
import type { SharedSkywave } from 'skywave/tabs';

/** All that a channel told. */
export interface Seen {
  data: unknown[];
  offsets: number[];
  events: unknown[];
  gaps: string[];
  recovered: (boolean | undefined)[];
  counts: number[];
  errors: number[];
}

/** What became of numbered publications: 1, 2, 3 … */
export interface Tally {
  count: number;
  /** The first that is not where it belongs, by its place; `undefined` where all are. */
  misplaced: { place: number; data: unknown; offset: number | undefined } | undefined;
  gaps: string[];
  failures: string[];
  unanswered: number;
  state: string;
}

export class Kit {
  readonly clients = new Map<string, SkywaveClient>();
  shared: SharedSkywave | undefined;
  readonly seen = new Map<string, Seen>();
  readonly states = new Map<string, string[]>();
  /** What became of publishes, in their order. */
  readonly published: { data: unknown; offset: number }[] = [];
  readonly failures: string[] = [];

  /** Opens a client and waits until it is connected. */
  async open(id: string, urls: NodeUrl | NodeUrl[], options: SkywaveOptions): Promise<void> {
    await this.create(id, urls, options).connect();
  }

  create(id: string, urls: NodeUrl | NodeUrl[], options: SkywaveOptions): SkywaveClient {
    return this.keep(id, new Skywave(urls, options));
  }

  keep(id: string, client: SkywaveClient): SkywaveClient {
    const states: string[] = [];
    client.on('state', ({ state, error }: StateChange) => {
      states.push(error === undefined ? state : `${state} (${error.message})`);
    });
    this.clients.set(id, client);
    this.states.set(id, states);
    return client;
  }

  /** Keeps a client that is shared between tabs. */
  share(client: SharedSkywave): void {
    this.shared = client;
    this.keep('shared', client);
  }

  client(id: string): SkywaveClient {
    const client = this.clients.get(id);
    if (client === undefined) throw new Error(`no client ${id}`);
    return client;
  }

  /** Subscribes, and keeps what comes. */
  async listen(id: string, name: string, options: ChannelOptions = {}): Promise<Channel> {
    const channel = this.client(id).channel(name, options);
    const seen: Seen = { data: [], offsets: [], events: [], gaps: [], recovered: [], counts: [], errors: [] };
    this.seen.set(`${id} ${name}`, seen);
    channel.on('publication', ({ data, offset }) => {
      seen.data.push(data);
      seen.offsets.push(offset);
    });
    channel.on('event', ({ data, slot }) => {
      seen.events.push([data, slot]);
    });
    channel.on('gap', ({ reason }) => {
      seen.gaps.push(reason);
    });
    channel.on('subscribed', ({ recovered }) => {
      seen.recovered.push(recovered);
    });
    channel.on('presence', ({ count }) => {
      seen.counts.push(count);
    });
    channel.on('error', ({ code }) => {
      seen.errors.push(code);
    });
    await channel.subscribe();
    return channel;
  }

  saw(id: string, name: string): Seen {
    const seen = this.seen.get(`${id} ${name}`);
    if (seen === undefined) throw new Error(`nobody listens to ${name}`);
    return seen;
  }

  /** Looks whether numbers came once and in their order; `said` is how many were published. */
  tally(id: string, name: string, said = 0): Tally {
    const { data, offsets, gaps } = this.saw(id, name);
    const place = data.findIndex((one, index) => one !== index + 1 || offsets[index] !== index + 1);
    const { failures, published } = this;
    return {
      count: data.length,
      misplaced: place < 0 ? undefined : { place, data: data[place], offset: offsets[place] },
      gaps,
      failures,
      unanswered: said - failures.length - published.length,
      state: this.client(id).state,
    };
  }

  /** How many publications wait in the page's outbox in IndexedDB. Looked at from outside: whoever loads one takes them up. */
  async waiting(): Promise<number> {
    const name = 'skywave:outbox';
    // Opened by whoever comes first, it would be without its store.
    if (!(await indexedDB.databases()).some((database) => database.name === name)) return 0;
    const result = <Value>(request: IDBRequest<Value>): Promise<Value> =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => {
          resolve(request.result);
        };
        request.onerror = () => {
          reject(request.error ?? new Error('IndexedDB failed'));
        };
      });
    const database = await result(indexedDB.open(name));
    const count = await result(database.transaction('publications').objectStore('publications').count());
    database.close();
    return count;
  }

  /** Publishes without waiting; what becomes of it is kept. */
  say(id: string, name: string, ...texts: unknown[]): void {
    for (const data of texts) {
      this.client(id)
        .channel(name)
        .publish(data)
        .then(
          ({ offset }) => this.published.push({ data, offset }),
          (error: unknown) => this.failures.push(String(error)),
        );
    }
  }

  close(): void {
    for (const client of this.clients.values()) client.close();
    for (const kept of [this.clients, this.seen, this.states]) kept.clear();
    this.published.length = this.failures.length = 0;
  }
}
