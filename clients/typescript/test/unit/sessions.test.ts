/** The scripted sessions of the protocol's vectors, which every client runs: what happens when, and what it does then. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { parseAddress } from '../../src/address.js';
import { lost, type RequestError, TokenError } from '../../src/errors.js';
import type { ClientFrame, ServerFrame, ServerFrames, WirePublication } from '../../src/frames.js';
import type { Position } from '../../src/position.js';
import type { Question, RequestFields } from '../../src/replies.js';
import type { DialRequest } from '../../src/session/opening.js';
import type { SessionOptions } from '../../src/session/state.js';
import type { ChannelReader } from '../../src/session/subscription.js';
import type { TransportKind } from '../../src/transport_kind.js';
import { VECTORS, read } from './vectors.js';
import { CONNECTED, type FakeTransport, World } from './world.js';

type Fields = Record<string, unknown>;

/** What happens, or is done, at that time in milliseconds. */
interface Step {
  at: number;
  in?: Fields;
  out?: Fields;
}

interface Script {
  name: string;
  options?: {
    publish_queue?: number;
    request_timeout_ms?: number;
    /** Where nodes are. A script that has them tells all about its connections. */
    urls?: string[];
    token?: string;
    fetches_tokens?: boolean;
  };
  script: Step[];
}

/** What a connection is told by its node, but for what a script says. */
interface Welcome extends Partial<Omit<ServerFrames['connected'], 'limits'>> {
  on: string;
  limits?: Partial<ServerFrames['connected']['limits']>;
}

/** How long a session is watched after the last step. */
const REST_MS = 1_000;
/** One that asks for nothing. */
const HEARTBEAT = { interval_ms: 120_000, timeout_ms: 0 };

function entry(fields: Fields): [string, Fields] {
  return Object.entries(fields)[0] as [string, Fields];
}

/** Tells what a channel's reader is told. */
class Listener implements ChannelReader {
  room: number;
  readonly #tell: (event: string, what: unknown) => void;

  constructor(room: number, tell: (event: string, what: unknown) => void) {
    this.room = room;
    this.#tell = tell;
  }

  hasRoom(): boolean {
    return this.room > 0;
  }

  subscribed(_: ServerFrames['subscribed'], position: Position): void {
    this.#tell('subscribed', position);
  }

  publication({ offset }: WirePublication, isRepeated: boolean): void {
    if (isRepeated) return;
    this.room -= 1;
    this.#tell('publication', offset);
  }

  event({ data }: ServerFrames['event']): void {
    this.#tell('event', data);
  }

  gap({ offset }: ServerFrames['gap']): void {
    this.room -= 1;
    this.#tell('gap', offset);
  }

  presenceChanged({ count }: ServerFrames['presence_changed']): void {
    this.room -= 1;
    this.#tell('presence', count);
  }

  ended({ code }: RequestError): void {
    this.#tell('ended', code);
  }
}

/** A handshake that has completed: with whom and over which transport, and who failed before. */
interface Reached {
  on: string;
  at?: string;
  over?: TransportKind;
  failed?: string[];
  token?: string;
}

/** A session that a script is played to. */
class Play {
  readonly #world: World;
  readonly #begin: number;
  readonly #nodes = new Map<string, FakeTransport>();
  readonly #readers = new Map<string, Listener>();
  /** The ids that the session has given to what the script has names for. */
  readonly #ids = new Map<string, unknown>();
  #done: [number, Fields][] = [];
  /** Whether all about connections is told. */
  readonly #isFull: boolean;
  #isDialing = false;
  #isBreaking = false;

  constructor({ options = {} }: Script) {
    const { publish_queue: publishQueue = 1_024, request_timeout_ms: requestTimeoutMs = 10_000, urls, token, fetches_tokens } = options;
    this.#isFull = urls !== undefined;
    const [first = parseAddress('https://a.example'), ...others] = (urls ?? []).map((url) => parseAddress(url));
    const canRefresh = fetches_tokens ?? false;
    const given: Partial<SessionOptions> = { publishQueue, requestTimeoutMs, addresses: [first, ...others], token, canRefresh };
    this.#world = new World(given);
    this.#begin = this.#world.time;
    this.#watch(this.#world);
  }

