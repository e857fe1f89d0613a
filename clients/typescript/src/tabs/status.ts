/** What the holder of the connection tells of it: what it is doing, why there is none, what carries the session. */
import { ConnectionError, OutcomeUnknownError, RequestError, SkywaveError, TokenError } from '../errors.js';
import type { Connection, State } from '../session/state.js';

/** An error as it goes from tab to tab. */
export interface ToldError {
  readonly name: string;
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  readonly transient: boolean;
  readonly retryAfterMs?: number | undefined;
}

export interface Status {
  readonly state: State;
  readonly error: ToldError | undefined;
  readonly retryAtMs: number | undefined;
  readonly connection: Connection | undefined;
}

/** Before anybody has told anything. */
export const UNKNOWN: Status = { state: 'connecting', error: undefined, retryAtMs: undefined, connection: undefined };

export function toTold({ name, code, reason, message, transient, retryAfterMs }: SkywaveError): ToldError {
  return { name, code, reason, message, transient, retryAfterMs };
}

export function fromTold({ name, code, reason, message, transient, retryAfterMs }: ToldError): SkywaveError {
  switch (name) {
    case 'RequestError':
      return new RequestError(code, reason, message, transient, { retryAfterMs });
    case 'OutcomeUnknownError':
      return new OutcomeUnknownError();
    case 'ConnectionError':
      return new ConnectionError(code, reason, message, transient, { retryAfterMs });
    case 'TokenError':
      return new TokenError(message, { transient });
    default:
      return new SkywaveError(code, reason, message, transient, { retryAfterMs });
  }
}
