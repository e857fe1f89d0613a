/** One channel that several tabs have subscribed to over one subscription. */
import type { RequestError } from '../errors.js';
import type { ServerFrame, ServerFrames, SubscribeOptions, WirePublication } from '../frames.js';
import { admit, advance, pointOf, type Position } from '../position.js';
import type { ChannelReader } from '../session/subscription.js';

/** What a tab is told. */
export type Tell = (frame: ServerFrame) => void;

/** Reads retained publications: those after a position, or the last ones. */
export type Read = (limit: number, after?: Position) => Promise<WirePublication[]>;

interface Subscriber {
  readonly id: number | undefined;
  readonly options: SubscribeOptions;
  readonly tell: Tell;
  /** Whether the one subscription begins where this one wants to: the node itself fills in what it missed. */
  readonly isFirst: boolean;
  hasBegun: boolean;
  /** What comes while its beginning is being read; absent once it is up to date. */
  held: ServerFrame[] | undefined;
}

/** The most publications that are read for a tab that comes later. */
const MOST = 1_000;

export class SharedChannel implements ChannelReader {
  readonly name: string;
  readonly #read: Read;
  readonly #positionNow: () => Position | undefined;
  readonly #subscribers = new Map<string, Subscriber>();
  #confirmed: ServerFrames['subscribed'] | undefined;

  constructor(name: string, read: Read, positionNow: () => Position | undefined) {
    this.name = name;
    this.#read = read;
    this.#positionNow = positionNow;
  }

  get isEmpty(): boolean {
    return this.#subscribers.size === 0;
  }

  /** Whether the one subscription tells who is there. */
  get hasPresence(): boolean {
    return this.#confirmed === undefined || this.#confirmed.presence !== undefined;
  }

  /** The subscription is made anew: who comes now waits for its confirmation. */
  beginAnew(): void {
    this.#confirmed = undefined;
  }

  /** Adds a tab, or one that begins anew. */
  add(tab: string, id: number | undefined, options: SubscribeOptions, tell: Tell): void {
    const isFirst = this.#subscribers.size === 0;
    const subscriber: Subscriber = { id, options, tell, isFirst, hasBegun: false, held: [] };
    this.#subscribers.set(tab, subscriber);
    // Before the first confirmation, that one is for all who wait.
    if (this.#confirmed !== undefined) void this.#begin(subscriber);
  }

  remove(tab: string): boolean {
    return this.#subscribers.delete(tab);
  }

  /** Brings a tab to where the others are. */
  async #begin(subscriber: Subscriber): Promise<void> {
    const { options, tell, isFirst } = subscriber;
    const { history, position: after } = options;
    subscriber.hasBegun = true;
    let missed: WirePublication[] = [];
    try {
      if (isFirst) missed = [];
      else if (after !== undefined) missed = await this.#read(MOST, after);
      else if (history !== undefined) missed = await this.#read(history);
    } catch {
      // The node does not let it: the tab begins where the others are, and is told of what it misses below.
    }
    let position = after ?? (isFirst ? (this.#confirmed?.position ?? {}) : this.#before(missed));
    this.#confirm(subscriber, position);
    const held = subscriber.held ?? [];
    subscriber.held = undefined;
    const frames = [...missed.map((one): ServerFrame => ['publication', one]), ...held];
    for (const frame of frames) {
      const [name, body] = frame;
      if (name === 'publication') {
        const { origin, epoch, offset } = body;
        const admission = admit(position, origin, epoch, offset);
        if (admission === 'duplicate') continue;
        if (admission !== 'next') tell(this.#gap(body, admission === 'gap' ? 'trimmed' : 'epoch_changed'));
        position = advance(position, origin, epoch, offset);
      }
      tell(frame);
    }
  }

  #gap({ origin, epoch, offset }: WirePublication, reason: 'trimmed' | 'epoch_changed'): ServerFrame {
    return ['gap', { channel: this.name, origin, reason, epoch, offset: offset - 1 }];
  }

  /** The position before these publications. */
  #before(publications: readonly WirePublication[]): Position {
    let position: Position = {};
    for (const { origin, epoch, offset } of publications) {
      if (pointOf(position, origin) === undefined) position = advance(position, origin, epoch, offset - 1);
    }
    return { ...this.#positionNow(), ...position };
  }

  #confirm({ id, options, tell }: Subscriber, position: Position): void {
    const presence = options.presence ? this.#confirmed?.presence : undefined;
    tell([
      'subscribed',
      {
        ...(id === undefined ? {} : { id }),
        channel: this.name,
        position,
        ...(options.position === undefined ? {} : { recovered: this.#confirmed?.recovered ?? true }),
        ...(presence === undefined ? {} : { presence }),
      },
    ]);
  }

  // ---- as the reader of the one subscription

  hasRoom(): boolean {
    return true;
  }

  subscribed(body: ServerFrames['subscribed']): void {
    this.#confirmed = body;
    for (const subscriber of this.#subscribers.values()) if (!subscriber.hasBegun) void this.#begin(subscriber);
  }

  publication(publication: WirePublication): void {
    this.#tell(['publication', publication]);
  }

  event(event: ServerFrames['event']): void {
    this.#tell(['event', event]);
  }

  gap(gap: ServerFrames['gap']): void {
    this.#tell(['gap', gap]);
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

  ended({ code, reason }: RequestError): void {
    this.#tell(['unsubscribed', { channel: this.name, code, reason }]);
    this.#subscribers.clear();
  }

  /** An event of one tab reaches the others here: a node does not send it back to their common session. */
  echo(sender: string, event: ServerFrames['event']): void {
    for (const [tab, { tell }] of this.#subscribers) if (tab !== sender) tell(['event', event]);
  }

  #tell(frame: ServerFrame): void {
    for (const { held, tell } of this.#subscribers.values()) {
      if (held === undefined) tell(frame);
      else held.push(frame);
    }
  }
}
