/** Which frame answers which request, unless an error does. `connect` is none: the session itself looks to it. */
import type { ClientFrames, ServerFrames } from './frames.js';

export const REPLIES = {
  subscribe: 'subscribed',
  unsubscribe: 'unsubscribed',
  publish: 'published',
  history: 'history',
  presence: 'presence',
  call: 'result',
  refresh: 'refreshed',
} as const satisfies { [Name in keyof ClientFrames]?: keyof ServerFrames };

export type RequestName = keyof typeof REPLIES;
/** What an application asks, of which nothing is kept once it is answered. */
export type Question = 'history' | 'presence' | 'call' | 'refresh';

/** A request's fields, but for its id. */
export type RequestFields<Name extends RequestName> = Omit<ClientFrames[Name], 'id'>;
export type Reply<Name extends RequestName> = ServerFrames[(typeof REPLIES)[Name]];
