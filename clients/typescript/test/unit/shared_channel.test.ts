/** A channel that several tabs share: each gets what it asked for, however late it comes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RequestError } from '../../src/errors.js';
import type { ServerFrame, ServerFrames, SubscribeOptions, WirePublication } from '../../src/frames.js';
import type { Position } from '../../src/position.js';
import { SharedChannel } from '../../src/tabs/shared_channel.js';
import { CONNECTED, publication, World } from './world.js';

const wire = (offset: number, epoch = 'e'): WirePublication => publication(offset, { epoch })[1] as WirePublication;
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** What a tab was told, in short. */
function short([name, body]: ServerFrame): string {
  if (name === 'publication') return String(body.offset);
  if (name === 'gap') return `gap ${body.reason} ${body.offset}`;
  if (name === 'subscribed') return `subscribed ${body.position['eu']?.offset ?? 'nowhere'}${body.recovered === false ? ' with a gap' : ''}`;
  if (name === 'error' || name === 'unsubscribed') return `${name} ${body.reason ?? ''}`;
  return name;
}

class Stage {
  retained: WirePublication[] = [];
  now: Position = { eu: { epoch: 'e', offset: 0 } };
  readonly told = new Map<string, string[]>();
  /** All that was told, to whomever. */
  readonly frames: ServerFrame[] = [];
  /** Where payloads are large, a page has few. */
  mostPerPage = Infinity;
  /** Why nothing can be read. */
  unreadable: RequestError | undefined;
  isOver = false;
  readonly channel = new SharedChannel('chat:1', {}, {
    read: async (limit, { after, before = String(Infinity) }) => {
      await settled();
      if (this.unreadable !== undefined) throw this.unreadable;
      const most = Math.min(limit, this.mostPerPage);
      const from = after?.['eu'] ?? { epoch: 'e', offset: 0 };
      const asked = this.retained.filter(({ epoch, offset }) => (epoch !== from.epoch || offset > from.offset) && offset < Number(before));
      const publications = after === undefined ? asked.slice(-most) : asked.slice(0, most);
      return { publications, cursor: String(publications[0]?.offset), more: publications.length < asked.length };
    },
    positionNow: () => this.now,
    goBack: (position) => {
      this.now = position;
      this.channel.beginAnew(this.channel.asked);
      return true;
    },
    tell: (tabs, frame) => {
      this.frames.push(frame);
      for (const tab of tabs) this.told.get(tab)?.push(short(frame));
    },
    over: () => {
      this.isOver = true;
    },
  });

  add(tab: string, options: SubscribeOptions = {}): string[] {
    const told: string[] = [];
    this.told.set(tab, told);
    this.channel.add(tab, 1, options);
    return told;
  }

  confirm(fields: Partial<ServerFrames['subscribed']> = {}): void {
    this.channel.subscribed({ channel: 'chat:1', position: this.now, ...fields });
  }

  /** The one subscription begins, for another tab, when all of these have been published. */
  begins(...offsets: number[]): void {
    this.retained = offsets.map((offset) => wire(offset));
    this.now = { eu: { epoch: 'e', offset: Math.max(...offsets) } };
    this.add('a');
    this.confirm();
  }

  comes(offset: number, epoch = 'e'): void {
    this.retained.push(wire(offset, epoch));
    this.now = { eu: { epoch, offset } };
    this.channel.publication(wire(offset, epoch));
  }

