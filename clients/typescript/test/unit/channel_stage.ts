/** A channel on a session, of which the test is the node. */
import { Asking } from '../../src/asking.js';
import { Channel } from '../../src/channel.js';
import type { ChannelOptions } from '../../src/channel_options.js';
import { type FakeTransport, publication, World } from './world.js';

export interface Stage {
  world: World;
  node: FakeTransport;
  channel: Channel;
}

export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function connected(options: ChannelOptions = {}): Stage {
  const world = new World();
  const node = world.connected();
  const channel = new Channel('chat:1', new Asking(world.session));
  channel.configure(options);
  return { world, node, channel };
}

/** Confirms the last `subscribe`. */
export function confirm({ node }: Stage, offset = 0, presence?: { count: number; members: { session: string; since_ms: number }[] }): void {
  const { id, channel } = node.last('subscribe');
  node.says(['subscribed', { id, channel, position: { eu: { epoch: 'e', offset } }, ...(presence ? { presence } : {}) }]);
}

/** Lets the channel go, confirms what was asked for anew, and publishes what follows, up to 9. */
export function told({ node }: Stage): void {
  const { id, position = {} } = node.last('subscribe');
  node.says(['unsubscribed', { id: node.last('unsubscribe').id, channel: 'chat:1' }]);
  node.says(['subscribed', { id, channel: 'chat:1', position, recovered: true }]);
  const from = position['eu']?.offset ?? 0;
  node.says(...[1, 2, 3, 4, 5, 6, 7, 8, 9].filter((offset) => offset > from).map((offset) => publication(offset)));
}