  /** Notes what the session asks of the world. */
  #watch(world: World): void {
    const dial = world.dial.bind(world);
    world.dial = (request, done) => {
      this.#isDialing = true;
      if (this.#isFull) this.#did('dial', request.targets.map(target));
      const giveUp = dial(request, (outcome) => {
        this.#isDialing = false;
        done(outcome);
      });
      return () => {
        if (this.#isDialing && this.#isFull) this.#did('given_up', {});
        this.#isDialing = false;
        giveUp();
      };
    };
    const fetchToken = world.fetchToken.bind(world);
    world.fetchToken = (done) => {
      this.#did('fetch_token', {});
      return fetchToken(done);
    };
    world.stateChanged = (state, error) => {
      if (this.#isFull && state === 'disconnected') this.#did('over', error?.code ?? null);
    };
  }

  run(steps: readonly Step[]): void {
    for (const [place, step] of steps.entries()) {
      if (step.in === undefined) continue;
      const rest = steps.slice(place + 1);
      const next = rest.findIndex((other) => other.in !== undefined);
      const expected = next < 0 ? rest : rest.slice(0, next);
      this.#world.time = this.#begin + step.at;
      this.#happens(...entry(step.in));
      // Nothing happens in a sleep.
      const sleeps = rest[next]?.in?.['woke'] !== undefined;
      if (!sleeps) this.#until(rest[next]?.at ?? (steps.at(-1)?.at ?? 0) + REST_MS);
      const wanted = expected.map(({ at, out = {} }): [number, Fields] => [at, out]);
      for (const [index, [, done]] of this.#done.entries()) this.#bind(wanted[index]?.[1], done);
      assert.deepEqual(this.#done, this.#withIds(wanted), `after ${JSON.stringify(step)}`);
      this.#done = [];
    }
  }

  #until(at: number): void {
    this.#world.pass(this.#begin + at - this.#world.time);
  }

  #did(name: string, what: unknown): void {
    this.#done.push([this.#world.time - this.#begin, { [name]: what }]);
  }

  #happens(name: string, body: Fields): void {
    const { session } = this.#world;
    switch (name) {
      case 'connect':
        session.connect();
        break;
      case 'dialed':
        this.#dialed(body as unknown as Reached);
        break;
      case 'unreached':
        this.#world.fails(lost('nobody answers'));
        break;
      case 'token':
        this.#world.tokenRequests.shift()?.(body as unknown as string);
        break;
      case 'no_token':
        if (this.#isDialing) this.#world.fails(new TokenError('not now', { transient: true }));
        else this.#world.tokenRequests.shift()?.(undefined);
        break;
      case 'switch':
        this.#world.switchTo(body['to'] as TransportKind, (error) => {
          this.#did('switched', error === undefined);
        });
        break;
      case 'connected':
        this.#connected(body as unknown as Welcome);
        break;
      case 'connecting':
        this.#connecting(body as unknown as Reached);
        break;
      case 'lost':
        this.#isBreaking = true;
        this.#node(body['on']).breaks(body['code'] as number | undefined);
        this.#isBreaking = false;
        break;
      case 'received':
        this.#received(body as unknown as [string, Fields, number?]);
        break;
      case 'check':
        session.check();
        break;
      case 'woke':
        session.woke();
        break;
      default:
        this.#asks(name, body);
    }
    session.settle();
    this.#world.pass(0);
  }

  #received([on, frame, stream]: [string, Fields, number?]): void {
    const { id: greeting } = this.#node(on).last('connect');
    const [name, body] = entry(this.#dated(frame));
    const fields = body['id'] === 'connect' ? { ...body, id: greeting } : this.#withIds(body);
    const given = [name, fields] as unknown as ServerFrame;
    if (stream === undefined) this.#node(on).says(given);
    else this.#node(on).streams(stream, given);
  }

  /** The application asks for something. */
  #asks(name: string, body: Fields): void {
    const { traffic } = this.#world.session;
    const { as = '', channel = '', data, ...fields } = body as { as?: string; channel?: string; data?: unknown };
    const waiter = {
      done: (): void => {
        this.#did('answered', as);
      },
      failed: ({ code, reason, transient }: RequestError): void => {
        this.#did('failed', [as, { code, reason, transient }]);
      },
    };
    switch (name) {
      case 'subscribe':
        traffic.subscribe(channel, fields, this.#reader(channel, fields));
        break;
      case 'unsubscribe':
        traffic.unsubscribe(channel);
        break;
      case 'room': {
        const reader = this.#readers.get(channel);
        if (reader) reader.room += Number(body['more']);
        traffic.resume(channel);
        break;
      }
      case 'publish':
        traffic.publish({ channel, key: as, data: JSON.stringify(data), ...waiter });
        break;
      case 'call':
        traffic.ask(name, { ...fields, data: JSON.stringify(data) } as RequestFields<'call'>, { isRepeatable: false, ...waiter });
        break;
      default:
        traffic.ask(name as Question, { channel, ...fields }, { isRepeatable: true, ...waiter });
    }
  }

