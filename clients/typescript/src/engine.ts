/** The world around a session: the clock, timers, transports, tokens. */
import type { NodeUrl } from './address.js';
import { lost, messageOf, SkywaveError, TokenError } from './errors.js';
import { Session } from './session.js';
import type { DialOutcome, DialRequest } from './session/opening.js';
import type { RouteOptions } from './session/route.js';
import type { Router } from './session/router.js';
import type { SessionIo, SessionOptions } from './session/state.js';
import type { Parts } from './parts.js';
import { within } from './within.js';

/** Gives a token whenever one is needed: at each connect and ahead of the expiry of the one before. */
export type GetToken = (request: { readonly signal: AbortSignal }) => string | Promise<string>;

export interface EngineOptions {
  readonly session: Omit<SessionOptions, 'addresses' | 'canRefresh'>;
  readonly urls: readonly NodeUrl[];
  readonly parts: Parts;
  readonly getToken: GetToken | undefined;
}

/** By so much the monotonic clock is late after a sleep. */
const SLEPT_MS = 1_000;
/** Timers cannot wait for longer: 2³¹−1 ms. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Engine implements SessionIo {
  readonly session: Session;
  readonly stateChanged: SessionIo['stateChanged'];
  readonly random = Math.random;
  readonly #options: EngineOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Infinity;
  /** By how much the clock is ahead of the monotonic one. */
  #aheadMs = 0;

  constructor(options: EngineOptions, stateChanged: SessionIo['stateChanged']) {
    this.#options = options;
    this.stateChanged = stateChanged;
    const [first, ...others] = options.urls.map((url) => options.parts.address(url));
    if (first === undefined) throw new TypeError('no address is given');
    const canRefresh = options.getToken !== undefined;
    this.session = new Session({ ...options.session, addresses: [first, ...others], canRefresh }, options.parts.network(), this);
  }

  /** In milliseconds since 1970, by a clock that is never set back. */
  now(): number {
    const [wall, steady] = [Date.now(), performance.now()];
    // It goes on while the system sleeps, which the monotonic clocks of some browsers do not.
    if (wall - steady > this.#aheadMs + SLEPT_MS) this.#aheadMs = wall - steady;
    return steady + this.#aheadMs;
  }

  route(options: RouteOptions): Router {
    return this.#options.parts.route(options, () => this.now());
  }

  dial(request: DialRequest, done: (outcome: DialOutcome) => void): () => void {
    return undoable(
      async (signal) => {
        const token = await this.#fetch(signal, request.timeoutMs);
        return { ...(await this.#options.parts.dial(request, signal)), token };
      },
      done,
      (error) => {
        done({ error: error instanceof SkywaveError ? error : lost('connection lost', error) });
      },
    );
  }

  /** A token, from wherever they come. Rejects with a `SkywaveError`. */
  async #fetch(signal: AbortSignal, timeoutMs: number): Promise<string | undefined> {
    const { getToken } = this.#options;
    if (getToken === undefined) return this.session.tokens.current;
    try {
      const token: unknown = await within(timeoutMs, signal, (given) => getToken({ signal: given }));
      // Without one, whoever it was for would become nobody: what comes as JSON need not be what its type says.
      if (typeof token === 'string') return token;
      throw new TypeError('it is no text');
    } catch (error) {
      if (error instanceof SkywaveError && !error.transient) throw error;
      throw new TokenError(`no token: ${messageOf(error)}`, { transient: true, cause: error });
    }
  }

  fetchToken(done: (token: string | undefined) => void): () => void {
    // Where there is none, the node says when the old one has expired; the source is asked again before and then.
    return undoable((signal) => this.#fetch(signal, this.#options.session.connectTimeoutMs), done, () => {
      done(undefined);
    });
  }

  schedule(at: number): void {
    // One that is early does no harm, and frames that come often need no new timer each.
    if (this.#timerAt <= at && at < Infinity) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    if (at === Infinity) return;
    const waitMs = Math.min(Math.max(at - this.now(), 0), LONGEST_TIMER_MS);
    this.#timer = setTimeout(() => {
      this.#timerAt = Infinity;
      this.session.tick();
    }, waitMs);
  }
}

/** Does something. Answers how to give up. */
function undoable<Result>(
  work: (signal: AbortSignal) => Promise<Result>,
  done: (result: Result) => void,
  failed: (error: unknown) => void,
): () => void {
  const controller = new AbortController();
  work(controller.signal).then(done, failed);
  return () => {
    controller.abort();
  };
}
