/**
 * One person on the demo page: a session, and what shows it.
 *
 * Whatever comes from outside is put into the page as text, never as markup.
 */
import { element } from './elements.js';
import { FrameList, shownJson } from './frames.js';
import { MessageList } from './messages.js';
import { ErrorCode, Skywave } from './skywave.js';

const TRANSPORTS = { webtransport: 'WebTransport', websocket: 'WebSocket' };
const STATES = {
  idle: 'not connected',
  connecting: 'connecting …',
  connected: 'connected',
  waiting: 'waiting to reconnect',
  cut: 'cut',
  ended: 'ended',
};
const HISTORY = 30;
const MAX_NAME_CHARACTERS = 40;
/** One typing event in this time is enough; it counts for the longer time. */
const TYPING_EVERY_MS = 2_000;
const TYPING_LASTS_MS = 4_000;
const NOTICE_LASTS_MS = 8_000;

/** Text from another client, which may have sent anything. */
export function asName(value) {
  return typeof value === 'string' && value.trim() ? value.slice(0, MAX_NAME_CHARACTERS) : null;
}

function describePosition(position) {
  const points = Object.entries(position ?? {});
  return points.map(([origin, { epoch, offset }]) => `${origin} / ${epoch} / ${offset}`).join(', ') || 'at the beginning';
}

function describeHeartbeat(heartbeat) {
  if (heartbeat === null) return '–';
  return [heartbeat.interval_ms, heartbeat.timeout_ms].map((ms) => `${(ms / 1000).toFixed(1)} s`).join(' + ');
}

/** From where to where a session went, as far as that is another region or transport. */
function describeMove(before, now) {
  const of = ({ region, transport }) => [
    ...(before.region === now.region ? [] : [region]),
    ...(before.transport === now.transport ? [] : [TRANSPORTS[transport]]),
  ];
  const [from, to] = [of(before).join(' over '), of(now).join(' over ')];
  return from && `From ${from} to ${to}, in ${now.resumed ? 'the same' : 'a new'} session.`;
}

function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : '';
}

export class Pane {
  #root;
  #fields;
  #client;
  #channel;
  #name;
  /** How the session is, or was last, connected. */
  #connection = null;
  #retryAtMs;
  #heartbeat = null;
  #hasPresence = true;
  #present = { count: 0, members: [] };
  /** Names of other sessions, as far as they told. */
  #names = new Map();
  /** name → when its typing is forgotten. */
  #typing = new Map();
  #typedAt = 0;
  #wasCut = false;
  #messages;
  #frames;
  #noticeTimer = null;

  /**
   * Connects at once, and stays connected. `url` and `options` are what the package's `Skywave` takes. Throws for what
   * is no name of a channel.
   */
  constructor({ id, name, channel, url, options }) {
    const encoding = shownJson((frame) => this.#takeFrame(frame));
    this.#client = new Skywave(url, { ...options, encoding, autoConnect: false });
    this.#channel = this.#client.channel(channel, { history: HISTORY, presence: true });
    this.#name = name;
    this.#root = document.getElementById('pane').content.cloneNode(true).firstElementChild;
    this.#root.dataset.pane = id;
    this.#root.setAttribute('aria-label', name);
    const named = [...this.#root.querySelectorAll('[data-field]')];
    this.#fields = Object.fromEntries(named.map((field) => [field.dataset.field, field]));
    this.#fields.name.textContent = name;
    this.#messages = new MessageList(this.#fields.messages, this.#fields.pending);
    this.#frames = new FrameList(this.#fields.frames, this.#fields['frames-count']);
    document.getElementById('panes').append(this.#root);
    this.#follow();
    this.#listen();
    this.#connect();
  }

  /** Shows what changes by itself: the countdown, and who stopped typing. */
  tick() {
    const now = Date.now();
    for (const [name, until] of this.#typing) if (until < now) this.#typing.delete(name);
    this.#showTyping();
    if (this.#state === 'waiting') this.#showState();
  }

  #follow() {
    this.#client.on('state', (change) => this.#stateChanged(change));
    this.#channel.on('publication', (publication) => this.#takePublication(publication));
    this.#channel.on('event', (event) => this.#takeEvent(event));
    this.#channel.on('gap', ({ origin, reason }) => this.#messages.say(`Messages of ${origin} are missing: ${reason}`, 'problem'));
    this.#channel.on('subscribed', (subscribed) => this.#subscribed(subscribed));
    this.#channel.on('presence', (present) => this.#presenceChanged(present));
    this.#channel.on('error', (error) => this.#refused(error));
  }

  #listen() {
    this.#root.querySelector('[data-action="cut"]').addEventListener('click', () => this.#cutOrConnect());
    this.#root.querySelector('[data-action="switch"]').addEventListener('click', () => this.#switch());
    this.#fields.composer.addEventListener('submit', (event) => this.#submit(event));
    this.#fields.composer.elements.text.addEventListener('input', () => this.#tellTyping());
  }

  /** The client's state, as far as it makes a difference here. */
  get #state() {
    const { state, error } = this.#client;
    if (state === 'connecting' && error) return 'waiting';
    if (state === 'connecting' || state === 'connected') return state;
    if (error) return 'ended';
    return this.#wasCut ? 'cut' : 'idle';
  }

  // ---- what the person does ----

  #cutOrConnect() {
    if (['connected', 'connecting'].includes(this.#state)) {
      this.#wasCut = true;
      this.#client.disconnect();
      this.#messages.say('The connection is cut. The others go on.');
    } else {
      this.#connect();
    }
  }

  #connect() {
    this.#client.connect().catch((error) => console.debug('not connected, which the state says as well', error));
  }

  async #switch() {
    const isOverWebTransport = this.#client.connection?.transport === 'webtransport';
    try {
      await this.#client.switchTransport(isOverWebTransport ? 'websocket' : 'webtransport');
    } catch (error) {
      this.#notice(`The transport stays as it is: ${error.message}`);
    }
  }

