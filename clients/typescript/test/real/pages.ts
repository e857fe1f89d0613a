/** What only pages have: tabs that close, databases, events of the browser. */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { Kit } from './kit.js';
import type { Package } from './places.js';
import { freshChannel, listen, open, reach, saw, say, SLEEP_MS, type Stage, states, test, until, upTo } from './stage.js';

// In the tabs.
declare const skywave: Package;
declare const kit: Kit;

export function describePages(stage: Stage): void {
  test('two tabs talk to each other', async () => {
    const [first, second, channel] = [await stage.tab('one'), await stage.tab('one'), freshChannel()];
    for (const tab of [first, second]) {
      await open(tab, 'a', reach(stage.node, 'webtransport'));
      await listen(tab, 'a', channel);
    }
    await say(first, 'a', channel, 'from the first');
    await until('it in the second', () => saw(second, 'a', channel), ({ data }) => data.length === 1);
    await say(second, 'a', channel, 'from the second');
    const { data } = await until('both', () => saw(first, 'a', channel), (seen) => seen.data.length === 2);
    assert.deepEqual(data, ['from the first', 'from the second']);
  });

  test('what a tab published without a connection is delivered by the next one, once', async () => {
    const channel = freshChannel();
    const { urls, options } = reach(stage.node, 'websocket');
    const [first, witness] = [await stage.place.open('two'), await stage.tab()];
    await open(witness, 'b', { urls, options });
    await listen(witness, 'b', channel);
    // Nobody is there.
    await first.evaluate(
      async ([name, given]) => {
        kit.create('a', 'ws://127.0.0.1:9', { ...given, outbox: skywave.indexedDbOutbox() });
        kit.say('a', name, 1, 2, 3);
        while ((await kit.waiting()) < 3) await new Promise((resolve) => setTimeout(resolve, 20));
      },
      [channel, options] as const,
    );
    await first.close();
    const second = await stage.tab('two');
    const left = await second.evaluate(
      async ([where, given]) => {
        const client = kit.create('a', where, { ...given, outbox: skywave.indexedDbOutbox() });
        const delivered: (number | undefined)[] = [];
        client.on('delivered', ({ published }) => delivered.push(published?.offset));
        while (delivered.length < 3) await new Promise((resolve) => setTimeout(resolve, 20));
        return { delivered, entries: await kit.waiting() };
      },
      [urls, options] as const,
    );
    assert.deepEqual(left, { delivered: [1, 2, 3], entries: 0 });
    await say(witness, 'b', channel, 'last');
    const { data } = await until('the last', () => saw(witness, 'b', channel), (seen) => seen.data.at(-1) === 'last');
    assert.deepEqual(data, [...upTo(3), 'last']);
  });

  test('a dead path is left within seconds when the browser tells of the network', async () => {
    const [tab, channel, relay] = [await stage.tab(), freshChannel(), await stage.relay()];
    const { urls, options } = reach(stage.node, 'webtransport', relay);
    await open(tab, 'a', { urls, options });
    await listen(tab, 'a', channel);
    relay.udp = relay.tcp = false;
    await tab.evaluate(() => {
      globalThis.dispatchEvent(new Event('offline'));
    });
    await until('that it is gone', () => states(tab, 'a'), (all) => all.some((state) => state.startsWith('connecting')));
    await pause(1_000);
    relay.cut();
    relay.udp = relay.tcp = true;
    const begin = Date.now();
    await tab.evaluate(() => {
      globalThis.dispatchEvent(new Event('online'));
    });
    await until('that it is back', () => tab.evaluate(() => kit.client('a').state), (state) => state === 'connected');
    assert.ok(Date.now() - begin < 5_000, 'it did not wait for the next attempt');
  });

  for (const kind of ['webtransport', 'websocket'] as const) {
    test(`a web worker has a client of its own over ${kind}`, async () => {
      const [tab, channel] = [await stage.tab(), freshChannel()];
      const told = await tab.evaluate(
        async ([{ urls, options }, name]) => {
          const script = `
            import '${location.origin}/script.js';
            onmessage = async ({ data: { urls, options, name } }) => {
              await kit.open('a', urls, options);
              await kit.listen('a', name);
              kit.client('a').channel(name).on('publication', ({ data }) => {
                postMessage([data, kit.client('a').connection.transport]);
              });
              kit.say('a', name, 'from a worker');
            };
            postMessage('ready');`;
          const address = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
          const worker = new Worker(address, { type: 'module' });
          const next = (): Promise<unknown> =>
            new Promise((resolve, reject) => {
              worker.onmessage = ({ data }) => { resolve(data); };
              worker.onerror = ({ message }) => { reject(new Error(message)); };
            });
          await next();
          const publication = next();
          worker.postMessage({ urls, options, name });
          try {
            return await publication;
          } finally {
            worker.terminate();
          }
        },
        [reach(stage.node, kind), channel] as const,
      );
      assert.deepEqual(told, ['from a worker', kind]);
    });
  }

  test('a page that was frozen for longer than its connection lives comes back with all it missed', async (context) => {
    const [other, channel] = [await stage.tab(), freshChannel()];
    const tab = await stage.freezable();
    if (tab === undefined) {
      context.skip(`${stage.place.name} cannot be told to freeze a page`);
      return;
    }
    const node = await stage.start({ SKYWAVE_HEARTBEAT__FOREGROUND_MAX: '1s' });
    await open(tab, 'a', reach(node, 'webtransport'));
    await tab.evaluate(() => {
      const told: string[] = [];
      for (const name of ['freeze', 'resume']) document.addEventListener(name, () => told.push(name));
      Object.assign(globalThis, { told });
    });
    await listen(tab, 'a', channel);
    await open(other, 'b', reach(node, 'webtransport'));
    await say(other, 'b', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    const frozen = tab.freeze(SLEEP_MS);
    await say(other, 'b', channel, 2, 3);
    await frozen;
    const told = await tab.evaluate(() => (globalThis as unknown as { told: string[] }).told);
    assert.deepEqual(told, ['freeze', 'resume'], 'the page really was frozen');
    const { data, gaps } = await until('all', () => saw(tab, 'a', channel), (seen) => seen.data.length === 3);
    assert.deepEqual([data, gaps], [[1, 2, 3], []]);
  });

  test('the example in plain HTML shows what is sent', async () => {
    const page = await stage.visit(`${stage.server.origin}/plain.html?node=${stage.node.places.plain}`);
    const state = (): Promise<string | null> => page.evaluate(() => document.querySelector('#state')?.textContent ?? null);
    await until('that it is connected', state, (told) => told === 'connected');
    const text = `hi ${crypto.randomUUID()}`;
    await page.type('input', text);
    await page.click('button');
    const shown = (): Promise<string | null> => page.evaluate(() => document.querySelector('#messages')?.lastElementChild?.textContent ?? null);
    await until('the message', shown, (line) => line === text);
  });
}
