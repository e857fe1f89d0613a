/** Channels that nobody uses any more are let go. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Skywave } from '../../src/core.js';
import { FakeNode } from './fake_node.js';

setFlagsFromString('--expose_gc');
const collect = runInNewContext('gc') as () => void;
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

let node: FakeNode;
let client: Skywave;

beforeEach(async () => {
  node = new FakeNode();
  client = new Skywave('ws://node.example', { WebSocket: node.WebSocket });
  await client.connect();
});

afterEach(() => {
  client.close();
});

type Channel = ReturnType<Skywave['channel']>;

/** Uses a channel and lets it go. Answers whether it is still there once its garbage was collected. */
async function isThere(use: (channel: Channel) => Promise<unknown>): Promise<boolean> {
  const named = await (async () => {
    const channel = client.channel('chat:1');
    await use(channel);
    return new WeakRef(channel);
  })();
  await settled();
  collect();
  await settled();
  collect();
  return named.deref() !== undefined;
}

describe('a channel', () => {
  it('is let go once nobody listens, iterates or subscribes', async () => {
    const uses: Record<string, (channel: Channel) => Promise<unknown>> = {
      named: () => Promise.resolve(),
      published: (channel) => channel.publish('hi'),
      async listened(channel) {
        const stop = channel.on('publication', () => undefined);
        const forget = channel.on('error', () => undefined);
        await settled();
        stop();
        forget();
      },
      async iterated(channel) {
        const reading = channel.publications();
        await settled();
        await reading.return?.();
      },
      async subscribed(channel) {
        await channel.subscribe();
        channel.unsubscribe();
      },
      async released(channel) {
        channel.on('publication', () => undefined);
        await channel.subscribe();
        channel.release();
      },
    };
    for (const [name, use] of Object.entries(uses)) assert.equal(await isThere(use), false, name);
    await settled();
    assert.deepEqual([...node.connection.channels], []);
  });

  it('is let go though a connect has asked for it', async () => {
    const gone = isThere(async (channel) => {
      await channel.subscribe();
      node.connection.breaks();
      await client.connect();
      assert.deepEqual([...node.connection.channels], ['chat:1']);
      await channel.subscribe();
      channel.unsubscribe();
    });
    assert.equal(await gone, false);
  });

  it('stays and hears though nobody holds it', async () => {
    const heard: unknown[] = [];
    const there = isThere((channel) => {
      channel.on('publication', ({ data }) => heard.push(data));
      return channel.subscribe();
    });
    assert.equal(await there, true);
    node.connection.publishes('chat:1', 1);
    assert.deepEqual(heard, [1]);
    assert.ok(client.channel('chat:1').isSubscribed);
  });

  it('that was only listened to for errors stays for whoever subscribes later', async () => {
    const errors: number[] = [];
    assert.equal(await isThere((channel) => Promise.resolve(channel.on('error', ({ code }) => errors.push(code)))), true);
    await client.channel('chat:1').subscribe();
    client.close();
    assert.deepEqual(errors, [110]);
  });

  it('leaves nothing with the signals of its listeners once it is released', async () => {
    const channel = client.channel('chat:1');
    const { signal } = new AbortController();
    for (const name of ['publication', 'error'] as const) channel.on(name, () => undefined, { signal });
    await settled();
    channel.release();
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('is as new once it is released', async () => {
    const channel = client.channel('chat:1', { presence: true });
    const heard: unknown[] = [];
    channel.on('publication', ({ data }) => heard.push(data));
    await channel.subscribe();
    assert.equal(channel.members.length, 1);
    channel.release();
    assert.equal(client.channel('chat:1'), channel, 'one channel for all who name it');
    await channel.subscribe();
    node.connection.publishes('chat:1', 1);
    assert.deepEqual(heard, []);
    assert.equal(channel.members.length, 0);
  });
});
