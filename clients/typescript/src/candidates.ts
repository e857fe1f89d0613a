/** The nodes that are known: where to go first, and in which order elsewhere. */
import type { Address } from './address.js';

/** The most addresses that nodes may add. */
const MAX_LEARNED = 16;

interface Candidate {
  readonly address: Address;
  readonly isGiven: boolean;
  region?: string;
  /** Smoothed time from the begin of an attempt to its completed handshake. */
  handshakeMs?: number;
  /** Whether it failed since the last success or full round. */
  failed: boolean;
  /** Until when it does not want to be asked. */
  restsUntil: number;
}

export class Candidates {
  /** Never empty; the given ones, which stay, come first. */
  #known: Candidate[];
  #current: Address;

  /** `given` has at least one. */
  constructor(given: readonly [Address, ...Address[]]) {
    this.#known = given.map((address) => ({ address, isGiven: true, failed: false, restsUntil: 0 }));
    this.#current = given[0];
  }

  /** Where the session is, or was last, or was sent to. */
  get current(): Address {
    return this.#current;
  }

  /** Whether nobody is left to be tried in this round. */
  isExhausted(now: number): boolean {
    return this.#known.every(({ failed, restsUntil }) => failed || now < restsUntil);
  }

  /** Until when nobody wants to be asked. */
  get restsUntil(): number {
    return Math.min(...this.#known.map(({ restsUntil }) => restsUntil));
  }

  /**
   * Whom to try in this round: the current one, then the others, the fastest first. Of those in a region nobody has
   * been to the order in which they were told counts. Who does not want to be asked is left out, unless that is
   * everybody.
   */
  order(now: number): Address[] {
    const rank = (candidate: Candidate): number =>
      candidate.address.key === this.#current.key ? -1 : (this.#estimate(candidate) ?? Infinity);
    const isAnybody = this.isExhausted(now);
    const left = this.#known.filter(({ failed, restsUntil }) => !failed && (isAnybody || now >= restsUntil));
    const ranked = left.map((candidate) => ({ candidate, rank: rank(candidate) }));
    ranked.sort((a, b) => (a.rank === b.rank ? 0 : a.rank - b.rank));
    return ranked.map(({ candidate }) => candidate.address);
  }

  /** How long a handshake takes: measured there, or else at the quickest of the same region. */
  #estimate({ handshakeMs, region }: Candidate): number | undefined {
    if (handshakeMs !== undefined || region === undefined) return handshakeMs;
    const times = this.#known.filter((other) => other.region === region).map((other) => other.handshakeMs ?? Infinity);
    return Math.min(...times);
  }

  /** The time that a handshake with `address` usually takes, if one ever completed. */
  handshakeMs(address: Address | undefined): number | undefined {
    return address && this.#find(address)?.handshakeMs;
  }

  measured(address: Address, tookMs: number): void {
    const candidate = this.#find(address);
    if (candidate === undefined) return;
    candidate.handshakeMs = candidate.handshakeMs === undefined ? tookMs : (candidate.handshakeMs * 3 + tookMs) / 4;
  }

  /** `address` is not to be tried again in this round, nor before `restsUntil`. */
  failed(address: Address, restsUntil = 0): void {
    const candidate = this.#find(address);
    if (candidate !== undefined) Object.assign(candidate, { failed: true, restsUntil });
  }

  /** From here on everybody may be tried again. */
  beginRound(): void {
    for (const candidate of this.#known) candidate.failed = false;
  }

  /** The session is at `address`, and stays there: nothing but a failure or the node's own word leads elsewhere. */
  succeeded(address: Address, region: string): void {
    this.go(address);
    this.beginRound();
    const candidate = this.#find(address);
    if (candidate !== undefined) Object.assign(candidate, { region, restsUntil: 0 });
  }

  /** Goes to `address` first from now on. */
  go(address: Address): void {
    if (this.#find(address) === undefined) {
      if (this.#known.filter((one) => !one.isGiven).length >= MAX_LEARNED) this.#known.pop();
      this.#known.push({ address, isGiven: false, failed: false, restsUntil: 0 });
    }
    this.#current = address;
  }

  /** Replaces what nodes told of others, with their regions; the current one stays. */
  learn(told: readonly { region: string; address: Address }[]): void {
    const former = this.#known;
    const known = former.filter((candidate) => candidate.isGiven);
    const most = known.length + MAX_LEARNED;
    for (const { region, address } of told) {
      const same = (candidate: Candidate): boolean => candidate.address.key === address.key;
      const before = known.find(same);
      if (before !== undefined) before.region = region;
      else if (known.length < most) known.push({ ...(former.find(same) ?? { address, isGiven: false, failed: false, restsUntil: 0 }), region });
    }
    this.#known = known;
    if (this.#find(this.#current) === undefined) {
      const stays = former.find(({ address }) => address.key === this.#current.key);
      known.length = Math.min(known.length, most - 1);
      if (stays !== undefined) known.push(stays);
    }
  }

  #find(address: Address): Candidate | undefined {
    return this.#known.find((candidate) => candidate.address.key === address.key);
  }
}
