/** Positions, by the golden vectors. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isNext, isPast, moved, type Position } from '../../src/position.js';
import { read } from './vectors.js';

interface Arrival {
  name: string;
  position: Position;
  origin: string;
  epoch: string;
  offset: number;
  admission: 'next' | 'duplicate' | 'gap' | 'new_epoch';
  after: Position;
}

describe('a position', () => {
  for (const { name, position, admission, after, ...place } of read('position.json') as Arrival[]) {
    it(`admits exactly what follows: ${name.replaceAll('_', ' ')}`, () => {
      assert.equal(isNext(position, place), admission === 'next');
      assert.equal(isPast(position, place), admission === 'duplicate');
      assert.deepEqual(admission === 'next' ? moved(position, place) : position, after);
    });
  }
});
