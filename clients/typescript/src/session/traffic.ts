/** What goes over a connection: frames to their channels and waiters, requests to the wire. */
import { type Backoff, fullJitter } from '../backoff.js';
import { ALREADY_SUBSCRIBED, isTransient } from '../codes.js';
import { RequestError, requestError, tooLarge } from '../errors.js';
import type { Payload, ServerFrame, ServerFrames, SubscribeOptions } from '../frames.js';
import { toError, toPublished } from '../messages.js';
import { hold, type Link, type Phase } from './link.js';
import { type Publish, Publishes } from './publishes.js';
import { type Query, type Request, Requests } from './requests.js';
import { type ChannelReader, Subscription } from './subscription.js';

/** The least wait before a channel is asked for again that the node refused for the moment. */
const RESUBSCRIBE_WAIT_MS = 500;
/** What a `connect` may take apart from its subscriptions: token, resume secret and the rest. */
const CONNECT_BYTES = 16 * 1024;
/** The channel of a request that only asks whether the node is there: nobody has subscribed to it. */
const NOBODYS_CHANNEL = 'skywave:nobody';
/** How quickly a node has to answer that, at least: four times what it usually takes, or this. */
const LEAST_CHECK_MS = 2_000;

/** What the session gives to its traffic. */
export interface TrafficHost {
  now(): number;
  random(): number;
  /** The connection that carries the session. */
  readonly live: Link | undefined;
  /** What the connection says further cannot be trusted. */
  fault(link: Link, problem: string): void;
}

export interface TrafficOptions {
  readonly backoff: Backoff;
  readonly requestTimeoutMs: number;
  readonly publishQueue: number;
}

export class Traffic {
  readonly publishes: Publishes;
  readonly requests: Requests;
  readonly #host: TrafficHost;
  readonly #options: TrafficOptions;
  readonly #subscriptions = new Map<string, Subscription>();

  constructor(options: TrafficOptions, host: TrafficHost) {
    this.#host = host;
    this.#options = options;
    this.publishes = new Publishes(options.publishQueue, options.backoff, () => host.random());
    this.requests = new Requests(options.requestTimeoutMs);
  }

  // ---- from the node

  /** Deals with a frame that came after `connected`, and is not about the connection itself. */
  frame(link: Link, frame: ServerFrame): void {
    const [name, body] = frame;
    switch (name) {
      case 'publication':
      case 'event':
      case 'gap':
      case 'presence_changed':
        this.#channelFrame(link, body.channel, frame);
        break;
      case 'subscribed':
        this.#take(body.id);
        this.#confirmed(link, body);
        break;
      case 'unsubscribed':
        this.#unsubscribed(link, body);
        break;
      case 'error':
        this.#take(body.id)?.failed?.(toError(body));
        break;
      default:
        if ('id' in body) this.#replied(this.#take(body.id), frame);
    }
  }

