/** What a page's life means for a session. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { followPage } from '../../src/page_life.js';

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
