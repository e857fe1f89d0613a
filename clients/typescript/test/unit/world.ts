/** A world for sessions: a clock that stands until it is moved, and transports that a test plays the node on. */
import assert from 'node:assert/strict';
import { parseAddress } from '../../src/address.js';
import { lost, type SkywaveError } from '../../src/errors.js';
import type { ClientFrame, ClientFrames, ServerFrame, ServerFrames, WirePublication } from '../../src/frames.js';
import type { Published as Accepted } from '../../src/messages.js';
import { Session } from '../../src/session.js';
import type { DialOutcome, DialRequest, Target } from '../../src/session/opening.js';
import { Route, type RouteOptions, type Surroundings } from '../../src/session/route.js';
import type { Router } from '../../src/session/router.js';
import type { SessionIo, SessionOptions, State } from '../../src/session/state.js';
import type { ChannelReader } from '../../src/session/subscription.js';
import { switchTo } from '../../src/session/switching.js';
import type { Lane, Transport, TransportEvents } from '../../src/transport.js';
import type { TransportChoice, TransportKind } from '../../src/transport_kind.js';

/** A transport of which the test is the node. */
export class FakeTransport implements Transport {
  readonly kind: TransportKind;
  readonly sent: ClientFrame[] = [];
  readonly lanes: Lane[] = [];
  isClosed = false;
  isCongested = false;
  #events: TransportEvents | undefined;

  constructor(kind: TransportKind) {
    this.kind = kind;
  }

  listen(events: TransportEvents): void {
    this.#events = events;
  }

  send(frame: ClientFrame, lane: Lane, maxBytes: number): boolean {
    if (JSON.stringify(frame).length > maxBytes) return false;
    this.sent.push(written(frame));
    this.lanes.push(lane);
    return true;
  }

  close(): void {
    this.isClosed = true;
  }

  // ---- as the node

  says(...frames: ServerFrame[]): void {
    for (const frame of frames) if (!this.isClosed) this.#events?.frame(frame);
  }

  /** On the stream of a subscription. */
  streams(subscription: number, ...frames: ServerFrame[]): void {
    for (const frame of frames) if (!this.isClosed) this.#events?.frame(frame, subscription);
  }

  breaks(code?: number, reason = 'broken'): void {
    if (!this.isClosed) this.#events?.ended(code, reason);
  }

  /** All frames of that name that were sent. */
  all<Name extends keyof ClientFrames>(name: Name): ClientFrames[Name][] {
    return this.sent.filter(([one]) => one === name).map(([, body]) => body as ClientFrames[Name]);
  }

  /** The last one of that name. */
  last<Name extends keyof ClientFrames>(name: Name): ClientFrames[Name] {
    const body = this.all(name).at(-1);
    assert.ok(body, `no \`${name}\` was sent`);
    return body;
  }

  /** Answers `connect`, and each of its subscriptions. */
  welcomes(fields: Partial<ServerFrames['connected']> = {}): void {
    const connect = this.last('connect');
    this.says(['connected', { ...CONNECTED, id: connect.id, resumed: connect.resume !== undefined, ...fields }]);
    for (const [channel, options] of Object.entries(connect.subscriptions ?? {})) {
      const position = options.position ?? {};
      this.says(['subscribed', { channel, position, ...(options.position ? { recovered: true } : {}) }]);
    }
  }
}

/** As an encoding writes it: without what is `undefined`. */
function written<Value>(value: Value): Value {
  if (Array.isArray(value)) return value.map(written) as Value;
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(fields.map(([name, field]): [string, unknown] => [name, written(field)])) as Value;
}

/** What a node says that welcomes a session. */
export const CONNECTED: Omit<ServerFrames['connected'], 'id'> = {
  session: 's1',
  resume: 'r1',
  node: 'n1',
  region: 'eu',
  resumed: false,
  heartbeat: { interval_ms: 25_000, timeout_ms: 10_000 },
  limits: { frame_bytes: 65_536, publishes_per_second: 0 },
  regions: [],
};

export interface Told {
  state: State;
  error: SkywaveError | undefined;
}

export class World implements SessionIo, Surroundings {
  time = 1_000_000;
  chance = 0.5;
  readonly dials: { request: DialRequest; done: (outcome: DialOutcome) => void; isCancelled: boolean }[] = [];
  readonly tokenRequests: ((token: string | undefined) => void)[] = [];
  /** How many fetches of tokens were given up. */
  givenUp = 0;
  readonly told: Told[] = [];
  readonly session: Session;
  networkName = '';
  #tickAt = Infinity;

  constructor(options: Partial<SessionOptions> = {}) {
    this.session = new Session({ ...OPTIONS, ...options }, {}, this);
  }

  // ---- what a session sees

  now(): number {
    return this.time;
  }

  route(options: RouteOptions): Router {
    return new Route(options, this);
  }

  random(): number {
    return this.chance;
  }

  dial(request: DialRequest, done: (outcome: DialOutcome) => void): () => void {
    const dial = { request, done, isCancelled: false };
    this.dials.push(dial);
    return () => {
      dial.isCancelled = true;
    };
  }

  fetchToken(done: (token: string | undefined) => void): () => void {
    this.tokenRequests.push(done);
    return () => {
      this.givenUp += 1;
    };
  }