  async #submit(event) {
    event.preventDefault();
    const input = this.#fields.composer.elements.text;
    const text = input.value.trim();
    if (!text) return;
    const key = crypto.randomUUID();
    this.#messages.wait(key, text);
    input.value = '';
    this.#typedAt = 0;
    try {
      await this.#channel.publish({ text, from: this.#name }, { key });
      this.#messages.sent(key);
    } catch (error) {
      this.#messages.notSent(key);
      this.#notice(`Not sent: ${error.message}`);
    }
  }

  #tellTyping() {
    const now = Date.now();
    if (now - this.#typedAt < TYPING_EVERY_MS) return;
    this.#typedAt = now;
    this.#channel.emit({ kind: 'typing', name: this.#name }, { slot: 'typing' });
  }

  /** Any request measures the round trip; this one does no harm. */
  async #measure() {
    if (!this.#channel.isSubscribed || !this.#hasPresence) return;
    try {
      await this.#channel.presence();
      this.#showState();
    } catch (error) {
      console.debug('not measured', error);
    }
  }

  // ---- what comes from the session ----

  #stateChanged({ retryAtMs }) {
    this.#retryAtMs = retryAtMs;
    const { connection } = this.#client;
    if (connection) {
      const move = this.#connection && !this.#wasCut && describeMove(this.#connection, connection);
      if (move) this.#messages.say(move);
      this.#connection = connection;
    }
    this.#showState();
  }

  #subscribed({ recovered }) {
    const { transport, resumed } = this.#connection;
    if (this.#wasCut) {
      this.#wasCut = false;
      this.#messages.say(`Back over ${TRANSPORTS[transport]}, in ${resumed ? 'the same' : 'a new'} session.`);
    }
    if (recovered === false) this.#messages.say('Not everything could be recovered.', 'problem');
    // Publications tell their sender's name; for presence each one tells it to the others.
    this.#channel.emit({ kind: 'name', name: this.#name, ask: true }, { slot: 'name' });
    this.#showState();
    this.#measure();
  }

  #refused({ code, reason }) {
    if (code === ErrorCode.not_available && this.#hasPresence) {
      // The channel's namespace has no presence: it has to do without.
      this.#hasPresence = false;
      this.#client.channel(this.#channel.name, { presence: false });
      this.#channel.subscribe().catch((error) => console.debug('refused, which is told as well', error));
    } else {
      this.#messages.say(`No access to ${this.#channel.name}: ${reason} (${code})`, 'problem');
    }
  }

  #takePublication(publication) {
    const name = asName(publication.data?.from) ?? publication.user ?? 'someone';
    this.#messages.add(publication, name);
    this.#typing.delete(name);
    this.#showTyping();
    this.#showState();
  }

  #takeEvent({ session, data }) {
    const name = asName(data?.name);
    if (!name) return;
    this.#names.set(session, name);
    if (data.kind === 'typing') {
      this.#typing.set(name, Date.now() + TYPING_LASTS_MS);
      this.#showTyping();
    } else if (data.ask === true) {
      this.#channel.emit({ kind: 'name', name: this.#name }, { slot: 'name' });
    }
    this.#showPresence();
  }

  #presenceChanged({ count, members, left }) {
    this.#present = { count, members };
    for (const { session } of left) this.#names.delete(session);
    this.#showPresence();
  }

  #takeFrame(frame) {
    const { direction, name, body } = frame;
    this.#frames.add(frame);
    if (direction === 'out') return;
    if (name === 'connected') this.#heartbeat = body.heartbeat;
    if (name === 'ping') {
      this.#heartbeat = body;
      this.#showState();
      // The client has its answer to send first.
      queueMicrotask(() => this.#measure());
    }
  }

  // ---- what the page shows ----

  #notice(text) {
    clearTimeout(this.#noticeTimer);
    this.#setNotice(text, 'problem');
    this.#noticeTimer = setTimeout(() => {
      this.#noticeTimer = null;
      this.#showState();
    }, NOTICE_LASTS_MS);
  }

  #setNotice(text, className) {
    const { notice } = this.#fields;
    notice.hidden = !text;
    notice.textContent = text;
    notice.className = `notice ${className}`;
  }

  #showState() {
    const state = this.#state;
    const { connection, rttMs } = this.#client;
    const { transport = '' } = connection ?? {};
    // These hold until the session is connected anew.
    const { session = '', region, resumed } = this.#connection ?? {};
    Object.assign(this.#root.dataset, { state, transport, session });
    this.#put('state', STATES[state]);
    this.#put('transport', TRANSPORTS[transport] ?? 'no transport');
    this.#put('rtt', rttMs === undefined ? '–' : `${rttMs.toFixed(1)} ms`);
    this.#put('session', session.slice(0, 12) || '–', session);
    this.#put('region', region ?? '–');
    this.#put('resumed', resumed === undefined ? '–' : resumed ? 'yes' : 'no, a new one');
    this.#put('heartbeat', describeHeartbeat(this.#heartbeat));
    this.#put('position', this.#connection ? describePosition(this.#channel.position) : '–');
    this.#showActions(state, transport);
    // What just happened matters less than what keeps the session away.
    if (this.#noticeTimer === null || state !== 'connected') this.#setNotice(...this.#explain(state));
  }

  #put(field, text, title = '') {
    const shown = this.#fields[field];
    if (shown.textContent !== text) shown.textContent = text;
    if (shown.title !== title) shown.title = title;
  }

  #showActions(state, transport) {
    const cut = this.#root.querySelector('[data-action="cut"]');
    const change = this.#root.querySelector('[data-action="switch"]');
    const isUp = state === 'connected' || state === 'connecting';
    cut.textContent = isUp ? 'Cut the connection' : state === 'waiting' ? 'Try now' : 'Reconnect';
    cut.classList.toggle('primary', !isUp);
    const other = { webtransport: 'websocket', websocket: 'webtransport' }[transport];
    change.textContent = `Switch ${other ? `to ${TRANSPORTS[other]}` : 'transport'}`;
    change.disabled = state !== 'connected';
  }

  /** Why things are as they are: a text and its class. */
  #explain(state) {
    const problem = capital(this.#client.error?.message);
    if (state === 'waiting') {
      const seconds = Math.max(0, Math.ceil(((this.#retryAtMs ?? 0) - Date.now()) / 1000));
      return [`${problem}. Next attempt ${seconds === 0 ? 'now' : `in ${seconds} s`}.`, 'problem'];
    }
    if (state === 'ended') return [`The session has ended: ${problem}.`, 'problem'];
    if (state === 'cut') return ['What is published now comes on reconnecting; what is sent now waits.', ''];
    return ['', ''];
  }

  #showPresence() {
    const { members, count } = this.#present;
    this.#fields.count.textContent = this.#hasPresence ? `${count} here` : '';
    const chips = members.slice(0, 20).map(({ session, user }) => {
      const isSelf = session === this.#connection?.session;
      const name = isSelf ? `${this.#name} (you)` : this.#names.get(session) ?? user ?? session.slice(0, 6);
      const chip = element('span', isSelf ? 'chip self' : 'chip', name, { session });
      chip.title = session;
      return chip;
    });
    this.#fields.members.replaceChildren(...chips);
  }

  #showTyping() {
    const names = [...this.#typing.keys()].slice(0, 3);
    const verb = names.length === 1 ? 'is' : 'are';
    this.#put('typing', names.length === 0 ? '' : `${names.join(', ')} ${verb} typing …`);
  }
}
