/**
 * A session of skywave.v1 in a browser: it keeps its subscriptions, positions and unanswered publications, and goes on
 * with them over whatever transport there is. It follows docs/protocol.md, where the rules are explained.
 *
 * Events: `state`, `publication`, `event`, `gap`, `presence`, `subscribed`, `refused`, `frame`, `notice`; each carries
 * its data in `detail`.
 */
import { openTransport } from './transports.js';

/** How long a transport may take until `connected` is there. */
const CONNECT_TIMEOUT_MS = 10_000;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
const TICK_MS = 500;
/** A tick that is so late means that the system slept. */
const SLEPT_MS = 5_000;
/** Keys of publications that are remembered for each channel. */
const MAX_KEYS = 1_000;
/** Publications that wait for a connection; further ones are refused. */
const MAX_WAITING = 1_000;
/** Frames that a transport may deliver before the frame that they wait for. */
const MAX_HELD = 10_000;

const CODE_NOT_AVAILABLE = 108;
const TRANSIENT_CODES = new Set([100, 110, 111, 112]);
/** Close codes after which the first attempt waits as well. */
const PAUSE_CODES = new Set([3003, 3004, 3006]);

/** One transport of the session, and what it is still waiting for. */
class Link {
  isConnected = false;
  heardAt = Date.now();
  /** A time before which it is not given up, whatever was heard: after a sleep. */
  spareUntil = 0;
  /** What came before `connected`. */
  held = [];
  /** Channels whose `subscribed` has come over this link, and frames of channels whose has not. */
  subscribed = new Set();
  heldByChannel = new Map();

  /** `channels`: those that its `connect` asks for. */
  constructor(transport, connectId, channels) {
    this.transport = transport;
    this.connectId = connectId;
    this.channels = channels;
    this.opened = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    // Who waits for it hears of it; nobody else needs to.
    this.opened.catch(() => {});
  }

  get kind() {
    return this.transport.kind;
  }

  hold(name, body) {
    hold(this.held, name, body);
  }

  holdForChannel(name, body) {
    const list = this.heldByChannel.get(body.channel) ?? [];
    this.heldByChannel.set(body.channel, list);
    hold(list, name, body);
  }

  /** Takes what was held of a channel. */
  takeHeld(channel) {
    const list = this.heldByChannel.get(channel) ?? [];
    this.heldByChannel.delete(channel);
    return list;
  }
}

function hold(list, name, body) {
  if (list.length >= MAX_HELD) throw new RangeError('the node goes on and never sends what it all waits for');
  list.push([name, body]);
}

/** The end of an attempt or of a connection, with the close code if there was one. */
class Lost extends Error {
  constructor(code, reason) {
    super(code ? `${reason} (${code})` : reason || 'the connection broke');
    this.code = code;
  }

  /** Whether the node wants this client not to come back. */
  get isFinal() {
    return this.code >= 3500 && this.code < 4000;
  }
}

/** What a subscription has seen. */
class Subscription {
  position = null;
  keys = new Set();
  members = new Map();
  count = 0;
  recovered = undefined;

  constructor({ history, presence }) {
    this.history = history;
    this.presence = presence;
  }

  request() {
    const request = {};
    if (this.position) request.position = this.position;
    else if (this.history) request.history = this.history;
    if (this.presence) request.presence = true;
    return request;
  }

  /** Whether a publication is `next`, a `duplicate`, or shows that something is missing (`gap`). */
  admit({ origin, epoch, offset }) {
    const seen = this.position[origin];
    if (!seen) return offset === 1 ? 'next' : 'gap';
    if (seen.epoch !== epoch) return 'gap';
    if (offset <= seen.offset) return 'duplicate';
    return offset === seen.offset + 1 ? 'next' : 'gap';
  }

  /** Remembers a key; answers whether it was known. */
  knows(key) {
    if (key === undefined) return false;
    if (this.keys.has(key)) return true;
    this.keys.add(key);
    if (this.keys.size > MAX_KEYS) this.keys.delete(this.keys.values().next().value);
    return false;
  }
}

export class Client extends EventTarget {
  /** `idle`, `connecting`, `connected`, `waiting` (for the next attempt), `cut` or `ended`. */
  state = 'idle';
  session = null;
  region = null;
  resumed = null;
  heartbeat = null;
  rttMs = null;
  /** Why it is not connected, for people. */
  problem = null;
  nextAttemptAt = null;

