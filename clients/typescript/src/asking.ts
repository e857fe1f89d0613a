/** What channels ask of the session, as promises: subscriptions, publishes, requests. */
import { onAbort } from './abort.js';
import type { RequestError } from './errors.js';
import type { Published } from './messages.js';
import type { OutboxEntry } from './outbox.js';
import type { Question, Reply, RequestFields } from './replies.js';
import type { Session } from './session.js';
import type { Traffic } from './session/traffic.js';

export interface AskOptions {
  readonly signal?: AbortSignal | undefined;
  /** Whether doing it twice does no harm. */
  readonly isRepeatable?: boolean;
  readonly timeoutMs?: number | undefined;
}

export class Asking {
  readonly session: Session;

  constructor(session: Session) {
    this.session = session;
  }

  get traffic(): Traffic {
    return this.session.traffic;
  }

  /** Why nothing can be asked. */
  get refusal(): RequestError | undefined {
    return this.session.refusal;
  }

  get isClosed(): boolean {
    return this.session.state === 'closed';
  }

  /** Publishes, and waits for the answer; a client with an outbox puts another way in its place. */
  publish = (entry: OutboxEntry, signal?: AbortSignal): Promise<Published> =>
    this.promise<Published>(signal, (resolve, reject) => this.push(entry, resolve, reject));

  /** Publishes. Answers how to take it back, which says whether that could be: it has not been sent. */
  push(
    entry: OutboxEntry,
    done: (published: Published) => void,
    failed: (error: RequestError) => void,
    sent?: (atMs: number) => void,
  ): () => boolean {
    const number = this.traffic.publish({ ...entry, sent, done, failed });
    this.session.settle();
    return () => this.traffic.publishes.withdraw(number);
  }

  /** Sends a request, now or once there is a connection, and waits for its reply. */
  ask<Name extends Question>(
    name: Name,
    fields: RequestFields<Name>,
    { signal, isRepeatable = true, timeoutMs }: AskOptions,
  ): Promise<Reply<Name>> {
    return this.promise<Reply<Name>>(signal, (resolve, reject) =>
      this.traffic.ask(name, fields, { isRepeatable, timeoutMs, done: resolve, failed: reject }),
    );
  }

  /**
   * A promise of something that `begin` begins. What that answers undoes it, once it is settled or `signal` aborts.
   * `isKept`: it waits for a session even where the node does not want this client.
   */
  promise<Value>(
    signal: AbortSignal | undefined,
    begin: (resolve: (value: Value) => void, reject: (error: unknown) => void) => () => unknown,
    isKept = false,
  ): Promise<Value> {
    let undo: (() => unknown) | undefined;
    let forget: (() => void) | undefined;
    return new Promise<Value>((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.refusal && (this.isClosed || !isKept)) throw this.refusal;
      forget = onAbort(signal, () => {
        reject(signal?.reason as Error);
      });
      undo = begin(resolve, reject);
      this.session.settle();
    }).finally(() => {
      forget?.();
      undo?.();
    });
  }
}
