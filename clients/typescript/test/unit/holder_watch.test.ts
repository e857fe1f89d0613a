/** Whether the tab that holds a shared connection still answers. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { HolderWatch } from '../../src/tabs/holder_watch.js';

let now: number;
let asked: number;
let missing: number;
let isNeeded: boolean;
let answers: boolean;
let watch: HolderWatch;

beforeEach(() => {
  now = 0;
  mock.timers.enable({ apis: ['setInterval'] });
  mock.method(Date, 'now', () => now);
  asked = missing = 0;
  isNeeded = true;
  answers = false;
  watch = new HolderWatch({
    isNeeded: () => isNeeded,
    ask: () => {
      asked += 1;
      if (answers) watch.heard();
    },
    missing: () => {
      missing += 1;
    },
  });
});

afterEach(() => {
  watch.stop();
  mock.reset();
  mock.timers.reset();
});

/** Lets time pass; each timer is on time. */
function pass(milliseconds: number): void {
  for (let passed = 0; passed < milliseconds; passed += 100) {
    now += 100;
    mock.timers.tick(100);
  }
}

describe('the watch over the tab that holds the connection', () => {
  it('misses one that does not answer, within some seconds', () => {
    pass(8_000);
    assert.equal(missing, 1);
  });

  it('leaves one alone that answers', () => {
    answers = true;
    pass(60_000);
    assert.equal(missing, 0);
    assert.ok(asked > 10);
  });

  it('asks nothing as long as the tab does not need it', () => {
    isNeeded = false;
    pass(60_000);
    assert.deepEqual([asked, missing], [0, 0]);
  });

  it('asks at once when the tab is seen, and counts from there', () => {
    isNeeded = false;
    pass(4_000);
    isNeeded = true;
    watch.begin();
    assert.equal(asked, 1);
    pass(3_000);
    assert.equal(missing, 0);
  });

  it('does not blame the holder for the time in which the whole system slept', () => {
    pass(5_000);
    // Two questions are out, and the next timer comes late.
    now += 3_600_000;
    pass(3_000);
    assert.equal(missing, 0);
  });
});
