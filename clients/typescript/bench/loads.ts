/** What is published while latency is measured: one busy channel and nine quiet ones. */
import { setTimeout as pause } from 'node:timers/promises';
import { Skywave } from 'skywave';
import WebSocket from 'ws';
import { clock } from './clock.js';
import type { Stamp } from './tab.js';

export interface Stream {
  /** Publications per second on each channel; those of a burst count as one. */
  readonly perSecond: number;
  readonly bytes: number;
  /** So many at once. */
  readonly burst: number;
}

export interface Load {
  readonly name: string;
  readonly words: string;
  readonly busy: Stream;
  readonly quiet: Stream;
}

export const BUSY = 'chat:busy';
export const QUIET = Array.from({ length: 9 }, (_, index) => `chat:quiet-${index + 1}`);
export const CHANNELS = [BUSY, ...QUIET];

const quiet: Stream = { perSecond: 4, bytes: 100, burst: 1 };

// CUBIC brings about 100 KB/s over a path with 80 ms and 2 % loss, TCP's as well as QUIC's.
export const LOADS: readonly Load[] = [
  { name: 'steady', words: '1 KB, 20 times a second', busy: { perSecond: 20, bytes: 1_000, burst: 1 }, quiet },
  { name: 'heavy', words: '3 KB, 20 times a second', busy: { perSecond: 20, bytes: 3_000, burst: 1 }, quiet },
  { name: 'bursts', words: '192 × 4 KB at once, every 20 seconds', busy: { perSecond: 0.05, bytes: 4_000, burst: 192 }, quiet },
];

/** How many were published on each channel. */
export type Counts = Record<string, number>;

/** A client beside the node, which publishes. */
export class Publisher {
  readonly #client: Skywave;
  readonly #failures: unknown[] = [];

  private constructor(client: Skywave) {
    this.#client = client;
  }

  static async open(url: string): Promise<Publisher> {
    const client = new Skywave(url, { transport: 'websocket', WebSocket });
    await client.connect();
    return new Publisher(client);
  }

  /** Publishes for so long, and answers how much. */
  async run(load: Load, seconds: number): Promise<Counts> {
    const begin = performance.now();
    const counts = await Promise.all([
      this.#publish(load.name, BUSY, load.busy, begin, seconds),
      // Spread over the interval, so that they do not come in one packet.
      ...QUIET.map((channel, index) => {
        const phase = ((index + 0.5) / QUIET.length) * (1_000 / load.quiet.perSecond);
        return this.#publish(load.name, channel, load.quiet, begin + phase, seconds);
      }),
    ]);
    if (this.#failures.length > 0) throw new Error('the node refused a publication', { cause: this.#failures[0] });
    return Object.fromEntries(CHANNELS.map((channel, index) => [channel, counts[index] ?? 0]));
  }

  async #publish(load: string, name: string, stream: Stream, begin: number, seconds: number): Promise<number> {
    const channel = this.#client.channel<Stamp>(name);
    const filler = 'x'.repeat(stream.bytes);
    const rounds = Math.ceil(seconds * stream.perSecond);
    const answers: Promise<unknown>[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const due = begin + (round / stream.perSecond) * 1_000;
      await pause(Math.max(0, due - performance.now()));
      for (let index = 0; index < stream.burst; index += 1) {
        const sequence = round * stream.burst + index;
        const stamp = { load, sequence, sentMs: clock(), filler };
        answers.push(channel.publish(stamp).catch((error: unknown) => this.#failures.push(error)));
      }
    }
    await Promise.all(answers);
    return rounds * stream.burst;
  }

  close(): void {
    this.#client.close();
  }
}
