/** The tab that holds the connection: it is to the others what a node is to a client. */
import { type RequestError, requestError } from '../errors.js';
import type { ClientFrame, ClientFrames, Payload, ServerFrame, ServerFrames, SubscribeOptions } from '../frames.js';
import type { Outgoing } from '../outgoing.js';
import type { Connection, State } from '../session/state.js';
import { hear, type TabChannel } from './messages.js';
import { SharedChannel } from './shared_channel.js';

/** How often tabs hear of the hub, and how long it may be late. */
const INTERVAL_MS = 10_000;
const TIMEOUT_MS = 10_000;

/** What the hub has of the client whose connection it shares. */
export interface Upstream {
  readonly outgoing: Outgoing;
  state(): State;
  connection(): Connection | undefined;
}

export class Hub {
  readonly #name = crypto.randomUUID();
  readonly #channel: TabChannel;
  readonly #upstream: Upstream;
  /** Tabs, and the `connect` of those that wait for the connection. */
  readonly #tabs = new Map<string, ClientFrames['connect'] | undefined>();
  readonly #channels = new Map<string, SharedChannel>();
  readonly #timer: ReturnType<typeof setInterval>;
  #beats = 0;

  constructor(channel: TabChannel, upstream: Upstream) {
    this.#channel = channel;
    this.#upstream = upstream;
    hear(channel, (message) => {
      if (message.kind === 'open') this.#opened(message.from);
      else if (message.kind === 'asked' && message.hub === this.#name) this.#asked(message.from, message.frame);
      else if (message.kind === 'closed' && message.hub === this.#name) this.#left(message.from);
    });
    this.#timer = setInterval(() => {
      this.#beats += 1;
      for (const tab of this.#tabs.keys()) this.#tell(tab, ['ping', { seq: this.#beats, interval_ms: INTERVAL_MS, timeout_ms: TIMEOUT_MS }]);
    }, INTERVAL_MS);
    channel.postMessage({ kind: 'hub', hub: this.#name });
  }

  /** The client's state has changed: tabs are connected as long as it is. */
  changed(): void {
    const connection = this.#upstream.connection();
    for (const [tab, connect] of this.#tabs) {
      if (connection !== undefined && connect !== undefined) this.#connect(tab, connect, connection);
      else if (connection === undefined && connect === undefined) {
        this.#tell(tab, ['disconnect', { code: 3001, reason: 'shutdown', reconnect: this.#upstream.state() === 'connecting' }]);
        this.#left(tab);
      }
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#channel.postMessage({ kind: 'hub', hub: '' });
    this.#channel.close();
  }

  #tell(tab: string, frame: ServerFrame): void {
    this.#channel.postMessage({ kind: 'told', to: tab, hub: this.#name, frame });
  }

  #opened(tab: string): void {
    this.#channel.postMessage({ kind: 'opened', to: tab, hub: this.#name });
  }

  #left(tab: string): void {
    this.#tabs.delete(tab);
    for (const shared of this.#channels.values()) this.#leave(tab, shared);
  }

  #asked(tab: string, [name, body]: ClientFrame): void {
    switch (name) {
      case 'connect':
        this.#connecting(tab, body);
        break;
      case 'subscribe':
        this.#subscribe(tab, body.id, body.channel, body);
        break;
      case 'unsubscribe':
        this.#unsubscribe(tab, body);
        break;
      case 'publish':
        this.#publish(tab, body);
        break;
      case 'emit':
        this.#emit(tab, body);
        break;
      case 'history':
      case 'presence':
      case 'call':
      case 'refresh':
        this.#forward(tab, name, body);
        break;
      default:
    }
  }

  #connecting(tab: string, connect: ClientFrames['connect']): void {
    const connection = this.#upstream.connection();
    this.#tabs.set(tab, connect);
    if (connection !== undefined) this.#connect(tab, connect, connection);
  }