  #endpoints;
  #preference;
  #name;
  #resume = null;
  #isBackground = false;
  #subscriptions = new Map();
  /** id → request without an answer, oldest first. Publications among them are sent again after a break. */
  #waiting = new Map();
  #lastId = 0;
  #link = null;
  /** The link that was cut: it still stands as far as the node knows. */
  #abandoned = null;
  #opening = null;
  #attempts = 0;
  #retryTimer = null;
  #timer = null;
  #lastTick = Date.now();

  /**
   * `endpoints(isFresh, url)` answers `{webtransport?, websocket?, certificate_sha256?, region?}`; it is asked afresh
   * after a failure, and with the `url` of a drain, which it may know.
   * `preference` is `auto`, `webtransport` or `websocket`.
   */
  constructor({ endpoints, preference = 'auto', name = 'skywave-demo' }) {
    super();
    this.#endpoints = endpoints;
    this.#preference = preference;
    this.#name = name;
  }

  get transport() {
    return this.#link?.kind ?? null;
  }

  position(channel) {
    return this.#subscriptions.get(channel)?.position ?? null;
  }

  presence(channel) {
    const { members = new Map(), count = 0 } = this.#subscriptions.get(channel) ?? {};
    return { members: [...members.values()], count };
  }

  /** Whether the channel's last `subscribed` recovered all; `undefined` on a fresh subscription. */
  recovered(channel) {
    return this.#subscriptions.get(channel)?.recovered;
  }

  /** Connects and stays connected until `cut` or `end`. */
  connect() {
    if (this.#timer === null) this.#timer = setInterval(() => this.#tick(), TICK_MS);
    if (this.state === 'connected') return;
    this.#attempts = 0;
    this.#attempt();
  }

  /** Loses the connection without a goodbye, and stays away until `connect`. */
  cut() {
    this.#stopTrying();
    if (this.#link) {
      this.#link.transport.abandon();
      this.#abandoned?.close();
      this.#abandoned = this.#link.transport;
    }
    this.#disconnected();
    this.#setState('cut');
  }

  /** Ends the session for good. */
  end() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#stopTrying();
    this.#abandoned?.close();
    this.#link?.transport.close();
    this.#abandoned = null;
    this.#disconnected();
    this.#setState('ended');
  }

  subscribe(channel, options = {}) {
    this.#subscriptions.set(channel, new Subscription(options));
    if (this.state === 'connected') this.#subscribe(this.#link, channel);
  }