  #replied(request: Request | undefined, [name, body]: ServerFrame): void {
    if (name === request?.reply) request.done?.(body as never);
    else request?.failed?.(requestError('internal', 'unexpected reply'));
  }

  #channelFrame(link: Link, channel: string, frame: ServerFrame): void {
    const phase = link.phases.get(channel);
    if (phase?.state === 'subscribed') this.#deliver(link, channel, frame);
    else if (phase?.held && !hold(phase.held, frame)) this.#host.fault(link, 'too much too early');
  }

  #deliver(link: Link, channel: string, frame: ServerFrame): void {
    const delivery = this.#subscriptions.get(channel)?.deliver(frame);
    if (delivery === 'full') this.#pause(channel, Infinity);
    else if (delivery === 'out_of_order') this.#host.fault(link, 'a publication is missing');
  }

  #confirmed(link: Link, body: ServerFrames['subscribed']): void {
    const { channel } = body;
    const phase = link.phases.get(channel);
    if (phase?.state !== 'awaiting') return;
    link.phases.set(channel, { state: 'subscribed', held: undefined });
    this.#subscriptions.get(channel)?.subscribed(body);
    for (const frame of phase.held ?? []) this.#channelFrame(link, channel, frame);
  }

  #unsubscribed(link: Link, { id, channel, code, reason }: ServerFrames['unsubscribed']): void {
    const phase = link.phases.get(channel);
    if (id === undefined) {
      // The node's own doing. On a connection that retires it says nothing about the new one.
      link.phases.delete(channel);
      const number = code ?? 100;
      const word = reason ?? 'unsubscribed';
      const error = new RequestError(number, word, `unsubscribed: ${word}`, isTransient(number));
      if (link === this.#host.live) this.#refused(channel, error);
      return;
    }
    this.#take(id);
    if (phase?.state !== 'leaving') return;
    if (phase.held) link.phases.set(channel, { state: 'awaiting', held: phase.held });
    else link.phases.delete(channel);
  }

  /** The node will not have this subscription, for now or for good. */
  #refused(channel: string, error: RequestError): void {
    const subscription = this.#subscriptions.get(channel);
    if (subscription === undefined) return;
    if (error.transient) {
      const jitter = fullJitter(this.#options.backoff, subscription.failures, this.#host.random());
      subscription.failures += 1;
      this.#pause(channel, this.#host.now() + (error.retryAfterMs ?? 0) + RESUBSCRIBE_WAIT_MS + jitter);
      return;
    }
    this.#subscriptions.delete(channel);
    subscription.reader.ended(error);
  }

  /** Takes the request that a reply belongs to, and the time that it took. */
  #take(id: number | undefined): Request | undefined {
    return id === undefined ? undefined : this.requests.replied(id, this.#host.now());
  }

  // ---- subscriptions

  /** Subscribes, or does so anew with other options. */
  subscribe(channel: string, options: SubscribeOptions, reader: ChannelReader): void {
    this.#subscriptions.set(channel, new Subscription(options, reader, this.#subscriptions.get(channel)?.keys));
    this.#leave(channel);
    this.#join(channel);
  }

  unsubscribe(channel: string): void {
    if (this.#subscriptions.delete(channel)) this.#leave(channel);
  }

  positionOf(channel: string): SubscribeOptions['position'] {
    return this.#subscriptions.get(channel)?.position;
  }

  /** The reader has room again; or it is time, where the node has named one. */
  resume(channel: string, at = Infinity): void {
    const subscription = this.#subscriptions.get(channel);
    if (!subscription?.isPaused || subscription.resumeAt !== at) return;
    subscription.isPaused = false;
    subscription.resumeAt = Infinity;
    this.#join(channel);
  }

  /** Leaves a channel on the wire until `until`, or until its reader has room. */
  #pause(channel: string, until: number): void {
    const subscription = this.#subscriptions.get(channel);
    if (subscription === undefined) return;
    subscription.resumeAt = until;
    if (subscription.isPaused) return;
    subscription.isPaused = true;
    this.#leave(channel);
  }

  /** Asks for a channel on the live connection. */
  #join(channel: string): void {
    const { live } = this.#host;
    const subscription = this.#subscriptions.get(channel);
    if (live === undefined || subscription === undefined || subscription.isPaused) return;
    const isSent = this.requests.send(
      live,
      this.#host.now(),
      (id) => ['subscribe', { id, channel, ...subscription.request() }],
      {
        failed: (error) => {
          if (error.code === ALREADY_SUBSCRIBED) {
            // From where it stands nobody knows.
            this.#leave(channel);
            this.#join(channel);
            return;
          }
          live.phases.delete(channel);
          if (live === this.#host.live) this.#refused(channel, error);
        },
      },
    );
    if (!isSent) {
      this.#refused(channel, tooLarge(live.frameBytes));
      return;
    }
    // Where it is being left, its `unsubscribed` is still to come.
    const state: Phase['state'] = live.phases.get(channel)?.state === 'leaving' ? 'leaving' : 'awaiting';
    live.phases.set(channel, { state, held: [] });
  }

  #leave(channel: string): void {
    const { live } = this.#host;
    const phase = live?.phases.get(channel);
    if (live === undefined || phase === undefined || (phase.state === 'leaving' && !phase.held)) return;
    live.phases.set(channel, { state: 'leaving', held: undefined });
    this.#sendUnsubscribe(live, channel);
  }

  #sendUnsubscribe(live: Link, channel: string): void {
    this.requests.send(live, this.#host.now(), (id) => ['unsubscribe', { id, channel }], {});
  }

  // ---- connections

  /** All subscriptions, as far as they fit into one `connect`; the others are asked for after it. */
  asked(frameBytes: number): { asked: Map<string, Subscription>; subscriptions: Record<string, SubscribeOptions> } {
    let left = (frameBytes || Infinity) - CONNECT_BYTES;
    const asked = new Map<string, Subscription>();
    const subscriptions: Record<string, SubscribeOptions> = {};
    for (const [channel, subscription] of this.#subscriptions) {
      if (subscription.isPaused) continue;
      const request = subscription.request();
      // A byte of UTF-8 takes at most three per UTF-16 unit; the node reads the whole frame or nothing.
      left -= 3 * JSON.stringify([channel, request]).length + 8;
      if (left < 0) break;
      asked.set(channel, subscription);
      subscriptions[channel] = request;
    }
    return { asked, subscriptions };
  }

  /** Brings the new connection to what the application has asked for meanwhile. */
  catchUp(link: Link): void {
    for (const [channel, subscription] of link.asked) {
      link.phases.set(channel, { state: 'awaiting', held: [] });
      // Dropped meanwhile, even if somebody else has subscribed since.
      if (this.#subscriptions.get(channel) !== subscription || subscription.isPaused) this.#leave(channel);
    }
    for (const channel of this.#subscriptions.keys()) {
      const phase = link.phases.get(channel);
      if (phase === undefined || (phase.state === 'leaving' && !phase.held)) this.#join(channel);
    }
    this.requests.sendWaiting(link, this.#host.now());
    this.sendPublishes();
  }

  // ---- to the node

  publish(publish: Publish): number | undefined {
    const number = this.publishes.push(publish);
    if (number !== undefined) this.sendPublishes();
    return number;
  }

  sendPublishes(): void {
    const { live } = this.#host;
    if (live === undefined) return;
    for (const [number, publish] of this.publishes.take(live, this.#host.now())) {
      this.#sendPublish(live, number, publish);
    }
  }

  #sendPublish(live: Link, number: number, { channel, key, data }: Publish): void {
    const isSent = this.requests.send(live, this.#host.now(), (id) => ['publish', { id, channel, key, data }], {
      reply: 'published',
      done: (body: ServerFrames['published']) => {
        this.publishes.answer(number, toPublished(body));
      },
      failed: (error) => {
        this.publishes.failed(number, live, error, this.#host.now());
      },
    });
    if (isSent) return;
    this.publishes.refuse(number, tooLarge(live.frameBytes));
  }

  /** Sends an event, unless so much waits already that it is better dropped; answers whether it went out. */
  emit(channel: string, data: Payload, slot?: string): boolean {
    const { live } = this.#host;
    if (live === undefined || live.transport.isCongested) return false;
    return live.send(['emit', { channel, slot, data }], 'datagram');
  }

  /** Answers how to forget it. */
  ask(query: Query): () => void {
    return this.requests.ask(query, this.#host.live, this.#host.now());
  }

  /** Asks the node for a sign of life at once, and gives the connection up when none comes. */
  check(): void {
    const { live } = this.#host;
    if (live === undefined || live.isBeingChecked) return;
    this.#sendUnsubscribe(live, NOBODYS_CHANNEL);
    live.check(this.#host.now(), Math.max(LEAST_CHECK_MS, 4 * this.requests.trips.smoothedMs));
  }

  // ---- time

  get nextAt(): number {
    const { live } = this.#host;
    let at = this.requests.nextAt;
    if (live === undefined) return at;
    at = Math.min(at, this.publishes.nextAt(live));
    for (const { resumeAt } of this.#subscriptions.values()) at = Math.min(at, resumeAt);
    return at;
  }

  tick(now: number): void {
    this.requests.expire(now);
    if (this.#host.live === undefined) return;
    for (const [channel, { resumeAt }] of this.#subscriptions) if (resumeAt <= now) this.resume(channel, resumeAt);
    this.sendPublishes();
  }

  /** The node does not want this client: whoever waits is told. Subscriptions are kept for the next connection. */
  refuse(error: RequestError): void {
    this.publishes.failAll(error);
    this.requests.failAll(error);
    for (const { reader } of this.#subscriptions.values()) reader.refused?.(error);
  }

  /** The client is closed. */
  end(error: RequestError): void {
    this.refuse(error);
    const subscriptions = [...this.#subscriptions.values()];
    this.#subscriptions.clear();
    for (const { reader } of subscriptions) reader.ended(error);
  }
}
