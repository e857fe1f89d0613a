/** Each call of the API, in real places against a real node. */
import assert from 'node:assert/strict';
import type { TransportKind } from 'skywave';
import type { Kit } from './kit.js';
import type { Package } from './places.js';
import { freshChannel, listen, open, reach, saw, say, type Stage, test, until, upTo } from './stage.js';

// In the tabs.
declare const skywave: Package;
declare const kit: Kit;

/** Each call of the API. */
export function describeCalls(stage: Stage, kind: TransportKind): void {
  test('a client connects and says how', async () => {
    const tab = await stage.tab();
    await open(tab, 'a', reach(stage.node, kind));
    const { transport, region, resumed, connects } = await tab.evaluate(() => ({ ...kit.client('a').connection }));
    assert.deepEqual({ transport, region, resumed, connects }, { transport: kind, region: 'local', resumed: false, connects: 1 });
  });

  test('a publication reaches everyone, its sender included, in both encodings', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const shown = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        await kit.open('b', where, { ...given, encoding: skywave.messagePack });
        await kit.listen('a', name);
        await kit.listen('b', name);
        const channels = ['a', 'b'].map((id) => kit.client(id).channel(name));
        const offsets = [];
        for (const one of channels) {
          offsets.push((await one.publish({ text: 'hé 🛰' })).offset);
          offsets.push((await one.publish(Uint8Array.of(0, 255, 128))).offset);
        }
        return offsets;
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(shown, [1, 2, 3, 4]);
    for (const id of ['a', 'b']) {
      const payloads = await until(
        'four publications',
        () =>
          tab.evaluate(
            ([client, name]) =>
              kit.saw(client, name).data.map((data) => (data instanceof Uint8Array ? [...data] : data)),
            [id, channel] as const,
          ),
        (data) => data.length >= 4,
      );
      const [text, bytes] = [{ text: 'hé 🛰' }, [0, 255, 128]];
      assert.deepEqual(payloads, [text, bytes, text, bytes]);
    }
  });

  test('publications are iterated over until the iteration ends', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const read = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        const subscription = kit.client('a').channel(name, { history: 10 });
        for (const text of ['one', 'two', 'three']) await subscription.publish(text);
        const texts = [];
        for await (const { data } of subscription) {
          texts.push(data);
          if (data === 'three') break;
        }
        await Promise.resolve();
        return { texts, isSubscribed: subscription.isSubscribed };
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(read, { texts: ['one', 'two', 'three'], isSubscribed: false });
  });

  test('an event reaches the others, and not its sender', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    for (const id of ['a', 'b']) {
      await open(tab, id, reach(stage.node, kind));
      await listen(tab, id, channel);
    }
    await until(
      'the event',
      async () => {
        // It may be lost, as a datagram is.
        await tab.evaluate((name) => kit.client('a').channel(name).emit({ x: 3 }, { slot: 'cursor' }), channel);
        return saw(tab, 'b', channel);
      },
      ({ events }) => events.length > 0,
    );
    assert.deepEqual((await saw(tab, 'b', channel)).events[0], [{ x: 3 }, 'cursor']);
    assert.deepEqual((await saw(tab, 'a', channel)).events, []);
  });

  test('history is read page by page, further back', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const pages = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        const subject = kit.client('a').channel(name);
        for (let number = 1; number <= 5; number += 1) await subject.publish(number);
        const last = await subject.history({ limit: 2 });
        const before = await subject.history({ limit: 10, ...(last.cursor === undefined ? {} : { before: last.cursor }) });
        const { origin, epoch } = last.publications[0] ?? { origin: '', epoch: '' };
        const after = await subject.history({ limit: 10, after: { [origin]: { epoch, offset: 3 } } });
        return [last, before, after].map(({ publications }) => publications.map(({ data }) => data));
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(pages, [[4, 5], [1, 2, 3], [4, 5]]);
  });

  test('presence tells who is there, who comes and who goes', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', reach(stage.node, kind));
    await listen(tab, 'a', channel, { presence: true });
    await open(tab, 'b', reach(stage.node, kind));
    await listen(tab, 'b', channel, { presence: true });
    await until('two members', () => saw(tab, 'a', channel), ({ counts }) => counts.at(-1) === 2);
    const { count, members } = await tab.evaluate((name) => kit.client('a').channel(name).presence(), channel);
    assert.equal(count, 2);
    const sessions = await tab.evaluate(() => ['a', 'b'].map((id) => kit.client(id).connection?.session));
    assert.deepEqual(members.map(({ session }) => session).sort(), sessions.sort());
    await tab.evaluate((name) => { kit.client('b').channel(name).unsubscribe(); }, channel);
    await until('one member', () => saw(tab, 'a', channel), ({ counts }) => counts.at(-1) === 1);
  });

  test('what the node refuses is an error with its code', async () => {
    const tab = await stage.tab();
    const { urls, options } = reach(stage.node, kind);
    const errors = await tab.evaluate(
      async ([where, given]) => {
        await kit.open('a', where, given);
        const client = kit.client('a');
        const tried = await Promise.allSettled([
          client.call('rooms.create', { name: 'standup' }),
          client.channel('nowhere:1').publish(1),
          client.channel('nowhere:1').subscribe(),
          client.channel('nowhere:1').history({ signal: AbortSignal.abort() }),
        ]);
        return tried.map((one) => {
          const error = one.status === 'rejected' ? (one.reason as InstanceType<Package['RequestError']>) : undefined;
          return [error instanceof skywave.SkywaveError, error?.name, error?.code, error?.transient];
        });
      },
      [urls, options] as const,
    );
    assert.deepEqual(errors, [
      [true, 'RequestError', 108, false],
      [true, 'RequestError', 102, false],
      [true, 'RequestError', 102, false],
      [false, 'AbortError', 20, undefined],
    ].map((row) => row.map((cell) => cell ?? (stage.place.name === 'Node' ? undefined : cell))));
  });

  test('a visit goes on from the position where the one before has ended', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', reach(stage.node, kind));
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1, 2);
    await until('two', () => saw(tab, 'a', channel), ({ data }) => data.length === 2);
    const position = await tab.evaluate((name) => {
      const { position: reached } = kit.client('a').channel(name);
      kit.client('a').close();
      return reached;
    }, channel);
    await open(tab, 'b', reach(stage.node, kind));
    await say(tab, 'b', channel, 3, 4);
    await until('four answers', () => tab.evaluate(() => kit.published.length), (count) => count === 4);
    await listen(tab, 'b', channel, { position });
    const { data, gaps } = await until('the last', () => saw(tab, 'b', channel), (seen) => seen.data.includes(4));
    assert.deepEqual([data, gaps], [[3, 4], []]);
  });

  test('a schema keeps what does not fit it from both sides', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const { urls, options } = reach(stage.node, kind);
    const seen = await tab.evaluate(
      async ([name, where, given]) => {
        await kit.open('a', where, given);
        await kit.open('b', where, given);
        const validate = (value: unknown): { value: string } | { issues: { message: string }[] } =>
          typeof value === 'string' ? { value: value.toUpperCase() } : { issues: [{ message: 'no text' }] };
        const schema = { '~standard': { version: 1, vendor: 'test', validate } } as const;
        const strict = kit.client('a').channel<string>(name, { schema });
        const [texts, invalid]: [string[], string[]] = [[], []];
        strict.on('invalid', ({ message }) => invalid.push(message));
        const reading = strict.publications();
        await strict.subscribe();
        const refused = await strict.publish(5 as never).then(() => undefined, (error: unknown) => (error as { name: string }).name);
        const anybody = kit.client('b').channel(name);
        for (const data of ['one', 2, 'three']) await anybody.publish(data);
        for (let read = 0; read < 2; read += 1) texts.push((await reading.next()).value?.data ?? '');
        return { texts, invalid, refused };
      },
      [channel, urls, options] as const,
    );
    assert.deepEqual(seen, { texts: ['ONE', 'THREE'], invalid: ['no text'], refused: 'InvalidDataError' });
  });

  test('a channel that is left and taken again begins anew', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    await open(tab, 'a', reach(stage.node, kind));
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 1);
    await until('the first', () => saw(tab, 'a', channel), ({ data }) => data.length === 1);
    await tab.evaluate(async (name) => {
      kit.client('a').channel(name).unsubscribe();
      await kit.client('a').channel(name).publish(2);
    }, channel);
    await listen(tab, 'a', channel);
    await say(tab, 'a', channel, 3);
    assert.deepEqual((await until('the third', () => saw(tab, 'a', channel), ({ data }) => data.length === 1)).data, [3]);
  });

  test('joining a channel with 200 messages while more arrive misses none', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const node = await stage.start({ SKYWAVE_CHANNELS__TEST__HISTORY: '1000' });
    await open(tab, 'writer', reach(node, kind));
    await say(tab, 'writer', channel, ...upTo(200));
    await until('200 answers', () => tab.evaluate(() => kit.published.length), (count) => count === 200);
    await open(tab, 'reader', reach(node, kind));
    await say(tab, 'writer', channel, ...upTo(100).map((number) => number + 200));
    await listen(tab, 'reader', channel, { history: 200 });
    await until('300 answers', () => tab.evaluate(() => kit.published.length), (count) => count === 300);
    const { offsets, gaps } = await until('the last', () => saw(tab, 'reader', channel), (seen) => seen.offsets.at(-1) === 300);
    const first = offsets[0] ?? 0;
    assert.ok(first <= 101 && offsets.length >= 200, `${first}, ${offsets.length}`);
    assert.deepEqual(offsets, upTo(300).slice(first - 1));
    assert.deepEqual(gaps, []);
  });

  if (kind !== 'websocket') return;

  test('the core alone is enough for a session, at the address that answers', async () => {
    const [tab, channel] = [await stage.tab(), freshChannel()];
    const read = await tab.evaluate(
      async ([name, plain]) => {
        const client = new skywave.Core(['ws://127.0.0.1:9', `ws://${plain}`]);
        const subject = client.channel(name);
        await subject.publish('one');
        await subject.publish('two');
        await subject.subscribe();
        const texts = (await subject.history()).publications.map(({ data }) => data);
        const { count } = await subject.presence();
        client.close();
        return { texts, count };
      },
      [channel, stage.node.places.plain] as const,
    );
    assert.deepEqual(read, { texts: ['one', 'two'], count: 1 });
  });
}