  /** Publishes `data`, now or once there is a connection. Answers the key and a promise of the position. */
  publish(channel, data) {
    if (this.#waiting.size >= MAX_WAITING) throw new RangeError('too many messages wait for a connection');
    const key = crypto.randomUUID();
    return { key, published: this.#ask('publish', { channel, key, data }) };
  }

  /** Sends an event to whoever is there now. Without a connection it is lost, as events may be. */
  emit(channel, data, slot) {
    if (this.state === 'connected') this.#send(this.#link, { emit: { channel, slot, data } }, true);
  }

  /** Asks who is there, which also measures the time that a request takes. */
  async measure(channel) {
    if (this.state === 'connected') await this.#ask('presence', { channel });
  }

  /** Tells the node whether anyone looks at the page: its heartbeat depends on it. */
  setBackground(isBackground) {
    this.#isBackground = isBackground;
    if (this.state === 'connected') this.#send(this.#link, { network: { background: isBackground } });
  }

  /** Moves to the other transport, make before break. Rejects when that fails; the present one then goes on. */
  async switchTransport() {
    const kind = this.transport === 'webtransport' ? 'websocket' : 'webtransport';
    await this.#move(kind);
    this.#preference = kind;
  }

  // ---- connections ----

  async #attempt() {
    this.#stopTrying();
    const opening = new AbortController();
    this.#opening = opening;
    this.#setState('connecting');
    try {
      await this.#open(this.#preference, opening.signal);
    } catch (error) {
      if (!opening.signal.aborted) this.#retry(error);
    }
  }

  /** Opens a second transport, resumes there, and closes the first one. */
  async #move(preference, url) {
    if (this.state !== 'connected' || this.#opening) throw new Error('not now');
    const opening = new AbortController();
    this.#opening = opening;
    try {
      await this.#open(preference, opening.signal, url);
    } catch (error) {
      if (this.#opening === opening) this.#opening = null;
      // The first one may have gone meanwhile, if only because the node took the second one for its successor.
      if (!this.#link && !opening.signal.aborted) this.#retry(error);
      throw error;
    }
  }

  /** Opens a transport and connects on it; it is adopted as soon as `connected` comes. */
  async #open(preference, cancelled, url) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error('no answer in time')), CONNECT_TIMEOUT_MS);
    const signal = AbortSignal.any([cancelled, late.signal]);
    try {
      const endpoints = await this.#endpoints(this.#attempts > 0, url);
      // Of another region's node only WebTransport is known: better that than nothing.
      const chosen = endpoints.region && !endpoints[preference] ? 'auto' : preference;
      const transport = await openTransport(chosen, endpoints, signal);
      const link = new Link(transport, this.#nextId(), new Set(this.#subscriptions.keys()));
      signal.addEventListener('abort', () => {
        if (!link.isConnected) transport.close();
        link.reject(signal.reason);
      });
      transport.onframe = (frame, lane) => this.#receive(link, frame, lane);
      transport.onend = ({ code, reason }) => this.#ended(link, new Lost(code, reason));
      this.#send(link, { connect: this.#connectFrame(link.connectId) });
      await link.opened;
    } finally {
      clearTimeout(timer);
    }
  }

  #connectFrame(id) {
    const subscriptions = {};
    for (const [channel, subscription] of this.#subscriptions) subscriptions[channel] = subscription.request();
    return {
      id,
      resume: this.#resume ?? undefined,
      subscriptions,
      client: { name: this.#name },
      network: { background: this.#isBackground },
    };
  }

  /** From here on the link is the session's: what is under way goes on there, and an older one is closed. */
  #adopt(link, { session, resume, region, resumed, heartbeat }) {
    const older = this.#link;
    Object.assign(this, { session, region, resumed, heartbeat, problem: null });
    this.#resume = resume;
    this.#link = link;
    this.#opening = null;
    this.#attempts = 0;
    link.isConnected = true;
    this.#setState('connected');
    older?.transport.close();
    this.#abandoned?.close();
    this.#abandoned = null;
    for (const channel of this.#subscriptions.keys()) {
      if (!link.channels.has(channel)) this.#subscribe(link, channel);
    }
    this.#sendAgain(link);
    for (const [name, body] of link.held.splice(0)) this.#handle(link, name, body);
    link.resolve();
  }

  /** Publications without an answer are sent again, with their keys; other requests end. */
  #sendAgain(link) {
    this.#dropRequests();
    for (const [id, request] of this.#waiting) {
      request.timesSent += 1;
      request.sentAt = performance.now();
      this.#send(link, { publish: { id, ...request.body } });
    }
  }

  #dropRequests() {
    for (const [id, request] of this.#waiting) {
      if (request.name === 'publish') continue;
      this.#waiting.delete(id);
      request.reject(new Error('the connection went before the answer came'));
    }
  }

  #ended(link, lost) {
    link.reject(lost);
    // An older link that a move closed, or one that never was the session's.
    if (link !== this.#link) return;
    this.#disconnected();
    if (this.#opening) {
      // A move is under way, and may be the reason: `replaced` can overtake the successor's `connected`.
      this.#setState('connecting');
      return;
    }
    this.#attempts = PAUSE_CODES.has(lost.code) ? 1 : 0;
    this.#retry(lost);
  }

  #disconnected() {
    this.#link = null;
    this.#dropRequests();
  }

  #stopTrying() {
    this.#opening?.abort();
    this.#opening = null;
    clearTimeout(this.#retryTimer);
    this.nextAttemptAt = null;
  }

  /** Waits with full jitter, so that many clients of a node that went do not come back all at once. */
  #retry(error) {
    this.#opening = null;
    this.problem = error.message;
    if (error instanceof Lost && error.isFinal) {
      this.#setState('ended');
      return;
    }
    const bound = this.#attempts === 0 ? 0 : Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.#attempts - 1));
    const delay = Math.random() * bound;
    this.#attempts += 1;
    this.nextAttemptAt = Date.now() + delay;
    this.#retryTimer = setTimeout(() => this.#attempt(), delay);
    this.#setState('waiting');
  }

