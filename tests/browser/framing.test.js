/** The demo's framing of streams, by the protocol's golden vectors. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { decodeVarint, encodeVarint, FrameBuffer } from '../../demo/transports.js';

const vectors = JSON.parse(await readFile(new URL('../../protocol/vectors/framing.json', import.meta.url), 'utf8'));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (data) => Buffer.from(data).toString('hex');

describe('framing', () => {
  it('reads every form of a length', () => {
    assert.ok(vectors.varints.length > 0);
    for (const { value, hex: encoded } of vectors.varints) {
      assert.deepEqual(decodeVarint(bytes(encoded)), { value, size: encoded.length / 2 });
    }
  });

  it('writes the shortest form of a length', () => {
    for (const { value, hex: encoded } of vectors.varints.filter(({ canonical }) => canonical !== false)) {
      assert.equal(hex(encodeVarint(value)), encoded);
    }
  });

  it('waits for the rest of a length', () => {
    assert.ok(vectors.truncated_varints.length > 0);
    for (const encoded of vectors.truncated_varints) assert.equal(decodeVarint(bytes(encoded)), null);
  });

  const whole = vectors.streams.filter((stream) => stream.too_large === undefined);
  for (const { name, pieces, frames, partial } of whole) {
    it(`takes frames from a stream: ${name.replaceAll('_', ' ')}`, () => {
      const buffer = new FrameBuffer();
      assert.deepEqual(pieces.flatMap((piece) => buffer.push(bytes(piece)).map(hex)), frames);
      assert.equal(buffer.isPartial, partial ?? false);
    });
  }
});
