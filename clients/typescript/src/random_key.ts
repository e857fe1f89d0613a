/** Keys that nobody else has. */

/** 128 random bits. Where there is no better source, chance has to do: a key is unique, and only better not guessed. */
export function randomKey(): string {
  const words = new Uint32Array(4).map(() => Math.random() * 2 ** 32);
  // Absent in React Native, whatever its declared type says.
  (globalThis.crypto as Crypto | undefined)?.getRandomValues(words);
  return [...words].map((word) => word.toString(36)).join('');
}
