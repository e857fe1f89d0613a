/** The package's public names. */
export { CloseCode, ErrorCode } from './codes.js';
export { type DecodeProblem, DecodeError, type Encoding, json } from './encoding.js';
export type { Point, Position } from './position.js';
