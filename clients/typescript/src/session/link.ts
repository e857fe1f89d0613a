/** One connection that carries the session, or is about to: its phases and its heartbeat. Time is an argument. */
import type { Address } from '../address.js';
import type { ClientFrame, Heartbeat, ServerFrame } from '../frames.js';
import type { Lane, Transport } from '../transport.js';

/** The limit on frames until a node has told its own. */
const USUAL_FRAME_BYTES = 65_536;
/** Bounds of the time without a word after which a connection counts as dead, whatever the node says. */
const LEAST_PATIENCE_MS = 1_000;
const MOST_PATIENCE_MS = 86_400_000;
/** The most frames that wait for `connected`, or of one channel for its `subscribed`. */
const MAX_HELD = 8_192;

/** How far a connection is with a channel. What comes before `subscribed` is held. */
export interface Phase {
  state: 'awaiting' | 'subscribed' | 'leaving';
  /** While leaving: only when the channel has been asked for again meanwhile. */
  held: ServerFrame[] | undefined;
}

export class Link {
  /** Counts the connections of the session. */
  readonly number: number;
  readonly address: Address;
  readonly transport: Transport;
  /** What its `connect` proves the user with. */
  token: string | undefined;
  /** The id of its `connect`. */
  connectId = 0;
  /** The channels that its `connect` asks for, with the ids of their subscriptions. */
  asked = new Map<string, number>();
  /** What came before `connected`. */
  early: ServerFrame[] = [];
  isConnected = false;
  readonly phases = new Map<string, Phase>();
  readonly since: number;
  frameBytes = USUAL_FRAME_BYTES;
  #heartbeat: Heartbeat = { interval_ms: 25_000, timeout_ms: 10_000 };
  #heardAt: number;
  /** A time before which it is not given up, whatever was heard: after a sleep. */
  #spareUntil = 0;
  /** Of the node's last ping. */
  #lastSeq: number | undefined;
  /** Whether a sign of life was sent since something was heard. */
  #isNudged = false;
  /** Something has to be heard by then: it is being checked. */
  #checkedBy = Infinity;

  constructor(number: number, address: Address, transport: Transport, now: number) {
    this.number = number;
    this.address = address;
    this.transport = transport;
    this.since = now;
    this.#heardAt = now;
  }

  /** Queues a frame; answers whether the node takes frames of that size. */
  send(frame: ClientFrame, lane: Lane = 'reliable'): boolean {
    return this.transport.send(frame, lane, this.frameBytes || Infinity);
  }

  heard(now: number): void {
    this.#heardAt = now;
    this.#isNudged = false;
    this.#checkedBy = Infinity;
  }

  /** Takes the heartbeat's times from `connected` or a `ping`. */
  beats({ interval_ms, timeout_ms }: Heartbeat, seq?: number): void {
    this.#heartbeat = { interval_ms, timeout_ms };
    this.#lastSeq = seq ?? this.#lastSeq;
  }

  get heartbeat(): Heartbeat {
    return this.#heartbeat;
  }

  /** The system slept: what the node sent meanwhile may still come. */
  spare(now: number): void {
    this.#spareUntil = now + this.#heartbeat.timeout_ms;
  }

  /** Unless something comes within `withinMs`, the connection is dead. */
  check(now: number, withinMs: number): void {
    this.#checkedBy = Math.min(this.#checkedBy, now + withinMs);
  }

  get isBeingChecked(): boolean {
    return this.#checkedBy < Infinity;
  }

  /** When the connection counts as dead unless something comes. */
  get deadAt(): number {
    const { interval_ms, timeout_ms } = this.#heartbeat;
    const patience = Math.min(Math.max(interval_ms + timeout_ms, LEAST_PATIENCE_MS), MOST_PATIENCE_MS);
    return Math.min(Math.max(this.#heardAt + patience, this.#spareUntil), this.#checkedBy);
  }

  /**
   * When to send a `pong` that nobody asked for, so that a NAT which forgot this UDP path learns it again and the
   * node's next probe comes through: half of the time-out before the connection counts as dead.
   */
  get nudgeAt(): number {
    if (this.#isNudged || this.#lastSeq === undefined || this.transport.kind !== 'webtransport') return Infinity;
    const { interval_ms, timeout_ms } = this.#heartbeat;
    return this.#heardAt + Math.min(interval_ms + timeout_ms / 2, MOST_PATIENCE_MS);
  }

  /** Nudges the path, if that is due. */
  nudge(now: number): void {
    if (this.#lastSeq === undefined || now < this.nudgeAt) return;
    this.#isNudged = true;
    this.send(['pong', { seq: this.#lastSeq }], 'datagram');
  }
}

/** Holds a frame; answers whether there was room for it. */
export function hold(held: ServerFrame[], frame: ServerFrame): boolean {
  return held.push(frame) <= MAX_HELD;
}
