/** Reads the protocol's golden vectors, which the tests of every implementation share. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// The tests run in `clients/typescript`.
export const VECTORS = join(process.cwd(), '../../protocol/vectors');

/** One frame in both encodings. */
export interface Case {
  name: string;
  json: string;
  msgpack: string;
  /** `false`: a frame is read like this but not written. */
  canonical?: boolean;
}

export function read(file: string): unknown {
  return JSON.parse(readFileSync(join(VECTORS, file), 'utf8'));
}

/** All cases of the frames that one side sends, with the frames' names. */
export function cases(direction: 'client' | 'server'): [string, Case][] {
  const names = readdirSync(join(VECTORS, direction)).map((file) => file.replace('.json', ''));
  return names.flatMap((name) => (read(`${direction}/${name}.json`) as Case[]).map((one): [string, Case] => [name, one]));
}

export function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

export function hex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}
