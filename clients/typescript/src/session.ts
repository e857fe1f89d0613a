/**
 * The session: one connection or, during a move, two; reconnects, moves, tokens. Without IO: time, chance and
 * transports are given.
 */
import type { Address } from './address.js';
import { FORBIDDEN, REPLACED, ROTATE, TOKEN_EXPIRED, UNAUTHENTICATED } from './codes.js';
import { type ConnectionError, lost, RequestError, requestError, type SkywaveError, tooLarge } from './errors.js';
import type { Network, ServerFrame, ServerFrames } from './frames.js';
import { toError } from './messages.js';
import { doubt, DOUBTS_APART_MS, nextDoubt } from './session/doubts.js';
import { Link } from './session/link.js';
import { drain, stand, stay } from './session/moving.js';
import { type DialOutcome, type Due, ending, isNeeded, type Opening, type Purpose } from './session/opening.js';
import { Pace } from './session/pace.js';
import { hold } from './session/phase.js';
import type { Router } from './session/router.js';
import type { Connection, SessionIo, SessionOptions, State } from './session/state.js';
import { Tokens } from './session/tokens.js';
import { Traffic, type TrafficHost } from './session/traffic.js';
import type { TransportEvents } from './transport.js';
import type { TransportChoice } from './transport_kind.js';

/** How long `connected` may take after the handshake when there are other nodes. */
const GREETING_MS = 2_000;
/** How long an old connection may still give replies after a move. */
const RETIREMENT_MS = 2_000;
/** A timer that is so late means that the system slept. */
const SLEPT_MS = 5_000;

export class Session implements TrafficHost {
  readonly traffic: Traffic;
  state: State = 'disconnected';
  connection: Connection | undefined;
  /** Why nothing can be asked: the node does not want this client, until the next `connect`; or it is closed. */
  refusal: RequestError | undefined;
  live: Link | undefined;
  network: Network;
  readonly tokens: Tokens;
  readonly route: Router;
  /** The connection that is on its way. */
  opening: Opening | undefined;
  /** The one that is opened next, unless something else comes first. */
  due: Due | undefined;
  readonly #options: SessionOptions;
  readonly #io: SessionIo;
  /** The secret of the newest transport. */
  #resume: string | undefined;
  /** How many `connect`s were sent: of the transports that resume this session, the latest attempt's has it. */
  #attempts = 0;
  #retiring: { link: Link; until: number } | undefined;
  /** Whose session it was last; `null`: nobody's yet. */
  #user: string | null | undefined = null;
  /** Where it is to connect anew, perhaps as another user: the first number of what was asked for since. */
  #former: number | undefined;
  /** The node that served last. */
  #node: string | undefined;
  readonly pace: Pace;
  #connects = 0;
  #frameBytes = 65_536;
  #scheduledAt = Infinity;
  /** Before that, no node is doubted because it is silent. */
  doubtsFrom = 0;

  constructor(options: SessionOptions, network: Network, io: SessionIo) {
    this.#options = options;
    this.#io = io;
    this.tokens = new Tokens(this, io, options.canRefresh, options.token);
    this.network = network;
    this.route = io.route(options);
    this.pace = new Pace(options.backoff, () => io.random());
    this.traffic = new Traffic(options, this);
  }

  now(): number {
    return this.#io.now();
  }

  random(): number {
    return this.#io.random();
  }

  // ---- from the application

  /** Connects and stays connected. */
  connect(): void {
    if (this.state === 'closed' || this.state === 'connected' || this.opening) return;
    if (this.state === 'disconnected') this.#former = this.traffic.requests.nextId();
    this.refusal = undefined;
    this.route.beginRound();
    this.pace.failures = 0;
    this.open('connect');
    this.settle();
  }

  /** Ends the connection and stays away until `connect`; subscriptions, positions and publishes are kept. */
  disconnect(): void {
    if (this.state === 'closed') return;
    this.#stop();
    this.#setState('disconnected');
  }

  /** Ends the session for good. */
  close(): void {
    if (this.state === 'closed') return;
    this.#stop();
    this.refusal = requestError('unavailable', 'closed', false);
    this.#setState('closed');
    this.traffic.end(this.refusal);
    this.settle();
  }

