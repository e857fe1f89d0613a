/** What a page's life means for a session. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { followPage } from '../../src/page_life.js';
import { networkChanged } from '../../src/session/network.js';
import { World } from './world.js';

/** A page of which the test is the browser. */
class FakePage extends EventTarget {
  readonly document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  readonly navigator = { connection: Object.assign(new EventTarget(), { type: 'wifi' }) };
  readonly told: unknown[] = [];
  readonly stop = followPage(
    {
      networkChanged: (network, isOther) => void this.told.push([network, isOther]),
      check: () => void this.told.push('check'),
      woke: () => void this.told.push('woke'),
    },
    this,
  );

  show(isVisible: boolean): void {
    this.document.visibilityState = isVisible ? 'visible' : 'hidden';
    this.document.dispatchEvent(new Event('visibilitychange'));
  }
}

describe('a page', () => {
  it('that is hidden saves battery, and looks at its connection when it is shown', () => {
    const page = new FakePage();
    page.show(false);
    assert.deepEqual(page.told.splice(0), [[{ kind: 'wifi', background: true }, false]]);
    page.show(true);
    assert.deepEqual(page.told, [[{ kind: 'wifi', background: false }, false], 'check']);
  });

  it('that was frozen, or comes back from the cache, has slept', () => {
    const page = new FakePage();
    page.document.dispatchEvent(new Event('freeze'));
    assert.deepEqual(page.told.splice(0), [[{ kind: 'wifi', background: true }, false]]);
    page.document.dispatchEvent(new Event('resume'));
    assert.deepEqual(page.told.splice(0), [[{ kind: 'wifi', background: false }, false], 'woke']);
    page.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    page.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: false }));
    assert.deepEqual(page.told, ['woke']);
  });

  it('on another network tells so, whatever became of the speed of this one', () => {
    const page = new FakePage();
    const { connection } = page.navigator;
    connection.dispatchEvent(new Event('change'));
    assert.deepEqual(page.told, []);
    connection.type = 'cellular';
    connection.dispatchEvent(new Event('change'));
    assert.deepEqual(page.told, [[{ kind: 'cellular', background: false }, true]]);
  });

  it('that loses the network looks at once, and starts anew when it is back', () => {
    const page = new FakePage();
    page.dispatchEvent(new Event('offline'));
    page.dispatchEvent(new Event('online'));
    assert.deepEqual(page.told, ['check', [{ kind: 'wifi', background: false }, true]]);
  });

  it('is followed until that is enough', () => {
    const page = new FakePage();
    page.stop();
    page.show(false);
    assert.deepEqual(page.told, []);
  });

  it('may have no document and tell nothing of networks', () => {
    const never = (): void => {
      throw new Error('nothing happened');
    };
    followPage({ networkChanged: never, check: never, woke: never }, {})();
  });
});

describe('a change of the network', () => {
  it('is told to the node, and a path that is dead then is left within two seconds', () => {
    const world = new World();
    const node = world.connected();
    networkChanged(world.session, { kind: 'cellular', background: false }, true);
    assert.deepEqual(node.last('network'), { kind: 'cellular', background: false });
    world.pass(2_000);
    assert.ok(node.isClosed);
  });

  it('is told to a node, too, that is about to answer `connect`', () => {
    const world = new World();
    world.session.connect();
    const node = world.opens();
    networkChanged(world.session, { background: true }, false);
    node.welcomes();
    assert.deepEqual(node.all('network'), [{ background: true }]);
  });

  it('ends a wait for the next attempt', () => {
    const world = new World();
    world.chance = 0.999;
    world.session.connect();
    for (let round = 0; round < 8; round += 1) {
      world.fails();
      world.pass(20_000);
    }
    world.fails();
    const before = world.dials.length;
    world.session.check();
    assert.equal(world.dials.length, before + 1);
  });

  it('begins no second attempt beside the one that an earlier change has begun', () => {
    const world = new World();
    world.connected().breaks();
    const before = world.dials.length;
    // As a page that is shown on another network tells it.
    world.session.check();
    networkChanged(world.session, { kind: 'cellular', background: false }, true);
    assert.equal(world.dials.length, before + 1);
    const next = world.opens();
    world.session.check();
    assert.equal(world.dials.length, before + 1);
    next.welcomes();
    assert.equal(world.session.state, 'connected');
  });
});