  /** The node has lost what it retained, and says so. */
  loses(epoch: string): void {
    this.retained = [];
    this.now = { eu: { epoch, offset: 0 } };
    this.channel.gap({ channel: 'chat:1', origin: 'eu', reason: 'epoch_changed', epoch, offset: 0 });
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
    stage.begins(1, 2, 3);
    const second = stage.add('b', { history: 2 });
    stage.comes(4);
    await settled();
    await settled();
    stage.comes(5);
    assert.deepEqual(second, ['subscribed 2', '3', '4', '5']);
  });

  it('gives a tab that comes back what it missed', async () => {
    const stage = new Stage();
    stage.begins(1, 2, 3);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    await settled();
    await settled();
    assert.deepEqual(back, ['subscribed 1', '2', '3']);
  });

  it('has a tab come again when the region has changed between two pages of its history', async () => {
    const stage = new Stage();
    stage.begins(1, 2, 3);
    stage.mostPerPage = 1;
    const second = stage.add('b', { history: 2 });
    await settled();
    stage.unreadable = new RequestError(107, 'bad_request', 'not a cursor', false);
    await settled();
    await settled();
    stage.comes(4);
    assert.deepEqual(second, ['error unavailable']);
  });

  it('tells a tab what it cannot get any more', async () => {
    const stage = new Stage();
    stage.begins(8, 9);
    const late = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    const stranger = stage.add('c', { position: { eu: { epoch: 'd', offset: 1 } } });
    await settled();
    await settled();
    assert.deepEqual(late, ['subscribed 1 with a gap', 'gap trimmed 7', '8', '9']);
    assert.deepEqual(stranger, ['subscribed 1 with a gap', 'gap epoch_changed 7', '8', '9']);
  });

  it('leads a tab for which it reads while an epoch changes through both, once', async () => {
    const stage = new Stage();
    stage.begins(1, 2, 3);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 2 } } });
    stage.comes(4);
    stage.loses('f');
    stage.comes(1, 'f');
    await settled();
    await settled();
    stage.comes(2, 'f');
    assert.deepEqual(back, ['subscribed 2 with a gap', 'gap trimmed 3', '4', 'gap epoch_changed 0', '1', '2']);
  });

  it('brings what it reads of an epoch that the subscription has not reached by the subscription alone', async () => {
    const stage = new Stage();
    stage.add('a');
    stage.confirm();
    stage.comes(1);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    const latest = stage.add('c', { history: 5 });
    stage.retained = [wire(1, 'f'), wire(2, 'f')];
    await settled();
    await settled();
    stage.comes(2);
    stage.loses('f');
    for (const offset of [1, 2]) stage.comes(offset, 'f');
    assert.deepEqual(back, ['subscribed 1', '2', 'gap epoch_changed 0', '1', '2']);
    assert.deepEqual(latest, back);
  });

  it('does not lead back a tab that is in an epoch which the others are about to be told of', async () => {
    const stage = new Stage();
    stage.now = { eu: { epoch: 'e', offset: 1 } };
    stage.add('behind', { position: stage.now });
    const ahead = stage.add('ahead', { position: { eu: { epoch: 'f', offset: 3 } } });
    stage.confirm({ recovered: false, reason: 'epoch_changed' });
    const later = stage.add('later', { position: { eu: { epoch: 'f', offset: 2 } } });
    await settled();
    stage.loses('f');
    for (const offset of [1, 2, 3, 4]) stage.comes(offset, 'f');
    await settled();
    await settled();
    stage.comes(5, 'f');
    assert.deepEqual(ahead, ['subscribed 3', '4', '5']);
    assert.deepEqual(later, ['subscribed 2', '3', '4', '5']);
  });

  it('does not lead back a tab for which it reads when the connection comes back into an epoch that is over', async () => {
    const stage = new Stage();
    stage.now = { eu: { epoch: 'e', offset: 1 } };
    stage.add('behind', { position: stage.now });
    stage.confirm({ recovered: true });
    stage.retained = [1, 2, 3].map((offset) => wire(offset, 'f'));
    const ahead = stage.add('ahead', { position: { eu: { epoch: 'f', offset: 2 } } });
    stage.confirm({ recovered: false, reason: 'epoch_changed' });
    stage.channel.publication(wire(2));
    await settled();
    await settled();
    stage.loses('f');
    for (const offset of [1, 2, 3, 4]) stage.comes(offset, 'f');
    await settled();
    await settled();
    assert.deepEqual(ahead, ['subscribed 2', '3', '4']);
  });

  it('begins for a tab from an epoch that is over though the others were told so before a move', async () => {
    const world = new World();
    const { traffic } = world.session;
    const position = { eu: { epoch: 'e', offset: 1 } };
    const change: ServerFrame = ['gap', { channel: 'chat:1', origin: 'eu', epoch: 'f', offset: 0, reason: 'epoch_changed' }];
    const told: string[] = [];
    const channel = new SharedChannel('chat:1', { position }, {
      read: () => Promise.resolve({ publications: [], more: false }),
      positionNow: () => traffic.positionOf('chat:1'),
      goBack: () => false,
      tell: (tabs, frame) => {
        if (tabs.includes('b')) told.push(short(frame));
      },
      over: () => undefined,
    });
    channel.add('a', 1, { position });
    traffic.subscribe('chat:1', { position }, channel);
    const old = world.connected();
    world.switchTo('websocket', () => undefined);
    const next = world.opens('websocket');
    old.says(change);
    next.says(['connected', { ...CONNECTED, id: next.last('connect').id, resumed: true }]);
    next.says(['subscribed', { channel: 'chat:1', position, recovered: false, reason: 'epoch_changed' }], change);
    channel.add('b', 1, { position });
    await settled();
    next.says(publication(1, { epoch: 'f' }));
    assert.deepEqual(told, ['subscribed 1 with a gap', 'gap epoch_changed 0', '1']);
  });

  it('holds what comes while it reads for a tab however many events come as well', async () => {
    const stage = new Stage();
    stage.begins(1);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 0 } } });
    for (let count = 0; count < 9_000; count += 1) stage.channel.event({ channel: 'chat:1', session: 's', data: 1 });
    stage.comes(2);
    await settled();
    await settled();
    assert.deepEqual(back.filter((told) => told !== 'event'), ['subscribed 0', '1', '2']);
  });

  it('tells a tab what it missed of a channel that keeps nothing, and goes on', async () => {
    const stage = new Stage();
    stage.begins(1, 2, 3);
    stage.retained = [];
    stage.unreadable = new RequestError(108, 'not_available', 'no history', false);
    const [lagging, ahead] = [1, 3].map((offset) => stage.add(`at ${offset}`, { position: { eu: { epoch: 'e', offset } } }));
    await settled();
    await settled();
    stage.comes(4);
    assert.deepEqual(lagging, ['subscribed 1 with a gap', 'gap trimmed 3', '4']);
    assert.deepEqual(ahead, ['subscribed 3', '4']);
  });

  it('follows from where a tab is that may not read what it missed, and the others have their place', async () => {
    const stage = new Stage();
    stage.begins(1, 2, 3);
    stage.unreadable = new RequestError(103, 'forbidden', 'no right to read history', false);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    await settled();
    await settled();
    assert.deepEqual([back, stage.now], [[], { eu: { epoch: 'e', offset: 1 } }]);
    stage.confirm({ recovered: true, recovers: 2 });
    for (const offset of [2, 3, 4]) stage.comes(offset);
    await settled();
    assert.deepEqual(back, ['subscribed 1', '2', '3', '4']);
  });

  it('reads nothing for tabs that come soon after the one subscription has begun where they are', async () => {
    const stage = new Stage();
    stage.begins(1);
    for (const offset of [2, 3]) stage.comes(offset);
    stage.unreadable = new RequestError(111, 'rate_limited', 'too many come at once', true);
    const [lagging, ahead] = [1, 3].map((offset) => stage.add(`at ${offset}`, { position: { eu: { epoch: 'e', offset } } }));
    const before = stage.add('before', { position: { eu: { epoch: 'e', offset: 0 } } });
    await settled();
    await settled();
    stage.comes(4);
    assert.deepEqual([lagging, ahead], [['subscribed 1', '2', '3', '4'], ['subscribed 3', '4']]);
    assert.deepEqual(before, ['error unavailable']);
  });

  it('reads nothing for tabs that want the same before the node has confirmed it, nor what it has brought', async () => {
    const stage = new Stage();
    stage.unreadable = new RequestError(111, 'rate_limited', 'too many come at once', true);
    const position = { eu: { epoch: 'e', offset: 1 } };
    stage.now = position;
    const wishes = [{ history: 2 }, { history: 2 }, { history: 3 }, { position }];
    const told = wishes.map((wish, place) => stage.add(String(place), wish));
    stage.confirm();
    for (const offset of [2, 3]) stage.comes(offset);
    told.push(stage.add('later', { history: 1 }));
    await settled();
    await settled();
    const all = ['subscribed 1', '2', '3'];
    assert.deepEqual(told, [all, all, ['error unavailable'], all, ['subscribed 2', '3']]);
  });

  it('asks a tab to come back when what it missed cannot be read for the moment', async () => {
    const stage = new Stage();
    stage.begins(1, 2);
    stage.unreadable = new RequestError(110, 'unavailable', 'the broker is away', true);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    await settled();
    await settled();
    stage.comes(3);
    assert.deepEqual(back, ['error unavailable']);
  });

  it('reads as many pages as a tab has missed', async () => {
    const stage = new Stage();
    stage.add('a');
    stage.confirm();
    for (let offset = 1; offset <= 2_500; offset += 1) stage.comes(offset);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    for (let turn = 0; turn < 6; turn += 1) await settled();
    assert.equal(back.length, 2_500);
    assert.equal(back.at(-1), '2500');
    assert.ok(!back.some((told) => told.startsWith('gap')));
  });

  it('reads on where a page is short because it has a bound in bytes', async () => {
    const stage = new Stage();
    stage.mostPerPage = 4;
    stage.begins(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    const back = stage.add('b', { position: { eu: { epoch: 'e', offset: 1 } } });
    const latest = stage.add('c', { history: 6 });
    for (let turn = 0; turn < 8; turn += 1) await settled();
    assert.deepEqual(back, ['subscribed 1', '2', '3', '4', '5', '6', '7', '8', '9', '10']);
    assert.deepEqual(latest, ['subscribed 4', '5', '6', '7', '8', '9', '10']);
  });

  it('reads no further where a page says that there is more, and has nothing', async () => {
    const stage = new Stage();
    stage.begins(1);
    stage.mostPerPage = 0;
    const back = stage.add('b', { position: {} });
    for (let turn = 0; turn < 8; turn += 1) await settled();
    assert.deepEqual(back, ['subscribed nowhere with a gap', 'gap trimmed 1']);
  });

  it('loses nothing of another origin that comes while the history is read', async () => {
    const stage = new Stage();
    stage.begins(1);
    const second = stage.add('b', { history: 1 });
    stage.now = { ...stage.now, us: { epoch: 'e', offset: 1 } };
    stage.channel.publication({ ...wire(1), origin: 'us' });
    await settled();
    await settled();
    assert.deepEqual(second, ['subscribed 0', '1', '1']);
  });

  it('tells nothing to a tab that left while its history was read', async () => {
    const stage = new Stage();
    stage.begins(1);
    const second = stage.add('b', { history: 1 });
    stage.channel.remove('b');
    await settled();
    await settled();
    assert.deepEqual(second, []);
  });

  it('tells after a break who came and went meanwhile', async () => {
    const stage = new Stage();
    const member = (session: string): { session: string; since_ms: number } => ({ session, since_ms: 0 });
    stage.add('a', { presence: true });
    stage.confirm({ presence: { count: 2, members: [member('one'), member('two')] } });
    await settled();
    stage.confirm({ presence: { count: 2, members: [member('two'), member('three')] } });
    const changes = stage.frames.flatMap(([name, body]) => (name === 'presence_changed' ? [[body.count, body.joined, body.left]] : []));
    assert.deepEqual(changes, [[2, [member('three')], [member('one')]]]);
  });

  it('tells who comes and goes only to tabs that asked for it', async () => {
    const stage = new Stage();
    const [asking, other] = [stage.add('a', { presence: true }), stage.add('b')];
    stage.confirm({ presence: { count: 1, members: [] } });
    await settled();
    stage.channel.presenceChanged({ channel: 'chat:1', count: 2, joined: [], left: [] });
    assert.ok(asking.includes('presence_changed'));
    assert.ok(!other.includes('presence_changed'));
  });

  it('ends with the refusal that all its tabs wait for', async () => {
    const stage = new Stage();
    const first = stage.add('a');
    stage.channel.ended(new RequestError(103, 'forbidden', 'no', false));
    await settled();
    assert.deepEqual(first, ['error forbidden']);
    assert.ok(stage.isOver);
  });

  it('tells all tabs that are up to date at once', async () => {
    const stage = new Stage();
    stage.begins(1);
    const other = stage.add('b');
    await settled();
    const before = stage.frames.length;
    stage.comes(2);
    stage.channel.echo('c', { channel: 'chat:1', session: 's', data: 'x' });
    assert.deepEqual(other, ['subscribed 1', '2', 'event']);
    assert.deepEqual(stage.frames.slice(before).map(short), ['2', 'event']);
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
