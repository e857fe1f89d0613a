/** Where a session goes while it stands: because its node drains, or because there is a better one. */
import { OVERLOADED, TOKEN_EXPIRED } from '../codes.js';
import type { SkywaveError } from '../errors.js';
import type { ServerFrames } from '../frames.js';
import type { Session } from '../session.js';
import type { Link } from './link.js';
import type { Purpose } from './opening.js';

/** The longest time within which the clients of a node spread that it wants gone. */
const HOUR_MS = 3_600_000;

/** The node wants this client gone; all its clients spread over the first half of the time. */
export function drain(session: Session, link: Link, { after_ms, url }: ServerFrames['drain']): void {
  const { due, pace, route } = session;
  const now = session.now();
  // A node that repeats itself does not make it a better connection.
  if (!link.isDrained) pace.credit(now - link.since);
  link.isDrained = true;
  const at = Math.max(now + Math.min((after_ms / 2) * session.random(), HOUR_MS), link.stayUntil);
  const before = due?.purpose === 'drain' ? due : undefined;
  // Told again: the newest word says where to, the earliest one when.
  const address = route.trusted?.(url) ?? before?.address;
  session.due = { at: Math.min(at, before?.at ?? Infinity), address, purpose: 'drain' };
}

/** A move failed: the session goes on where it is. */
export function stay(session: Session, live: Link, purpose: Purpose, error: SkywaveError): void {
  const { route } = session;
  if (purpose === 'up') route.upFailed?.(live.address);
  if (error.code === OVERLOADED) live.isSpared = true;
  // Where it is for want of another token, the others would say the same.
  const isOthersTurn = error.transient && !route.isExhausted && error.code !== TOKEN_EXPIRED;
  // Nodes that are slow are asked once: the next round begins when the old connection is dead.
  if (purpose === 'connect' && isOthersTurn && live.isDoubted) session.open(purpose);
  else if (purpose === 'drain' && error.transient) {
    // The old connection ends sooner or later: try again until then, where the node said meanwhile.
    live.stayUntil = session.now() + (isOthersTurn ? 0 : session.backOff(error));
    session.due = { ...session.due, purpose, at: live.stayUntil };
  } else stand(session, live);
}

/** There is no need to go elsewhere, and perhaps a reason. */
export function stand(session: Session, { address, transport }: Link, preferUrl?: string): void {
  const { due, route } = session;
  // The node drains: it said so while the session was about to go somewhere else.
  if (due?.purpose !== 'drain') session.due = due?.later ?? route.next?.(address, transport.kind, preferUrl);
}
