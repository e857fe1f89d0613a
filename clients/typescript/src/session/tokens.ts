/** The tokens of a session: which one it begins with, which one a node has taken, and bringing the next one in time. */
import type { Session } from '../session.js';
import type { SessionIo } from './state.js';
import { TokenSchedule } from './token_schedule.js';

export class Tokens extends TokenSchedule {
  /** The one that the next connection begins with, unless there is something that gives them. */
  current: string | undefined;
  /** The one that a node took last; before that, the one to begin with. */
  former: string | undefined;
  readonly #session: Session;
  readonly #io: SessionIo;
  readonly #canRefresh: boolean;

  constructor(session: Session, io: SessionIo, canRefresh: boolean, given: string | undefined) {
    super();
    this.#session = session;
    this.#io = io;
    this.#canRefresh = canRefresh;
    this.former = this.current = given;
  }

  /** A node has taken this token, which expires then. */
  taken(token: string | undefined, atMs: number | undefined): void {
    const session = this.#session;
    this.former = token;
    if (session.connection) session.connection = { ...session.connection, expiresAtMs: atMs };
    if (this.#canRefresh) this.expires(atMs, session.now(), token);
    // The application has brought another one since this one was on its way.
    else if (token !== this.current) this.renew();
    session.settle();
  }

  /**
   * A node does not take it: the one before counts again, unless another one was brought since. Answers whether there
   * is no other.
   */
  refused(token: string | undefined): boolean {
    if (this.current === token) this.current = this.former;
    return this.current === token;
  }

  /** Has a new one fetched, and brings it. */
  renew(): void {
    const session = this.#session;
    const failed = (): void => {
      this.failed(session.now());
    };
    this.stop();
    this.giveUp = this.#io.fetchToken((token) => {
      const { live } = session;
      if (live && token !== undefined) {
        session.traffic.requests.send(live, session.now(), 'refresh', { token }, {
          done: ({ expires_at_ms: atMs }) => {
            this.taken(token, atMs);
          },
          failed,
        });
      } else if (live) failed();
      session.settle();
    });
  }
}
