/** What a client has seen of a channel: origin → (epoch, offset). */

/** The last publication seen of one origin. */
export interface Point {
  /** Names one life of the offsets; a new one means that history was lost. */
  readonly epoch: string;
  readonly offset: number;
}

/** Origin → point. An absent origin means "from its beginning". */
export type Position = Readonly<Record<string, Point>>;

/** Whether the publication that stands at a place is the one after the position. Offsets begin at 1. */
export function isNext(position: Position, { origin, epoch, offset }: Place): boolean {
  const seen = pointOf(position, origin) ?? { epoch, offset: 0 };
  return seen.epoch === epoch && offset === seen.offset + 1;
}

/** Where something stands. */
export interface Place extends Point {
  readonly origin: string;
}

/** The position of somebody who has seen the place and all before it. */
export function moved(position: Position = {}, { origin, epoch, offset }: Place): Position {
  return { ...position, [origin]: { epoch, offset } };
}

/** Whether somebody at the position has seen the place already. */
export function isPast(position: Position = {}, { origin, epoch, offset }: Place): boolean {
  const seen = pointOf(position, origin);
  return seen?.epoch === epoch && offset <= seen.offset;
}

/** Where both have been, of which one may be further on. Epochs other than those of `now` are over. */
export function earlier(one: Position, other: Position, now: Position): Position {
  let both: Position = {};
  for (const [origin, point] of Object.entries(one)) {
    const known = pointOf(other, origin);
    if (!known) continue;
    const isEarlier = known.epoch === point.epoch ? point.offset < known.offset : known.epoch === pointOf(now, origin)?.epoch;
    both = { ...both, [origin]: isEarlier ? point : known };
  }
  return both;
}

/** Where a position stands in `origin`. */
export function pointOf(position: Position = {}, origin: string): Point | undefined {
  return Object.hasOwn(position, origin) ? position[origin] : undefined;
}
