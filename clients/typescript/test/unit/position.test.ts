/** Positions, by the golden vectors. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Admission, admit, advance, type Position } from '../../src/position.js';
import { read } from './vectors.js';

interface Arrival {
  name: string;
  position: Position;
  origin: string;
  epoch: string;
  offset: number;
  admission: Admission;
  after: Position;
}

describe('a position', () => {
  for (const { name, position, origin, epoch, offset, admission, after } of read('position.json') as Arrival[]) {
    it(`admits exactly what follows: ${name.replaceAll('_', ' ')}`, () => {
      assert.equal(admit(position, origin, epoch, offset), admission);
      assert.deepEqual(admission === 'next' ? advance(position, origin, epoch, offset) : position, after);
    });
  }
});
