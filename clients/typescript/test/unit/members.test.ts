/** Who is on a channel, as its members are told and asked for. */
import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { confirm, connected, settled } from './channel_stage.js';
import { CONNECTED } from './world.js';

const member = (session: string): { session: string; since_ms: number } => ({ session, since_ms: 0 });

describe('the members of a channel', () => {
  it('are all known though some came while it was asked who is there', async () => {
    const stage = connected({ presence: true });
    const { channel, node } = stage;
    channel.on('presence', () => undefined);
    await settled();
    confirm(stage, 0, { count: 1, members: [member('a')] });
    node.says(['presence_changed', { channel: 'chat:1', count: 3, joined: [member('b')], left: [] }]);
    node.says(['presence_changed', { channel: 'chat:1', count: 3, joined: [member('d')], left: [member('a')] }]);
    // As it was in between.
    node.says(['presence', { id: node.last('presence').id, channel: 'chat:1', count: 3, members: ['a', 'b', 'c'].map(member) }]);
    await settled();
    assert.deepEqual(channel.members.map(({ session }) => session).sort(), ['b', 'c', 'd']);
    assert.equal(node.all('presence').length, 1);
  });

  it('are asked for where the confirmation names fewer than there are', async () => {
    const stage = connected({ presence: true });
    const { channel, node } = stage;
    channel.on('presence', () => undefined);
    await settled();
    const members = ['a', 'b'].map(member);
    confirm(stage, 0, { count: 2, members: members.slice(0, 1) });
    node.says(['presence', { id: node.last('presence').id, channel: 'chat:1', count: 2, members }]);
    await settled();
    assert.equal(channel.members.length, 2);
  });

  it('are asked for again a little later where the node could not say who is there', async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    const stage = connected({ presence: true });
    const { channel, node, world } = stage;
    channel.on('presence', () => undefined);
    await settled();
    confirm(stage, 0, { count: 2, members: [member('a')] });
    const refused = async (): Promise<void> => {
      const { id } = node.last('presence');
      node.says(['error', { id, code: 110, reason: 'unavailable', message: 'no Redis', transient: true }]);
      await settled();
    };
    const later = async (): Promise<void> => {
      mock.timers.tick(5_000);
      await settled();
    };
    await refused();
    assert.equal(node.all('presence').length, 1);
    await later();
    await refused();
    node.says(['presence_changed', { channel: 'chat:1', count: 3, joined: [member('c')], left: [] }]);
    assert.equal(node.all('presence').length, 2, 'not sooner for all that changes');
    await later();
    const { id } = node.last('presence');
    node.says(['presence', { id, channel: 'chat:1', count: 3, members: ['a', 'b', 'c'].map(member) }]);
    await settled();
    assert.deepEqual(channel.members.map(({ session }) => session), ['a', 'b', 'c']);
    await later();
    assert.equal(node.all('presence').length, 3);
    // Nor where the next connection begins with a list.
    node.says(['presence_changed', { channel: 'chat:1', count: 3, joined: [], left: [] }]);
    await refused();
    node.breaks();
    await later();
    const next = world.comesBack();
    assert.equal(next.all('presence').length, 0);
    mock.timers.reset();
  });

  it('are those of the newest connection, whatever was told on the one before while it was asked who is there', async () => {
    const stage = connected({ presence: true });
    const { channel, node, world } = stage;
    channel.on('presence', () => undefined);
    await settled();
    confirm(stage, 0, { count: 2, members: [member('a')] });
    node.says(['presence_changed', { channel: 'chat:1', count: 3, joined: [member('gone')], left: [] }]);
    node.breaks();
    world.pass(1_000);
    const next = world.opens();
    const there = { count: 2, members: ['a', 'b'].map(member) };
    next.says(
      ['connected', { ...CONNECTED, id: next.last('connect').id, resumed: true }],
      ['subscribed', { channel: 'chat:1', position: { eu: { epoch: 'e', offset: 0 } }, recovered: true, presence: there }],
    );
    next.says(['presence', { id: next.last('presence').id, channel: 'chat:1', ...there }]);
    await settled();
    assert.deepEqual(channel.members.map(({ session }) => session), ['a', 'b']);
  });

  it('are asked for where a change names nobody, though there are as many as before', async () => {
    const stage = connected({ presence: true });
    const { channel, node } = stage;
    channel.on('presence', () => undefined);
    await settled();
    confirm(stage, 0, { count: 2, members: ['a', 'b'].map(member) });
    assert.equal(node.all('presence').length, 0, 'nothing is wrong yet');
    node.says(['presence_changed', { channel: 'chat:1', count: 2, joined: [], left: [] }]);
    node.says(['presence', { id: node.last('presence').id, channel: 'chat:1', count: 2, members: ['a', 'c'].map(member) }]);
    await settled();
    assert.deepEqual(channel.members.map(({ session }) => session), ['a', 'c']);
    node.says(['presence_changed', { channel: 'chat:1', count: 1_001, joined: [], left: [] }]);
    assert.equal(node.all('presence').length, 1, 'of so many there is no list');
  });
});
