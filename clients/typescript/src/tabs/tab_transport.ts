/** The way from a tab to the hub, as a transport. */
import type { ClientFrame, ClientFrames, ServerFrame } from '../frames.js';
import { Receiving } from '../transport/receiving.js';
import type { Transport, TransportEvents } from '../transport.js';
import type { Handed } from './handed.js';
import type { TabMessage } from './messages.js';

/** What the transport has of its tab. */
export interface TabLine {
  readonly id: string;
  /** Whether the connection behind the hub stands. */
  readonly isUp: boolean;
  readonly handed: Handed;
  now(): number;
  post(message: TabMessage): void;
  /** Listens; answers how to stop. */
  hear(listener: (message: TabMessage) => void): () => void;
}

/** Whether the hub is over: it says so itself, or another one has begun. */
export function isEnd(message: TabMessage, hub: string): boolean {
  return message.kind === 'hub' ? message.hub !== hub : message.kind === 'gone' && message.hub === hub;
}

export class TabTransport implements Transport {
  /** To the session it is one like the other; what carries the hub's frames is told by its status. */
  readonly kind = 'websocket';
  readonly #line: TabLine;
  readonly #hub: string;
  readonly #receiving = new Receiving();
  readonly #stop: () => void;
  /** The publishes that the hub has not answered. */
  readonly #publishes = new Map<number, ClientFrames['publish']>();

  constructor(line: TabLine, hub: string) {
    this.#line = line;
    this.#hub = hub;
    this.#stop = line.hear((message) => {
      if (message.kind === 'told' && message.hub === hub && message.to.includes(line.id)) {
        this.#answered(message.content);
        this.#receiving.frames(() => [message.content]);
      } else if (isEnd(message, hub)) {
        this.#stop();
        this.#receiving.end(undefined, 'another tab holds the connection now');
      }
    });
  }

  /** An event that cannot go out now is better dropped. */
  get isCongested(): boolean {
    return !this.#line.isUp;
  }

  listen(events: TransportEvents): void {
    this.#receiving.listen(events);
  }

  send(frame: ClientFrame): boolean {
    if (this.#receiving.isOver) return true;
    const sentAtMs = frame[0] === 'publish' ? this.#hand(frame[1]) : undefined;
    const asked = { kind: 'asked', from: this.#line.id, hub: this.#hub, content: frame, askedAtMs: Date.now() } as const;
    this.#line.post(sentAtMs === undefined ? asked : { ...asked, sentAtMs });
    return true;
  }

  #hand(publish: ClientFrames['publish']): number | undefined {
    this.#publishes.set(publish.id, publish);
    return this.#line.handed.hand(publish, this.#line.isUp, this.#line.now());
  }

  #answered([name, body]: ServerFrame): void {
    const publish = (name === 'published' || name === 'error') && this.#publishes.get(body.id ?? 0);
    if (!publish) return;
    this.#publishes.delete(publish.id);
    // What is refused for the moment is handed on again: an earlier hub may have sent it all the same.
    if (name !== 'error' || !body.transient) this.#line.handed.answered(publish);
  }

  close(): void {
    if (!this.#receiving.isOver) this.#line.post({ kind: 'closed', from: this.#line.id, hub: this.#hub });
    this.#receiving.stop();
    this.#stop();
  }
}
