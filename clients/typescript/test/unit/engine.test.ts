/** The world around a session: its clock, and where its tokens come from. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Engine, type GetToken } from '../../src/engine.js';
import { parseAddress } from '../../src/address.js';
import { lost } from '../../src/errors.js';
import { FixedRoute } from '../../src/session/fixed_route.js';

function engine(getToken?: GetToken): Engine {
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
  return new Engine({ urls: ['ws://a.example'], parts, session, getToken }, () => undefined);
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

describe('a token', () => {
  it('that is no text is none, and nobody is dialled as somebody else', async () => {
    for (const answer of ['{"error":"busy"}', '{"token":7}']) {
      const world = engine(() => (JSON.parse(answer) as { token: string }).token);
      const target = { address: parseAddress('ws://a.example'), plan: { kinds: ['websocket'] } } as const;
      const outcome = await new Promise((done) => world.dial({ targets: [target], headStartMs: 0, timeoutMs: 1_000 }, done));
      assert.equal((outcome as { error: Error }).error.message, 'no token: it is no text');
    }
  });
});
