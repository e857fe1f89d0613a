/** What a person can rely on in the demo page. */
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import type { TransportKind } from 'skywave';
import { openDemo, openUnconnected, seesTrouble, type Shown } from './demo_page.js';
import { type Stage, test, upTo } from './stage.js';

const numbered = (word: string, count: number): string[] => upTo(count).map((number) => `${word} ${number}`);
const texts = ({ messages }: Shown): string[] => messages.map(({ text }) => text);
const offsets = ({ messages }: Shown): number[] => messages.map(({ offset }) => offset);
/** From the heartbeat as it is shown: interval + time-out. */
const secondsUntilDead = (heartbeat: string): number =>
  heartbeat.split(' + ').map(Number.parseFloat).reduce((sum, one) => sum + one);

export function describeDemo(stage: Stage): void {
  for (const kind of ['webtransport', 'websocket'] as const) {
    void describe(`on the demo page, over ${kind}`, () => {
      describeSessions(stage, kind);
    });
  }
  void describe('on the demo page', () => {
    describePeople(stage);
  });
}

/** Sessions that break, move and come back. */
function describeSessions(stage: Stage, kind: TransportKind): void {
  const other = kind === 'webtransport' ? 'websocket' : 'webtransport';

  test('a session shows how it is connected', async () => {
    const { left, right } = await openDemo(stage, stage.node, kind);
    const shown = await left.sees('a round trip', ({ rtt }) => rtt !== '–');
    assert.equal(shown.transport, kind);
    assert.match(shown.rtt, /^\d+\.\d ms$/);
    assert.match(shown.heartbeat, /^[\d.]+ s \+ [\d.]+ s$/);
    assert.match(shown.position, /^local \/ \w+ \/ 0$|^at the beginning$/);
    assert.equal(shown.resumed, 'no, a new one');
    assert.equal(shown.notice, '');
    assert.ok(shown.session);
    assert.notEqual(shown.session, (await right.look()).session);
  });

  test('a session that is cut gets what it missed and sends what waited, once and in order', async () => {
    const { left, right } = await openDemo(stage, stage.node, kind);
    await left.say(['before']);
    const before = await left.seesMessages(1);
    await right.seesMessages(1);

    await left.cutOrConnect();
    await left.waitUntil('cut');
    const [missed, waiting] = [numbered('missed', 10), numbered('waiting', 10)];
    await right.say(missed);
    await right.seesMessages(11);
    await left.say(waiting);
    const cut = await left.look();
    assert.deepEqual([texts(cut), cut.pending], [['before'], waiting]);

    await left.cutOrConnect();
    await left.waitUntil('connected');
    await left.seesMessages(21);
    await right.say(['after']);
    for (const person of [left, right]) {
      const shown = await person.seesMessages(22);
      assert.deepEqual(texts(shown), ['before', ...missed, ...waiting, 'after']);
      assert.deepEqual(offsets(shown), upTo(22));
      assert.deepEqual(shown.pending, []);
    }
    const { resumed, session, transport } = await left.look();
    assert.deepEqual({ resumed, session, transport }, { resumed: 'yes', session: before.session, transport: kind });
  });

  test('a switch of the transport keeps the session and loses nothing', async () => {
    const { left, right } = await openDemo(stage, stage.node, kind);
    const before = await left.look();
    const talking = Promise.all([right.say(numbered('right', 15), 40), left.say(numbered('left', 15), 40)]);
    await left.seesMessages(4);
    await left.switchTransport();
    const switched = await left.sees('the other transport', ({ transport }) => transport === other);
    assert.deepEqual([switched.session, switched.state], [before.session, 'connected']);
    await talking;

    await right.say(['last']);
    const [seen, heard] = [await left.seesMessages(31), await right.seesMessages(31)];
    assert.deepEqual(offsets(seen), upTo(31));
    assert.deepEqual(seen.messages, heard.messages);
    for (const word of ['left', 'right']) {
      assert.deepEqual(texts(seen).filter((text) => text.startsWith(word)), numbered(word, 15));
    }
    assert.match(seen.said.join(), /^From Web\w+ to Web\w+, in the same session\.$/);

    await left.switchTransport();
    const back = await left.sees('the first transport', ({ transport }) => transport === kind);
    assert.deepEqual([back.session, back.messages], [before.session, seen.messages]);
  });

  // What follows is the same for both.
  if (kind === 'websocket') return;

  test('a connection that falls silent is given up, and the session goes on in another', async () => {
    const node = await stage.start({ SKYWAVE_HEARTBEAT__FOREGROUND_MAX: '1s' });
    const { left } = await openDemo(stage, node, kind);
    // Once the node knows the path, it promises to be heard of often.
    const before = await left.sees('a short time-out', ({ heartbeat }) => secondsUntilDead(heartbeat) < 9);
    node.freeze();
    await left.sees('that it is dead', ({ state }) => state !== 'connected');
    node.thaw();
    const back = await left.waitUntil('connected');
    assert.deepEqual([back.resumed, back.session], ['yes', before.session]);
  });

  test('a node that goes is told, and the page comes back when the node does', async () => {
    const node = await stage.start();
    const { left, right } = await openDemo(stage, node, kind);
    await left.say(['before']);
    await left.seesMessages(1);
    await node.stop();
    const lost = await left.waitUntil('waiting');
    assert.match(lost.notice, /Next attempt (in \d+ s|now)\.$/);

    // Its memory is gone with it: another certificate, another epoch, no secret to resume with.
    await stage.start(node.samePlaces);
    const back = await left.waitUntil('connected');
    assert.equal(back.resumed, 'no, a new one');
    const told = await left.sees('that something is missing', ({ said }) => said.length > 0);
    assert.match(told.said.join(), /missing|recovered/);
    await right.waitUntil('connected');
    await right.say(['after']);
    await left.sees('the new message', (shown) => texts(shown).includes('after'));
  });
}

