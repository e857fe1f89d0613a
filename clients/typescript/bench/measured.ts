/** What was measured, before anything is written of it. */
import type { TransportKind } from 'skywave';
import type { Load } from './loads.js';
import type { Quantiles } from './quantiles.js';

/** What one transport did on the busy channel, or on the quiet ones together. */
export interface Row {
  readonly kind: TransportKind;
  readonly isBusy: boolean;
  readonly quantiles: Quantiles;
}

/** What was measured under one load. */
export interface Measured {
  readonly load: Load;
  readonly rows: readonly Row[];
}
