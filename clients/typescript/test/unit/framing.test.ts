/** Frames in streams and messages, by the golden vectors. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FrameBuffer, prefixed, readVarint, splitFrames } from '../../src/framing.js';
import { bytes, hex, read } from './vectors.js';

interface Framing {
  varints: { value: number; hex: string; canonical?: boolean }[];
  truncated_varints: string[];
  streams: {
    name: string;
    pieces: string[];
    frames: string[];
    partial?: boolean;
    maximum?: number;
    too_large?: number;
  }[];
  messages: { name: string; hex: string; frames?: string[] }[];
}

const vectors = read('framing.json') as Framing;

describe('the length before a frame', () => {
  it('is read in every form', () => {
    for (const { value, hex: encoded } of vectors.varints) {
      assert.deepEqual(readVarint(bytes(encoded)), { value, size: encoded.length / 2 });
      assert.deepEqual(readVarint(bytes(`${encoded}ff`)), { value, size: encoded.length / 2 });
    }
  });

  it('is written in the shortest form', () => {
    const written = vectors.varints.filter(({ value, canonical }) => canonical !== false && value <= 65_536);
    assert.ok(written.length > 3);
    for (const { value, hex: encoded } of written) {
      const frame = prefixed(new Uint8Array(value));
      assert.equal(hex(frame.subarray(0, frame.length - value)), encoded);
    }
  });

  it('is waited for', () => {
    for (const encoded of vectors.truncated_varints) assert.equal(readVarint(bytes(encoded)), undefined);
  });
});

describe('a stream', () => {
  for (const stream of vectors.streams) {
    it(`gives its frames: ${stream.name.replaceAll('_', ' ')}`, () => {
      const buffer = new FrameBuffer(stream.maximum ?? 65_536);
      const frames: string[] = [];
      const readAll = (): void => {
        for (const piece of stream.pieces) for (const frame of buffer.push(bytes(piece))) frames.push(hex(frame));
      };
      if (stream.too_large === undefined) readAll();
      else assert.throws(readAll, RangeError);
      assert.deepEqual(frames, stream.frames);
      assert.equal(buffer.isPartial, stream.partial ?? stream.too_large !== undefined);
    });
  }

  it('is read in time that grows with its length alone', () => {
    const length = 1 << 20;
    const whole = prefixed(new Uint8Array(length).fill(7));
    const buffer = new FrameBuffer();
    let frames = 0;
    for (let at = 0; at < whole.length; at += 64) {
      for (const frame of buffer.push(whole.subarray(at, at + 64))) {
        frames += 1;
        assert.equal(frame.length, length);
      }
    }
    assert.equal(frames, 1);
  });
});

describe('a binary message', () => {
  for (const { name, hex: message, frames } of vectors.messages) {
    it(`holds whole frames: ${name.replaceAll('_', ' ')}`, () => {
      if (frames === undefined) assert.throws(() => splitFrames(bytes(message)), RangeError);
      else assert.deepEqual(splitFrames(bytes(message)).map(hex), frames);
    });
  }
});