/** Who is there, who types, what is said. */
function describePeople(stage: Stage): void {
  test('two tabs see each other’s people, who is typing, and what they say', async () => {
    const first = await openDemo(stage, stage.node, 'auto');
    const second = await openDemo(stage, stage.node, 'auto', first.channel);
    const [{ name, transport }, newcomer] = [await first.left.look(), await second.left.look()];
    assert.equal(transport, 'webtransport');
    const shown = await first.left.sees('four people', ({ present }) => present.length === 4);
    assert.ok(shown.present.includes(`${name} (you)`));
    await first.left.sees('the newcomer', ({ present }) => present.includes(newcomer.name));

    await second.left.type('hm');
    const { typing } = await first.left.sees('who is typing', (pane) => pane.typing !== '');
    assert.equal(typing, `${newcomer.name} is typing …`);
    assert.equal((await second.left.look()).typing, '');

    await first.left.say(['from the first']);
    await second.right.seesMessages(1);
    await second.right.say(['from the second']);
    assert.deepEqual(texts(await first.left.seesMessages(2)), ['from the first', 'from the second']);
  });

  test('WebSocket is taken where the node has no WebTransport, and whoever asks for that is told', async () => {
    const without = await stage.start({ SKYWAVE_LISTEN__PUBLIC: '' });
    const { left } = await openDemo(stage, without, 'auto');
    assert.equal((await left.look()).transport, 'websocket');
    await left.say(['over the fallback']);
    await left.seesMessages(1);
    const { right } = await openUnconnected(stage, without, 'webtransport');
    const { notice } = await right.waitUntil('waiting');
    assert.match(notice, /^The address has no webtransport\. Next attempt/);
  });

  test('a channel that is refused, has no presence or is none at all is told', async () => {
    const { left } = await openUnconnected(stage, stage.node, 'auto', 'nowhere:1');
    const { said } = await left.sees('the refusal', (shown) => shown.said.length > 0);
    assert.deepEqual(said, ['No access to nowhere:1: unknown_namespace (102)']);

    const silent = await stage.start({ SKYWAVE_CHANNELS__TEST__PRESENCE: 'false' });
    const { right } = await openUnconnected(stage, silent, 'auto');
    await right.say(['hello']);
    assert.deepEqual((await right.seesMessages(1)).present, []);

    assert.match(await seesTrouble(stage, stage.node, 'nonsense'), /^“nonsense” will not do: a channel is/);
  });

  test('what others send is shown as text, whatever it is', async () => {
    const { left, right } = await openDemo(stage, stage.node, 'auto');
    const hostile = '<img src=x onerror="document.title=1"><b>bold</b>';
    await right.say([hostile]);
    assert.deepEqual(texts(await left.seesMessages(1)), [hostile]);
    assert.equal(await left.count('.messages img, .messages .text b'), 0);
  });

  test('all frames are shown with what carries them, and without their secrets', async () => {
    const { left } = await openDemo(stage, stage.node, 'webtransport');
    await left.cutOrConnect();
    await left.cutOrConnect();
    await left.sees('a resume', ({ resumed }) => resumed === 'yes');
    await left.say(['hello']);
    await left.seesMessages(1);
    const { frames, lanes } = await left.look();
    assert.deepEqual(lanes, ['control', 'datagram', 'stream']);
    const secrets = frames.filter((frame) => frame.includes('"resume"'));
    assert.ok(secrets.length >= 2);
    for (const frame of secrets) assert.match(frame, /"resume":"…"/);
    assert.ok(frames.some((frame) => frame.includes('"data":{"text":"hello"')));
  });
}
