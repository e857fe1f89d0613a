/** The simplest way to go: the given addresses in their turn, over WebSocket. */
import type { Address } from '../address.js';
import type { Targets } from './opening.js';
import type { Router } from './router.js';

export class FixedRoute implements Router {
  /** The one to try first, and those that failed of late at the end. */
  readonly #addresses: [Address, ...Address[]];
  #failures = 0;

  constructor(addresses: readonly [Address, ...Address[]]) {
    this.#addresses = [...addresses];
  }

  get isExhausted(): boolean {
    return this.#failures >= this.#addresses.length;
  }

  beginRound(): void {
    this.#failures = 0;
  }

  targets(): Targets {
    if (this.isExhausted) this.beginRound();
    return [{ address: this.#addresses[0], plan: { kinds: ['websocket'] } }];
  }

  failed(): void {
    this.#failures += 1;
    this.#addresses.push(...this.#addresses.splice(0, 1));
  }

  arrived(): void {
    this.beginRound();
  }
}
