/** Which transport won where, so that the next session begins with it. */
import type { Address } from './address.js';
import { type TransportChoice, type TransportKind, TRANSPORTS } from './transport_kind.js';

/** Where the memory outlives the page: `localStorage` is one. */
export interface MemoryStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** What to try, in order, and by how much the first is ahead. */
export interface Plan {
  /** At least one. */
  readonly kinds: readonly TransportKind[];
  readonly headStartMs?: number;
}

interface Remembered {
  /** It is not tried before others until this time, in milliseconds since 1970. */
  avoidUntil: number;
  avoidanceMs: number;
}

/** How long a transport is not tried first again after it lost; doubles with each further loss. */
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
    if (choice !== 'auto') return { kinds: [choice], headStartMs };
    const isAvoided = (kind: TransportKind): boolean => now < this.avoidedUntil(address, kind, network);
    const kinds = transportsOf(address).sort((one, other) => Number(isAvoided(one)) - Number(isAvoided(other)));
    return { kinds, headStartMs };
  }

  /** Until when a transport is not tried first there; 0 when it may be. */
  avoidedUntil(address: Address, kind: TransportKind, network: string): number {
    return this.#lost.get(key(address, kind, network))?.avoidUntil ?? 0;
  }

  /** Remembers who won a race that others could have won. */
  remember(address: Address, { kinds }: Plan, winner: TransportKind, network: string, now: number): void {
    if (kinds.length === 1) return;
    this.worked(address, winner, network);
    const rank = (kind: TransportKind): number => TRANSPORTS.indexOf(kind);
    for (const kind of kinds.slice(0, kinds.indexOf(winner))) {
      // It lost although it is better and went first: stay away for longer than the last time.
      if (rank(kind) < rank(winner)) this.failed(address, kind, network, now);
    }
  }

  /** A transport works there. */
  worked(address: Address, kind: TransportKind, network: string): void {
    if (this.#lost.delete(key(address, kind, network))) this.#store();
  }

  /** A transport does not work there for now. */
  failed(address: Address, kind: TransportKind, network: string, now: number): void {
    const name = key(address, kind, network);
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

/** By what a node can be reached, the best first. */
export function transportsOf(address: Address): [TransportKind, ...TransportKind[]] {
  // An address has at least one.
  return TRANSPORTS.filter((kind) => address[kind] !== undefined) as [TransportKind, ...TransportKind[]];
}

function key(address: Address, kind: TransportKind, network: string): string {
  return `${kind} ${network} ${address.key}`;
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