  parse(url: string): ReturnType<typeof parseAddress> | undefined {
    return parseAddress(url);
  }

  network(): string {
    return this.networkName;
  }

  schedule(at: number): void {
    this.#tickAt = at;
  }

  stateChanged(state: State, error?: SkywaveError): void {
    this.told.push({ state, error });
  }

  // ---- what a test does

  /** Lets time pass; each timer is on time. */
  pass(milliseconds: number): void {
    const end = this.time + milliseconds;
    for (let rounds = 0; this.#tickAt <= end; rounds += 1) {
      assert.ok(rounds < 10_000, 'timers without end');
      this.time = Math.max(this.time, this.#tickAt);
      this.session.tick();
    }
    this.time = end;
  }

  /** Lets time pass without timers, as while the system sleeps, and then a timer. */
  sleep(milliseconds: number): void {
    this.time += milliseconds;
    this.session.tick();
  }

  /** When the session wants to be called again. */
  get nextTick(): number {
    return this.#tickAt;
  }

  /** The dial that is under way. */
  get dialing(): (typeof this.dials)[number] {
    const dial = this.dials.at(-1);
    assert.ok(dial && !dial.isCancelled, 'nobody is dialled');
    return dial;
  }

  /** Completes the handshake that is under way. */
  opens(
    kind: TransportKind = 'webtransport',
    fields: { index?: number; token?: string; failed?: number[] } = {},
    watch: (transport: FakeTransport) => void = () => undefined,
  ): FakeTransport {
    const transport = new FakeTransport(kind);
    watch(transport);
    const { index = 0, token, failed = [] } = fields;
    const { done, request } = this.dialing;
    const at = (place: number): Target => {
      const target = request.targets[place];
      assert.ok(target, 'nobody is tried there');
      return target;
    };
    done({ transport, target: at(index), tookMs: 20, failed: failed.map(at), token });
    return transport;
  }

  fails(error: SkywaveError = lost('nobody answers')): void {
    this.dialing.done({ error });
  }

  /** Connects; the node welcomes the session. */
  connected(fields: Partial<ServerFrames['connected']> = {}, kind: TransportKind = 'webtransport'): FakeTransport {
    this.session.connect();
    const transport = this.opens(kind);
    transport.welcomes(fields);
    return transport;
  }

  /** After a break: waits for the next attempt, which succeeds. */
  comesBack(fields: Partial<ServerFrames['connected']> = {}, kind: TransportKind = 'webtransport'): FakeTransport {
    const before = this.dials.length;
    for (let waits = 0; this.dials.length === before; waits += 1) {
      assert.ok(waits < 100, 'it does not come back');
      this.pass(1_000);
    }
    const transport = this.opens(kind);
    transport.welcomes(fields);
    return transport;
  }

  switchTo(choice: TransportChoice, settle: (error?: SkywaveError) => void): () => void {
    return switchTo(this.session, choice, settle);
  }

  subscribe(channel: string, options = {}): Reader {
    const reader = new Reader();
    this.session.traffic.subscribe(channel, options, reader);
    this.session.settle();
    return reader;
  }

  /** Publishes, and collects what came of it. */
  publish(channel: string, data: unknown, key = `key-${String(data)}`): Published {
    const published: Published = {};
    this.session.traffic.publish({
      channel,
      data: JSON.stringify(data),
      key,
      done: (body) => (published.at = body),
      failed: (error) => (published.error = error),
    });
    this.session.settle();
    return published;
  }
}

export interface Published {
  at?: Accepted;
  error?: SkywaveError;
}

/** Collects what a channel's reader is told. */
export class Reader implements ChannelReader {
  room = Infinity;
  readonly publications: unknown[] = [];
  readonly events: unknown[] = [];
  readonly gaps: ServerFrames['gap'][] = [];
  readonly changes: ServerFrames['presence_changed'][] = [];
  readonly confirmations: ServerFrames['subscribed'][] = [];
  end: SkywaveError | undefined;

  hasRoom(): boolean {
    return this.publications.length < this.room;
  }

  subscribed(body: ServerFrames['subscribed']): void {
    this.confirmations.push(body);
  }

  publication({ data }: WirePublication, isRepeated: boolean): void {
    if (!isRepeated) this.publications.push(data);
  }

  event({ data }: ServerFrames['event']): void {
    this.events.push(data);
  }

  gap(gap: ServerFrames['gap']): void {
    this.gaps.push(gap);
  }

  presenceChanged(changed: ServerFrames['presence_changed']): void {
    this.changes.push(changed);
  }

  ended(error: SkywaveError): void {
    this.end = error;
  }
}

const OPTIONS: SessionOptions = {
  addresses: [parseAddress('https://a.example')],
  transport: 'auto',
  headStartMs: 250,
  connectTimeoutMs: 5_000,
  requestTimeoutMs: 10_000,
  publishQueue: 1_024,
  backoff: { firstMs: 200, maxMs: 20_000 },
  canRefresh: false,
  client: { name: 'test' },
  storage: undefined,
};

/** A publication of `eu` in epoch `e`, whose data is its offset. */
export function publication(offset: number, fields: Partial<WirePublication> = {}): ServerFrame {
  return ['publication', { channel: 'chat:1', origin: 'eu', epoch: 'e', offset, time_ms: 0, data: offset, ...fields }];
}
