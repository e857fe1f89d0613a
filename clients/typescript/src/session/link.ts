/** One connection that carries the session, or is about to: its phases and its heartbeat. Time is an argument. */
import type { Address } from '../address.js';
import type { ClientFrame, Heartbeat, SubscribeOptions } from '../frames.js';
import type { Lane, Transport } from '../transport.js';
import type { Held, Phase } from './phase.js';
import type { Subscription } from './subscription.js';

/** Who looks so late was held up, and has not read yet what came meanwhile: it may come for so long again. */
const LATE_MS = 50;
/** The least time without a word after which a connection counts as dead, whatever the node says. */
const LEAST_PATIENCE_MS = 1_000;

export class Link {
  readonly address: Address;
  readonly transport: Transport;
  /** What its `connect` proves the user with. */
  token: string | undefined;
  /** The id of its `connect`. */
  connectId!: number;
  /** What its `connect` asks for. */
  asked: ReadonlyMap<string, readonly [Subscription, SubscribeOptions]> = new Map();
  /** Which of the client's attempts it is. */
  attempt!: number;
  /** What came before `connected`. */
  early: Held[] = [];
  isConnected = false;
  readonly phases = new Map<string, Phase>();
  /** The largest number of a subscription that it has heard of. */
  newestSubscription = -1;
  /** It is not left before because its node says so. */
  stayUntil = 0;
  /** Its node has said that it drains. */
  isDrained = false;
  /** Channels that the node would not let go for the moment, and when it is asked again. */
  readonly leaveAgainAt = new Map<string, number>();
  /** From when on it counts as held. */
  since = 0;
  /** The largest frame that its node takes, or the one before as long as it has not told; 0: of any size. */
  frameBytes!: number;
  /** When something came last, or would have. */
  heardAt: number;
  timeoutMs = 0;
  /** Somebody has too much to do: then a node may be silent, and a handshake is what it can least afford. */
  isSpared = false;
  #patienceMs = Infinity;
  /** Something has to be heard by then: it is being checked. */
  #checkedBy = Infinity;
  /** Until when it still may be heard, for one who looked late. */
  #lastChance = 0;

  constructor(address: Address, transport: Transport, now: number) {
    this.address = address;
    this.transport = transport;
    this.heardAt = now;
  }

  /** Queues a frame; answers whether the node takes frames of that size. */
  send(frame: ClientFrame, lane: Lane = 'reliable'): boolean {
    return this.transport.send(frame, lane, this.frameBytes || Infinity);
  }

  heard(now: number): void {
    this.heardAt = now;
    this.#checkedBy = Infinity;
    this.#lastChance = 0;
  }

  /** Takes the heartbeat's times from `connected` or a `ping`. */
  beats({ interval_ms, timeout_ms }: Heartbeat): void {
    this.timeoutMs = timeout_ms;
    this.#patienceMs = Math.max(interval_ms + timeout_ms, LEAST_PATIENCE_MS);
  }

  /** The system slept: what the node sent meanwhile may still come. */
  spare(now: number): void {
    this.heardAt = Math.max(this.heardAt, now + this.timeoutMs - this.#patienceMs);
  }

  /**
   * Since when it is silent though something is due: its beat, or a reply that is waited for since then. Never where it
   * has no time-out for that, or is spared; and once in a silence, as a transport repeats what is lost.
   */
  silentSince(waitsSince: number): number {
    if (this.isSpared || this.timeoutMs === 0 || this.#checkedBy < Infinity) return Infinity;
    return Math.min(this.heardAt + this.#patienceMs - this.timeoutMs, Math.max(this.heardAt, waitsSince));
  }

  /**
   * Unless something comes within `withinMs`, the connection is dead. Answers whether something has to be asked for.
   */
  check(now: number, withinMs: number): boolean {
    const isFirst = this.#checkedBy === Infinity;
    this.#checkedBy = Math.min(this.#checkedBy, now + withinMs);
    return isFirst;
  }

  /** It has been asked for a sign of life in vain, and nobody has too much to do. */
  get isDoubted(): boolean {
    return this.#checkedBy < Infinity && !this.isSpared;
  }

  /** When the connection counts as dead unless something comes. */
  get deadAt(): number {
    return this.#lastChance || Math.min(this.heardAt + this.#patienceMs, this.#checkedBy);
  }

  /** Whether it is dead by now. */
  isDead(now: number): boolean {
    if (now - this.deadAt > LATE_MS) this.#lastChance ||= now + LATE_MS;
    return now >= this.deadAt;
  }
}
