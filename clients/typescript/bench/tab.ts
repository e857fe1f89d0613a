/** What a tab does while latency is measured: it holds one client and notes what arrives when. */
import { type NodeUrl, Skywave, type SkywaveOptions } from 'skywave';
import { clock } from './clock.js';

/** A publication of the measurement. */
export interface Stamp {
  readonly load: string;
  readonly sequence: number;
  /** By the publisher's clock, before it published. */
  readonly sentMs: number;
  readonly filler: string;
}

/** What arrived on a channel, in its order: the sequence number and the time it took, in milliseconds. */
export type Arrivals = [sequence: number, delayMs: number][];

/** A tab's script has it as `recorder`. */
export class Recorder {
  readonly now = clock;
  #client: Skywave | undefined;
  #load = '';
  #count = 0;
  readonly #arrivals = new Map<string, Arrivals>();
  readonly #breaks: string[] = [];

  /** Connects and subscribes; answers once all subscriptions stand. */
  async open(urls: NodeUrl, options: SkywaveOptions, channels: string[]): Promise<void> {
    const client = new Skywave(urls, options);
    this.#client = client;
    await client.connect();
    client.on('state', ({ state, error }) => {
      this.#breaks.push(`${state} (${error?.message ?? 'by itself'})`);
    });
    await Promise.all(
      channels.map(async (name) => {
        const channel = client.channel<Stamp>(name);
        channel.on('publication', ({ data }) => {
          this.#arrived(name, data);
        });
        await channel.subscribe();
      }),
    );
  }

  #arrived(channel: string, { load, sequence, sentMs }: Stamp): void {
    const delayMs = clock() - sentMs;
    if (load !== this.#load) return;
    this.#count += 1;
    const arrivals = this.#arrivals.get(channel);
    if (arrivals === undefined) this.#arrivals.set(channel, [[sequence, delayMs]]);
    else arrivals.push([sequence, delayMs]);
  }

  /** Forgets what was noted, and notes what is of `load`. */
  begin(load: string): void {
    this.#arrivals.clear();
    this.#load = load;
    this.#count = 0;
  }

  get count(): number {
    return this.#count;
  }

  /** All that was noted. */
  take(): Record<string, Arrivals> {
    return Object.fromEntries(this.#arrivals);
  }

  /** How the connection's state changed since it stood. */
  get breaks(): string[] {
    return this.#breaks;
  }

  close(): void {
    this.#breaks.length = 0;
    this.#client?.close();
  }
}
