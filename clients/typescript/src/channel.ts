/** One channel, as an application uses it. */
import { onAbort } from './abort.js';
import type { Asking } from './asking.js';
import type { ChannelEvents, ChannelOptions, HistoryOptions, HistoryPage, PublishOptions } from './channel_options.js';
import { Emitter, type Listener, type ListenOptions } from './emitter.js';
import { check, type InvalidDataError, type RequestError, requestError } from './errors.js';
import { isPosition } from './frame_shapes.js';
import type { ServerFrames, WireMember, WirePublication } from './frames.js';
import {
  type Member,
  type Publication,
  type Published,
  type Subscribed,
  toMember,
  toPublication,
} from './messages.js';
import { checkText, toPayload } from './payload.js';
import { type StandardSchema, validate } from './payload_schema.js';
import { earlier, isPast, moved, type Place, pointOf, type Position } from './position.js';
import { randomKey } from './random_key.js';
import { Reading } from './reading.js';
import { type ChannelReader, forgetOldest } from './session/subscription.js';
import { isText } from './text.js';

type Change = Omit<ServerFrames['presence_changed'], 'channel'>;

/** Listening to one of these subscribes. */
const SUBSCRIBING = ['publication', 'event', 'presence', 'subscribed', 'gap'] as const;
/** Listening to one of these waits for a subscription that somebody else makes. */
const WAITING = ['invalid', 'error'] as const;
const USUAL_QUEUE = 1_024;
const USUAL_HISTORY = 100;
/** How many members a node lists. */
const MOST_MEMBERS = 1_000;
/** After so long a node is asked again who is there that could not say it. */
const ASK_AGAIN_MS = 5_000;

/**
 * A channel. It is subscribed as long as somebody listens or iterates, or from `subscribe()` to `unsubscribe()`.
 *
 * An iteration holds a bounded queue. When its reader falls behind, the channel is left on the wire until half of the
 * queue is free, and taken up from where it was: a slow reader costs no memory and misses nothing.
 */
