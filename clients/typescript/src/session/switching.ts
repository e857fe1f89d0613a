/** The move to the transport that the application chooses, make before break. */
import { lost, type SkywaveError } from '../errors.js';
import type { Session } from '../session.js';
import type { TransportChoice } from '../transport_kind.js';

/** Moves; the choice stands from then on, unless the move fails. Answers how to give up. */
export function switchTo(session: Session, choice: TransportChoice, settle: (error?: SkywaveError) => void): () => void {
  const { live, route } = session;
  if (live === undefined || session.opening !== undefined) {
    settle(lost('cannot move now'));
    return () => undefined;
  }
  const before = route.choose?.(choice);
  const opening = session.open('switch', live.address, choice, (error) => {
    if (error !== undefined && before !== undefined) route.choose?.(before);
    settle(error);
  });
  session.settle();
  return () => {
    if (session.opening !== opening) return;
    session.fail(opening, lost('given up'));
    session.settle();
  };
}
