/** What the page's life and a change of the network mean for a session. */
import type { Network } from '../frames.js';
import type { PageFollower } from '../page_life.js';
import type { Session } from '../session.js';

/** Tells the node of the network. On another one, learns at once whether the connection still stands. */
export function networkChanged(session: Session, network: Network, isOther: boolean): void {
  session.network = network;
  // The one that is being opened was told of the network before.
  for (const link of [session.live, session.opening?.link]) link?.send(['network', network]);
  if (!isOther) return;
  if (session.due?.purpose === 'up') session.due = { ...session.due, at: session.now() };
  session.check();
}

/** The session, as whoever follows a page. */
export function pageFollower(session: Session): PageFollower {
  return {
    networkChanged: (network, isOther) => {
      networkChanged(session, network, isOther);
    },
    check: () => {
      session.check();
    },
    woke: () => {
      session.woke();
    },
  };
}
