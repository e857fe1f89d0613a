/** One channel that several tabs have subscribed to over one subscription. */
import { ErrorCode } from '../codes.js';
import { type RequestError, requestError } from '../errors.js';
import type { GapReason, ServerFrame, ServerFrames, SubscribeOptions, WirePublication } from '../frames.js';
import { isNext, isPast, moved, type Point, pointOf, type Position } from '../position.js';
import type { ChannelReader } from '../session/subscription.js';

type Page = Pick<ServerFrames['history'], 'publications' | 'cursor' | 'more'>;

/** What the channel has of the connection. */
export interface ChannelSource {
  /** Reads a page of retained publications: those after a position, or the last ones, before a cursor. */
  read(limit: number, from: { after?: Position; before?: string }): Promise<Page>;
  /** Where the one subscription stands. */
  positionNow(): Position | undefined;
  /**
   * Makes the one subscription anew from before this position, which some of the others are ahead of; answers whether
   * it can.
   */
  goBack(position: Position): boolean;
  /** Tells some of the tabs the same. */
  tell(tabs: readonly string[], frame: ServerFrame): void;
  /** The one subscription is over, or nobody needs it any more. */
  over(): void;
}

interface Subscriber {
  readonly tab: string;
  readonly id: number | undefined;
  readonly options: SubscribeOptions;
  /**
   * Whether the one subscription begins where this one wants to, or before: the node itself fills in what it missed.
   */
  isFirst: boolean;
  hasBegun: boolean;
  /** What comes while its beginning is being read; absent once it is up to date. */
  held: ServerFrame[] | undefined;
}

/** How a subscriber is brought to where the others are. */
interface Beginning {
  readonly position: Position;
  readonly frames: ServerFrame[];
  /** Why it does not get all that it missed. */
  readonly reason: GapReason | undefined;
}

/** How many publications are read for a tab that comes later, at once and in all: as many as a node would replay. */
const PAGE = 1_000;
const MOST_READ = 10_000;
/**
 * So much of what the one subscription has brought is kept: when another tab holds the connection, all the others come
 * then.
 */
const MOST_BROUGHT = 64;
/** The most frames that wait for one tab. */
const MAX_HELD = 8_192;

export class SharedChannel implements ChannelReader {
  readonly name: string;
  readonly #source: ChannelSource;
  readonly #subscribers = new Map<string, Subscriber>();
  /** How the one subscription was asked for. */
  #asked: SubscribeOptions;
  /** What the first tab wanted: there the one subscription begins, unless it is made anew. */
  #start: SubscribeOptions | undefined;
  #confirmed: ServerFrames['subscribed'] | undefined;
  /** Where the one subscription stood, and all that it has brought since, as long as that is little. */
  #from: Position | undefined;
  #brought: WirePublication[] = [];
  /** What is known of who is there while the subscription is made anew. */
  #former: ServerFrames['subscribed'] | undefined;
  /** The node has said that a gap is to come: until then the one subscription may stand in an epoch that is over. */
  #isGapDue = false;

  constructor(name: string, asked: SubscribeOptions, source: ChannelSource) {
    this.name = name;
    this.#asked = asked;
    this.#source = source;
  }

  get asked(): SubscribeOptions {
    return this.#asked;
  }

  /** The subscription is made anew: who comes now waits for its confirmation. */
  beginAnew(asked: SubscribeOptions): void {
    this.#asked = asked;
    this.#start = undefined;
    this.#former = this.#confirmed ?? this.#former;
    this.#confirmed = undefined;
    this.#forgetBrought();
  }

