/** The demo page as a person sees and uses it. */
import { setTimeout as pause } from 'node:timers/promises';

const WAIT_TIMEOUT_MS = 15_000;
const POLL_MS = 50;

/** Opens the page for a channel of its own, unless one is named, and waits until both people are connected. */
export async function openDemo(browser, node, { transport, channel = `test:${crypto.randomUUID()}` }) {
  const page = await openUnconnected(browser, node, { transport, channel });
  await Promise.all([page.left.waitUntil('connected'), page.right.waitUntil('connected')]);
  return page;
}

export async function openUnconnected(browser, node, { transport, channel = `test:${crypto.randomUUID()}` }) {
  const page = await browser.open(`${node.page}/?${new URLSearchParams({ transport, channel })}`);
  return { channel, left: new Person(page, 'left'), right: new Person(page, 'right'), close: () => page.close() };
}

/** One of the two panes. */
class Person {
  #page;
  #selector;

  constructor(page, side) {
    this.#page = page;
    this.#selector = `[data-pane="${side}"]`;
  }

  /** What the pane shows, all at one moment. */
  look() {
    return this.#page.evaluate((selector) => {
      const pane = document.querySelector(selector);
      const field = (name) => pane.querySelector(`[data-field="${name}"]`);
      const texts = (name) => [...field(name).children].map((line) => line.textContent);
      return {
        state: pane.dataset.state,
        transport: pane.dataset.transport,
        session: pane.dataset.session,
        name: field('name').textContent,
        resumed: field('resumed').textContent,
        rtt: field('rtt').textContent,
        heartbeat: field('heartbeat').textContent,
        position: field('position').textContent,
        notice: field('notice').hidden ? '' : field('notice').textContent,
        typing: field('typing').textContent,
        present: texts('members'),
        pending: [...field('pending').children].map((line) => line.dataset.text),
        messages: [...field('messages').querySelectorAll('[data-offset]')].map(({ dataset }) => ({
          offset: Number(dataset.offset),
          text: dataset.text,
        })),
        said: [...field('messages').querySelectorAll('.said')].map((line) => line.textContent),
        frames: [...field('frames').children].map((line) => line.textContent),
      };
    }, this.#selector);
  }

  /** Looks until `isRight(shown)`; answers what is shown then. */
  async sees(what, isRight) {
    const deadline = Date.now() + WAIT_TIMEOUT_MS;
    for (;;) {
      const shown = await this.look();
      if (isRight(shown)) return shown;
      if (Date.now() > deadline) throw new Error(`never saw ${what}, but ${JSON.stringify(shown, null, 1)}`);
      await pause(POLL_MS);
    }
  }

  /** `connected` means subscribed as well. */
  waitUntil(state) {
    const isThere = (shown) => shown.state === state && (state !== 'connected' || shown.present.length > 0);
    return this.sees(`the state “${state}”`, isThere);
  }

  /** How many elements of the pane match. */
  count(selector) {
    const all = selector.split(', ').map((one) => `${this.#selector} ${one}`).join(', ');
    return this.#page.evaluate((matching) => document.querySelectorAll(matching).length, all);
  }

  seesMessages(count) {
    return this.sees(`${count} messages`, ({ messages }) => messages.length >= count);
  }

  type(text) {
    return this.#page.type(`${this.#selector} input[name="text"]`, text);
  }

  /** Sends the messages, one each `every` milliseconds. */
  say(texts, every = 0) {
    return this.#page.evaluate(
      async ([selector, messages, gap]) => {
        const composer = document.querySelector(`${selector} form`);
        for (const message of messages) {
          composer.elements.text.value = message;
          composer.requestSubmit();
          if (gap > 0) await new Promise((resolve) => setTimeout(resolve, gap));
        }
      },
      [this.#selector, texts, every],
    );
  }

  /** Cuts the connection, or connects again: it is one button. */
  cutOrConnect() {
    return this.#page.click(`${this.#selector} [data-action="cut"]`);
  }

  switchTransport() {
    return this.#page.click(`${this.#selector} [data-action="switch"]`);
  }
}
