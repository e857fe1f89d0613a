/** What a tab does while something is broken on purpose: it holds one client, and tells what becomes of it. */
import { type Published, Skywave, type SkywaveOptions } from 'skywave';

/** What came of a client, in its order. */
export type News =
  /** The node that serves it now, if any. */
  | { node: string | null }
  | { publication: { channel: string; data: unknown; place: Published } }
  | { gap: { channel: string; place: Published } }
  /** The subscription is over. */
  | { ended: { channel: string; reason: string } };

// Carries text out of the tab.
declare const tell: (text: string) => void;

/** What comes within so long goes together: each telling costs more than what it tells. */
const TELLING_MS = 20;

const place = ({ origin, epoch, offset }: Published): Published => ({ origin, epoch, offset });

/** A tab's script has it as `member`. */
export class FaultMember {
  #client: Skywave | undefined;
  #news: News[] = [];

  /** Connects and subscribes; answers once all subscriptions stand. */
  async open(urls: string[], options: SkywaveOptions, channels: string[]): Promise<void> {
    const client = new Skywave(urls, options);
    this.#client = client;
    client.on('state', () => {
      this.#tell({ node: client.connection?.node ?? null });
    });
    await client.connect();
    await Promise.all(channels.map((name) => this.#subscribe(client, name)));
  }

  async #subscribe(client: Skywave, name: string): Promise<void> {
    const channel = client.channel(name);
    channel.on('publication', (publication) => {
      this.#tell({ publication: { channel: name, data: publication.data, place: place(publication) } });
    });
    channel.on('gap', (gap) => {
      this.#tell({ gap: { channel: name, place: place(gap) } });
    });
    channel.on('error', ({ message }) => {
      this.#tell({ ended: { channel: name, reason: message } });
    });
    await channel.subscribe();
  }

  async publish(channel: string, data: unknown): Promise<Published> {
    if (this.#client === undefined) throw new Error('there is no client');
    return place(await this.#client.channel(channel).publish(data));
  }

  close(): void {
    this.#client?.close();
  }

  #tell(news: News): void {
    this.#news.push(news);
    if (this.#news.length > 1) return;
    setTimeout(() => {
      tell(JSON.stringify(this.#news));
      this.#news = [];
    }, TELLING_MS);
  }
}
