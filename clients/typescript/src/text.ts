/** Text as it travels: in UTF-8, of so many bytes. */

/** A text in UTF-8. */
export function toUtf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** The bytes of a text in UTF-8. */
export function byteLength(text: string): number {
  return toUtf8(text).length;
}

/** Whether a node takes it for text of that size: half of a surrogate pair is none. */
export function isText(text: string, maxBytes: number): boolean {
  return byteLength(text) <= maxBytes && !/\p{Cs}/u.test(text);
}
