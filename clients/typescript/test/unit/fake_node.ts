/** A node for clients in the same process, behind a WebSocket that is none. */
import type { ClientFrame, ClientFrames, Network, ServerFrames, SubscribeOptions, WirePublication } from '../../src/frames.js';
import type { WebSocketConstructor } from '../../src/transport/websocket.js';
import { SilentWebSocket } from './silent_websocket.js';

const FORBIDDEN = { code: 103, reason: 'forbidden', message: 'no right to do that', transient: false };

/** One connection, as the node sees it. */
export class FakeConnection extends SilentWebSocket {
  network: Network | undefined;
  readonly channels = new Set<string>();
  /** Answers what channels asked for, in its order. */
  readonly confirmations: (() => void)[] = [];
  isOver = false;
  readonly #node: FakeNode;

  constructor(node: FakeNode) {
    super();
    this.#node = node;
    node.connections.push(this);
    setTimeout(() => {
      if (node.isAway) this.breaks();
      else this.fire('onopen', {});
    });
  }

  send(data: string | Uint8Array): void {
    const frame = Object.entries(JSON.parse(String(data)) as object)[0] as unknown as ClientFrame;
    setTimeout(() => {
      if (!this.isOver) this.#hear(frame);
    });
  }

  close(): void {
    this.isOver = true;
  }

  breaks(code = 1006, reason = 'broken'): void {
    this.isOver = true;
    this.fire('onclose', { code, reason });
  }

  publishes(channel: string, offset: number, fields: Partial<WirePublication> = {}): void {
    this.#say('publication', { channel, origin: 'eu', epoch: 'e', offset, time_ms: 0, data: offset, ...fields });
  }

  #say<Name extends keyof ServerFrames>(name: Name, body: ServerFrames[Name]): void {
    if (!this.isOver) this.fire('onmessage', { data: JSON.stringify({ [name]: body }) });
  }

  #hear([name, body]: ClientFrame): void {
    if (name === 'connect') this.#welcome(body);
    else if (name === 'network') this.network = body;
    else if (name === 'subscribe') this.#subscribe(body.channel, body, body.id);
    else if (name === 'presence') this.#say('presence', { id: body.id, channel: body.channel, count: 1, members: [] });
    else if (name === 'refresh') this.#refresh(body);
    else if (name === 'history' && this.#node.isPrivate) this.#say('error', { id: body.id, ...FORBIDDEN });
    else if (name === 'publish') {
      const { id, channel, key = '' } = body;
      this.#node.published.push(key);
      if (this.#node.isMute) return;
      this.#say('published', { id, channel, origin: 'eu', epoch: 'e', offset: 1 });
    } else if (name === 'unsubscribe') {
      this.channels.delete(body.channel);
      this.#confirm(() => {
        this.#say('unsubscribed', { id: body.id, channel: body.channel });
      });
    }
  }

  #refresh({ id, token }: ClientFrames['refresh']): void {
    const isBad = this.#node.badTokens.has(token);
    if (isBad) this.#say('error', { id, ...FORBIDDEN });
    else this.#say('refreshed', { id, expires_at_ms: 5_000 });
  }

  #welcome(connect: ClientFrames['connect']): void {
    this.#node.tokens.push(connect.token);
    this.network = connect.network;
    const isBad = connect.token !== undefined && this.#node.badTokens.has(connect.token);
    const refusal = isBad ? { code: 3503, reason: 'unauthenticated' } : this.#node.refusal;
    if (refusal !== undefined) {
      this.breaks(refusal.code, refusal.reason);
      return;
    }
    this.#say('connected', {
      id: connect.id,
      session: 's1',
      resume: 'r1',
      node: 'n1',
      region: 'eu',
      resumed: connect.resume !== undefined,
      heartbeat: { interval_ms: 25_000, timeout_ms: 10_000 },
      limits: { frame_bytes: 65_536, publishes_per_second: 0, ...(this.#node.keyMs && { idempotency_ms: this.#node.keyMs }) },
      regions: [],
    });
    for (const [channel, options] of Object.entries(connect.subscriptions ?? {})) this.#subscribe(channel, options);
  }

  #subscribe(channel: string, { position = {}, presence }: SubscribeOptions, id?: number): void {
    this.channels.add(channel);
    const members = presence ? { presence: { count: 1, members: [{ session: 's1', since_ms: 0 }] } } : {};
    this.#confirm(() => {
      this.#say('subscribed', { ...(id === undefined ? {} : { id }), channel, position, ...members });
    });
  }

  #confirm(answer: () => void): void {
    this.confirmations.push(answer);
    if (!this.#node.isSlow) this.confirm();
  }

  confirm(): void {
    for (const confirm of this.confirmations.splice(0)) confirm();
  }
}

export class FakeNode {
  readonly connections: FakeConnection[] = [];
  /** Of each `connect`. */
  readonly tokens: (string | undefined)[] = [];
  /** Those that it does not take. */
  readonly badTokens = new Set<string>();
  /** How it answers `connect`, if not kindly. */
  refusal: { code: number; reason: string } | undefined;
  /** Whether subscriptions are confirmed only when the test says so; and whether nobody may read history. */
  isSlow = false;
  isPrivate = false;
  /** Whether connections to it fail; and whether publishes are not answered. */
  isAway = false;
  isMute = false;
  /** How long it remembers keys, if it says so. */
  keyMs = 0;
  /** The keys of all publishes that came. */
  readonly published: string[] = [];
  readonly WebSocket: WebSocketConstructor;

  constructor() {
    const node = this;
    this.WebSocket = class extends FakeConnection {
      constructor() {
        super(node);
      }
    };
  }

  /** The newest one. */
  get connection(): FakeConnection {
    const connection = this.connections.at(-1);
    if (connection === undefined) throw new Error('nobody has connected');
    return connection;
  }
}
