/** Where to go: which nodes to try, in which order, over which transport first. */
import type { Address } from '../address.js';
import { Candidates } from '../candidates.js';
import { type MemoryStorage, RaceMemory, transportsOf } from '../race_memory.js';
import type { TransportChoice, TransportKind } from '../transport_kind.js';
import type { Due, Opening, Target, Targets } from './opening.js';
import type { Router, Told } from './router.js';

/** The time between the begins of attempts at two nodes. */
export const STAGGER_MS = 200;
/** By how much a node to which another one has sent this client is ahead of those it knows. */
const NAMED_HEAD_START_MS = 1_000;
/** The longest time that a node may keep a client away, in case it says something absurd. */
const LONGEST_REST_MS = 3_600_000;
/** The least time on a transport before a better one is tried again. */
const LEAST_STAY_MS = 5_000;
/** The least time between two moves to a node that another one prefers. */
const PREFERENCE_INTERVAL_MS = 60_000;

export interface RouteOptions {
  readonly addresses: readonly [Address, ...Address[]];
  readonly transport: TransportChoice;
  /** By how much the best transport is ahead of the others. */
  readonly headStartMs: number;
  readonly storage?: MemoryStorage | undefined;
}

/** What a route has to know of the world. */
export interface Surroundings {
  now(): number;
  /** An address that a node told; `undefined` when it is none. */
  parse(url: string): Address | undefined;
  /** Names the network, as far as it can be told apart. */
  network(): string;
}

export class Route implements Router {
  readonly #options: RouteOptions;
  readonly #world: Surroundings;
  readonly #candidates: Candidates;
  readonly #memory: RaceMemory;
  /** The node that is gone has named the current candidate. */
  #isSentOn = false;
  #preferAgainAt = 0;
  #choice: TransportChoice;

  constructor(options: RouteOptions, world: Surroundings) {
    this.#options = options;
    this.#choice = options.transport;
    this.#world = world;
    this.#candidates = new Candidates(options.addresses);
    this.#memory = new RaceMemory(options.storage);
  }

  /** Whether nobody is left to be tried in this round. */
  get isExhausted(): boolean {
    return this.#candidates.isExhausted(this.#world.now());
  }

  /** From here on everybody may be tried again. */
  beginRound(): void {
    this.#candidates.beginRound();
  }

  /**
   * Whom to try: `named` first, then those that are left of this round, without `leaving`; without `named`, `leaving`
   * last. Or `named` alone, over another transport than the usual one, if one is named.
   */
  targets(named?: Address, leaving?: Address, isAlone = false, choice?: TransportChoice): Targets {
    if (named !== undefined && isAlone) return [this.#target(named, choice)];
    if (this.isExhausted) this.beginRound();
    const order = this.#candidates.order(this.#world.now());
    const others = order.filter(({ key }) => key !== named?.key && key !== leaving?.key);
    // Where the session is may be gone: others are tried before it.
    const last = named || others.length === order.length ? [] : order.filter(({ key }) => key === leaving?.key);
    const all = [...(named ? [named] : []), ...others, ...last];
    // Of a new round there is somebody.
    return all.map((address) => this.#target(address)) as [Target, ...Target[]];
  }

  /** The application wants this transport from now on. Answers which one it has wanted. */
  choose(choice: TransportChoice): TransportChoice {
    const before = this.#choice;
    this.#choice = choice;
    return before;
  }

  #target(address: Address, choice = this.#choice): Target {
    const network = this.#world.network();
    return { address, plan: this.#memory.plan(address, choice, this.#options.headStartMs, network, this.#world.now()) };
  }

  /**
   * How long the first one is tried alone: one that is slow by nature is not left for the sake of some milliseconds.
   */
  headStartMs(first: Address, isNamed: boolean): number {
    if (isNamed || this.#isSentOn) return NAMED_HEAD_START_MS;
    const usualMs = (this.#candidates.handshakeMs(first) ?? 0) * 1.5;
    return Math.min(Math.max(usualMs, STAGGER_MS), NAMED_HEAD_START_MS);
  }

  /** A handshake completed. */
  dialed({ address, plan }: Target, kind: TransportKind, tookMs: number): void {
    this.#candidates.measured(address, tookMs);
    this.#memory.remember(address, plan, kind, this.#world.network(), this.#world.now());
  }

  /** It is not to be tried again in this round. */
  failed({ address }: Target, { retryAfterMs }: Told = {}): void {
    this.#isSentOn = false;
    this.#candidates.failed(address, retryAfterMs && this.#world.now() + Math.min(retryAfterMs, LONGEST_REST_MS));
  }

  /** What whoever may be asked the soonest said of it. */
  soonest(): Told {
    const restMs = this.#candidates.restsUntil - this.#world.now();
    return restMs > 0 ? { retryAfterMs: restMs } : {};
  }

  /** The session is there; `regions`: where else it could go. */
  arrived(address: Address, region: string, regions: readonly { name: string; url: string }[]): void {
    this.#isSentOn = false;
    this.#candidates.succeeded(address, region);
    const told = regions.flatMap(({ name, url }) => {
      const other = this.trusted(url);
      return other === undefined ? [] : [{ region: name, address: other }];
    });
    this.#candidates.learn(told);
  }

  /** A node that is gone had named this one. */
  sendOn(address: Address): void {
    this.#candidates.go(address);
    this.#isSentOn = true;
  }

  /** An address that a node gave: the token goes there, so it may not be less protected than here. */
  trusted(url: string | undefined): Address | undefined {
    const address = url === undefined ? undefined : this.#world.parse(url);
    return address !== undefined && (address.isSecure || !this.#candidates.current.isSecure) ? address : undefined;
  }

  /** Where the session goes next, while it stands. */
  next(address: Address, kind: TransportKind, preferUrl?: string): Due {
    const better = this.trusted(preferUrl);
    const now = this.#world.now();
    if (better !== undefined && better.key !== address.key && now >= this.#preferAgainAt) {
      this.#preferAgainAt = now + PREFERENCE_INTERVAL_MS;
      return { at: now, purpose: 'prefer', address: better };
    }
    return { at: this.#upAt(address, kind), purpose: 'up', address, kind: transportsOf(address)[0] };
  }

  /** Beside a connection it may take as long as it likes; where there is none, all are tried. */
  isSpare({ purpose, link }: Opening): boolean {
    return link === undefined && (purpose === 'up' || purpose === 'prefer');
  }

  /** When the best transport is tried again there: UDP may have come back. */
  #upAt(address: Address, kind: TransportKind): number {
    if (this.#choice !== 'auto') return Infinity;
    const network = this.#world.network();
    const [best] = transportsOf(address);
    if (kind === best) {
      this.#memory.worked(address, best, network);
      return Infinity;
    }
    return Math.max(this.#memory.avoidedUntil(address, best, network), this.#world.now() + LEAST_STAY_MS);
  }

  /** The best transport was tried, and does not work there yet. */
  upFailed(address: Address): void {
    this.#memory.failed(address, transportsOf(address)[0], this.#world.network(), this.#world.now());
  }
}
