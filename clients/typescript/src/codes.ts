/** Error and close codes of the protocol, and which of them mean "try again" or "come back". */

/** The codes that this client treats apart; as constants, so that only these are in its code. */
export const FORBIDDEN = 103;
export const ALREADY_SUBSCRIBED = 105;
export const LIMIT_REACHED = 106;
export const TOKEN_EXPIRED = 3005;
export const OVERLOADED = 3006;
export const ROTATE = 3007;
export const REPLACED = 3500;
export const UNAUTHENTICATED = 3503;

/** Why a request failed; the session goes on. */
export const ErrorCode = {
  internal: 100,
  unauthenticated: 101,
  unknown_namespace: 102,
  forbidden: 103,
  not_subscribed: 104,
  already_subscribed: ALREADY_SUBSCRIBED,
  limit_reached: LIMIT_REACHED,
  bad_request: 107,
  not_available: 108,
  token_expired: 109,
  unavailable: 110,
  rate_limited: 111,
  timeout: 112,
} as const;

/** Why a transport ends: 3000–3499 the client comes back, 3500–3999 it does not. */
export const CloseCode = {
  drain: 3000,
  shutdown: 3001,
  heartbeat_timeout: 3002,
  slow_consumer: 3003,
  connect_timeout: 3004,
  token_expired: TOKEN_EXPIRED,
  overloaded: 3006,
  rotate: ROTATE,
  replaced: REPLACED,
  bad_frame: 3501,
  frame_too_large: 3502,
  unauthenticated: UNAUTHENTICATED,
  disconnected: 3504,
  too_many_sessions: 3505,
} as const;

/** Whether the same request may succeed later. */
export function isTransient(code: number): boolean {
  return code === 100 || (code >= 110 && code <= 112);
}
