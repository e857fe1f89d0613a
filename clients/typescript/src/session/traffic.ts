/** What goes over a connection: frames to their channels and waiters, requests to the wire. */
import { type Backoff, fullJitter } from '../backoff.js';
import { ALREADY_SUBSCRIBED, isTransient, LIMIT_REACHED } from '../codes.js';
import { RequestError, requestError, tooLarge } from '../errors.js';
import type { Payload, ServerFrame, ServerFrames, SubscribeOptions } from '../frames.js';
import { toError, toPublished } from '../messages.js';
import { type Question, REPLIES, type RequestFields } from '../replies.js';
import type { Link } from './link.js';
import type { State } from './state.js';
import { BY_CONNECT, hold, Phase } from './phase.js';
import { type Publish, Publishes } from './publishes.js';
import { type Asker, Requests } from './requests.js';
import { type ChannelReader, Subscription } from './subscription.js';

/** The least wait before a channel is asked for again that the node refused for the moment. */
const RESUBSCRIBE_WAIT_MS = 500;
/** A channel that went so long without being refused or missing anything is well. */
const FAILURE_MEMORY_MS = 60_000;
/** The least wait before the node is asked again to let a channel go. */
const LEAVE_WAIT_MS = 100;
/** What a `connect` may take apart from its subscriptions: token, resume secret and the rest. */
const CONNECT_BYTES = 16 * 1024;
/** The channel of a request that only asks whether the node is there: nobody has subscribed to it. */
const NOBODYS_CHANNEL = 'skywave:nobody';

/** What the session gives to its traffic. */
export interface TrafficHost {
  now(): number;
  random(): number;
  /** The connection that carries the session. */
  readonly live: Link | undefined;
  readonly state: State;
  /** Something was done from outside. */
  settle(): void;
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
  frame(link: Link, frame: ServerFrame, stream?: number): void {
    const [name, body] = frame;
    switch (name) {
      case 'publication':
      case 'event':
      case 'gap':
      case 'presence_changed':
        this.#channelFrame(link, body.channel, frame, stream);
        break;
      case 'error':
        this.requests.replied(body.id, this.#host.now())?.failed?.(toError(body));
        break;
      default:
        if ('id' in body) this.#replied(frame, body.id);
        if (name === 'subscribed') this.#confirmed(link, body);
        else if (name === 'unsubscribed') this.#unsubscribed(link, body);
    }
  }

  #replied([name, body]: ServerFrame, id: number | undefined): void {
    const request = this.requests.replied(id, this.#host.now());
    if (request && name === REPLIES[request.name]) request.done?.(body);
    else request?.failed?.(requestError('internal', 'unexpected reply'));
  }

  #channelFrame(link: Link, channel: string, frame: ServerFrame, stream: number | undefined): void {
    // One that retires brings nothing that the live one does not.
    const phase = link === this.#host.live ? link.phases.get(channel) : undefined;
    if (!phase?.isOwn(stream)) return;
    if (phase.isJoined) this.#deliver(channel, frame);
    else if (!hold(phase.held, frame, stream)) this.#host.fault(link, 'too much');
  }