  #connect(tab: string, { id, subscriptions = {} }: ClientFrames['connect'], connection: Connection): void {
    const { session, node, region, user, expiresAtMs } = connection;
    this.#tabs.set(tab, undefined);
    const connected: ServerFrames['connected'] = {
      id,
      session,
      resume: session,
      node,
      region,
      ...(user === undefined ? {} : { user }),
      ...(expiresAtMs === undefined ? {} : { expires_at_ms: expiresAtMs }),
      resumed: true,
      heartbeat: { interval_ms: INTERVAL_MS, timeout_ms: TIMEOUT_MS },
      limits: { frame_bytes: 0, publishes_per_second: 0 },
      regions: [],
    };
    this.#tell(tab, ['connected', connected]);
    for (const [channel, options] of Object.entries(subscriptions)) this.#subscribe(tab, undefined, channel, options);
  }

  #subscribe(tab: string, id: number | undefined, name: string, { position, history, presence }: SubscribeOptions): void {
    const options = { ...(position ? { position } : {}), ...(history ? { history } : {}), ...(presence ? { presence } : {}) };
    const tell = (frame: ServerFrame): void => {
      this.#tell(tab, frame);
    };
    const { outgoing } = this.#upstream;
    const known = this.#channels.get(name);
    const shared = known ?? this.#share(name);
    const lacksPresence = presence === true && !shared.hasPresence;
    if (lacksPresence) shared.beginAnew();
    shared.add(tab, id, options, tell);
    if (known === undefined) outgoing.subscribe(name, options, shared);
    else if (lacksPresence) {
      const now = outgoing.traffic.positionOf(name);
      outgoing.unsubscribe(name);
      outgoing.subscribe(name, { presence, ...(now ? { position: now } : {}) }, shared);
    }
  }

  #share(name: string): SharedChannel {
    const { outgoing } = this.#upstream;
    const read = async (limit: number, after?: SubscribeOptions['position']): Promise<ServerFrames['publication'][]> => {
      const range = { channel: name, limit, ...(after === undefined ? {} : { after }) };
      return (await outgoing.ask('history', range, {})).publications;
    };
    const shared = new SharedChannel(name, read, () => outgoing.traffic.positionOf(name));
    this.#channels.set(name, shared);
    return shared;
  }

  #leave(tab: string, shared: SharedChannel): boolean {
    const wasThere = shared.remove(tab);
    if (shared.isEmpty && this.#channels.delete(shared.name)) this.#upstream.outgoing.unsubscribe(shared.name);
    return wasThere;
  }

  #unsubscribe(tab: string, { id, channel }: ClientFrames['unsubscribe']): void {
    const shared = this.#channels.get(channel);
    if (shared !== undefined && this.#leave(tab, shared)) this.#tell(tab, ['unsubscribed', { id, channel }]);
    else this.#refuse(tab, id, { code: 104, reason: 'not_subscribed', message: 'not subscribed', transient: false });
  }

  #refuse(tab: string, id: number, error: Pick<RequestError, 'code' | 'reason' | 'message' | 'transient'>): void {
    const { code, reason, message, transient } = error;
    this.#tell(tab, ['error', { id, code, reason, message, transient }]);
  }

  #publish(tab: string, { id, channel, key, data }: ClientFrames['publish']): void {
    this.#upstream.outgoing.publish(channel, data, key).then(
      (published) => {
        this.#tell(tab, ['published', { id, channel, ...published }]);
      },
      (error: unknown) => {
        this.#refuse(tab, id, error as RequestError);
      },
    );
  }

  #emit(tab: string, { channel, slot, data }: ClientFrames['emit']): void {
    this.#upstream.outgoing.traffic.emit(channel, data, slot);
    const { session = '', user } = this.#upstream.connection() ?? {};
    const event = { channel, session, ...(user === undefined ? {} : { user }), ...(slot === undefined ? {} : { slot }) };
    this.#channels.get(channel)?.echo(tab, { ...event, data: toValue(data) });
  }

  #forward<Name extends 'history' | 'presence' | 'call' | 'refresh'>(tab: string, name: Name, body: ClientFrames[Name]): void {
    const { id, ...fields } = body;
    const replies = { history: 'history', presence: 'presence', call: 'result', refresh: 'refreshed' } as const;
    // The fields are those of the frame, all but its id.
    this.#upstream.outgoing.ask(name, fields, { isRepeatable: name !== 'call' }).then(
      (reply) => {
        this.#tell(tab, [replies[name], { ...reply, id }] as unknown as ServerFrame);
      },
      (error: unknown) => {
        this.#refuse(tab, id, 'code' in (error as object) ? (error as RequestError) : requestError('internal', String(error)));
      },
    );
  }
}

/** What a receiver gets of a payload. */
function toValue(data: Payload): unknown {
  return typeof data === 'string' ? (JSON.parse(data) as unknown) : data;
}
