/** The tab that holds the connection: it is to the others what a node is to a client. */
import type { Asking } from '../asking.js';
import type { Delivered } from '../courier.js';
import { type RequestError, requestError, SkywaveError } from '../errors.js';
import type { ClientFrames, Network, ServerFrame, ServerFrames, SubscribeOptions } from '../frames.js';
import type { PageFollower } from '../page_life.js';
import { earlier, type Position } from '../position.js';
import { randomKey } from '../random_key.js';
import { type Question, REPLIES } from '../replies.js';
import type { Connection, State } from '../session/state.js';
import type { TransportChoice } from '../transport_kind.js';
import { type Asked, hear, openTabChannel, type PageNews, type TabChannel, type TabMessage } from './messages.js';
import { SharedChannel } from './shared_channel.js';
import { type Status, toTold } from './status.js';
import { whenGone } from './tab_life.js';

/**
 * A tab's way to the hub needs no heartbeat: its lock tells that a tab is gone, and tabs ask whether the hub is there.
 */
const HEARTBEAT = { interval_ms: 86_400_000, timeout_ms: 0 };

/**
 * What was asked so long ago has waited for a page that hung, and may have been done by another tab long since: longer than a
 * tab that is seen waits, and much shorter than nodes remember keys.
 */
const HUNG_MS = 30_000;

/** What the hub has of the client whose connection it shares. */
export interface Upstream {
  readonly asking: Asking;
  /** The value of a payload's JSON text. */
  readonly parse: (text: string) => unknown;
  /** Follows the pages of all tabs as if they were one. */
  readonly page: PageFollower;
  status(): { state: State; error: SkywaveError | undefined; connection: Connection | undefined };
  connect(): void;
  disconnect(): void;
  /** Does what is due, where a timer may be late. */
  look(): void;
  refresh(token: string): Promise<number>;
  switchTransport(kind: TransportChoice): Promise<void>;
}

/** A tab that wants the connection. */
interface Member {
  network: Network;
  /** Ends the wait for its end. */
  readonly stay: AbortController;
}

export class Hub {
  readonly #name = crypto.randomUUID();
  readonly #channel: TabChannel;
  readonly #upstream: Upstream;
  readonly #tabs = new Map<string, Member>();
  readonly #channels = new Map<string, SharedChannel>();
  #network: Network = {};
  #retryAtMs: number | undefined;
  #isStopped = false;

