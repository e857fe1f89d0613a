/** A node that is silent though something is due: it is asked, and then another connection is opened beside its own. */
import type { Session } from '../session.js';

/**
 * The least time from an attempt beside a connection that stands to the next doubt: a node that is merely slow has
 * enough to do.
 */
export const DOUBTS_APART_MS = 30_000;
/** A silence is suspicious when it has lasted for so long at least, and for three times what a reply is late after. */
const LEAST_SILENCE_MS = 1_500;
/** How quickly a node has to answer at least: four times what it usually takes, or this. */
const LEAST_CHECK_MS = 2_000;
/** By how much of its second half, after the node was asked, clients differ, so that not all of them come at once. */
const SPREAD = 0.4;

/** When a node is asked after it began to be silent; after as long again at least, another connection is opened. */
function askedAfterMs({ traffic }: Session): number {
  return Math.max(LEAST_SILENCE_MS, 3 * traffic.requests.trips.rtoMs) / 2;
}

/** When the node is asked because of its silence. */
export function nextDoubt(session: Session): number {
  const { live, traffic, doubtsFrom } = session;
  return live ? Math.max(live.silentSince(traffic.requests.waitsSince) + askedAfterMs(session), doubtsFrom) : Infinity;
}

/**
 * Asks the node for a sign of life, which has to come within so long at least. Before that another connection is opened
 * beside its own: where it drains, sooner than it has said.
 */
export function doubt(session: Session, withinMs = 0): void {
  const { live, due, traffic } = session;
  traffic.check(Math.max(LEAST_CHECK_MS, withinMs, 2 * askedAfterMs(session)));
  if (!live || session.opening) return;
  const at = session.now() + askedAfterMs(session) * (1 + SPREAD * session.random());
  const later = due?.purpose === 'drain' ? due : undefined;
  if (at < (due?.at ?? Infinity)) session.due = { at, purpose: 'connect', address: later?.address, later };
}
