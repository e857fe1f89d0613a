/** The client that an application holds, with whatever parts it is given. */
import type { NodeUrl } from './address.js';
import { Asking } from './asking.js';
import type { Backoff } from './backoff.js';
import { Channel } from './channel.js';
import type { ChannelOptions } from './channel_options.js';
import { Emitter, type Listener, type ListenOptions } from './emitter.js';
import type { Encoding } from './encoding.js';
import { Engine, type GetToken } from './engine.js';
import { requestError, type SkywaveError } from './errors.js';
import type { Parts } from './parts.js';
import { checkText, toPayload } from './payload.js';
import { type StandardSchema, validate } from './payload_schema.js';
import type { MemoryStorage } from './race_memory.js';
import type { Session } from './session.js';
import type { Connection, State } from './session/state.js';
import type { WebSocketConstructor } from './transport/websocket.js';
import type { TransportChoice } from './transport_kind.js';
import { VERSION } from './version.js';

/** What every client can be told. */
export interface CoreOptions {
  /** Proves the user. When it has expired, the client stops. */
  readonly token?: string | undefined;
  /** Gives a token at each connect and ahead of the expiry of the one before. */
  readonly getToken?: GetToken | undefined;
  /** JSON by default; `messagePack` of `skywave/msgpack` is smaller on the wire. */
  readonly encoding?: Encoding | undefined;
  /** What makes a WebSocket, where the runtime has none: Node 20 needs that of the package `ws`. */
  readonly WebSocket?: WebSocketConstructor | undefined;
  /** Whether to connect at once, instead of at `connect()`; by default so. */
  readonly autoConnect?: boolean | undefined;
  /** How long one attempt to connect may take, in milliseconds; 5,000. */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * How long the reply to a request may take, in milliseconds; 10,000. Publishes are not subject to it, nor calls with
   * a deadline.
   */
  readonly requestTimeoutMs?: number | undefined;
  /** The wait between attempts to connect; up to 200 ms at first and 20 s at last. */
  readonly backoff?: Backoff | undefined;
  /** How many publishes may wait for their answer, in the outbox as well; 1,024. */
  readonly publishQueue?: number | undefined;
  /** The application's name and version, for the node's logs; at most 64 bytes each. */
  readonly name?: string | undefined;
  readonly version?: string | undefined;
}

/** How transports are chosen. */
export interface ChoiceOptions {
  readonly transport: TransportChoice;
  readonly headStartMs: number;
  readonly storage?: MemoryStorage | undefined;
}

/** What a client is doing, and since when something is wrong. */
export interface StateChange {
  readonly state: State;
  /** Why there is no connection. */
  readonly error: SkywaveError | undefined;
  /** When the next attempt begins, in milliseconds since 1970. */
  readonly retryAtMs: number | undefined;
}

/** What a client tells. */
export interface ClientEvents {
  state: StateChange;
  /** The node has not known the session any more: a new one of the same user has begun, from the positions held. */
  expired: Connection;
}

/** A session with a node, kept up over breaks and nodes. */
export class SkywaveCore {
  readonly #events = new Emitter<ClientEvents>();
  /** @internal */
  protected readonly session: Session;
  /** All that somebody has named, as long as somebody holds them. */
  readonly #channels = new Map<string, WeakRef<Channel>>();
  /** Those that are there though nobody may hold them: with listeners, iterations or a subscription. */
  readonly #used = new Set<Channel>();
  #error: SkywaveError | undefined;
  /** What channels ask of the session. @internal */
  protected readonly asking: Asking;

  /** @internal */
  protected constructor(url: NodeUrl | readonly NodeUrl[], options: CoreOptions, parts: Parts, choice: ChoiceOptions) {
    const { token, getToken, name = 'skywave-js', version = VERSION } = options;
    const session = {
      ...choice,
      token,
      connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
      requestTimeoutMs: options.requestTimeoutMs ?? 10_000,
      publishQueue: options.publishQueue ?? 1_024,
      backoff: options.backoff ?? { firstMs: 200, maxMs: 20_000 },
      client: { name, version },
    };
    const urls: NodeUrl[] = [url].flat();
    const engine = new Engine({ urls, getToken, parts, session }, (state, error, retryAtMs) => {
      this.#error = error;
      this.#events.emit('state', { state, error, retryAtMs });
      if (state === 'connected' && this.connection?.hasExpired) this.#events.emit('expired', this.connection);
    });
    this.session = engine.session;
    this.asking = new Asking(this.session);
    if (options.autoConnect !== false) this.session.connect();
  }

