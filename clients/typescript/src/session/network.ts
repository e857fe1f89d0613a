/** What a change of the network means for a session. */
import type { Network } from '../frames.js';
import type { Session } from '../session.js';

/** Tells the node of the network. On another one, learns at once whether the connection still stands. */
export function networkChanged(session: Session, network: Network, isOther: boolean): void {
  session.network = network;
  session.live?.send(['network', network]);
  if (!isOther) return;
  if (session.due?.purpose === 'up') session.due = { ...session.due, at: session.now() };
  session.check();
}
