/**
 * The demo page: two people, each with a session of its own, and what can be seen of those sessions.
 *
 * Whatever comes from outside is put into the page as text, never as markup.
 */
import { Client } from './client.js';

const NAMES = ['Ada', 'Bruno', 'Chidi', 'Dilek', 'Emil', 'Fatima', 'Goro', 'Hanna', 'Ines', 'Jun', 'Kofi', 'Lena'];
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
const MAX_MESSAGES = 500;
const MAX_FRAMES = 100;
const MAX_FRAME_CHARACTERS = 400;
const MAX_NAME_CHARACTERS = 40;
/** One typing event in this time is enough; it counts for the longer time. */
const TYPING_EVERY_MS = 2_000;
const TYPING_LASTS_MS = 4_000;
const NOTICE_LASTS_MS = 8_000;

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** An element with text in it, and attributes that are set as properties of `dataset`. */
function element(tag, className, text = '', data = {}) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  Object.assign(made.dataset, data);
  return made;
}

/** Text from another client, which may have sent anything. */
function asName(value) {
  return typeof value === 'string' && value.trim() ? value.slice(0, MAX_NAME_CHARACTERS) : null;
}

function asText(publication) {
  const { data, data_b64: base64 } = publication;
  if (base64 !== undefined) return `(${Math.floor((base64.length * 3) / 4)} bytes)`;
  return typeof data?.text === 'string' ? data.text : JSON.stringify(data);
}

function describePosition(position) {
  const points = Object.entries(position ?? {});
  return points.map(([origin, { epoch, offset }]) => `${origin} / ${epoch} / ${offset}`).join(', ') || 'at the beginning';
}

/** One person: a session and what shows it. */
class Pane {
  #root;
  #fields;
  #client;
  #channel;
  #name;
  /** Names of other sessions, as far as they told. */
  #names = new Map();
  /** key → the line of a message that waits for its publication. */
  #pending = new Map();
  /** name → when its typing is forgotten. */
  #typing = new Map();
  #typedAt = 0;
  #wasCut = false;
  #frames = 0;
  #noticeTimer = null;
  /** Whether the last message is in sight, and should stay there. */
  #isAtEnd = true;

