/** Every error that an application meets: subclasses of {@link SkywaveError}. */
import { isTransient } from './codes.js';

/** Those of the protocol's error codes that this side uses by itself. */
const CODES = {
  internal: 100,
  unauthenticated: 101,
  not_subscribed: 104,
  limit_reached: 106,
  bad_request: 107,
  unavailable: 110,
  timeout: 112,
} as const;

/** What all errors of this package have in common. */
export class SkywaveError extends Error {
  override readonly name: string = 'SkywaveError';
  /** One of the protocol's error or close codes, the fitting one for what failed on this side. */
  readonly code: number;
  /** The word for `code`. */
  readonly reason: string;
  /** Whether the same may succeed later. */
  readonly transient: boolean;
  /** How long to wait before it is tried again, in milliseconds, where the node said so. */
  readonly retryAfterMs: number | undefined;

  constructor(code: number, reason: string, message: string, transient: boolean, details: ErrorOptions & { readonly retryAfterMs?: number | undefined } = {}) {
    super(message, details);
    this.code = code;
    this.reason = reason;
    this.transient = transient;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** A request failed; the session goes on. */
export class RequestError extends SkywaveError {
  override readonly name: string = 'RequestError';
}

/** The word for {@link OutcomeUnknownError}, as tabs tell it to each other. */
export const OUTCOME_UNKNOWN = 'outcome_unknown';

/**
 * A publish was sent and not answered. It is not sent again, because the nodes may have forgotten its key: it may have
 * taken effect, and would do so twice. Whoever needs to know looks at the channel's history.
 */
export class OutcomeUnknownError extends RequestError {
  override readonly name: string = 'OutcomeUnknownError';

  constructor() {
    super(CODES.timeout, OUTCOME_UNKNOWN, 'it may have taken effect', false);
  }
}

/** There is no connection, or it ended. */
export class ConnectionError extends SkywaveError {
  override readonly name: string = 'ConnectionError';
}

/** No token could be had. Thrown by `getToken` with `transient: false`, it ends the attempts to connect. */
export class TokenError extends SkywaveError {
  override readonly name: string = 'TokenError';

  constructor(message: string, options: { transient: boolean; cause?: unknown }) {
    super(CODES.unauthenticated, 'unauthenticated', message, options.transient, { cause: options.cause });
  }
}

/** What is wrong with a value, as a schema tells it. */
export interface Issue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** A payload is not what the channel's schema asks for. */
export class InvalidDataError extends SkywaveError {
  override readonly name: string = 'InvalidDataError';
  readonly issues: readonly Issue[];

  constructor(issues: readonly Issue[]) {
    const message = issues.map((issue) => issue.message).join('; ');
    super(CODES.bad_request, 'bad_request', message, false);
    this.issues = issues;
  }
}

/** An error of this side, with the protocol's code that fits. */
export function requestError(reason: keyof typeof CODES, message: string, transient = isTransient(CODES[reason])): RequestError {
  return new RequestError(CODES[reason], reason, message, transient);
}

/** @throws RequestError for what no node would take; nodes end the session of a client that goes on asking for such. */
export function check(isRight: boolean, rule: string): void {
  if (!isRight) throw requestError('bad_request', rule);
}

/** A connection that is lost for no reason that the node gave. */
export function lost(message: string, cause?: unknown): ConnectionError {
  return new ConnectionError(CODES.unavailable, 'unavailable', message, true, { cause });
}

/** A frame that the node would not take, and would end the session for. */
export function tooLarge(maxBytes: number): RequestError {
  return requestError('bad_request', `more than ${maxBytes} bytes`);
}

/** Shows what is not this package's to handle like any uncaught error; it must not harm the session. */
export function report(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