  get state(): State {
    return this.session.state;
  }

  /** The session and the connection that carries it now. */
  get connection(): Connection | undefined {
    return this.session.connection;
  }

  /** Why there is no connection, where something is wrong. */
  get error(): SkywaveError | undefined {
    return this.#error;
  }

  /** The time from a request to its reply, smoothed, in milliseconds. */
  get rttMs(): number | undefined {
    return this.session.traffic.requests.trips.smoothedMs || undefined;
  }

  /** Listens. Answers how to stop. */
  on<Name extends keyof ClientEvents>(name: Name, listener: Listener<ClientEvents[Name]>, options?: ListenOptions): () => void {
    return this.#events.on(name, listener, options);
  }

  /** Connects, if that has not been done, and waits until there is a session. Rejects when the node refuses it. */
  connect({ signal }: { readonly signal?: AbortSignal } = {}): Promise<Connection> {
    this.session.connect();
    return this.asking.promise<Connection>(signal, (resolve, reject) => {
      const look = (): void => {
        const { state, connection } = this;
        if (connection) resolve(connection);
        else if (state !== 'connecting') reject(this.#error ?? requestError('unavailable', 'disconnected'));
      };
      const stop = this.on('state', look);
      look();
      return stop;
    });
  }

  /** Ends the connection and stays away until `connect()`; subscriptions and unanswered publishes are kept. */
  disconnect(): void {
    this.session.disconnect();
  }

  /** Ends the session for good: iterations end, what waits fails. */
  close(): void {
    this.session.close();
  }

  /**
   * A channel; the same one for the same name, with the options given last. One that has no listeners, iterations or
   * subscription, and that nobody holds, is let go with its options.
   */
  channel<Message = unknown, Event = unknown>(
    name: string,
    options: ChannelOptions<Message, Event> = {},
  ): Channel<Message, Event> {
    const channel = this.#channels.get(name)?.deref() ?? this.#newChannel(name);
    // Whoever names other types for a channel says what its payloads are.
    const typed = channel as unknown as Channel<Message, Event>;
    typed.configure(options);
    return typed;
  }

  #newChannel(name: string): Channel {
    const channel: Channel = new Channel(name, this.asking, (isUsed) => {
      if (isUsed) this.#used.add(channel);
      else this.#used.delete(channel);
    });
    // Where there are twice as many names as before, it is worth looking which of them are left.
    if (Number.isInteger(Math.log2(this.#channels.size))) {
      for (const [other, held] of this.#channels) if (held.deref() === undefined) this.#channels.delete(other);
    }
    this.#channels.set(name, new WeakRef(channel));
    return channel;
  }

  /** Calls a method of the application behind the node. `deadlineMs`: how long the caller waits. */
  async call<Result = unknown>(
    method: string,
    data: unknown = null,
    { deadlineMs, schema, signal }: CallOptions<Result> = {},
  ): Promise<Result> {
    checkText(method, 128);
    const fields = { method, deadline_ms: deadlineMs && Math.min(Math.max(Math.ceil(deadlineMs), 0), 1e12), data: toPayload(data) };
    const body = await this.asking.ask('call', fields, { signal, isRepeatable: false, timeoutMs: deadlineMs });
    return validate(schema, body.data);
  }

  /** Gives the node a newer token of the same user. Answers when it expires, in milliseconds since 1970. */
  async refresh(token: string, { signal }: { readonly signal?: AbortSignal } = {}): Promise<number> {
    const { session } = this;
    // The next connection begins with it, unless the node refuses it first or nobody waits any more.
    session.tokens.current = token;
    try {
      const { expires_at_ms: atMs } = await this.asking.ask('refresh', { token }, { signal });
      session.tokens.taken(token, atMs);
      return atMs;
    } catch (error) {
      if (session.live && !(error as SkywaveError).transient) session.tokens.refused(token);
      throw error;
    }
  }

  /** Asks the node for a sign of life at once; where none comes within two seconds, the session goes on elsewhere. */
  check(): void {
    this.session.check();
  }
}

export interface CallOptions<Result> {
  /** How long the caller waits, in milliseconds; the answer is the error `timeout` then. */
  readonly deadlineMs?: number | undefined;
  /** What the result has to be. */
  readonly schema?: StandardSchema<Result> | undefined;
  readonly signal?: AbortSignal | undefined;
}
