/** Attempts one after the other, the first one wins. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { type Attempt, firstOf, type Pace } from '../../src/staggered.js';

const PACE: Pace = { headStartMs: 250, staggerMs: 200, timeoutMs: 5_000 };

/** What an attempt does after so many milliseconds; `undefined`: nothing at all. */
type Does = { fails: number } | { succeeds: number } | undefined;

interface Outcome {
  winner?: number;
  error?: Error;
  at: number;
  begins: number[];
  aborted: number[];
}

/** Runs attempts to their end, one millisecond after the other. */
async function run(does: Does[], pace: Partial<Pace> = {}, abortAt = Infinity): Promise<Outcome> {
  const start = Date.now();
  const outcome: Outcome = { at: -1, begins: [], aborted: [] };
  const attempts = does.map(
    (one, index): Attempt<number> =>
      (signal) => {
        outcome.begins.push(Date.now() - start);
        signal.addEventListener('abort', () => outcome.aborted.push(index));
        return new Promise((resolve, reject) => {
          if (one && 'fails' in one) setTimeout(() => { reject(new Error(`failed ${index}`)); }, one.fails);
          else if (one) setTimeout(() => { resolve(index); }, one.succeeds);
        });
      },
  );
  const controller = new AbortController();
  const settled = firstOf(attempts, { ...PACE, ...pace }, controller.signal).then(
    ({ value }) => { outcome.winner = value; },
    (error: unknown) => { outcome.error = error as Error; },
  ).then(() => { outcome.at = Date.now() - start; });
  for (let passed = 0; passed < 20_000 && outcome.at < 0; passed += 1) {
    if (passed === abortAt) controller.abort();
    for (let turn = 0; turn < 6; turn += 1) await Promise.resolve();
    mock.timers.tick(1);
  }
  await settled;
  return outcome;
}

const within = (actual: number, expected: number): void => {
  assert.ok(Math.abs(actual - expected) <= 3, `${actual}, not ${expected}`);
};

describe('attempts', () => {
  beforeEach(() => {
    mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  });
  afterEach(() => {
    mock.timers.reset();
  });

  it('that succeed within their head start are alone', async () => {
    const { winner, begins } = await run([{ succeeds: 248 }, { succeeds: 0 }]);
    assert.equal(winner, 0);
    assert.equal(begins.length, 1);
  });

  it('are joined by others one after the other when they are silent, and aborted when they lose', async () => {
    const { winner, begins, at, aborted } = await run([undefined, undefined, { succeeds: 30 }]);
    assert.equal(winner, 2);
    for (const [index, expected] of [0, 250, 450].entries()) within(begins[index] ?? -1, expected);
    within(at, 480);
    assert.deepEqual(aborted, [0, 1]);
  });

  it('win by being first to succeed, whoever began first', async () => {
    const { winner, at } = await run([{ succeeds: 900 }, { succeeds: 600 }, { succeeds: 100 }]);
    assert.equal(winner, 2);
    within(at, 550);
  });

  it('that fail are not waited for', async () => {
    const { winner, at } = await run([{ fails: 5 }, { fails: 5 }, { succeeds: 5 }]);
    assert.equal(winner, 2);
    within(at, 15);
  });

  it('fail together with all reasons', async () => {
    const { error } = await run([{ fails: 5 }, { fails: 5 }]);
    assert.equal(error?.message, 'failed 0; failed 1');
  });

  it('of a crowd that is silent hold nobody up for long', async () => {
    const { winner, begins, at } = await run([...Array<Does>(8).fill(undefined), { succeeds: 0 }]);
    assert.equal(winner, 8);
    for (const [index, expected] of [0, 250, 450, 650, 2_000].entries()) within(begins[index] ?? -1, expected);
    within(at, 4_000);
  });

  it('get a last chance when another one failed for certain', async () => {
    const { error, at } = await run([undefined, { fails: 10 }], { lastChanceMs: 1_000 });
    assert.ok(error);
    within(at, 1_260);
  });

  it('are given up when nobody wants them any more', async () => {
    const { error, at, aborted } = await run([undefined, undefined], {}, 300);
    assert.equal(error?.message, 'given up');
    within(at, 300);
    assert.deepEqual(aborted, [0, 1]);
  });
});
