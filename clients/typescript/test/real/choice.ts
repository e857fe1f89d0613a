/** Which transport carries a session, and moves between them. */
import assert from 'node:assert/strict';
import type { Kit } from './kit.js';
import { freshChannel, listen, open, reach, saw, say, type Stage, type Target, test, until, upTo } from './stage.js';

// In the tabs.
declare const kit: Kit;

/** Which transport carries a session. */
export function describeChoice(stage: Stage): void {
  const auto = (target: Target): Target => ({ ...target, options: { ...target.options, transport: 'auto' } });

  test('WebTransport is taken where it works', async () => {
    const tab = await stage.tab();
    await open(tab, 'a', auto(reach(stage.node, 'webtransport')));
    assert.equal(await tab.evaluate(() => kit.client('a').connection?.transport), 'webtransport');
  });

  test('WebTransport is taken at localhost, whichever of its addresses the browser resolves it to', async () => {
    for (const listener of ['localhost:0', '[::]:0']) {
      const [tab, node] = [await stage.tab(), await stage.start({ SKYWAVE_LISTEN__PUBLIC: listener })];
      const { options } = reach(node, 'webtransport');
      await open(tab, 'a', { urls: `https://localhost:${node.places.public.split(':').pop() ?? ''}`, options });
    }
  });

  test('WebSocket carries on when UDP is blocked half-way, and WebTransport again when it is not', async () => {
    const [tab, channel, relay] = [await stage.tab(), freshChannel(), await stage.relay()];
    const { urls, options } = auto(reach(stage.node, 'webtransport', relay));
    await open(tab, 'a', { urls, options });
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    relay.udp = false;
    // As a page does when the browser says that the network changed.
    await tab.evaluate(() => { kit.client('a').check(); });
    await say(tab, 'a', channel, 2);
    await until('the second', () => saw(tab, 'a', channel), ({ data }) => data.length === 2);
    const transport = (): Promise<string | undefined> => tab.evaluate(() => kit.client('a').connection?.transport);
    assert.equal(await transport(), 'websocket');
    relay.udp = true;
    await tab.evaluate(() => { kit.client('a').setNetwork({ kind: 'wifi' }); });
    await until('WebTransport', transport, (kind) => kind === 'webtransport');
    await say(tab, 'a', channel, 3);
    const { data, offsets } = await until('the third', () => saw(tab, 'a', channel), (seen) => seen.data.length === 3);
    assert.deepEqual([data, offsets], [[1, 2, 3], [1, 2, 3]]);
  });

  test('a switch of the transport keeps the session and loses nothing', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', auto(reach(stage.node, 'webtransport')));
    await listen(tab, 'a', channel);
    const before = await tab.evaluate(() => kit.client('a').connection?.session);
    await say(tab, 'a', channel, ...upTo(20));
    await tab.evaluate(() => kit.client('a').switchTransport('websocket'));
    await say(tab, 'a', channel, ...upTo(20).map((number) => number + 20));
    await tab.evaluate(() => kit.client('a').switchTransport('webtransport'));
    const { data, offsets } = await until('all', () => saw(tab, 'a', channel), (seen) => seen.data.length >= 40);
    assert.deepEqual([data, offsets], [upTo(40), upTo(40)]);
    assert.equal(await tab.evaluate(() => kit.client('a').connection?.session), before);
  });
}