  #reader(channel: string, { room = Infinity }: { room?: number }): Listener {
    const reader = new Listener(room, (event, what) => {
      this.#did('told', [channel, { [event]: what }]);
    });
    this.#readers.set(channel, reader);
    return reader;
  }

  /** A connection is there, and the node has got `connect`. */
  #connecting(reached: Reached): void {
    const { session } = this.#world;
    if (session.live) this.#world.switchTo('webtransport', assert.ifError);
    else session.connect();
    this.#dialed(reached);
  }

  /** A handshake has completed. */
  #dialed({ on, at, over, failed = [], token = this.#world.session.tokens.current }: Reached): void {
    const { targets } = this.#world.dialing.request;
    const index = (host: string): number => targets.findIndex((one) => target(one).host === host);
    const places = { index: at === undefined ? 0 : index(at), failed: failed.map(index) };
    const kind = over ?? 'webtransport';
    this.#world.opens(kind, { ...places, ...(token === undefined ? {} : { token }) }, (node) => {
      this.#nodes.set(on, node);
      this.#listen(on, node);
    });
  }

  /** Notes what is done on a connection. */
  #listen(on: string, node: FakeTransport): void {
    const send = node.send.bind(node);
    node.send = (frame, lane, maxBytes) => {
      const isSent = send(frame, lane, maxBytes);
      if (isSent) this.#did('sent', [on, this.#told(node.sent.at(-1))]);
      return isSent;
    };
    const close = node.close.bind(node);
    node.close = () => {
      // One that is left for another is no news.
      const isLeft = (!this.#isFull && this.#world.session.live !== undefined) || this.#isBreaking;
      if (!node.isClosed && !isLeft) this.#did('gone', on);
      close();
    };
  }

  /** The node welcomes the session on a connection: the first one, after a break, or for a move. */
  #connected({ on, limits, ...fields }: Welcome): void {
    if (!this.#nodes.has(on)) {
      const before = this.#done.length;
      this.#connecting({ on });
      // What it asked for is told where `connecting` is.
      this.#done.splice(before);
    }
    const node = this.#node(on);
    const { id } = node.last('connect');
    const welcome = { ...CONNECTED, id, heartbeat: HEARTBEAT, ...fields, limits: { ...CONNECTED.limits, ...limits } };
    const [, dated] = entry(this.#dated({ connected: welcome }));
    node.says(['connected', dated as unknown as typeof welcome]);
  }

  /** With times of this world in place of those since the script's beginning. */
  #dated(frame: Fields): Fields {
    const [name, body] = entry(frame);
    const at = body['expires_at_ms'];
    return typeof at === 'number' ? { [name]: { ...body, expires_at_ms: at + this.#begin } } : frame;
  }

  /** A frame as scripts have it. */
  #told(frame?: ClientFrame): Fields {
    const [name, body] = frame as unknown as [string, Fields];
    if (name !== 'connect') {
      return { [name]: 'data' in body ? { ...body, data: JSON.parse(String(body['data'])) as unknown } : body };
    }
    const { subscriptions = {}, token, resume, attempt } = body;
    if (!this.#isFull) return { connect: { subscriptions } };
    const asked = Object.entries({ token, resume, attempt, subscriptions }).filter(([, value]) => value !== undefined);
    return { connect: Object.fromEntries(asked) };
  }

  #node(on: unknown): FakeTransport {
    const node = this.#nodes.get(on as string);
    assert.ok(node, 'no such connection');
    return node;
  }

  /** Learns which ids the names stand for that come for the first time. */
  #bind(expected: unknown, done: unknown): void {
    if (typeof expected !== 'object' || typeof done !== 'object' || expected === null || done === null) return;
    for (const [name, value] of Object.entries(expected)) {
      const other = (done as Fields)[name];
      if (name === 'id' && typeof value === 'string') {
        if (!this.#ids.has(value)) this.#ids.set(value, other);
      } else this.#bind(value, other);
    }
  }

  #withIds<Value>(value: Value): Value {
    if (Array.isArray(value)) return value.map((one) => this.#withIds<unknown>(one)) as Value;
    if (typeof value !== 'object' || value === null) return value;
    const fields = Object.entries(value).map(([name, field]): [string, unknown] => {
      if (name !== 'id' || typeof field !== 'string') return [name, this.#withIds<unknown>(field)];
      return [name, this.#ids.get(field)];
    });
    return Object.fromEntries(fields) as Value;
  }
}

/** Somebody to try, as scripts have it. */
function target({ address, plan }: DialRequest['targets'][0]): { host: string; over: readonly TransportKind[] } {
  return { host: new URL(address.webtransport ?? address.websocket ?? '').hostname, over: plan.kinds };
}

for (const file of readdirSync(`${VECTORS}/sessions`)) {
  describe(`a session: ${file.replace('.json', '')}`, () => {
    for (const script of read(`sessions/${file}`) as Script[]) {
      it(script.name, () => {
        new Play(script).run(script.script);
      });
    }
  });
}
