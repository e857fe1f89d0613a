/** Every frame that a client sends and gets, shown as it goes by: the package's JSON, wrapped. */
import { element } from './elements.js';
import { json } from './skywave.js';

const SECRETS = ['resume', 'token'];
const MAX_FRAMES = 100;
const MAX_FRAME_CHARACTERS = 400;

/** The encoding `json`, which tells each frame: `{direction, lane, name, body}`, without its secrets. */
export function shownJson(show) {
  const tell = (direction, [name, body], carrier) => {
    // Over WebSocket all frames share the socket.
    show({ direction, lane: carrier ?? 'socket', name, body: withoutSecrets(body) });
  };
  return {
    ...json,
    encode(frame, carrier) {
      const [name, body] = frame;
      // On its way out a payload is JSON text already.
      tell('out', [name, typeof body.data === 'string' ? { ...body, data: JSON.parse(body.data) } : body], carrier);
      return json.encode(frame);
    },
    decode(encoded, carrier) {
      const frame = json.decode(encoded);
      tell('in', frame, carrier);
      return frame;
    },
    *fromMessage(message) {
      for (const frame of json.fromMessage(message)) {
        tell('in', frame);
        yield frame;
      }
    },
  };
}

function withoutSecrets(body) {
  const hidden = SECRETS.filter((name) => body[name] !== undefined).map((name) => [name, '…']);
  return { ...body, ...Object.fromEntries(hidden) };
}

/** The last frames, the newest one on top. */
export class FrameList {
  #list;
  #counter;
  #count = 0;

  constructor(list, counter) {
    this.#list = list;
    this.#counter = counter;
  }

  add({ direction, lane, name, body }) {
    this.#count += 1;
    this.#counter.textContent = this.#count;
    const text = JSON.stringify(body, (_, value) => (value instanceof Uint8Array ? `(${value.length} bytes)` : value));
    const shown = text.length > MAX_FRAME_CHARACTERS ? `${text.slice(0, MAX_FRAME_CHARACTERS)} …` : text;
    const line = element('li', direction, '', { name, lane, direction });
    line.append(
      element('span', 'arrow', direction === 'in' ? '↓' : '↑'),
      element('b', '', name),
      element('i', '', lane),
      element('code', '', shown),
    );
    this.#list.prepend(line);
    if (this.#list.childElementCount > MAX_FRAMES) this.#list.lastElementChild.remove();
  }
}
