/** A channel that several tabs share: each gets what it asked for, however late it comes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ServerFrame, ServerFrames, SubscribeOptions, WirePublication } from '../../src/frames.js';
import type { Position } from '../../src/position.js';
import { SharedChannel } from '../../src/tabs/shared_channel.js';
import { publication } from './world.js';

const wire = (offset: number, epoch = 'e'): WirePublication => publication(offset, { epoch })[1] as WirePublication;
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** What a tab was told, in short. */
function short([name, body]: ServerFrame): string {
  if (name === 'publication') return String(body.offset);
  if (name === 'gap') return `gap ${body.reason} ${body.offset}`;
  if (name === 'subscribed') return `subscribed ${body.position['eu']?.offset ?? 'nowhere'}`;
  return name;
}

class Stage {
  retained: WirePublication[] = [];
  now: Position = { eu: { epoch: 'e', offset: 0 } };
  readonly told = new Map<string, string[]>();
  readonly channel = new SharedChannel(
    'chat:1',
    async (limit, after) => {
      await settled();
      const from = after?.['eu']?.offset ?? 0;
      return after === undefined ? this.retained.slice(-limit) : this.retained.filter(({ offset }) => offset > from);
    },
    () => this.now,
  );

  add(tab: string, options: SubscribeOptions = {}): string[] {
    const told: string[] = [];
    this.told.set(tab, told);
    this.channel.add(tab, 1, options, (frame) => told.push(short(frame)));
    return told;
  }

  confirm(fields: Partial<ServerFrames['subscribed']> = {}): void {
    this.channel.subscribed({ channel: 'chat:1', position: this.now, ...fields });
  }

  comes(offset: number): void {
    this.retained.push(wire(offset));
    this.now = { eu: { epoch: 'e', offset } };
    this.channel.publication(wire(offset));
  }
}

describe('a channel that tabs share', () => {
  it('begins for the first tab where the node begins', async () => {
    const stage = new Stage();
    const first = stage.add('a');
    stage.confirm();
    await settled();
    stage.comes(1);
    assert.deepEqual(first, ['subscribed 0', '1']);
  });

  it('gives a later tab its history, and what comes meanwhile, once', async () => {
    const stage = new Stage();
    stage.add('a');
    stage.confirm();
    for (const offset of [1, 2, 3]) stage.comes(offset);
    const second = stage.add('b', { history: 2 });
    stage.comes(4);
    await settled();
    await settled();
    stage.comes(5);
    assert.deepEqual(second, ['subscribed 2', '3', '4', '5']);
  });

  it('gives a tab that comes back what it missed', async () => {
    const stage = new Stage();
    stage.add('a');
    stage.confirm();
    for (const offset of [1, 2, 3]) stage.comes(offset);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    await settled();
    await settled();
    assert.deepEqual(back, ['subscribed 1', '2', '3']);
  });

  it('tells a tab what it cannot get any more', async () => {
    const stage = new Stage();
    stage.add('a');
    stage.confirm();
    stage.retained = [wire(8), wire(9)];
    const late = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    const stranger = stage.add('c', { position: { eu: { epoch: 'd', offset: 1 } } });
    await settled();
    await settled();
    assert.deepEqual(late, ['subscribed 1', 'gap trimmed 7', '8', '9']);
    assert.deepEqual(stranger, ['subscribed 1', 'gap epoch_changed 7', '8', '9']);
  });

  it('brings the events of one tab to the others', async () => {
    const stage = new Stage();
    const [first, second] = [stage.add('a'), stage.add('b')];
    stage.confirm();
    await settled();
    stage.channel.echo('a', { channel: 'chat:1', session: 's', data: 1 });
    assert.ok(!first.includes('event'));
    assert.ok(second.includes('event'));
  });
});