  #forgetBrought(): void {
    this.#from = undefined;
    this.#brought = [];
  }

  /** Adds a tab, or one that begins anew. */
  add(tab: string, id: number | undefined, options: SubscribeOptions): void {
    if (this.#subscribers.size === 0) this.#start = options;
    const isFirst = this.#confirmed === undefined && this.#start !== undefined && isAlike(options, this.#start);
    const subscriber: Subscriber = { tab, id, options, isFirst, hasBegun: false, held: [] };
    this.#subscribers.set(tab, subscriber);
    // Before the first confirmation, that one is for all who wait.
    if (this.#confirmed !== undefined) void this.#begin(tab, subscriber);
  }

  /** Answers whether it was there. */
  remove(tab: string): boolean {
    const wasThere = this.#subscribers.delete(tab);
    // Who comes after the last one begins anew: the node alone knows what that one misses.
    if (this.#subscribers.size === 0) this.#source.over();
    return wasThere;
  }

  #beginAll(): void {
    for (const [tab, subscriber] of this.#subscribers) if (!subscriber.hasBegun) void this.#begin(tab, subscriber);
  }

  /** Brings a tab to where the others are. */
  async #begin(tab: string, subscriber: Subscriber): Promise<void> {
    const { position: after, history } = subscriber.options;
    // It may be the tab that is ahead.
    const isToWait = (): boolean => this.#isGapDue && isElsewhere(after, this.#source.positionNow());
    if (isToWait()) return;
    subscriber.hasBegun = true;
    const start = (subscriber.isFirst ? this.#confirmed?.position : this.#source.positionNow()) ?? {};
    let missed: WirePublication[] = [];
    try {
      if (!subscriber.isFirst && after !== undefined) missed = this.#broughtAfter(after) ?? (await this.#readAfter(after));
      else if (!subscriber.isFirst && history !== undefined) missed = this.#lastBrought(history) ?? (await this.#readLast(history));
    } catch (error) {
      const { code, transient } = error as RequestError;
      // Bad is a cursor of the region that it was read from before: where the connection is now, it begins anew.
      if (transient || code === ErrorCode.bad_request) {
        this.#turnAway(tab, subscriber);
        return;
      }
      if (code === ErrorCode.forbidden && after !== undefined && this.#goBack(tab, subscriber, after)) return;
      // The node does not let it be read: what the tab misses of it is told as a gap.
    }
    // Gone meanwhile, or come anew.
    if (this.#subscribers.get(tab) !== subscriber) return;
    // Or the connection has broken: it begins anew when the gap has come.
    if (isToWait()) {
      subscriber.hasBegun = false;
      return;
    }
    const { held = [] } = subscriber;
    const now = this.#source.positionNow() ?? {};
    missed = reached(missed, [start, now, after ?? {}], held, after === undefined ? now : {});
    const frames = [...missed.map((one): ServerFrame => ['publication', one]), ...held];
    const beginning = after === undefined ? this.#catchUp(before(missed, start), frames, {}) : this.#catchUp(after, frames, now);
    subscriber.held = undefined;
    this.#confirm(subscriber, beginning);
    for (const frame of beginning.frames) this.#source.tell([tab], frame);
  }

  /** Who may not read what was may all the same follow from where it is: the others pass over what they have. */
  #goBack(tab: string, subscriber: Subscriber, position: Position): boolean {
    if (this.#subscribers.get(tab) !== subscriber || !this.#source.goBack(position)) return false;
    Object.assign(subscriber, { isFirst: true, hasBegun: false, held: [] });
    return true;
  }

  /**
   * What leads from there to where the one subscription stands, if that is at hand: a node bounds how much is asked of
   * it.
   */
  #broughtAfter(after: Position): WirePublication[] | undefined {
    return this.#from && lacks(after, this.#from).length === 0 ? [...this.#brought] : undefined;
  }

  #lastBrought(count: number): WirePublication[] | undefined {
    return this.#brought.length >= count ? this.#brought.slice(-count) : undefined;
  }

  async #readAfter(after: Position): Promise<WirePublication[]> {
    const all: WirePublication[] = [];
    let position = after;
    while (all.length < MOST_READ) {
      const { publications, more } = await this.#source.read(PAGE, { after: position });
      all.push(...publications);
      // A page has a bound in bytes as well: a short one is the last only if the node says so. An older one fills
      // pages. One with nothing leads nowhere, whatever it says.
      if ((!more && publications.length < PAGE) || publications.length === 0) break;
      for (const publication of publications) position = moved(position, publication);
    }
    return all;
  }

  async #readLast(count: number): Promise<WirePublication[]> {
    let all: WirePublication[] = [];
    let before: string | undefined;
    do {
      const page: Page = await this.#source.read(count - all.length, before === undefined ? {} : { before });
      all = [...page.publications, ...all];
      before = page.more && page.publications.length > 0 ? page.cursor : undefined;
    } while (before !== undefined && all.length < count);
    return all;
  }

  /** What leads from `position` to `end`, with gaps where something is missing. */
  #catchUp(position: Position, frames: readonly ServerFrame[], end: Position): Beginning {
    const beginning: { position: Position; frames: ServerFrame[]; reason: GapReason | undefined } = { position, frames: [], reason: undefined };
    let at = position;
    const miss = (origin: string, epoch: string, offset: number): void => {
      const reason = (pointOf(at, origin)?.epoch ?? epoch) === epoch ? 'trimmed' : 'epoch_changed';
      beginning.reason ??= reason;
      beginning.frames.push(['gap', { channel: this.name, origin, reason, epoch, offset }]);
    };
    for (const [index, frame] of frames.entries()) {
      const [name, body] = frame;
      if (name === 'publication' || name === 'gap') {
        const { origin, epoch, offset } = body;
        if (isPast(at, body)) continue;
        const point = pointOf(at, origin);
        // History and what came meanwhile were read at two times: what follows leads on from here.
        if (point && point.epoch !== epoch && frames.slice(index).some((later) => isOf(later, origin, point.epoch))) continue;
        if (name === 'publication' && !isNext(at, body)) miss(origin, epoch, offset - 1);
        at = moved(at, body);
      }
      beginning.frames.push(frame);
    }
    for (const [origin, { epoch, offset }] of lacks(at, end)) miss(origin, epoch, offset);
    return beginning;
  }

  #confirm({ tab, id, options, isFirst }: Subscriber, { position, reason }: Beginning): void {
    const node: Partial<ServerFrames['subscribed']> = this.#confirmed ?? {};
    // The node says it of the one that it served; what the others could not get is known here.
    const recovery = isFirst ? node : { recovered: reason === undefined, reason };
    this.#source.tell([tab], [
      'subscribed',
      {
        ...(id === undefined ? {} : { id }),
        channel: this.name,
        position,
        ...(options.position === undefined ? {} : { recovered: recovery.recovered ?? true }),
        ...(isFirst && node.recovers !== undefined ? { recovers: node.recovers } : {}),
        ...(recovery.reason === undefined ? {} : { reason: recovery.reason }),
        ...(options.presence && node.presence !== undefined ? { presence: node.presence } : {}),
      },
    ]);
  }

  /** For now: the tab asks again after a while. */
  #turnAway(tab: string, subscriber: Subscriber): void {
    if (this.#subscribers.get(tab) !== subscriber) return;
    this.remove(tab);
    this.#end(subscriber, requestError('unavailable', 'what the tab missed cannot be read now'));
  }

  #end({ tab, id, held }: Subscriber, { code, reason, message, transient }: RequestError): void {
    // Not confirmed yet: it still waits for the reply.
    const isWaiting = held !== undefined && id !== undefined;
    const ended = { channel: this.name, code, reason };
    this.#source.tell([tab], isWaiting ? ['error', { id, code, reason, message, transient }] : ['unsubscribed', ended]);
  }

  // ---- as the reader of the one subscription

  hasRoom(): boolean {
    return true;
  }

  subscribed(body: ServerFrames['subscribed']): void {
    const known = (this.#confirmed ?? this.#former)?.presence?.members;
    this.#confirmed = body;
    this.#former = undefined;
    this.#from ??= this.#source.positionNow();
    if (known !== undefined && body.presence !== undefined) this.#compare(known, body.presence);
    this.#isGapDue = body.recovered === false;
    this.#beginAll();
  }

  /** After a break: who came and went meanwhile. */
  #compare(known: ServerFrames['presence']['members'], { count, members }: Pick<ServerFrames['presence'], 'count' | 'members'>): void {
    const sessions = (list: typeof members): Set<string> => new Set(list.map(({ session }) => session));
    const [before, now] = [sessions(known), sessions(members)];
    const joined = members.filter(({ session }) => !before.has(session));
    const left = known.filter(({ session }) => !now.has(session));
    if (joined.length + left.length > 0) this.#tell(['presence_changed', { channel: this.name, count, joined, left }]);
  }

  /** Repeated or not: each tab knows by itself what it has heard, and has to get past it. */
  publication(publication: WirePublication): void {
    if (this.#from && this.#brought.push(publication) > MOST_BROUGHT) this.#forgetBrought();
    this.#tell(['publication', publication]);
  }

  event(event: ServerFrames['event']): void {
    this.#tell(['event', event]);
  }

  gap(gap: ServerFrames['gap']): void {
    this.#isGapDue = false;
    this.#forgetBrought();
    this.#tell(['gap', gap]);
    this.#beginAll();
  }

  presenceChanged(changed: ServerFrames['presence_changed']): void {
    const presence = this.#confirmed?.presence;
    if (this.#confirmed !== undefined && presence !== undefined) {
      const gone = new Set([...changed.left, ...changed.joined].map(({ session }) => session));
      const members = [...presence.members.filter(({ session }) => !gone.has(session)), ...changed.joined];
      this.#confirmed = { ...this.#confirmed, presence: { count: changed.count, members } };
    }
    this.#tell(['presence_changed', changed]);
  }

  ended(error: RequestError): void {
    for (const subscriber of this.#subscribers.values()) this.#end(subscriber, error);
    this.#subscribers.clear();
    this.#source.over();
  }

  /** An event of one tab reaches the others here: a node does not send it back to their common session. */
  echo(sender: string, event: ServerFrames['event']): void {
    this.#source.tell([...this.#subscribers.keys()].filter((tab) => tab !== sender), ['event', event]);
  }

  #tell(frame: ServerFrame): void {
    const ready: string[] = [];
    for (const [tab, subscriber] of this.#subscribers) {
      if (frame[0] === 'presence_changed' && !subscriber.options.presence) continue;
      const { held } = subscriber;
      if (held === undefined) ready.push(tab);
      // Events may be lost: they leave half of it to the others.
      else if (frame[0] === 'event' && held.length >= MAX_HELD / 2) continue;
      else if (held.push(frame) > MAX_HELD) this.#turnAway(tab, subscriber);
    }
    this.#source.tell(ready, frame);
  }
}

