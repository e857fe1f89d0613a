/** What every client of this package that an application uses can do, whoever holds its connection. */
import type { Skywave } from './skywave.js';

/** What `Skywave` and `SharedSkywave` have in common: what a component asks for that works with either. */
export type SkywaveClient = Pick<Skywave, keyof Skywave>;