  constructor({ id, name, channel, client }) {
    this.#name = name;
    this.#channel = channel;
    this.#client = client;
    this.#root = document.getElementById('pane').content.cloneNode(true).firstElementChild;
    this.#root.dataset.pane = id;
    this.#root.setAttribute('aria-label', name);
    const named = [...this.#root.querySelectorAll('[data-field]')];
    this.#fields = Object.fromEntries(named.map((field) => [field.dataset.field, field]));
    this.#fields.name.textContent = name;
    this.#listen();
    document.getElementById('panes').append(this.#root);
  }

  start() {
    this.#client.subscribe(this.#channel, { history: HISTORY, presence: true });
    this.#client.connect();
  }

  /** Shows what changes by itself: the countdown, and who stopped typing. */
  tick() {
    const now = Date.now();
    for (const [name, until] of this.#typing) if (until < now) this.#typing.delete(name);
    this.#showTyping();
    if (this.#client.state === 'waiting') this.#showState();
  }

  setBackground(isBackground) {
    this.#client.setBackground(isBackground);
  }

  /** The network is back: no reason to wait any longer. */
  online() {
    if (this.#client.state === 'waiting') this.#client.connect();
  }

  #listen() {
    const on = (type, handle) => this.#client.addEventListener(type, ({ detail }) => handle(detail));
    on('state', () => this.#showState());
    on('publication', (publication) => this.#showPublication(publication));
    on('event', (event) => this.#takeEvent(event));
    on('gap', ({ origin, reason }) => this.#say(`Messages of ${origin} are missing: ${reason}`, 'problem'));
    on('subscribed', (subscribed) => this.#subscribed(subscribed));
    on('refused', ({ channel, reason, code }) => this.#say(`No access to ${channel}: ${reason} (${code})`, 'problem'));
    on('presence', () => this.#showPresence());
    on('notice', (text) => this.#notice(text));
    on('frame', (frame) => this.#showFrame(frame));
    on('ping', () => this.#measure());
    this.#root.querySelector('[data-action="cut"]').addEventListener('click', () => this.#cutOrConnect());
    this.#root.querySelector('[data-action="switch"]').addEventListener('click', () => this.#switch());
    this.#fields.composer.addEventListener('submit', (event) => this.#submit(event));
    this.#fields.composer.elements.text.addEventListener('input', () => this.#tellTyping());
    this.#followMessages(this.#fields.messages);
  }

  // ---- what the person does ----

  #cutOrConnect() {
    if (['connected', 'connecting'].includes(this.#client.state)) {
      this.#wasCut = true;
      this.#client.cut();
      this.#say('The connection is cut. The others go on.');
    } else {
      this.#client.connect();
    }
  }

  async #switch() {
    const before = this.#client.transport;
    try {
      await this.#client.switchTransport();
      const [from, to] = [before, this.#client.transport].map((kind) => TRANSPORTS[kind]);
      this.#say(`From ${from} to ${to}, in the same session.`);
    } catch (error) {
      this.#notice(`The transport stays as it is: ${error.message}`);
    }
  }

  #submit(event) {
    event.preventDefault();
    const input = this.#fields.composer.elements.text;
    const text = input.value.trim();
    if (!text) return;
    try {
      const { key, published } = this.#client.publish(this.#channel, { text, from: this.#name });
      this.#showPending(key, text);
      published.catch((error) => this.#notSent(key, error));
      input.value = '';
      this.#typedAt = 0;
    } catch (error) {
      this.#notice(`Not sent: ${error.message}`);
    }
  }

  #tellTyping() {
    const now = Date.now();
    if (now - this.#typedAt < TYPING_EVERY_MS) return;
    this.#typedAt = now;
    this.#client.emit(this.#channel, { kind: 'typing', name: this.#name }, 'typing');
  }

  #measure() {
    this.#client.measure(this.#channel).catch((error) => console.debug('not measured', error));
  }

  // ---- what comes from the session ----

  #subscribed({ recovered }) {
    const over = TRANSPORTS[this.#client.transport];
    if (this.#wasCut) {
      this.#wasCut = false;
      this.#say(this.#client.resumed ? `Back over ${over}, in the same session.` : `Back over ${over}, in a new session.`);
    }
    if (recovered === false) this.#say('Not everything could be recovered.', 'problem');
    // Publications tell their sender's name; for presence each one tells it to the others.
    this.#client.emit(this.#channel, { kind: 'name', name: this.#name, ask: true }, 'name');
    this.#measure();
  }

  #takeEvent({ session, data }) {
    const name = asName(data?.name);
    if (!name) return;
    this.#names.set(session, name);
    if (data.kind === 'typing') {
      this.#typing.set(name, Date.now() + TYPING_LASTS_MS);
      this.#showTyping();
    } else if (data.ask === true) {
      this.#client.emit(this.#channel, { kind: 'name', name: this.#name }, 'name');
    }
    this.#showPresence();
  }

  #showPublication(publication) {
    const { origin, epoch, offset, time_ms: time, key, data } = publication;
    this.#pending.get(key)?.remove();
    const isOwn = this.#pending.delete(key);
    const name = asName(data?.from) ?? publication.user ?? 'someone';
    const line = element('li', isOwn ? 'own' : 'other', '', { offset, origin, epoch, text: asText(publication) });
    const head = element('span', 'head');
    head.append(element('b', '', name), element('time', '', timeFormat.format(time)), element('code', '', `${origin}:${offset}`));
    line.append(head, element('span', 'text', asText(publication)));
    this.#typing.delete(name);
    this.#showTyping();
    this.#append(line);
  }

  #showPending(key, text) {
    const line = element('li', 'own', '', { text });
    line.append(element('span', 'text', text));
    this.#pending.set(key, line);
    this.#fields.pending.append(line);
    this.#fields.pending.scrollTop = this.#fields.pending.scrollHeight;
  }

  #notSent(key, error) {
    this.#pending.get(key)?.remove();
    this.#pending.delete(key);
    this.#notice(`Not sent: ${error.message}`);
  }

  // ---- what the page shows ----

  #say(text, className = '') {
    this.#append(element('li', `said ${className}`, text));
  }

  #append(line) {
    const list = this.#fields.messages;
    list.append(line);
    while (list.childElementCount > MAX_MESSAGES) list.firstElementChild.remove();
    if (this.#isAtEnd) list.scrollTop = list.scrollHeight;
  }

  /** Keeps the end in sight when the list grows or shrinks, unless someone reads further up. */
  #followMessages(list) {
    let height = 0;
    list.addEventListener('scroll', () => {
      // A scroll that only comes of another height is nobody's wish.
      if (list.clientHeight === height) this.#isAtEnd = list.scrollHeight - list.scrollTop - height < 40;
    });
    new ResizeObserver(() => {
      height = list.clientHeight;
      if (this.#isAtEnd) list.scrollTop = list.scrollHeight;
    }).observe(list);
  }

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
    const { state, transport, session, region, rttMs, heartbeat, resumed } = this.#client;
    Object.assign(this.#root.dataset, { state, transport: transport ?? '', session: session ?? '' });
    this.#put('state', STATES[state]);
    this.#put('transport', TRANSPORTS[transport] ?? 'no transport');
    this.#put('rtt', rttMs === null ? '–' : `${rttMs.toFixed(1)} ms`);
    this.#put('session', session ? session.slice(0, 12) : '–', session ?? '');
    this.#put('region', region ?? '–');
    this.#put('resumed', resumed === null ? '–' : resumed ? 'yes' : 'no, a new one');
    this.#put('heartbeat', heartbeat ? `${heartbeat.interval_ms / 1000} s + ${heartbeat.timeout_ms / 1000} s` : '–');
    this.#put('position', session ? describePosition(this.#client.position(this.#channel)) : '–');
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
    const { problem, nextAttemptAt } = this.#client;
    if (state === 'waiting') {
      const seconds = Math.max(0, Math.ceil((nextAttemptAt - Date.now()) / 1000));
      return [`${capital(problem)}. Next attempt ${seconds === 0 ? 'now' : `in ${seconds} s`}.`, 'problem'];
    }
    if (state === 'ended') return [`The node ended the session: ${problem}.`, 'problem'];
    if (state === 'cut') return ['What is published now comes on reconnecting; what is sent now waits.', ''];
    return ['', ''];
  }

  #showPresence() {
    const { members, count } = this.#client.presence(this.#channel);
    this.#fields.count.textContent = count === 1 ? '1 here' : `${count} here`;
    const chips = members.slice(0, 20).map(({ session, user }) => {
      const isSelf = session === this.#client.session;
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

  #showFrame({ direction, lane, name, body }) {
    this.#frames += 1;
    this.#fields['frames-count'].textContent = this.#frames;
    const line = element('li', direction, '', { name, lane, direction });
    const text = JSON.stringify(body);
    const shown = text.length > MAX_FRAME_CHARACTERS ? `${text.slice(0, MAX_FRAME_CHARACTERS)} …` : text;
    line.append(
      element('span', 'arrow', direction === 'in' ? '↓' : '↑'),
      element('b', '', name),
      element('i', '', lane),
      element('code', '', shown),
    );
    this.#fields.frames.prepend(line);
    if (this.#fields.frames.childElementCount > MAX_FRAMES) this.#fields.frames.lastElementChild.remove();
  }
}

function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : '';
}

/**
 * Where to connect: at this node's other listeners, and after a failure at those of other regions in turn. The node is
 * asked each time, since one that restarted may have another certificate, and one that is gone says so at once. `url`
 * names a region to go to.
 */
function endpoints() {
  let places = null;
  let turn = 0;
  return async (isFresh, url) => {
    if (!places || isFresh || turn === 0) {
      const response = await fetch('/demo/config.json', { cache: 'no-store' }).catch(() => null);
      if (response?.ok) {
        const { others = [], ...own } = await response.json();
        places = [own, ...others];
      }
      const first = response?.ok ? 0 : 1;
      if (!places || first >= places.length) throw new Error('the node does not answer');
      turn = Math.max(first, isFresh ? (turn + 1) % places.length : turn);
    }
    const asked = places.findIndex(({ webtransport }) => url && webtransport?.startsWith(`${url}/`));
    if (asked >= 0) turn = asked;
    return places[turn];
  };
}

function trouble(text) {
  const shown = document.getElementById('trouble');
  shown.textContent = text;
  shown.hidden = false;
}

/** What the address of the page asks for, checked. */
function settings() {
  const parameters = new URLSearchParams(location.search);
  const transport = parameters.get('transport') ?? 'auto';
  if (transport !== 'auto' && !(transport in TRANSPORTS)) {
    trouble(`There is no transport “${transport}”; it is auto, webtransport or websocket.`);
  }
  return {
    transport: transport in TRANSPORTS ? transport : 'auto',
    channel: parameters.get('channel') || 'chat:lobby',
    user: asName(parameters.get('user')),
  };
}

function twoNames(user) {
  const left = user ?? NAMES[Math.floor(Math.random() * NAMES.length)];
  const others = NAMES.filter((name) => name !== left);
  return { left, right: others[Math.floor(Math.random() * others.length)] };
}

function showSettings({ transport, channel, user }) {
  const form = document.querySelector('.settings');
  form.elements.channel.value = channel;
  form.elements.user.value = user ?? '';
  form.elements.transport.value = transport;
  const another = new URLSearchParams({ channel, transport });
  document.getElementById('another').href = `/?${another}`;
}

function start() {
  const wanted = settings();
  showSettings(wanted);
  const panes = Object.entries(twoNames(wanted.user)).map(([id, name]) => {
    const client = new Client({ endpoints: endpoints(), preference: wanted.transport });
    client.setBackground(document.hidden);
    return new Pane({ id, name, channel: wanted.channel, client });
  });
  for (const pane of panes) pane.start();
  setInterval(() => panes.forEach((pane) => pane.tick()), 500);
  document.addEventListener('visibilitychange', () => panes.forEach((pane) => pane.setBackground(document.hidden)));
  window.addEventListener('online', () => panes.forEach((pane) => pane.online()));
}

start();
