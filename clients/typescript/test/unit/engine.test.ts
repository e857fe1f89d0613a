/** The clock of a session: it goes on through sleeps, and is never set back. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Engine } from '../../src/engine.js';
import { parseAddress } from '../../src/address.js';
import { lost } from '../../src/errors.js';
import { FixedRoute } from '../../src/session/fixed_route.js';

function engine(): Engine {
  const parts = {
    address: () => parseAddress('ws://a.example'),
    dial: () => Promise.reject(lost('nobody')),
    route: () => new FixedRoute([parseAddress('ws://a.example')]),
    network: () => ({}),
  };
  const session = {
    connectTimeoutMs: 1_000,
    requestTimeoutMs: 1_000,
    publishQueue: 1,
    backoff: { firstMs: 1, maxMs: 1 },
    client: { name: 'test' },
    transport: 'websocket',
    headStartMs: 0,
    storage: undefined,
  } as const;
  return new Engine({ urls: ['ws://a.example'], parts, session, getToken: undefined }, () => undefined);
}

describe('the clock of a session', () => {
  it('goes on when the wall clock is set back, and through a sleep of the monotonic one', (test) => {
    let [wall, steady] = [1_000_000_000, 5_000];
    test.mock.method(Date, 'now', () => wall);
    test.mock.method(performance, 'now', () => steady);
    const clock = engine();
    const begin = clock.now();
    assert.equal(begin, wall);
    const passed = (wallMs: number, steadyMs: number): number => {
      wall += wallMs;
      steady += steadyMs;
      return clock.now() - begin;
    };
    assert.equal(passed(1_000, 1_000), 1_000);
    assert.equal(passed(-3_600_000, 1_000), 2_000, 'set back by an hour');
    assert.equal(passed(1_000, 1_000), 3_000);
    assert.equal(passed(7_200_000, 0), 3_602_000, 'two hours of sleep, one of which the wall clock makes up for');
  });
});