  #stop(): void {
    this.#cancelOpening(lost('disconnected'));
    this.due = undefined;
    this.#retire();
    const { live } = this;
    this.live = undefined;
    this.tokens.stop();
    if (live) this.#drop(live);
    this.settle();
  }

  /** Something may have happened to the connection: looks at once instead of waiting for its time-out. */
  check(): void {
    // Whoever waits for the next attempt begins it now.
    if (this.due?.isTold === false) {
      this.route.beginRound();
      this.open('connect');
    }
    doubt(this);
    this.settle();
  }

  /** The page was frozen or the system slept. */
  woke(): void {
    this.live?.spare(this.now());
    this.check();
  }

  // ---- time

  /** Asks for the next tick; at the end of whatever was done from outside. */
  settle(): void {
    const { live } = this;
    const next = this.opening ? this.opening.greetBy : this.due?.at;
    const at = Math.min(
      this.traffic.nextAt,
      this.tokens.refreshAt,
      next ?? Infinity,
      live?.deadAt ?? Infinity,
      nextDoubt(this),
      this.#retiring?.until ?? Infinity,
    );
    this.#scheduledAt = at;
    this.#io.schedule(at);
  }

  tick(): void {
    const now = this.now();
    if (now - this.#scheduledAt > SLEPT_MS) this.woke();
    const { live } = this;
    if (live?.isDead(now)) this.#lost(live, ending({ reason: 'silence' }));
    if (this.#retiring && now >= this.#retiring.until) this.#retire();
    if (now >= this.tokens.refreshAt) this.tokens.renew();
    // It has its time-out for that: the answer comes as soon as that to a ping.
    if (this.live && now >= nextDoubt(this)) doubt(this, this.live.timeoutMs);
    if (this.opening && now >= this.opening.greetBy) this.fail(this.opening, lost('no answer in time'));
    const { due } = this;
    if (due && !this.opening && now >= due.at) {
      this.due = due.later;
      this.open(due.purpose, due.address, due.kind);
    }
    this.traffic.tick(now);
    this.settle();
  }

  /** The connection lives: what is opened beside it because of a doubt is given up. */
  #trust(live: Link): void {
    const { opening } = this;
    if ((opening ?? this.due)?.purpose !== 'connect' || opening?.link) return;
    this.#cancelOpening(lost('given up'));
    stand(this, live);
  }

  // ---- opening

  open(purpose: Purpose, named?: Address, forced?: TransportChoice, settle?: Opening['settle']): Opening {
    // Whoever names another one wants to be left.
    const leaving = named || purpose === 'connect' ? this.live?.address : undefined;
    const targets = this.route.targets(named, leaving, !isNeeded({ purpose }), forced);
    const opening: Opening = { purpose, targets, greetBy: Infinity, settle };
    this.opening = opening;
    if (!this.live) {
      this.due = undefined;
      this.#setState('connecting');
    } else if (purpose === 'connect') this.doubtsFrom = this.now() + DOUBTS_APART_MS;
    const request = {
      targets,
      headStartMs: this.route.headStartMs?.(targets[0].address, named !== undefined) ?? 0,
      timeoutMs: this.#options.connectTimeoutMs,
    };
    const dialed = (outcome: DialOutcome): void => {
      this.#dialed(opening, outcome);
      this.settle();
    };
    // The application, told just now, may have given it up.
    if (this.opening === opening) opening.cancel = this.#io.dial(request, dialed);
    return opening;
  }

  #cancelOpening(error: SkywaveError): void {
    const { opening } = this;
    this.opening = undefined;
    opening?.cancel?.();
    opening?.link?.transport.close();
    opening?.settle?.(error);
  }

  /** A handshake has completed: what follows is `connect`. */
  #dialed(opening: Opening, outcome: DialOutcome): void {
    if (opening !== this.opening) {
      if ('transport' in outcome) outcome.transport.close();
      return;
    }
    if ('error' in outcome) {
      this.fail(opening, outcome.error);
      return;
    }
    const { transport, target, tookMs, failed, token } = outcome;
    for (const other of failed) this.route.failed(other);
    this.route.dialed?.(target, transport.kind, tookMs);
    const link = new Link(target.address, transport, this.now());
    opening.link = link;
    const patienceMs = opening.targets.length > 1 ? GREETING_MS : Infinity;
    opening.greetBy = this.now() + Math.min(patienceMs, this.#options.connectTimeoutMs);
    transport.listen(this.#events(link));
    link.token = token;
    this.#greet(opening, link);
  }

  #greet(opening: Opening, link: Link): void {
    const { asked, subscriptions } = this.traffic.asked(this.#frameBytes);
    link.asked = asked;
    link.connectId = this.traffic.requests.nextId();
    link.frameBytes = this.#frameBytes;
    link.attempt = this.#attempts += 1;
    const isSent = link.send([
      'connect',
      {
        id: link.connectId,
        token: link.token,
        resume: this.#resume,
        attempt: link.attempt,
        subscriptions,
        client: this.#options.client,
        network: this.network,
      },
    ]);
    if (!isSent) this.fail(opening, tooLarge(link.frameBytes));
  }

  #established(opening: Opening, link: Link, connected: ServerFrames['connected']): void {
    this.opening = undefined;
    const hasExpired = this.#resume !== undefined && !connected.resumed && this.#user === connected.user;
    this.#resume = connected.resume;
    // What one user published or asked for is not done in the name of another.
    if (this.#user !== null && this.#user !== connected.user) {
      this.traffic.failAll(new RequestError(FORBIDDEN, 'another_user', 'another user', false), this.#former);
    }
    this.#user = connected.user;
    this.#former = undefined;
    this.#frameBytes = link.frameBytes = connected.limits.frame_bytes;
    link.isConnected = true;
    link.beats(connected.heartbeat);
    this.route.arrived(link.address, connected.region, connected.regions);
    this.traffic.publishes.pacer.limit(connected.limits.publishes_per_second);
    this.traffic.publishes.remembers(connected.limits.idempotency_ms);
    // What another node could not do for the moment, this one may.
    if (this.#node !== connected.node) {
      this.traffic.publishes.releaseAll();
      this.due = undefined;
    }
    this.#node = connected.node;
    const old = this.live;
    this.live = link;
    link.since = this.now();
    if (old) {
      this.pace.credit(link.since - old.since);
      // What a node directs is paced like what the network does; the application goes where it likes.
      if (isNeeded(opening)) link.stayUntil = link.since += this.pace.backOff();
      this.#beginRetirement(old);
    }
    const { node, region, session, user, resumed, expires_at_ms: expiresAtMs } = connected;
    const transport = link.transport.kind;
    this.connection = { transport, node, region, session, user, resumed, hasExpired, expiresAtMs, connects: (this.#connects += 1) };
    this.tokens.taken(link.token, expiresAtMs);
    // A preference is followed once, so that two nodes cannot play ball with a client.
    stand(this, link, isNeeded(opening) ? connected.prefer_url : undefined);
    this.#setState('connected');
    opening.settle?.();
    // The application, told just now, may have ended it.
    if (this.live !== link) return;
    this.traffic.catchUp(link);
    for (const { frame, stream } of link.early.splice(0)) this.#frame(link, frame, stream);
  }

  /** The attempt failed: the candidates that are left at once, or all of them again after a while. */
  fail(opening: Opening, error: SkywaveError): void {
    this.opening = undefined;
    const { link, targets } = opening;
    opening.cancel?.();
    link?.transport.close();
    // The first failure may be that a connection broke; a token is seldom refused twice.
    const isExpired = this.#options.canRefresh && this.pace.failures < 2 && error.code === TOKEN_EXPIRED;
    if (isNeeded(opening) && !isExpired) {
      for (const target of targets) if (!link || link.address === target.address) this.route.failed(target, error);
    }
    opening.settle?.(error);
    if (this.live) stay(this, this.live, opening.purpose, error);
    else if (error.code === UNAUTHENTICATED && link && this.#resume) {
      // The session may be that of a user who was here before: another one begins anew.
      this.#resume = undefined;
      this.#comeBack(error, 0);
    } else if (this.#isFinal(error, link?.token)) this.refused(error);
    else {
      const waitMs = this.route.isExhausted || isExpired ? this.backOff(error) : 0;
      this.#comeBack(error, isExpired ? 0 : waitMs);
    }
  }

  /** All are tried again after so long, and not before somebody wants to be asked. */
  backOff(error: SkywaveError): number {
    return this.pace.backOff(this.route.soonest?.() ?? error);
  }

  #comeBack(error: SkywaveError, waitMs: number): void {
    const at = this.now() + waitMs;
    this.due = { at, purpose: 'connect', isTold: waitMs > 0 && error.retryAfterMs !== undefined };
    this.#setState('connecting', error, at);
  }

  /** Whether coming back would not change anything. */
  #isFinal({ transient, code }: SkywaveError, token: string | undefined): boolean {
    if (this.#options.canRefresh || (code !== TOKEN_EXPIRED && code !== UNAUTHENTICATED)) return !transient;
    return this.tokens.refused(token);
  }

  /** The node does not want this client: it stays away until `connect`, and nobody waits for anything meanwhile. */
  refused(error: SkywaveError): void {
    this.#stop();
    this.refusal = new RequestError(error.code, error.reason, error.message, false);
    // Before it is told: who hears of it may connect anew.
    this.traffic.refuse(this.refusal);
    this.#setState('disconnected', error);
  }

  // ---- connections

  #events(link: Link): TransportEvents {
    return {
      frame: (frame, stream) => {
        link.heard(this.now());
        if (link === this.live) this.#trust(link);
        if (link.isConnected) this.#frame(link, frame, stream);
        else this.#early(link, frame, stream);
        this.settle();
      },
      fault: (problem) => {
        this.fault(link, problem);
        this.settle();
      },
      ended: (code, reason) => {
        this.#ended(link, ending({ code, reason }));
        this.settle();
      },
    };
  }

  /** A frame before `connected`. */
  #early(link: Link, frame: ServerFrame, stream: number | undefined): void {
    const { opening } = this;
    if (opening?.link !== link) return;
    const [name, body] = frame;
    if (name === 'connected' && body.id === link.connectId) this.#established(opening, link, body);
    else if (name === 'disconnect') this.fail(opening, ending(body));
    else if (name === 'error' && body.id === link.connectId) {
      this.fail(opening, toError(body));
    } else if (!hold(link.early, frame, stream)) this.fault(link, 'too much');
  }

  #frame(link: Link, frame: ServerFrame, stream: number | undefined): void {
    if (link !== this.live && link !== this.#retiring?.link) return;
    const [name, body] = frame;
    if (name === 'ping') {
      link.beats(body);
      link.send(['pong', { seq: body.seq }], 'datagram');
    } else if (name === 'disconnect') this.#ended(link, ending(body));
    else if (name !== 'drain') this.traffic.frame(link, frame, stream);
    else if (link === this.live) drain(this, link, body);
  }

  fault(link: Link, problem: string): void {
    this.#ended(link, lost(`protocol fault: ${problem}`));
  }

  #ended(link: Link, error: ConnectionError): void {
    if (link === this.live) this.#lost(link, error);
    else if (link === this.#retiring?.link) this.#retire();
    else if (this.opening?.link === link) this.fail(this.opening, error);
  }

  /** The connection that carries the session is over. */
  #lost(link: Link, error: ConnectionError): void {
    this.live = undefined;
    this.pace.credit(this.now() - link.since);
    this.#drop(link);
    this.tokens.stop();
    const { due } = this;
    this.due = undefined;
    if (due?.address && due.purpose !== 'up') this.route.sendOn?.(due.address);
    const { code } = error;
    // By a later attempt of this client, which is on its way or was given up.
    const isOwnDoing = code === REPLACED && link.attempt < this.#attempts;
    if (!isOwnDoing && this.#isFinal(error, this.tokens.former)) {
      this.#cancelOpening(error);
      this.refused(error);
      return;
    }
    if (this.opening && !this.route.isSpare?.(this.opening)) {
      this.#setState('connecting', error);
      return;
    }
    this.#cancelOpening(error);
    this.route.beginRound();
    // These say that nothing is wrong.
    this.#comeBack(error, this.pace.pause(code === ROTATE || code === TOKEN_EXPIRED, error));
  }

  #drop(link: Link): void {
    link.transport.close();
    this.traffic.requests.lost(link);
  }

  /** Keeps the old connection for replies that only it can give. */
  #beginRetirement(old: Link): void {
    this.#retire();
    this.#retiring = { link: old, until: this.now() + RETIREMENT_MS };
    if (!this.traffic.requests.needs(old)) this.#retire();
  }

  #retire(): void {
    const link = this.#retiring?.link;
    this.#retiring = undefined;
    if (!link) return;
    this.#drop(link);
    if (this.live) this.traffic.requests.sendWaiting(this.live, this.now());
  }

  #setState(state: State, error?: SkywaveError, retryAt?: number): void {
    if (this.state === state && !error && state !== 'connected') return;
    this.state = state;
    if (state !== 'connected') this.connection = undefined;
    this.#io.stateChanged(state, error, retryAt);
  }
}
