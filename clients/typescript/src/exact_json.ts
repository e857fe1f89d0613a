/** JSON with integers of any size: those beyond 2⁵³ are BigInts. */
import { type Encoding, jsonEncoding } from './encoding.js';

const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/**
 * The value of a JSON text, in which integers that are written with digits alone and are not safe are BigInts.
 *
 * @throws SyntaxError for what is no JSON.
 */
export function parseExact(text: string): unknown {
  const value = JSON.parse(text) as unknown;
  if (!/\d{16}/.test(text)) return value;
  // No text that comes from outside can hold it.
  const mark = `${Math.random()}${Math.random()}:`;
  const marked = text.replace(STRING_OR_NUMBER, (token) => (isUnsafe(token) ? `"${mark}${token}"` : token));
  return JSON.parse(marked, (_, one: unknown) => (typeof one === 'string' && one.startsWith(mark) ? BigInt(one.slice(mark.length)) : one));
}

function isUnsafe(token: string): boolean {
  return /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token));
}

/** What the protocol itself says are numbers; payloads, under `data`, stay as they are. */
function numbersOfProtocol(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(numbersOfProtocol);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, name === 'data' ? (field as unknown) : numbersOfProtocol(field)]));
}

/** The encoding `json`, but for integers beyond 2⁵³ in payloads, which are BigInts. */
export const exactJson: Encoding = /* @__PURE__ */ { ...jsonEncoding((text) => numbersOfProtocol(parseExact(text))), parse: parseExact };
