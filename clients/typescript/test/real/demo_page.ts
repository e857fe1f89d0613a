/** The demo page of a node, as a person sees and uses it. */
import type { TransportChoice } from 'skywave';
import type { TestNode } from './node.js';
import type { Visit } from './places.js';
import { freshChannel, type Stage, until } from './stage.js';

/** Of a publication. */
export interface Message {
  offset: number;
  text: string;
}

/** What a pane shows, all at one moment. */
export interface Shown {
  state: string;
  transport: string;
  session: string;
  name: string;
  resumed: string;
  rtt: string;
  heartbeat: string;
  position: string;
  notice: string;
  typing: string;
  present: string[];
  pending: string[];
  messages: Message[];
  /** What the page tells between the messages. */
  said: string[];
  frames: string[];
  lanes: string[];
}

export interface DemoPage {
  readonly channel: string;
  readonly left: Person;
  readonly right: Person;
}

/** What the page tells where it cannot even begin. */
export async function seesTrouble(stage: Stage, node: TestNode, channel: string): Promise<string> {
  const visit = await stage.visit(`${node.page}/?${new URLSearchParams({ channel }).toString()}`);
  const read = (): Promise<string> => visit.evaluate(() => document.querySelector('#trouble:not([hidden])')?.textContent ?? '');
  return until('what is wrong', read, (text) => text !== '');
}

/** Opens the page for a channel of its own, unless one is named, and waits until both people are there. */
export async function openDemo(stage: Stage, node: TestNode, transport: TransportChoice, channel = freshChannel()): Promise<DemoPage> {
  const page = await openUnconnected(stage, node, transport, channel);
  await Promise.all([page.left.waitUntil('connected'), page.right.waitUntil('connected')]);
  return page;
}

export async function openUnconnected(stage: Stage, node: TestNode, transport: TransportChoice, channel = freshChannel()): Promise<DemoPage> {
  const parameters = new URLSearchParams({ transport, channel });
  const visit = await stage.visit(`${node.page}/?${parameters.toString()}`);
  const panes = (): Promise<number> => visit.evaluate(() => document.querySelectorAll('[data-pane]').length);
  await until('both panes', panes, (count) => count === 2);
  return { channel, left: new Person(visit, 'left'), right: new Person(visit, 'right') };
}

/** One of the two panes. */
export class Person {
  readonly #visit: Visit;
  readonly #selector: string;

  constructor(visit: Visit, side: string) {
    this.#visit = visit;
    this.#selector = `[data-pane="${side}"]`;
  }

  look(): Promise<Shown> {
    return this.#visit.evaluate((selector): Shown => {
      const find = (within: ParentNode, what: string): HTMLElement => {
        const found = within.querySelector<HTMLElement>(what);
        if (found === null) throw new Error(`no ${what}`);
        return found;
      };
      const pane = find(document, selector);
      const field = (name: string): HTMLElement => find(pane, `[data-field="${name}"]`);
      const text = (name: string): string => field(name).textContent;
      const lines = (name: string): HTMLElement[] => [...field(name).children] as HTMLElement[];
      const { state = '', transport = '', session = '' } = pane.dataset;
      return {
        state,
        transport,
        session,
        name: text('name'),
        resumed: text('resumed'),
        rtt: text('rtt'),
        heartbeat: text('heartbeat'),
        position: text('position'),
        notice: field('notice').hidden ? '' : text('notice'),
        typing: text('typing'),
        present: lines('members').map((line) => line.textContent),
        pending: lines('pending').map(({ dataset }) => dataset['text'] ?? ''),
        messages: lines('messages').flatMap(({ dataset }) =>
          dataset['offset'] === undefined ? [] : [{ offset: Number(dataset['offset']), text: dataset['text'] ?? '' }],
        ),
        said: lines('messages').flatMap((line) => (line.classList.contains('said') ? [line.textContent] : [])),
        frames: lines('frames').map((line) => line.textContent),
        lanes: [...new Set(lines('frames').map(({ dataset }) => dataset['lane'] ?? ''))].sort(),
      };
    }, this.#selector);
  }

  /** Looks until `isRight(shown)`; answers what is shown then. */
  sees(what: string, isRight: (shown: Shown) => boolean): Promise<Shown> {
    return until(what, () => this.look(), isRight);
  }

  /** `connected` means subscribed as well. */
  waitUntil(state: string): Promise<Shown> {
    return this.sees(`the state “${state}”`, (shown) => shown.state === state && (state !== 'connected' || shown.present.length > 0));
  }

  seesMessages(count: number): Promise<Shown> {
    return this.sees(`${count} messages`, ({ messages }) => messages.length >= count);
  }

  /** How many elements of the pane match. */
  count(selector: string): Promise<number> {
    return this.#visit.evaluate(([pane, inner]) => document.querySelector(pane)?.querySelectorAll(inner).length ?? 0, [this.#selector, selector] as const);
  }

  type(text: string): Promise<void> {
    return this.#visit.type(`${this.#selector} input[name="text"]`, text);
  }

  /** Sends the messages, one each `everyMs` milliseconds. */
  say(texts: string[], everyMs = 0): Promise<void> {
    return this.#visit.evaluate(
      async ([selector, messages, gapMs]) => {
        const composer = document.querySelector<HTMLFormElement>(`${selector} form`);
        const input = composer?.querySelector('input');
        if (!composer || !input) throw new Error('no composer');
        for (const message of messages) {
          input.value = message;
          composer.requestSubmit();
          if (gapMs > 0) await new Promise((resolve) => setTimeout(resolve, gapMs));
        }
      },
      [this.#selector, texts, everyMs] as const,
    );
  }

  /** Cuts the connection, or connects again: it is one button. */
  cutOrConnect(): Promise<void> {
    return this.#visit.click(`${this.#selector} [data-action="cut"]`);
  }

  switchTransport(): Promise<void> {
    return this.#visit.click(`${this.#selector} [data-action="switch"]`);
  }
}