export class Channel<Message = unknown, Event = unknown> {
  readonly name: string;
  readonly #events = new Emitter<ChannelEvents<Message, Event>>(() => {
    this.#checkSoon();
  });
  readonly #asking: Asking;
  readonly #used: ((isUsed: boolean) => void) | undefined;
  readonly #reader: ChannelReader;
  readonly #readings = new Set<Reading<Publication<Message>>>();
  /** Who waits for the confirmation. */
  readonly #waiting = new Set<{ resolve: (subscribed: Subscribed) => void; reject: (error: RequestError) => void }>();
  #members = new Map<string, WireMember>();
  /** Of what was published here and is not to be heard, the newest ones. */
  readonly #ownKeys = new Set<string>();
  #options: ChannelOptions<Message, Event> = {};
  #isKept = false;
  #isStopped = false;
  #isSubscribed = false;
  #isChecking = false;
  /** What has changed since the members were asked for, while there is no answer. */
  #meanwhile: Change[] | undefined;
  /** Up to where listeners have heard. */
  #heard: Position | undefined;
  /**
   * Where the subscription has begun in epochs that are over: they are for whoever is still there. No epoch comes
   * again.
   */
  #back: Position | undefined;
  #subscribed: Subscribed | undefined;

  /** `used` is told whether somebody needs it to be there, though nobody may hold it. @internal */
  constructor(name: string, asking: Asking, used?: (isUsed: boolean) => void) {
    checkName(name);
    this.name = name;
    this.#asking = asking;
    this.#used = used;
    this.#reader = this.#toReader();
  }

  /** Changes how the next subscription begins; `presence` and schemas are for the present one as well. @internal */
  configure(options: ChannelOptions<Message, Event>): void {
    const { history, position } = options;
    if (history) checkPage(history);
    checkPosition(position);
    const isMore = this.#isSubscribed && options.presence && !this.#options.presence;
    // Several components may name the channel: what one leaves out is what another has said.
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this.#options = { ...this.#options, [name]: value as unknown };
    if (isMore) this.#beginAgain();
  }

  // ---- subscribing

  /** Whether the subscription stands. */
  get isSubscribed(): boolean {
    return this.#subscribed !== undefined;
  }

  /**
   * What has been handed out, to listeners and to the slowest iteration: to be kept where the next visit should go on
   * from here. It is there as long as the channel is subscribed.
   */
  get position(): Position | undefined {
    return this.#earliest(({ taken }) => taken);
  }

  /** Who is there, where `presence` was asked for. */
  get members(): readonly Member[] {
    return [...this.#members.values()].map(toMember);
  }

  /** Listens, which subscribes. Answers how to stop; the last one to stop unsubscribes. */
  on<Name extends keyof ChannelEvents<Message, Event>>(
    name: Name,
    listener: Listener<ChannelEvents<Message, Event>[Name]>,
    options?: ListenOptions,
  ): () => void {
    const remove = this.#events.on(name, listener, options);
    if ((SUBSCRIBING as readonly string[]).includes(name) && !options?.signal?.aborted) this.#wanted();
    this.#checkSoon();
    return remove;
  }

  /**
   * Subscribes, and stays subscribed until `unsubscribe()`. Waits until the node has confirmed it; rejects when that
   * cannot come any more.
   */
  subscribe({ signal }: { readonly signal?: AbortSignal } = {}): Promise<Subscribed> {
    return this.#asking.promise<Subscribed>(signal, (resolve, reject) => {
      this.#isKept = true;
      this.#isStopped = false;
      this.#check();
      if (this.#subscribed) resolve(this.#subscribed);
      const waiter = { resolve, reject };
      this.#waiting.add(waiter);
      return () => {
        this.#waiting.delete(waiter);
        // Given up before it stood: nobody has asked for it any more.
        if (signal?.aborted && this.#waiting.size === 0 && !this.isSubscribed) {
          this.#isKept = false;
          this.#checkSoon();
        }
      };
    });
  }

  /** Ends the subscription and all iterations, until somebody subscribes or listens anew. */
  unsubscribe(): void {
    this.#isKept = false;
    this.#isStopped = true;
    for (const reading of this.#readings) void reading.return();
    this.#fail(requestError('not_subscribed', 'unsubscribed'));
    this.#check();
  }

  /**
   * Ends the subscription, all iterations and listeners, and forgets the options: the channel is as if it had never
   * been named. There is no need for it where they end by themselves.
   */
  release(): void {
    this.unsubscribe();
    this.#events.clear();
    this.#options = {};
  }

  /** Iterates over the publications from now on, which subscribes. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Publication<Message>, undefined> {
    return this.publications();
  }

  /** Iterates over the publications from now on, until `signal` aborts. */
  publications({ signal }: { readonly signal?: AbortSignal } = {}): AsyncIterableIterator<Publication<Message>, undefined> {
    let forget: (() => void) | undefined;
    const reading = new Reading<Publication<Message>>(Math.max(this.#options.queue ?? USUAL_QUEUE, 1), () => {
      if (reading.isOver) {
        forget?.();
        if (this.#readings.delete(reading)) this.#checkSoon();
      } else if (reading.hasMuchRoom) {
        // Goes on with a channel that was left for the readers' sake, or goes back to where this one has fallen behind.
        if (reading.isBehind) this.#beginAgain();
        else this.#asking.traffic.resume(this.name);
      }
    });
    const end = (): void => {
      void reading.return();
    };
    const { refusal, isClosed } = this.#asking;
    if (signal?.aborted) end();
    else if (refusal) reading.end(isClosed ? undefined : refusal);
    else {
      forget = onAbort(signal, end);
      this.#readings.add(reading);
      // It begins at the position that was named for it, or with what comes next.
      const position = this.#start();
      reading.filled = position ?? this.#heard;
      if (position && this.#isSubscribed) this.#beginAgain();
      this.#wanted();
    }
    return reading;
  }

  /** The position that was named to begin at, once: another subscription begins anew. */
  #start(): Position | undefined {
    const { position, ...options } = this.#options;
    this.#options = options;
    return position;
  }

  /** Somebody has come who takes what comes, even if others do not. */
  #wanted(): void {
    this.#isStopped = false;
    this.#asking.traffic.resume(this.name);
    this.#checkSoon();
  }

  /**
   * Subscribes anew from where the slowest is, of those that have room: the others ask for what they miss once they
   * have.
   */
  #beginAgain(): void {
    for (const reading of this.#readings) reading.isBehind &&= !reading.hasMuchRoom;
    const position = this.#earliest(({ filled, isBehind }) => (isBehind ? undefined : filled));
    this.#asking.traffic.subscribe(this.name, { ...this.#options, position }, this.#reader);
  }

  /** Where the slowest is. One that has been given nothing yet begins where the subscription does. */
  #earliest(of: (reading: Reading<Publication<Message>>) => Position | undefined): Position | undefined {
    // The subscription itself may have gone back. Before it is confirmed nobody may know where it begins.
    const now = this.#heard ?? this.#asking.traffic.positionOf(this.name);
    let position = now;
    for (const reading of this.#readings) {
      const other = of(reading);
      if (other) position = position ? earlier(other, position, now ?? position) : other;
    }
    return position;
  }

  /** Looks whether to subscribe once the application has done what it is doing: it may be about to change it again. */
  #checkSoon(): void {
    if (this.#isChecking) return;
    this.#isChecking = true;
    queueMicrotask(() => {
      this.#isChecking = false;
      this.#check();
    });
  }

  #check(): void {
    const isNeeded = this.#isKept || this.#readings.size > 0 || this.#events.hasAny(SUBSCRIBING);
    this.#used?.(isNeeded || this.#events.hasAny(WAITING));
    const isWanted = isNeeded && !this.#isStopped;
    if (isWanted === this.#isSubscribed) return;
    this.#isSubscribed = isWanted;
    if (isWanted) {
      this.#heard = this.#start();
      this.#beginAgain();
    } else {
      this.#forget();
      this.#asking.traffic.unsubscribe(this.name);
    }
  }

  #forget(): void {
    this.#subscribed = undefined;
    this.#heard = undefined;
    this.#members.clear();
  }

  #toReader(): ChannelReader {
    return {
      // Listeners hear all, and a reader that is too slow for them goes back later.
      hasRoom: () => this.#events.hasAny(SUBSCRIBING) || this.#readings.size === 0 || [...this.#readings].some((reading) => reading.hasRoom),
      subscribed: (body, position) => {
        this.#confirmed(body, position);
      },
      publication: (wire, isRepeated) => {
        this.#publication(wire, isRepeated);
      },
      event: ({ channel, session, user, slot, data }) => {
        const checked = this.#valid(this.#options.eventSchema, data);
        if (checked) this.#events.emit('event', { data: checked.value, channel, session, user, slot });
      },
      gap: (gap) => {
        let isNew = !isPast(this.#heard, gap);
        if (isNew) this.#heard = moved(this.#heard, gap);
        // What a reader that has gone back does not get is lost as well, though others have it.
        for (const reading of this.#readings) if (!isPast(reading.filled, gap)) isNew = reading.pass(gap) || isNew;
        if (isNew) this.#events.emit('gap', gap);
      },
      presenceChanged: (changed) => {
        this.#meanwhile?.push(changed);
        apply(this.#members, changed);
        this.#presence(changed, changed.joined.length + changed.left.length);
      },
      refused: (error) => {
        // What stood is taken up again, and what was asked for in vain is not.
        this.#isKept &&= this.isSubscribed;
        this.#fail(error);
        this.#checkSoon();
      },
      ended: (error) => {
        this.#isKept = false;
        this.#isStopped = true;
        this.#isSubscribed = false;
        this.#forget();
        this.#fail(error);
        this.#events.emit('error', error);
        this.#checkSoon();
      },
    };
  }

  #publication(wire: WirePublication, isRepeated: boolean): void {
    // Not where it is there for a reader that has gone back.
    const isNew = !this.#isPast(this.#heard, wire);
    if (isNew) {
      this.#enter(wire.origin, wire.epoch, wire.offset - 1);
      this.#heard = moved(this.#heard, wire);
    }
    const isHidden = isRepeated || (this.#options.echo === false && this.#ownKeys.has(wire.key ?? ''));
    const publication = isHidden ? undefined : this.#checked(wire, isNew);
    for (const reading of this.#readings) {
      if (this.#isPast(reading.filled, wire)) continue;
      if (!publication) reading.pass(wire);
      else reading.push(publication);
    }
    if (publication && isNew) this.#events.emit('publication', publication);
  }

  /** Whether somebody at the position has seen the place, or has left its epoch. */
  #isPast(position: Position | undefined, place: Place): boolean {
    const { epoch } = pointOf(position, place.origin) ?? place;
    return epoch === place.epoch ? isPast(position, place) : pointOf(this.#back, place.origin)?.epoch === place.epoch;
  }

  #confirmed({ recovered, reason, recovers, presence }: ServerFrames['subscribed'], position: Position): void {
    this.#subscribed = { position, recovered, reason, recovers };
    this.#heard ??= position;
    this.#back = recovered === false ? position : undefined;
    for (const reading of this.#readings) reading.filled ??= position;
    for (const { resolve } of this.#waiting) resolve(this.#subscribed);
    this.#events.emit('subscribed', this.#subscribed);
    for (const [origin, { epoch, offset }] of Object.entries(recovered ? position : {})) this.#enter(origin, epoch, offset);
    if (presence) this.#found(presence);
  }

  /** Where somebody has named where to begin, the others may not have heard of an epoch. */
  #enter(origin: string, epoch: string, offset: number): void {
    if ((pointOf(this.#heard, origin)?.epoch ?? epoch) !== epoch) this.#reader.gap({ channel: this.name, origin, epoch, offset, reason: 'epoch_changed' });
  }

  /** `told`: how many were named. */
  #presence({ count, joined, left }: Change, told = 1): void {
    this.#events.emit('presence', { count, members: this.members, joined: joined.map(toMember), left: left.map(toMember) });
    // Changes were dropped on the way, or the node does not know by whom there was one. Of more than that it does not
    // tell the names.
    if ((told && this.#members.size) !== count && count <= MOST_MEMBERS) void this.#askMembers();
  }

  async #askMembers(): Promise<void> {
    if (this.#meanwhile) return;
    let presence: ServerFrames['presence'] | undefined;
    do {
      this.#meanwhile = [];
      presence = await this.#who().catch(() => new Promise<undefined>((later) => setTimeout(later, ASK_AGAIN_MS)));
      // The next connection begins with a list.
    } while (!presence && this.#asking.session.live && this.isSubscribed);
    if (presence && this.isSubscribed) this.#found(presence, this.#meanwhile);
    this.#meanwhile = undefined;
  }

  /** Who is there, and what has changed since, some of which that may know. */
  #found({ count, members }: Pick<ServerFrames['presence'], 'count' | 'members'>, since: readonly Change[] = []): void {
    const before = this.#members;
    const there = (this.#members = new Map(members.map((member) => [member.session, member])));
    // What was told before it is of no account to an older one that is still to come.
    this.#meanwhile &&= [];
    for (const change of since) {
      apply(there, change);
      count = change.count;
    }
    const joined = [...there.values()].filter(({ session }) => !before.has(session));
    const left = [...before.values()].filter(({ session }) => !there.has(session));
    this.#presence({ count, joined, left });
  }

  /** `isNew`: it has not been told before. */
  #checked(wire: WirePublication, isNew = true): Publication<Message> | undefined {
    const checked = this.#valid(this.#options.schema, wire.data, isNew);
    return checked && toPublication(wire, checked.value);
  }

  #valid<Value>(schema: StandardSchema<Value> | undefined, data: unknown, isNew = true): { value: Value } | undefined {
    try {
      return { value: validate(schema, data) };
    } catch (error) {
      if (isNew) this.#events.emit('invalid', error as InvalidDataError);
      return undefined;
    }
  }

  /** Tells whoever iterates or waits for the confirmation that there is nothing to wait for. */
  #fail(error: RequestError): void {
    for (const reading of this.#readings) reading.end(this.#asking.isClosed ? undefined : error);
    for (const { reject } of this.#waiting) reject(error);
  }

  // ---- requests

  /**
   * Publishes, and waits for the position that the publication got. It is sent again, with the same key, after a break
   * or a transient error, until it is answered: its effect is one. Needs the right, not a subscription.
   */
  async publish(data: Message, { key = randomKey(), signal }: PublishOptions = {}): Promise<Published> {
    validate(this.#options.schema, data);
    checkText(key, 64);
    const entry = { channel: this.name, data: toPayload(data), key };
    if (this.#options.echo === false) forgetOldest(this.#ownKeys.add(key));
    return this.#asking.publish(entry, signal);
  }

  /**
   * Sends an event to whoever is there now; it may be lost. Of those with the same `slot` only the latest matters.
   * Answers whether it went out: without a connection, or when too much waits already, it does not.
   */
  emit(data: Event, { slot }: { readonly slot?: string } = {}): boolean {
    validate(this.#options.eventSchema, data);
    checkText(slot, 64);
    return this.#asking.traffic.emit(this.name, toPayload(data), slot);
  }

  /** Reads retained publications. */
  async history({ limit = USUAL_HISTORY, after, before, signal }: HistoryOptions = {}): Promise<HistoryPage<Message>> {
    checkPage(limit, after, before);
    const body = await this.#asking.ask('history', { channel: this.name, limit, after, before }, { signal });
    const publications = body.publications.flatMap((wire) => this.#checked(wire) ?? []);
    return { publications, cursor: body.cursor, more: body.more ?? false };
  }

  /** Asks who is subscribed, on all nodes of all regions. */
  async presence({ signal }: { readonly signal?: AbortSignal } = {}): Promise<{ count: number; members: readonly Member[] }> {
    const { count, members } = await this.#who(signal);
    return { count, members: members.map(toMember) };
  }

  #who(signal?: AbortSignal): Promise<ServerFrames['presence']> {
    return this.#asking.ask('presence', { channel: this.name }, { signal });
  }
}

function apply(members: Map<string, WireMember>, { joined, left }: Change): void {
  for (const { session } of left) members.delete(session);
  for (const member of joined) members.set(member.session, member);
}

/** @throws RequestError for what a node does not give at once. */
function checkPage(count: number, after?: Position, before = ''): void {
  checkPosition(after);
  checkText(before, 128);
  check(Number.isInteger(count) && count >= 1 && count <= 1_000 && !(after && before), 'a page has 1 to 1,000, after or before');
}

/** @throws RequestError for what is no position. */
function checkPosition(position: Position | undefined): void {
  check(position === undefined || isPosition(position), 'no position');
}

/** @throws RequestError for what is no channel's name. */
function checkName(name: string): void {
  const isRight = /^(@|[a-z0-9_-]{1,32}:)\P{Cc}+$/u.test(name) && isText(name, 255);
  check(isRight, 'a channel is `namespace:name` or `@user`');
}