  #deliver(channel: string, frame: ServerFrame): void {
    const obstacle = this.#subscriptions.get(channel)?.deliver(frame);
    if (obstacle === 'full') this.#pause(channel, Infinity);
    else if (obstacle) this.#refused(channel, requestError('unavailable', obstacle));
  }

  #confirmed(link: Link, body: ServerFrames['subscribed']): void {
    const { id = BY_CONNECT, channel, subscription = -1 } = body;
    const phase = link.phases.get(channel);
    link.newestSubscription = Math.max(link.newestSubscription, subscription);
    // One that retires says nothing of where the live one begins.
    if (!phase?.confirm(id, subscription) || link !== this.#host.live) return;
    this.#subscriptions.get(channel)?.subscribed(body);
    for (const { frame, stream } of phase.held.splice(0)) this.#channelFrame(link, channel, frame, stream);
  }

  #unsubscribed(link: Link, { id, channel, code = 100, reason = 'unsubscribed' }: ServerFrames['unsubscribed']): void {
    const phase = link.phases.get(channel);
    if (id === undefined) {
      // The node's own doing; of a subscription that is being left it says nothing about the next.
      if (phase?.leaving) return;
      link.phases.delete(channel);
      // On a connection that retires it says nothing about the new one.
      if (link === this.#host.live) this.#refused(channel, new RequestError(code, reason, `unsubscribed: ${reason}`, isTransient(code)));
      return;
    }
    this.#left(link, channel, id);
  }

  /** The node has let the channel go. */
  #left(link: Link, channel: string, request: number): void {
    const phase = link.phases.get(channel);
    if (phase?.leaving !== request) return;
    phase.leaving = undefined;
    if (phase.asked !== undefined) return;
    link.phases.delete(channel);
    if (link === this.#host.live) this.#join(channel);
  }

  /** The node will not have this subscription, for now or for good. */
  #refused(channel: string, error: RequestError, isForNow = error.transient): void {
    const subscription = this.#subscriptions.get(channel);
    if (!subscription) return;
    if (isForNow) {
      const now = this.#host.now();
      if (now - subscription.failedAt > FAILURE_MEMORY_MS) subscription.failures = 0;
      const jitter = fullJitter(this.#options.backoff, subscription.failures, this.#host.random());
      subscription.failures += 1;
      subscription.failedAt = now + (error.retryAfterMs ?? 0) + RESUBSCRIBE_WAIT_MS + jitter;
      this.#pause(channel, subscription.failedAt);
      return;
    }
    this.#subscriptions.delete(channel);
    subscription.reader.ended(error);
  }

  // ---- subscriptions

  /** Subscribes, or does so anew with other options. */
  subscribe(channel: string, options: SubscribeOptions, reader: ChannelReader): void {
    this.#subscriptions.set(channel, new Subscription(options, reader, this.#subscriptions.get(channel)?.keys));
    this.#leave(channel);
    this.#join(channel);
    this.#host.settle();
  }

  unsubscribe(channel: string): void {
    if (this.#subscriptions.delete(channel)) this.#leave(channel);
    this.#host.settle();
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
    this.#host.settle();
  }

  /** Leaves a channel on the wire until `until`, or until its reader has room. */
  #pause(channel: string, until: number): void {
    const subscription = this.#subscriptions.get(channel);
    if (!subscription) return;
    subscription.resumeAt = until;
    subscription.isPaused = true;
    this.#leave(channel);
  }

  /** Asks for a channel on the live connection. */
  #join(channel: string): void {
    const { live } = this.#host;
    const subscription = this.#subscriptions.get(channel);
    if (!live || !subscription || subscription.isPaused) return;
    const request = this.requests.send(live, this.#host.now(), 'subscribe', { channel, ...subscription.request() }, {
      failed: (error) => {
        const phase = live.phases.get(channel);
        if (phase && phase.asked === request) this.#notSubscribed(live, channel, phase, error);
      },
    });
    if (request === undefined) {
      this.#refused(channel, tooLarge(live.frameBytes));
      return;
    }
    const phase = live.phases.get(channel) ?? new Phase();
    // Where it is being left, its `unsubscribed` is still to come.
    phase.ask(request, live.newestSubscription);
    live.phases.set(channel, phase);
  }

  /** The node did not take the last `subscribe`. */
  #notSubscribed(link: Link, channel: string, phase: Phase, error: RequestError): void {
    const isUnknown = error.code === ALREADY_SUBSCRIBED;
    if (phase.leaving) phase.end();
    // From where it stands nobody knows: it is left first, if that is not being tried already.
    else if (isUnknown) this.#leave(channel);
    else link.phases.delete(channel);
    if (isUnknown || link !== this.#host.live) return;
    // There is room once those that are being left are gone.
    const isLeaving = [...link.phases.values()].some((other) => other !== phase && other.leaving !== undefined);
    this.#refused(channel, error, error.transient || (error.code === LIMIT_REACHED && isLeaving));
  }

  #leave(channel: string): void {
    const { live } = this.#host;
    if (live?.phases.get(channel)?.asked !== undefined) this.#sendUnsubscribe(live, channel);
  }

  /** Asks the node to let a channel go, again and again where it cannot be bothered just now. */
  #sendUnsubscribe(live: Link, channel: string): void {
    const request = this.requests.send(live, this.#host.now(), 'unsubscribe', { channel }, {
      failed: (error) => {
        if (live.phases.get(channel)?.leaving !== request) return;
        if (!error.transient) this.#left(live, channel, request ?? BY_CONNECT);
        else live.leaveAgainAt.set(channel, this.#host.now() + (error.retryAfterMs ?? 0) + LEAVE_WAIT_MS * (1 + this.#host.random()));
      },
    });
    if (request !== undefined) live.phases.get(channel)?.leave(request);
  }

  #leaveAgain(live: Link, now: number): void {
    for (const [channel, at] of live.leaveAgainAt) {
      if (at > now) continue;
      live.leaveAgainAt.delete(channel);
      if (live.phases.get(channel)?.leaving === undefined) continue;
      const isWanted = live.phases.get(channel)?.asked !== undefined;
      this.#sendUnsubscribe(live, channel);
      if (isWanted) this.#join(channel);
    }
  }

  // ---- connections

  /** All subscriptions, as far as they fit into one `connect`; the others are asked for after it. */
  asked(frameBytes: number): { asked: Link['asked']; subscriptions: Record<string, SubscribeOptions> } {
    let left = (frameBytes || Infinity) - CONNECT_BYTES;
    const asked = new Map<string, readonly [Subscription, SubscribeOptions]>();
    const subscriptions: Record<string, SubscribeOptions> = {};
    for (const [channel, subscription] of this.#subscriptions) {
      if (subscription.isPaused) continue;
      const request = subscription.request();
      // A byte of UTF-8 takes at most three per UTF-16 unit; the node reads the whole frame or nothing.
      left -= 3 * JSON.stringify([channel, request]).length + 8;
      if (left < 0) break;
      asked.set(channel, [subscription, request]);
      subscriptions[channel] = request;
    }
    return { asked, subscriptions };
  }

  /** Brings the new connection to what the application has asked for meanwhile. */
  catchUp(link: Link): void {
    for (const [channel, [subscription, { position }]] of link.asked) {
      const phase = new Phase();
      phase.ask(BY_CONNECT, -1);
      link.phases.set(channel, phase);
      // Dropped meanwhile, even if somebody else has subscribed since; or confirmed by the old one, and then it begins
      // there.
      const hasBegun = !position && subscription.position;
      if (this.#subscriptions.get(channel) !== subscription || subscription.isPaused || hasBegun) this.#leave(channel);
    }
    link.asked = new Map();
    for (const channel of this.#subscriptions.keys()) {
      if (link.phases.get(channel)?.asked === undefined) this.#join(channel);
    }
    this.requests.sendWaiting(link, this.#host.now());
    this.sendPublishes();
  }

  // ---- to the node

  publish(publish: Publish): number | undefined {
    const number = this.publishes.push(this.requests.nextId(), publish);
    this.sendPublishes();
    return number;
  }

  sendPublishes(): void {
    const { live, state } = this.#host;
    // Without the wish for a connection it is kept as it is.
    if (state !== 'disconnected') this.publishes.expire(this.#host.now());
    if (!live) return;
    for (const [number, { channel, key, data }] of this.publishes.take(live, this.#host.now())) {
      const request = this.requests.send(live, this.#host.now(), 'publish', { channel, key, data }, {
        done: (published) => {
          this.publishes.answer(number, toPublished(published));
        },
        failed: (error) => {
          this.publishes.failed(number, live, error, this.#host.now());
        },
      });
      if (request === undefined) this.publishes.refuse(number, tooLarge(live.frameBytes));
    }
  }

  /** Sends an event, unless so much waits already that it is better dropped; answers whether it went out. */
  emit(channel: string, data: Payload, slot?: string): boolean {
    const { live } = this.#host;
    if (!live || live.transport.isCongested) return false;
    return live.send(['emit', { channel, slot, data }], 'datagram');
  }

  /** Answers how to forget it. */
  ask<Name extends Question>(name: Name, fields: RequestFields<Name>, asker: Asker<Name>): () => void {
    return this.requests.ask(name, fields, asker, this.#host.live, this.#host.now());
  }

  /** Asks the node for a sign of life at once, and gives the connection up when none comes within so long at least. */
  check(leastMs: number): void {
    const { live } = this.#host;
    const withinMs = Math.max(leastMs, 4 * this.requests.trips.smoothedMs);
    if (live?.check(this.#host.now(), withinMs)) this.#sendUnsubscribe(live, NOBODYS_CHANNEL);
  }

  // ---- time

  get nextAt(): number {
    const { live, state } = this.#host;
    let at = this.requests.nextAt;
    if (state !== 'disconnected') at = Math.min(at, this.publishes.nextAt(live));
    if (!live) return at;
    for (const { resumeAt } of this.#subscriptions.values()) at = Math.min(at, resumeAt);
    return Math.min(at, ...live.leaveAgainAt.values());
  }

  tick(now: number): void {
    this.requests.expire(now);
    this.sendPublishes();
    const { live } = this.#host;
    if (!live) return;
    this.#leaveAgain(live, now);
    for (const [channel, { resumeAt }] of this.#subscriptions) if (resumeAt <= now) this.resume(channel, resumeAt);
  }

  /** Whoever waits is told, or whoever did so when the next number was `end`. */
  failAll(error: RequestError, end?: number): void {
    this.publishes.failAll(error, end);
    this.requests.failAll(error, end);
  }

  /** The node does not want this client: whoever waits is told. Subscriptions are kept for the next connection. */
  refuse(error: RequestError): void {
    this.failAll(error);
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