  /** Gives up a connection on which nothing at all came for too long. */
  #tick() {
    const now = Date.now();
    const link = this.#link;
    const slept = now - this.#lastTick > SLEPT_MS;
    this.#lastTick = now;
    if (!link) return;
    if (slept) link.spareUntil = now + this.heartbeat.timeout_ms;
    const deadAt = link.heardAt + this.heartbeat.interval_ms + this.heartbeat.timeout_ms;
    if (now > Math.max(deadAt, link.spareUntil)) {
      link.transport.close();
      this.#ended(link, new Lost(0, 'nothing came from the node for too long'));
    }
  }

  // ---- requests ----

  #nextId() {
    this.#lastId = (this.#lastId % 0xffffffff) + 1;
    return this.#lastId;
  }

  #ask(name, body) {
    const id = this.#nextId();
    return new Promise((resolve, reject) => {
      const request = { name, body, resolve, reject, sentAt: performance.now(), timesSent: 0 };
      this.#waiting.set(id, request);
      if (this.state !== 'connected') return;
      request.timesSent = 1;
      this.#send(this.#link, { [name]: { id, ...body } });
    });
  }

  #subscribe(link, channel) {
    const subscription = this.#subscriptions.get(channel);
    if (!subscription) return;
    this.#send(link, { subscribe: { id: this.#nextId(), channel, ...subscription.request() } });
  }

  #send(link, frame, asDatagram = false) {
    this.#log('out', link, frame, asDatagram ? 'datagram' : 'control');
    if (asDatagram) link.transport.sendDatagram(frame);
    else link.transport.send(frame);
  }

  /** Shows a frame to whoever listens, without its secrets. */
  #log(direction, link, frame, lane) {
    const [name, body] = Object.entries(frame)[0] ?? [];
    const shown = { ...body };
    for (const secret of ['resume', 'token']) if (shown[secret] !== undefined) shown[secret] = '…';
    this.#tell('frame', { direction, kind: link.kind, lane: link.kind === 'websocket' ? 'socket' : lane, name, body: shown });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #setState(state) {
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.#tell('state', this.state);
  }

  // ---- frames ----

  #receive(link, frame, lane) {
    link.heardAt = Date.now();
    this.#log('in', link, frame, lane);
    const [name, body] = Object.entries(frame)[0] ?? [];
    if (name === 'disconnect') {
      link.transport.close();
      this.#ended(link, new Lost(body.code, body.reason));
    } else if (link.isConnected) {
      this.#handle(link, name, body);
    } else if (name === 'connected') {
      this.#adopt(link, body);
    } else if (name === 'error' && body.id === link.connectId) {
      link.transport.close();
      link.reject(new Error(body.message));
    } else {
      link.hold(name, body);
    }
  }

  #handle(link, name, body) {
    switch (name) {
      case 'publication':
      case 'event':
      case 'gap':
      case 'presence_changed':
        if (link.subscribed.has(body.channel)) this.#deliver(link, name, body);
        else if (this.#subscriptions.has(body.channel)) link.holdForChannel(name, body);
        break;
      case 'subscribed':
        this.#subscribed(link, body);
        break;
      case 'unsubscribed':
        this.#unsubscribed(link, body);
        break;
      case 'ping':
        this.heartbeat = { interval_ms: body.interval_ms, timeout_ms: body.timeout_ms };
        this.#send(link, { pong: { seq: body.seq } }, true);
        this.#tell('ping', body);
        this.#changed();
        break;
      case 'drain':
        // Where that fails, the present transport goes on to its end, and the usual attempts begin.
        this.#move(body.url ? 'auto' : link.kind, body.url).catch((error) => this.#tell('notice', `The node is about to stop: ${error.message}`));
        break;
      case 'error':
        this.#failed(body);
        break;
      default:
        this.#answered(name, body);
    }
  }

  #deliver(link, name, body) {
    const subscription = this.#subscriptions.get(body.channel);
    if (!subscription) return;
    if (name === 'event') {
      this.#tell('event', body);
    } else if (name === 'gap') {
      this.#gap(subscription, body);
    } else if (name === 'presence_changed') {
      this.#presenceChanged(subscription, body);
    } else {
      this.#publication(link, subscription, body);
    }
  }

  #publication(link, subscription, publication) {
    const { channel, origin, epoch, offset, key } = publication;
    switch (subscription.admit(publication)) {
      case 'next':
        subscription.position[origin] = { epoch, offset };
        if (!subscription.knows(key)) this.#tell('publication', publication);
        this.#changed();
        break;
      case 'gap':
        // A node tells a loss by `gap`; without one, something is broken, and the position helps.
        this.#tell('notice', `Something is missing before ${origin}:${offset}; asking for it.`);
        link.subscribed.delete(channel);
        this.#send(link, { unsubscribe: { id: this.#nextId(), channel } });
        this.#subscribe(link, channel);
        break;
      default:
    }
  }

  #gap(subscription, gap) {
    const { origin, epoch, offset } = gap;
    const seen = subscription.position[origin];
    if (seen?.epoch !== epoch || seen.offset < offset) subscription.position[origin] = { epoch, offset };
    this.#tell('gap', gap);
    this.#changed();
  }

  #subscribed(link, { channel, position, recovered, presence }) {
    const subscription = this.#subscriptions.get(channel);
    if (!subscription) return;
    // One that was asked for with a position keeps its own, which may have moved on meanwhile.
    if (recovered === undefined || subscription.position === null) subscription.position = { ...position };
    subscription.recovered = recovered;
    if (presence) {
      subscription.members = new Map(presence.members.map((member) => [member.session, member]));
      subscription.count = presence.count;
    }
    link.subscribed.add(channel);
    this.#tell('subscribed', { channel, recovered });
    this.#tell('presence', { channel });
    for (const [name, body] of link.takeHeld(channel)) this.#handle(link, name, body);
    this.#changed();
  }

  #unsubscribed(link, { id, channel, code, reason }) {
    link.subscribed.delete(channel);
    link.takeHeld(channel);
    const subscription = this.#subscriptions.get(channel);
    // The reply to our own is followed by the `subscribe` that went with it.
    if (!subscription || id !== undefined) return;
    if (code === CODE_NOT_AVAILABLE && subscription.presence) {
      subscription.presence = false;
      this.#subscribe(link, channel);
    } else if (TRANSIENT_CODES.has(code)) {
      setTimeout(() => link === this.#link && this.#subscribe(link, channel), FIRST_DELAY_MS + Math.random() * FIRST_DELAY_MS);
    } else {
      this.#subscriptions.delete(channel);
      this.#tell('refused', { channel, code, reason });
    }
  }

  #presenceChanged(subscription, { channel, count, joined, left }) {
    for (const member of left) subscription.members.delete(member.session);
    for (const member of joined) subscription.members.set(member.session, member);
    subscription.count = count;
    this.#tell('presence', { channel, joined, left });
  }

  #answered(name, body) {
    const request = this.#waiting.get(body.id);
    if (!request) return;
    this.#waiting.delete(body.id);
    // What was sent twice has an unknown round trip (RFC 6298, section 3, after Karn).
    if (request.timesSent === 1) {
      this.rttMs = performance.now() - request.sentAt;
      this.#changed();
    }
    if (name === 'presence') this.#presence(body);
    request.resolve(body);
  }

  #presence({ channel, count, members }) {
    const subscription = this.#subscriptions.get(channel);
    if (!subscription) return;
    subscription.members = new Map(members.map((member) => [member.session, member]));
    subscription.count = count;
    this.#tell('presence', { channel });
  }

  #failed({ id, code, message, transient, retry_after_ms }) {
    const request = this.#waiting.get(id);
    if (request?.name === 'publish' && transient) {
      setTimeout(() => this.#sendOnce(id), retry_after_ms ?? FIRST_DELAY_MS);
    } else if (request) {
      this.#waiting.delete(id);
      request.reject(new Error(`${message} (${code})`));
    } else {
      this.#tell('notice', `The node says: ${message} (${code})`);
    }
  }

  /** Sends one publication again that the node could not take, unless a new connection has done so meanwhile. */
  #sendOnce(id) {
    const request = this.#waiting.get(id);
    if (!request || this.state !== 'connected') return;
    request.timesSent += 1;
    this.#send(this.#link, { publish: { id, ...request.body } });
  }
}
