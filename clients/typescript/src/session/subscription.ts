/** One subscribed channel: its position, the keys seen, and what is handed to the application. */
import type { RequestError } from '../errors.js';
import type { ServerFrame, ServerFrames, SubscribeOptions, WirePublication } from '../frames.js';
import { isNext, isPast, moved, type Position } from '../position.js';

/** How many keys of a channel are remembered: a publication with one of them is a repetition, or one's own. */
const REMEMBERED_KEYS = 1_000;

/** Of so many keys that one more has just been added, forgets the oldest. */
export function forgetOldest(keys: Map<string, unknown> | Set<string>): void {
  const [oldest = ''] = keys.keys();
  if (keys.size > REMEMBERED_KEYS) keys.delete(oldest);
}

/** The reader of a channel. */
export interface ChannelReader {
  /** Whether a further publication, gap or change would be taken; when not, the channel is left until there is room. */
  hasRoom(): boolean;
  subscribed(subscribed: ServerFrames['subscribed'], position: Position): void;
  /** `isRepeated`: another one with its key came before, so it is to be passed over. */
  publication(publication: WirePublication, isRepeated: boolean): void;
  event(event: ServerFrames['event']): void;
  /** Perhaps one that was told before, on another connection. */
  gap(gap: ServerFrames['gap']): void;
  presenceChanged(changed: ServerFrames['presence_changed']): void;
  /** The node does not want this client: whoever waits is told, and the subscription is kept. */
  refused?(error: RequestError): void;
  /** The node will not have this subscription, or the client is closed. */
  ended(error: RequestError): void;
}

/** Why a frame could not be handed on, which leaves the position before it. */
export type Obstacle = 'full' | 'out_of_order';

export class Subscription {
  /** What the reader has; none before the first `subscribed`. */
  position: Position | undefined;
  /** Left on the wire for now: the reader has no room, or the node asked to come back later. */
  isPaused = false;
  /** When a paused one is asked for again. */
  resumeAt = Infinity;
  failures = 0;
  failedAt = 0;
  readonly reader: ChannelReader;
  readonly #options: SubscribeOptions;
  /** Where each was seen first. */
  readonly keys: Map<string, string>;

  /** `keys`: those of the one that this one takes the place of. */
  constructor(options: SubscribeOptions, reader: ChannelReader, keys = new Map<string, string>()) {
    this.keys = keys;
    this.position = options.position;
    this.#options = options;
    this.reader = reader;
  }

  /** How to subscribe now: from the position held, or as at first. */
  request(): SubscribeOptions {
    const { position } = this;
    const { history, presence } = this.#options;
    return { position, history: position === undefined && history !== 0 ? history : undefined, presence };
  }

  subscribed(body: ServerFrames['subscribed']): void {
    // One that is held already may be ahead of where the node begins, and is never behind.
    this.position ??= body.position;
    this.reader.subscribed(body, this.position);
  }

  /** Hands on a frame of this channel that came after `subscribed`, or says why not. */
  deliver([name, body]: ServerFrame): Obstacle | undefined {
    // Ephemeral: for a reader that is too slow it is over.
    if (name === 'event') this.reader.event(body);
    else if (!this.reader.hasRoom()) return 'full';
    else if (name === 'publication') return this.#publication(body);
    else if (name === 'gap') this.#gap(body);
    else if (name === 'presence_changed') this.reader.presenceChanged(body);
    return undefined;
  }

  #publication(publication: WirePublication): Obstacle | undefined {
    const { origin, epoch, offset, key } = publication;
    if (!this.position) return 'out_of_order';
    if (isPast(this.position, publication)) return undefined;
    if (!isNext(this.position, publication)) return 'out_of_order';
    this.position = moved(this.position, publication);
    this.reader.publication(publication, key !== undefined && !this.#isNew(key, `${origin} ${epoch} ${offset}`));
    return undefined;
  }

  #isNew(key: string, place: string): boolean {
    const known = this.keys.get(key);
    // A reader that went back gets again what it got there.
    if (known !== undefined) return known === place;
    this.keys.set(key, place);
    forgetOldest(this.keys);
    return true;
  }

  #gap(gap: ServerFrames['gap']): void {
    if (!isPast(this.position, gap)) this.position = moved(this.position, gap);
    this.reader.gap(gap);
  }
}
