/** The simplest way to go: the given addresses in their turn, over WebSocket. */
import type { Address } from '../address.js';
import type { Target } from './opening.js';
import type { Router } from './router.js';

export class FixedRoute implements Router {
  /** The current one first. */
  readonly #addresses: Address[];
  readonly #failed = new Set<Address>();

  constructor(addresses: readonly Address[]) {
    this.#addresses = [...addresses];
  }

  get isExhausted(): boolean {
    return this.#failed.size === this.#addresses.length;
  }

  beginRound(): void {
    this.#failed.clear();
  }

  targets(): Target[] {
    if (this.isExhausted) this.beginRound();
    const next = this.#addresses.find((address) => !this.#failed.has(address));
    return next === undefined ? [] : this.only(next);
  }

  only(address: Address): Target[] {
    return [{ address, plan: { first: 'websocket', headStartMs: 0 } }];
  }

  failed(target: Target | undefined): void {
    if (target !== undefined) this.#failed.add(target.address);
  }

  arrived(address: Address): void {
    this.beginRound();
    while (this.#addresses[0] !== address) this.#addresses.push(...this.#addresses.splice(0, 1));
  }
}