  constructor(share: string, upstream: Upstream) {
    this.#channel = openTabChannel(share);
    this.#upstream = upstream;
    hear(this.#channel, (message) => {
      this.#hear(message);
    });
    this.#post({ kind: 'hub', hub: this.#name });
  }

  /** The client's state has changed. A client that was refused is not kept on by anybody. */
  changed(retryAtMs: number | undefined): void {
    if (this.#isStopped) return;
    this.#retryAtMs = retryAtMs;
    this.#tellStatus();
    const { state, error } = this.#upstream.status();
    if (state === 'disconnected' && error !== undefined) for (const tab of [...this.#tabs.keys()]) this.#forget(tab);
  }

  /** What became of a publication that an earlier page left. */
  delivered({ error, ...delivered }: Delivered): void {
    this.#post({ kind: 'delivered', delivered, error: error && toTold(error) });
  }

  stop(): void {
    this.#post({ kind: 'gone', hub: this.#name });
    this.#isStopped = true;
    for (const { stay } of this.#tabs.values()) stay.abort();
    this.#channel.close();
  }

  #post(message: TabMessage): void {
    if (!this.#isStopped) this.#channel.postMessage(message);
  }

  #tell(tab: string, frame: ServerFrame): void {
    this.#tellAll([tab], frame);
  }

  /** All of them by one message: each message goes to every tab. */
  #tellAll(tabs: readonly string[], frame: ServerFrame): void {
    if (tabs.length > 0) this.#post({ kind: 'told', to: tabs, hub: this.#name, content: frame });
  }

  #status(): Status {
    const { state, error, connection } = this.#upstream.status();
    return { state, error: error && toTold(error), retryAtMs: this.#retryAtMs, connection };
  }

  #tellStatus(): void {
    this.#post({ kind: 'status', hub: this.#name, status: this.#status() });
  }

  #hear(message: TabMessage): void {
    switch (message.kind) {
      case 'open':
        this.#open(message.from, message.network);
        break;
      case 'asked':
        if (message.hub === this.#name) this.#asked(message);
        break;
      case 'closed':
        if (message.hub === this.#name) this.#leaveAll(message.from);
        break;
      case 'left':
        this.#left(message.from);
        break;
      case 'probe':
        this.#upstream.look();
        this.#tellStatus();
        break;
      case 'page':
        this.#pageChanged(message.from, message.network, message.news);
        break;
      case 'token':
        // For the next attempt: nobody waits for the node's answer. Over a connection the tab asks by a frame.
        if (this.#upstream.status().state !== 'connected') this.#upstream.refresh(message.token).catch(() => undefined);
        break;
      case 'switch':
        this.#switch(message.from, message.transport);
        break;
      default:
    }
  }

  // ---- tabs

  #open(tab: string, network: Network): void {
    const known = this.#tabs.get(tab);
    const stay = known?.stay ?? new AbortController();
    this.#leaveAll(tab);
    this.#tabs.set(tab, { network, stay });
    if (known === undefined) {
      whenGone(tab, stay.signal, () => {
        this.#left(tab);
      });
    }
    this.#followPages();
    if (this.#upstream.status().state === 'disconnected') this.#upstream.connect();
    this.#post({ kind: 'opened', to: tab, hub: this.#name, status: this.#status() });
  }

  /** A tab is gone, or goes without the connection: it is given up when nobody wants it. */
  #left(tab: string): void {
    if (!this.#forget(tab)) return;
    if (this.#tabs.size === 0) this.#upstream.disconnect();
    else this.#followPages();
  }

  #forget(tab: string): boolean {
    this.#tabs.get(tab)?.stay.abort();
    this.#leaveAll(tab);
    return this.#tabs.delete(tab);
  }

  #leaveAll(tab: string): void {
    for (const shared of this.#channels.values()) shared.remove(tab);
  }

  #pageChanged(tab: string, network: Network, news: PageNews | undefined): void {
    const member = this.#tabs.get(tab);
    if (member === undefined) return;
    member.network = network;
    this.#followPages(news === 'network' ? network : undefined);
    if (news === 'check') this.#upstream.page.check();
    else if (news === 'woke') this.#upstream.page.woke();
  }

  /**
   * All pages together are in the background when each of them is. `other`: a page says that this is another network.
   */
  #followPages(other?: Network): void {
    const networks = [...this.#tabs.values()].map(({ network }) => network);
    const kind = (other ?? networks.find((network) => network.kind !== undefined))?.kind;
    const background = networks.every((network) => network.background === true);
    const network: Network = { ...(kind === undefined ? {} : { kind }), background };
    const isSame = network.kind === this.#network.kind && network.background === this.#network.background;
    this.#network = network;
    if (!isSame || other !== undefined) this.#upstream.page.networkChanged(network, other !== undefined);
  }

  #switch(tab: string, transport: TransportChoice): void {
    const settle = (error?: SkywaveError): void => {
      this.#post({ kind: 'switched', to: tab, error: error && toTold(error) });
    };
    this.#upstream.switchTransport(transport).then(() => {
      settle();
    }, settle);
  }

  // ---- their frames

  #asked({ from: tab, content: [name, body], askedAtMs, sentAtMs }: Asked): void {
    // Forgotten since, or asked of a page that hung, which another tab may have replaced: it has to open another transport.
    if (!this.#tabs.has(tab) || Date.now() - askedAtMs > HUNG_MS) {
      this.#tell(tab, ['disconnect', { code: 3001, reason: 'shutdown', reconnect: true }]);
      return;
    }
    switch (name) {
      case 'connect':
        this.#connect(tab, body);
        break;
      case 'subscribe':
        this.#subscribe(tab, body.id, body.channel, body);
        break;
      case 'unsubscribe':
        this.#unsubscribe(tab, body);
        break;
      case 'publish':
        this.#publish(tab, body, sentAtMs);
        break;
      case 'emit':
        this.#emit(tab, body);
        break;
      case 'refresh':
        this.#refresh(tab, body);
        break;
      case 'history':
      case 'presence':
      case 'call':
        this.#forward(tab, name, body);
        break;
      default:
    }
  }

  /** A tab is connected to the hub at once; what becomes of the connection behind it is told by the status. */
  #connect(tab: string, { id, subscriptions = {} }: ClientFrames['connect']): void {
    const connected: ServerFrames['connected'] = {
      id,
      session: '',
      resume: '',
      node: this.#name,
      region: '',
      resumed: true,
      heartbeat: HEARTBEAT,
      // The hub's client knows when it sends a publish, and when it has to give it up: its answer comes in any case.
      limits: { frame_bytes: 0, publishes_per_second: 0, idempotency_ms: Infinity },
      regions: [],
    };
    this.#tell(tab, ['connected', connected]);
    for (const [channel, options] of Object.entries(subscriptions)) this.#subscribe(tab, undefined, channel, options);
  }

  #subscribe(tab: string, id: number | undefined, name: string, { position, history, presence }: SubscribeOptions): void {
    const options = { ...(position ? { position } : {}), ...(history ? { history } : {}), ...(presence ? { presence } : {}) };
    const shared = this.#channels.get(name) ?? this.#share(name, options);
    if (presence === true && !shared.asked.presence) this.#subscribeAnew(shared, { ...shared.asked, presence: true });
    shared.add(tab, id, options);
  }

  #share(name: string, options: SubscribeOptions): SharedChannel {
    const { asking } = this.#upstream;
    const shared = new SharedChannel(name, options, {
      read: (limit, from) => asking.ask('history', { channel: name, limit, ...from }, {}),
      positionNow: () => asking.traffic.positionOf(name),
      goBack: (position) => {
        const now = asking.traffic.positionOf(name) ?? {};
        const both = earlier(position, now, now);
        // None at all would be the beginning of everything, which is history.
        const isAny = Object.keys(both).length > 0;
        if (isAny) this.#subscribeAnew(shared, shared.asked, both);
        return isAny;
      },
      tell: (tabs, frame) => {
        this.#tellAll(tabs, frame);
      },
      over: () => {
        this.#channels.delete(name);
        asking.traffic.unsubscribe(name);
      },
    });
    this.#channels.set(name, shared);
    asking.traffic.subscribe(name, options, shared);
    return shared;
  }

  /**
   * Asks otherwise, or from an earlier position than where the subscription stands: before its confirmation, from where
   * it was to begin.
   */
  #subscribeAnew(shared: SharedChannel, asked: SubscribeOptions, back?: Position): void {
    const { name } = shared;
    const { asking } = this.#upstream;
    const position = back ?? asking.traffic.positionOf(name);
    asking.traffic.unsubscribe(name);
    shared.beginAnew(asked);
    asking.traffic.subscribe(name, { ...asked, ...(position === undefined ? {} : { position }) }, shared);
  }

  #unsubscribe(tab: string, { id, channel }: ClientFrames['unsubscribe']): void {
    if (this.#channels.get(channel)?.remove(tab)) this.#tell(tab, ['unsubscribed', { id, channel }]);
    else this.#refuse(tab, id, { code: 104, reason: 'not_subscribed', message: 'not subscribed', transient: false });
  }

  #refuse(tab: string, id: number, error: Pick<RequestError, 'code' | 'reason' | 'message' | 'transient'>, retryAfterMs?: number): void {
    const { code, reason, message, transient } = error;
    const later = retryAfterMs === undefined ? {} : { retry_after_ms: retryAfterMs };
    this.#tell(tab, ['error', { id, code, reason, message, transient, ...later }]);
  }

  #publish(tab: string, { id, channel, key = randomKey(), data }: ClientFrames['publish'], sentAtMs: number | undefined): void {
    const published = this.#upstream.asking.publish({ channel, data, key, sentAtMs });
    // The tab would send it again behind what followed it. Only where it may have taken effect, that is not to be
    // refused.
    this.#reply(tab, id, published, (at) => ['published', { id, channel, ...at }], sentAtMs === undefined);
  }

  #emit(tab: string, { channel, slot, data }: ClientFrames['emit']): void {
    if (!this.#upstream.asking.traffic.emit(channel, data, slot)) return;
    const { session = '', user } = this.#upstream.status().connection ?? {};
    const event = { channel, session, ...(user === undefined ? {} : { user }), ...(slot === undefined ? {} : { slot }) };
    this.#channels.get(channel)?.echo(tab, { ...event, data: typeof data === 'string' ? this.#upstream.parse(data) : data });
  }

  #refresh(tab: string, { id, token }: ClientFrames['refresh']): void {
    this.#reply(tab, id, this.#upstream.refresh(token), (expires_at_ms) => ['refreshed', { id, expires_at_ms }]);
  }

  #forward<Name extends Question>(tab: string, name: Name, body: ClientFrames[Name]): void {
    const { id, ...fields } = body;
    const timeoutMs = 'deadline_ms' in body ? body.deadline_ms : undefined;
    const asked = this.#upstream.asking.ask(name, fields, { isRepeatable: name !== 'call', timeoutMs });
    this.#reply(tab, id, asked, (reply) => [REPLIES[name], { ...reply, id }] as unknown as ServerFrame);
  }

  /** `isFinal`: what fails is not to be tried again, whatever it failed for. */
  #reply<Result>(tab: string, id: number, result: Promise<Result>, frame: (result: Result) => ServerFrame, isFinal = false): void {
    result.then(
      (value) => {
        this.#tell(tab, frame(value));
      },
      (error: unknown) => {
        const told = error instanceof SkywaveError ? error : requestError('internal', String(error));
        const { code, reason, message, transient, retryAfterMs } = told;
        this.#refuse(tab, id, { code, reason, message, transient: transient && !isFinal }, retryAfterMs);
      },
    );
  }
}
