/** What a person can rely on in the demo page, in whichever browser, over WebTransport and over WebSocket. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { openDemo, openUnconnected } from './demo_page.js';
import { startNode } from './node.js';

const TEST_TIMEOUT_MS = 60_000;
const OTHER = { webtransport: 'websocket', websocket: 'webtransport' };

const numbered = (word, count) => Array.from({ length: count }, (_, index) => `${word} ${index + 1}`);
const texts = ({ messages }) => messages.map(({ text }) => text);
const offsets = ({ messages }) => messages.map(({ offset }) => offset);
/** From the heartbeat as it is shown: interval + time-out. */
const secondsUntilDead = (heartbeat) => heartbeat.split(' + ').map(Number.parseFloat).reduce((sum, one) => sum + one);
const upTo = (count) => Array.from({ length: count }, (_, index) => index + 1);

/** Tests the page in the browser that `launch` starts. */
export function describeDemo(browserName, launch) {
  describe(`in ${browserName}`, { timeout: 10 * TEST_TIMEOUT_MS }, () => {
    let node;
    let browser;
    /** What a test opened and started, to be closed and stopped after it. */
    let opened = [];
    const open = async (opener, on, options) => {
      const page = await opener(browser, on, options);
      opened.unshift(() => page.close());
      return page;
    };
    const start = async (environment) => {
      const own = await startNode(environment);
      opened.push(() => own.stop());
      return own;
    };

    before(async () => {
      node = await startNode();
      browser = await launch();
    });
    afterEach(async () => {
      const endings = opened;
      opened = [];
      for (const end of endings) await end();
    });
    after(async () => {
      await browser?.close();
      await node?.stop();
    });

    for (const transport of ['webtransport', 'websocket']) {
      describe(`over ${transport}`, () => {
        const test = (name, run) => it(name, { timeout: TEST_TIMEOUT_MS }, run);

        test('a session shows how it is connected', async () => {
          const { left, right } = await open(openDemo, node, { transport });
          const shown = await left.sees('a round trip', ({ rtt }) => rtt !== '–');
          assert.equal(shown.transport, transport);
          assert.match(shown.rtt, /^\d+\.\d ms$/);
          assert.match(shown.heartbeat, /^[\d.]+ s \+ [\d.]+ s$/);
          assert.match(shown.position, /^local \/ \w+ \/ 0$|^at the beginning$/);
          assert.equal(shown.resumed, 'no, a new one');
          assert.equal(shown.notice, '');
          assert.ok(shown.session);
          assert.notEqual(shown.session, (await right.look()).session);
        });

        test('a publication reaches everyone, its sender included', async () => {
          const { left, right } = await open(openDemo, node, { transport });
          await left.say(['hello']);
          for (const person of [left, right]) {
            assert.deepEqual((await person.seesMessages(1)).messages, [{ offset: 1, text: 'hello' }]);
          }
          await left.sees('that nothing waits', ({ pending }) => pending.length === 0);
        });

        test('an event reaches the others', async () => {
          const { left, right } = await open(openDemo, node, { transport });
          const { name } = await right.look();
          await right.type('hm');
          const shown = await left.sees('who is typing', ({ typing }) => typing !== '');
          assert.equal(shown.typing, `${name} is typing …`);
          assert.equal((await right.look()).typing, '');
        });

        test('who is there is shown by name, and who comes is added', async () => {
          const first = await open(openDemo, node, { transport });
          const second = await open(openDemo, node, { transport, channel: first.channel });
          const [{ name }, newcomer] = [await first.left.look(), await second.left.look()];
          const shown = await first.left.sees('four people', ({ present }) => present.length === 4);
          assert.ok(shown.present.includes(`${name} (you)`));
          await first.left.sees('the newcomer', ({ present }) => present.includes(newcomer.name));
        });

        test('two tabs talk to each other', async () => {
          const first = await open(openDemo, node, { transport });
          const second = await open(openDemo, node, { transport, channel: first.channel });
          await first.left.say(['from the first']);
          await second.right.seesMessages(1);
          await second.right.say(['from the second']);
          assert.deepEqual(texts(await first.left.seesMessages(2)), ['from the first', 'from the second']);
        });

        test('a session that was cut off gets all it missed, once and in order', async () => {
          const { left, right } = await open(openDemo, node, { transport });
          await left.say(['before']);
          const before = await left.seesMessages(1);
          await right.seesMessages(1);

          await left.cutOrConnect();
          await left.waitUntil('cut');
          const missed = numbered('missed', 20);
          await right.say(missed);
          await right.seesMessages(21);
          assert.equal((await left.look()).messages.length, 1, 'what is cut off hears nothing');

          await left.cutOrConnect();
          await left.waitUntil('connected');
          await right.say(['after']);
          const shown = await left.seesMessages(22);
          assert.deepEqual(texts(shown), ['before', ...missed, 'after']);
          assert.deepEqual(offsets(shown), upTo(22));
          assert.equal(shown.resumed, 'yes');
          assert.equal(shown.session, before.session);
          assert.equal(shown.transport, transport);
        });

        test('what is sent while cut off waits, and arrives once and in order', async () => {
          const { left, right } = await open(openDemo, node, { transport });
          await left.cutOrConnect();
          await left.waitUntil('cut');
          const waiting = numbered('waiting', 10);
          await left.say(waiting);
          assert.deepEqual((await left.look()).pending, waiting);

          await left.cutOrConnect();
          await left.waitUntil('connected');
          await left.seesMessages(10);
          await right.say(['after']);
          for (const person of [left, right]) {
            const shown = await person.seesMessages(11);
            assert.deepEqual(texts(shown), [...waiting, 'after']);
            assert.deepEqual(shown.pending, []);
          }
        });

        test('a switch of the transport keeps the session and loses nothing', async () => {
          const { left, right } = await open(openDemo, node, { transport });
          const before = await left.look();
          const talking = Promise.all([
            right.say(numbered('right', 15), 40),
            left.say(numbered('left', 15), 40),
          ]);
          await left.seesMessages(4);
          await left.switchTransport();
          const switched = await left.sees('the other transport', (shown) => shown.transport === OTHER[transport]);
          assert.equal(switched.session, before.session);
          assert.equal(switched.state, 'connected');
          await talking;

          await right.say(['last']);
          const [seen, other] = [await left.seesMessages(31), await right.seesMessages(31)];
          assert.deepEqual(offsets(seen), upTo(31));
          assert.deepEqual(seen.messages, other.messages);
          for (const word of ['left', 'right']) {
            assert.deepEqual(texts(seen).filter((text) => text.startsWith(word)), numbered(word, 15));
          }
          assert.equal(seen.resumed, 'yes');
          assert.equal(seen.session, before.session);

          await left.switchTransport();
          const back = await left.sees('the first transport', (shown) => shown.transport === transport);
          assert.equal(back.session, before.session);
          assert.deepEqual(back.messages, seen.messages);
        });

        test('a node that goes is told, and the page comes back when the node does', async () => {
          const first = await start();
          const { left, right } = await open(openDemo, first, { transport });
          await left.say(['before']);
          await left.seesMessages(1);
          await first.stop();
          const lost = await left.waitUntil('waiting');
          assert.match(lost.notice, /Next attempt (in \d+ s|now)\.$/);

          // Its memory is gone with it: another certificate, another epoch, no secret to resume with.
          const { admin, plain, public: listener } = first.places;
          await start({
            SKYWAVE_LISTEN__ADMIN: admin,
            SKYWAVE_LISTEN__PLAIN: plain,
            SKYWAVE_LISTEN__PUBLIC: `localhost:${listener.split(':').pop()}`,
          });
          const back = await left.waitUntil('connected');
          assert.equal(back.resumed, 'no, a new one');
          const told = await left.sees('that something is missing', ({ said }) => said.length > 0);
          assert.match(told.said.join(), /missing|recovered/);
          await right.waitUntil('connected');
          await right.say(['after']);
          await left.sees('the new message', (shown) => texts(shown).includes('after'));
        });

        test('a connection that falls silent is given up, and the session goes on in another', async () => {
          const own = await start({ SKYWAVE_HEARTBEAT__FOREGROUND_MAX: '1s' });
          const { left } = await open(openDemo, own, { transport });
          // Once the node knows the path, it promises to be heard of often.
          const before = await left.sees('a short time-out', ({ heartbeat }) => secondsUntilDead(heartbeat) < 9);
          own.freeze();
          await left.sees('that it is dead', ({ state }) => state !== 'connected');
          own.thaw();
          const back = await left.waitUntil('connected');
          assert.equal(back.resumed, 'yes');
          assert.equal(back.session, before.session);
        });
      });
    }

    it('takes WebTransport by itself where there is a choice', { timeout: TEST_TIMEOUT_MS }, async () => {
      const { left } = await open(openDemo, node, { transport: 'auto' });
      assert.equal((await left.look()).transport, 'webtransport');
    });

    it('falls back to WebSocket where there is no WebTransport', { timeout: TEST_TIMEOUT_MS }, async () => {
      const without = await start({ SKYWAVE_LISTEN__PUBLIC: '' });
      const { left } = await open(openDemo, without, { transport: 'auto' });
      assert.equal((await left.look()).transport, 'websocket');
      await left.say(['over the fallback']);
      await left.seesMessages(1);
    });

    it('says what is wrong when the transport that was asked for is not there', { timeout: TEST_TIMEOUT_MS }, async () => {
      const without = await start({ SKYWAVE_LISTEN__PUBLIC: '' });
      const { left } = await open(openUnconnected, without, { transport: 'webtransport' });
      const shown = await left.sees('the reason', ({ state }) => state === 'waiting');
      assert.match(shown.notice, /^The node has no public listener\. Next attempt/);
    });

    it('shows what others send as text, whatever it is', { timeout: TEST_TIMEOUT_MS }, async () => {
      const { left, right } = await open(openDemo, node, { transport: 'auto' });
      const hostile = '<img src=x onerror="document.title=1"><b>bold</b>';
      await right.say([hostile]);
      assert.deepEqual(texts(await left.seesMessages(1)), [hostile]);
      assert.equal(await left.count('.messages img, .messages .text b'), 0);
    });

    it('shows no secret in its list of frames', { timeout: TEST_TIMEOUT_MS }, async () => {
      const { left } = await open(openDemo, node, { transport: 'auto' });
      await left.cutOrConnect();
      await left.cutOrConnect();
      const { frames } = await left.sees('a resume', ({ resumed }) => resumed === 'yes');
      const shown = frames.filter((frame) => frame.includes('"resume"'));
      assert.ok(shown.length >= 2);
      for (const frame of shown) assert.match(frame, /"resume":"…"/);
    });
  });
}
