/** Whether the tab that holds the connection still answers: asked again and again by a tab that needs it. */

/**
 * How often it is asked; each question lends the holder's client the timer that a browser may keep from a hidden tab.
 */
const INTERVAL_MS = 2_500;
/** So many questions without an answer, and it counts as hung. */
const MOST_UNANSWERED = 2;

export interface WatchEvents {
  /** Whether this tab depends on the answer: it is seen, and wants the connection. */
  isNeeded(): boolean;
  ask(): void;
  /** There was no answer. */
  missing(): void;
}

export class HolderWatch {
  readonly #events: WatchEvents;
  readonly #timer: ReturnType<typeof setInterval>;
  #unanswered = 0;
  #lookedAt = Date.now();

  constructor(events: WatchEvents) {
    this.#events = events;
    this.#timer = setInterval(() => {
      this.#look();
    }, INTERVAL_MS);
  }

  /** The holder has said something. */
  heard(): void {
    this.#unanswered = 0;
  }

  /** Asks at once, and counts from here on. */
  begin(): void {
    this.#unanswered = 0;
    this.#lookedAt = Date.now();
    this.#ask();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    // This tab, or the whole system, hung itself: the answers may still be on their way.
    const isLate = Date.now() - this.#lookedAt > 2 * INTERVAL_MS;
    this.#lookedAt = Date.now();
    if (isLate || !this.#events.isNeeded()) this.#unanswered = 0;
    if (this.#unanswered < MOST_UNANSWERED) this.#ask();
    else {
      this.#unanswered = 0;
      this.#events.missing();
    }
  }

  #ask(): void {
    if (!this.#events.isNeeded()) return;
    this.#unanswered += 1;
    this.#events.ask();
  }
}
