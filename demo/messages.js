/** The messages of a channel, and below them those that wait to be sent. */
import { element } from './elements.js';

const MAX_MESSAGES = 500;
/** So close to the end somebody still reads the end, in pixels. */
const AT_END_PX = 40;

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function asText(data) {
  if (data instanceof Uint8Array) return `(${data.length} bytes)`;
  return typeof data?.text === 'string' ? data.text : JSON.stringify(data);
}

export class MessageList {
  #list;
  #waiting;
  /** key → the line of a message of one's own, until its publication comes. */
  #own = new Map();
  /** Whether the last message is in sight, and should stay there. */
  #isAtEnd = true;

  constructor(list, waiting) {
    this.#list = list;
    this.#waiting = waiting;
    this.#follow(list);
  }

  /** Shows a publication, of whoever `name` is. */
  add({ data, origin, epoch, offset, timeMs, key }, name) {
    this.#own.get(key)?.remove();
    const isOwn = this.#own.delete(key);
    const text = asText(data);
    const line = element('li', isOwn ? 'own' : 'other', '', { offset, origin, epoch, text });
    const head = element('span', 'head');
    head.append(element('b', '', name), element('time', '', timeFormat.format(timeMs)), element('code', '', `${origin}:${offset}`));
    line.append(head, element('span', 'text', text));
    this.#append(line);
  }

  /** Shows a message of one's own that is on its way. */
  wait(key, text) {
    const line = element('li', 'own', '', { text });
    line.append(element('span', 'text', text));
    this.#own.set(key, line);
    this.#waiting.append(line);
    this.#waiting.scrollTop = this.#waiting.scrollHeight;
  }

  /** It has been published, and may come back as a publication. */
  sent(key) {
    this.#own.get(key)?.remove();
  }

  notSent(key) {
    this.#own.get(key)?.remove();
    this.#own.delete(key);
  }

  /** Tells something about the session, between the messages. */
  say(text, className = '') {
    this.#append(element('li', `said ${className}`, text));
  }

  #append(line) {
    this.#list.append(line);
    while (this.#list.childElementCount > MAX_MESSAGES) this.#list.firstElementChild.remove();
    if (this.#isAtEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }

  /** Keeps the end in sight when the list grows or shrinks, unless someone reads further up. */
  #follow(list) {
    let height = 0;
    list.addEventListener('scroll', () => {
      // A scroll that only comes of another height is nobody's wish.
      if (list.clientHeight === height) this.#isAtEnd = list.scrollHeight - list.scrollTop - height < AT_END_PX;
    });
    new ResizeObserver(() => {
      height = list.clientHeight;
      if (this.#isAtEnd) list.scrollTop = list.scrollHeight;
    }).observe(list);
  }
}
