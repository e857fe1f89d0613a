/** What a node's refusal of tokens means for tabs that share a client. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { SharedOptions, SharedSkywave } from '../../src/shared_skywave.js';
import type { FakeNode } from './fake_node.js';
import { SharedStage, until } from './shared_stage.js';

let stage: SharedStage;
let node: FakeNode;

beforeEach(() => {
  stage = new SharedStage();
  ({ node } = stage);
});

afterEach(() => {
  stage.close();
});

const tab = (options: SharedOptions = {}): SharedSkywave => stage.tab(options);

describe('a client that tabs share and the node refuses', () => {
  it('takes a newer token for whoever holds the connection', async () => {
    node.refusal = { code: 3503, reason: 'unauthenticated' };
    const [first, second] = [tab({ token: 'bad' }), tab({ token: 'bad' })];
    await Promise.allSettled([first.connect(), second.connect()]);
    node.refusal = undefined;
    // Nobody answers now; the next connection begins with it.
    await assert.rejects(second.refresh('good'), { code: 3503 });
    await second.connect();
    assert.equal(await second.refresh('good'), 5_000);
    first.close();
    await until('the other one holds it', () => second.isHolder && second.state === 'connected');
    assert.deepEqual(node.tokens, ['bad', 'good', 'good']);
  });

  it('forgets in all tabs a token that the node refuses, whoever holds the connection later', async () => {
    node.badTokens.add('bad').add('worse');
    const [first, second] = [tab({ token: 'good' }), tab({ token: 'good' })];
    await Promise.all([first.connect(), second.connect()]);
    for (const token of ['bad', 'worse']) await assert.rejects(first.refresh(token), { reason: 'forbidden' });
    // By then the other one has heard of it.
    await second.channel('chat:1').presence();
    first.close();
    await until('the other one holds it', () => second.isHolder && second.state === 'connected');
    assert.deepEqual(node.tokens, ['good', 'good']);
  });

  it('goes back to the token before where the node refuses one that a former holder had yet to try', async () => {
    node.badTokens.add('bad');
    const [first, second] = [tab({ token: 'good' }), tab({ token: 'good' })];
    await Promise.all([first.connect(), second.connect()]);
    node.isAway = true;
    node.connection.breaks();
    await until('that it is told', () => second.state === 'connecting');
    const refused = assert.rejects(second.refresh('bad'), { reason: 'forbidden' });
    first.close();
    await until('the other one holds it', () => second.isHolder);
    node.isAway = false;
    await refused;
    assert.equal(second.state, 'connected');
    assert.deepEqual(node.tokens, ['good', 'bad', 'good']);
  });

  it('publishes with an outbox what it was refused for at the next connect, and waits for it until then', async () => {
    const outbox = { load: () => Promise.resolve([]), add: () => Promise.resolve(), remove: () => Promise.resolve() };
    const [first, second] = [tab({ outbox }), tab({ outbox })];
    await Promise.all([first.connect(), second.connect()]);
    node.isMute = true;
    const published = ['a', 'b'].map((key) => second.channel('chat:1').publish(key, { key }));
    await until('that they are sent', () => node.published.length === 2);
    node.isMute = false;
    node.refusal = { code: 3503, reason: 'unauthenticated' };
    node.connection.breaks();
    await until('the refusal', () => second.state === 'disconnected');
    node.refusal = undefined;
    await second.connect();
    assert.deepEqual((await Promise.all(published)).map(({ offset }) => offset), [1, 1]);
    assert.deepEqual([...new Set(node.published.slice(2))], ['a', 'b']);
  });
});