/** Where `end` is ahead of a position, or elsewhere. */
function lacks(position: Position, end: Position): [origin: string, point: Point][] {
  return Object.entries(end).filter(([origin, { epoch, offset }]) => {
    const point = pointOf(position, origin);
    return point === undefined ? offset > 0 : point.epoch !== epoch || point.offset < offset;
  });
}

/** Whether both begin at the same place. */
function isAlike(one: SubscribeOptions, other: SubscribeOptions): boolean {
  const { position = {}, history } = one;
  const isThere = (one.position === undefined) === (other.position === undefined);
  return isThere && history === other.history && lacks(position, other.position ?? {}).length + lacks(other.position ?? {}, position).length === 0;
}

function isOf([name, body]: ServerFrame, origin: string, epoch: string): boolean {
  return (name === 'publication' || name === 'gap') && body.origin === origin && body.epoch === epoch;
}

/** Whether somebody at the position is in another epoch than those who are at `now`. */
function isElsewhere(position: Position = {}, now: Position = {}): boolean {
  return Object.entries(position).some(([origin, { epoch }]) => (pointOf(now, origin)?.epoch ?? epoch) !== epoch);
}

/**
 * What was read of history, but for epochs that the one subscription has not reached yet: of them it brings all. It has
 * been where `positions` are and what it brought. Where it stands at the beginning of an epoch of `now`, what was read
 * may be of one before.
 */
function reached(missed: readonly WirePublication[], positions: readonly Position[], held: readonly ServerFrame[], now: Position): WirePublication[] {
  const isKnown = ({ origin, epoch }: WirePublication): boolean =>
    positions.some((position) => pointOf(position, origin)?.epoch === epoch) || held.some((frame) => isOf(frame, origin, epoch));
  const isBefore = ({ origin }: WirePublication): boolean => pointOf(now, origin)?.offset === 0;
  // Of each origin the last one that is known.
  const last = new Map<string, number>();
  for (const [index, one] of missed.entries()) if (isKnown(one)) last.set(one.origin, index);
  return missed.filter((one, index) => isBefore(one) || index <= (last.get(one.origin) ?? -1));
}

/** The position before these publications; in other origins, `start`. */
function before(publications: readonly WirePublication[], start: Position): Position {
  let position: Position = {};
  for (const { origin, epoch, offset } of publications) {
    if (pointOf(position, origin) === undefined) position = moved(position, { origin, epoch, offset: offset - 1 });
  }
  return { ...start, ...position };
}
