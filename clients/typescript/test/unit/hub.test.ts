/** The tab that holds a connection that others share, and what they say to it. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Asking } from '../../src/asking.js';
import { RequestError } from '../../src/errors.js';
import type { ClientFrame, Network } from '../../src/frames.js';
import type { State } from '../../src/session/state.js';
import { Hub } from '../../src/tabs/hub.js';
import { type Asked, hear, openTabChannel, type TabChannel, type TabMessage } from '../../src/tabs/messages.js';
import { fromTold, toTold } from '../../src/tabs/status.js';
import { FakeLocks } from './fake_locks.js';
import { World } from './world.js';

const BUSY = new RequestError(111, 'rate_limited', 'too much', true, { retryAfterMs: 3_000 });

let told: unknown[];
let heard: TabMessage[];
let hub: Hub;
let channel: TabChannel;
let state: State;
let world: World;

beforeEach(() => {
  new FakeLocks().install();
  told = [];
  heard = [];
  state = 'connected';
  world = new World();
  const share = crypto.randomUUID();
  channel = openTabChannel(share);
  hear(channel, (message) => heard.push(message));
  const note = (name: string) => (): void => void told.push(name);
  hub = new Hub(share, {
    // Nothing here is about channels.
    asking: new Asking(world.session),
    parse: JSON.parse,
    page: {
      networkChanged: (network, isOther) => void told.push([network, isOther]),
      check: note('check'),
      woke: note('woke'),
    },
    status: () => ({ state, error: undefined, connection: undefined }),
    connect: note('connect'),
    disconnect: note('disconnect'),
    look: note('look'),
    refresh: () => Promise.reject(BUSY),
    switchTransport: (kind) => Promise.resolve(void told.push(kind)),
  });
});

afterEach(() => {
  hub.stop();
  channel.close();
});

function asked(from: string, name = '', content: ClientFrame): Asked {
  return { kind: 'asked', from, hub: name, content, askedAtMs: Date.now() };
}

/** Says something to the hub as a tab whose lock lives, and waits for the answer to a last question. */
async function say(...messages: TabMessage[]): Promise<void> {
  const before = heard.filter(({ kind }) => kind === 'status').length;
  for (const message of [...messages, { kind: 'probe' } as const]) channel.postMessage(message);
  while (heard.filter(({ kind }) => kind === 'status').length === before) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.equal(told.pop(), 'look');
}

/** A tab comes, which holds its lock. */
async function comes(from: string, network: Network = {}): Promise<void> {
  void navigator.locks.request(from, {}, () => new Promise(() => undefined));
  await say({ kind: 'open', from, network });
}

describe('the hub of tabs that share a connection', () => {
  it('answers whoever asks, and does what is due meanwhile: its own timers may be held up', async () => {
    await say();
    assert.equal(heard.at(-1)?.kind, 'status');
  });

  it('has the client look at its connection when something happens to any page', async () => {
    await comes('a');
    told = [];
    await say({ kind: 'page', from: 'a', network: {}, news: 'check' }, { kind: 'page', from: 'a', network: {}, news: 'woke' });
    await say({ kind: 'page', from: 'a', network: { kind: 'wifi' }, news: 'network' });
    assert.deepEqual(told, ['check', 'woke', [{ kind: 'wifi', background: false }, true]]);
  });

  it('is in the background when all pages are, of those that are left', async () => {
    await comes('a', { background: true });
    await comes('b', { background: false });
    await say({ kind: 'left', from: 'b' });
    const backgrounds = told.map((one) => (one as [Network])[0].background);
    assert.deepEqual(backgrounds, [true, false, true]);
  });

  it('connects for the first tab, and disconnects with the last', async () => {
    state = 'disconnected';
    await comes('a');
    await say({ kind: 'left', from: 'a' });
    assert.deepEqual(told.filter((one) => typeof one === 'string'), ['connect', 'disconnect']);
  });

  it('moves to another transport, and says when it has', async () => {
    await comes('a');
    await say({ kind: 'switch', from: 'a', transport: 'webtransport' });
    assert.ok(told.includes('webtransport'));
    assert.ok(heard.some((message) => message.kind === 'switched' && message.to === 'a' && message.error === undefined));
  });

  it('tells what failed with all that the node said of it', async () => {
    await comes('a');
    const begun = heard.find((message) => message.kind === 'opened');
    await say(asked('a', begun?.hub, ['refresh', { id: 1, token: 't' }]));
    const frames = heard.flatMap((message) => (message.kind === 'told' ? [message.content] : []));
    const { code, reason, message, transient } = BUSY;
    assert.deepEqual(frames, [['error', { id: 1, code, reason, message, transient, retry_after_ms: 3_000 }]]);
    assert.deepEqual(fromTold(structuredClone(toTold(BUSY))), BUSY);
  });

  it('has a tab that it does not know open its transport anew', async () => {
    await say();
    const begun = heard.find((message) => message.kind === 'hub') ?? heard.find((message) => message.kind === 'status');
    assert.ok(begun !== undefined);
    await say(asked('stranger', begun.hub, ['presence', { id: 1, channel: 'chat:1' }]));
    const frames = heard.flatMap((message) => (message.kind === 'told' ? [message.content[0]] : []));
    assert.deepEqual(frames, ['disconnect']);
  });

  it('does nothing that it was asked for while its page hung, which another tab may have done, and has that tab come again', async () => {
    await comes('a');
    const begun = heard.find((message) => message.kind === 'opened');
    const publish = asked('a', begun?.hub, ['publish', { id: 1, channel: 'chat:1', key: 'k', data: '1' }]);
    await say({ ...publish, askedAtMs: Date.now() - 60_000 });
    const frames = (): unknown[] => heard.flatMap((message) => (message.kind === 'told' ? [message.content[0]] : []));
    assert.deepEqual([world.session.traffic.publishes.withdraw(1), frames()], [false, ['disconnect']]);
    await say(publish);
    assert.deepEqual([world.session.traffic.publishes.withdraw(1), frames()], [true, ['disconnect']]);
  });
});
