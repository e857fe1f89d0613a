/** What one user asked for is not asked in the name of the next one. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Asker } from '../../src/session/requests.js';
import { World } from './world.js';

describe('a session', () => {
  it('of another user than before asks nothing that the former one asked, and all that was asked since', () => {
    const world = new World();
    const told: string[] = [];
    const asker = (name: string, isRepeatable: boolean): Asker => {
      const noting = (what: string) => (): void => void told.push(`${name} ${what}`);
      return { isRepeatable, done: noting('done'), failed: ({ code }) => told.push(`${name} ${code}`) };
    };
    const history = (name: string): void => void world.session.traffic.ask('history', { channel: 'chat:1', limit: 1 }, asker(name, true));
    const call = (name: string): void => void world.session.traffic.ask('call', { method: name, data: '1' }, asker(name, false));
    world.connected({ user: 'alice' });
    history('sent');
    world.session.disconnect();
    history('waiting');
    call('call');
    world.session.traffic.ask('refresh', { token: 'of bob' }, asker('refresh', true));
    world.session.connect();
    call('later');
    const published = world.publish('chat:1', 1);
    const node = world.opens();
    node.welcomes({ user: 'bob', resumed: false });
    assert.deepEqual(told, ['sent 103', 'waiting 103', 'call 103']);
    assert.deepEqual(node.sent.slice(1).map(([name]) => name), ['refresh', 'call', 'publish']);
    assert.equal(node.last('call').method, 'later');
    assert.deepEqual(published, {});
  });

  it('whose user changes over a break asks nothing that waited for it to end', () => {
    const world = new World();
    const codes: number[] = [];
    world.connected({ user: 'alice' }).breaks();
    world.session.traffic.ask('presence', { channel: 'chat:1' }, { isRepeatable: true, failed: ({ code }) => codes.push(code) });
    const node = world.comesBack({ user: 'bob', resumed: false });
    assert.deepEqual(codes, [103]);
    assert.equal(node.all('presence').length, 0);
  });
});
