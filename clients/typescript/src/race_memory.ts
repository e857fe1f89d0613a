/** Which transport won where, so that the next session begins with it. */
import type { Address } from './address.js';
import type { TransportKind } from './transport.js';

/** Where the memory outlives the page: `localStorage` is one. */
export interface MemoryStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** What to try, in order, and by how much the first is ahead. */
export interface Plan {
  readonly first: TransportKind;
  readonly second?: TransportKind;
  readonly headStartMs: number;
}

/** Which transport to use; `auto` is WebTransport where it works, WebSocket where it does not. */
export type TransportChoice = 'auto' | TransportKind;

interface Remembered {
  /** WebTransport is not tried first before this time, in milliseconds since 1970. */
  avoidUntil: number;
  avoidanceMs: number;
}

/** How long WebTransport is not tried first again after it lost; doubles with each further loss. */
const FIRST_AVOIDANCE_MS = 30_000;
const LONGEST_AVOIDANCE_MS = 3_600_000;
const MAX_ENTRIES = 64;
const STORAGE_KEY = 'skywave:transports';

export class RaceMemory {
  readonly #storage: MemoryStorage | undefined;
  readonly #lost: Map<string, Remembered>;

  constructor(storage: MemoryStorage | undefined) {
    this.#storage = storage;
    this.#lost = load(storage);
  }

  /** `network` names the network, as far as it can be told apart. */
  plan(address: Address, choice: TransportChoice, headStartMs: number, network: string, now: number): Plan {
    if (choice !== 'auto') return { first: choice, headStartMs };
    if (address.webtransport === undefined) return { first: 'websocket', headStartMs };
    if (address.websocket === undefined) return { first: 'webtransport', headStartMs };
    return now < this.avoidedUntil(address, network)
      ? { first: 'websocket', second: 'webtransport', headStartMs }
      : { first: 'webtransport', second: 'websocket', headStartMs };
  }

  /** Until when WebTransport is not tried there; 0 when it may be. */
  avoidedUntil(address: Address, network: string): number {
    return this.#lost.get(key(address, network))?.avoidUntil ?? 0;
  }

  /** Remembers who won a race that both could have won. */
  remember(address: Address, plan: Plan, winner: TransportKind, network: string, now: number): void {
    if (plan.second === undefined) return;
    if (winner === 'webtransport') this.worked(address, network);
    // It lost although it went first: stay away for longer than the last time.
    else if (plan.first === 'webtransport') this.failed(address, network, now);
  }

  /** WebTransport works there. */
  worked(address: Address, network: string): void {
    if (this.#lost.delete(key(address, network))) this.#store();
  }

  /** WebTransport does not work there for now. */
  failed(address: Address, network: string, now: number): void {
    const name = key(address, network);
    const before = this.#lost.get(name)?.avoidanceMs ?? 0;
    const avoidanceMs = Math.min(Math.max(before * 2, FIRST_AVOIDANCE_MS), LONGEST_AVOIDANCE_MS);
    if (this.#lost.size >= MAX_ENTRIES) this.#lost.clear();
    this.#lost.set(name, { avoidUntil: now + avoidanceMs, avoidanceMs });
    this.#store();
  }

  #store(): void {
    try {
      this.#storage?.setItem(STORAGE_KEY, JSON.stringify([...this.#lost]));
    } catch {
      // Full or forbidden: then it is remembered for the life of the page.
    }
  }
}

function key(address: Address, network: string): string {
  return `${network} ${address.key}`;
}

/** What was stored, as far as it can be understood. */
function load(storage: MemoryStorage | undefined): Map<string, Remembered> {
  const lost = new Map<string, Remembered>();
  try {
    const stored = JSON.parse(storage?.getItem(STORAGE_KEY) ?? '[]') as [string, Remembered][];
    for (const [name, { avoidUntil, avoidanceMs }] of stored.slice(0, MAX_ENTRIES)) {
      if (!Number.isFinite(avoidUntil) || !Number.isFinite(avoidanceMs)) continue;
      // Noted by a clock that was ahead it would be avoided for as long as that.
      lost.set(name, { avoidUntil: Math.min(avoidUntil, Date.now() + avoidanceMs), avoidanceMs });
    }
  } catch {
    // Another version's, or somebody else's.
  }
  return lost;
}
