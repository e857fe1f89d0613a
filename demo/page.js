/** The demo page: two people, each with a session of its own, on a channel that the page's address names. */
import { asName, Pane } from './pane.js';
import { SkywaveError } from './skywave.js';

const NAMES = ['Ada', 'Bruno', 'Chidi', 'Dilek', 'Emil', 'Fatima', 'Goro', 'Hanna', 'Ines', 'Jun', 'Kofi', 'Lena'];
const TRANSPORTS = ['auto', 'webtransport', 'websocket'];
/** How long the node may take to say where it listens. It is this machine, or one that stands still. */
const ANSWER_TIMEOUT_MS = 500;
const ASK_AGAIN_MS = 1_000;
const TICK_MS = 500;
/** How long WebTransport is tried alone. A browser that has just begun, and a debug build, take their time. */
const HEAD_START_MS = 1_500;

function trouble(text) {
  const shown = document.getElementById('trouble');
  shown.textContent = text;
  shown.hidden = !text;
}

/** What the address of the page asks for, checked. */
function settings() {
  const parameters = new URLSearchParams(location.search);
  const transport = parameters.get('transport') ?? 'auto';
  const isKnown = TRANSPORTS.includes(transport);
  return {
    transport: isKnown ? transport : 'auto',
    channel: parameters.get('channel') || 'chat:lobby',
    user: asName(parameters.get('user')),
    problem: isKnown ? '' : `There is no transport “${transport}”; it is auto, webtransport or websocket.`,
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

/** Where the node of this page listens, `{webtransport?, websocket?, certificate_sha256?}`. Rejects when it is gone. */
async function askNode(...signals) {
  const signal = AbortSignal.any([...signals, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
  const response = await fetch('/demo/config.json', { cache: 'no-store', signal });
  if (!response.ok) throw new Error(`the node answers with ${response.status}`);
  return await response.json();
}

/** Asks until the node answers. */
async function findNode() {
  for (;;) {
    try {
      return await askNode();
    } catch {
      trouble('The node does not answer. The page goes on when it does.');
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    }
  }
}

/** The development certificate at each attempt: a node that restarted may have another one. */
function certificates(node) {
  let last = node;
  return async ({ signal }) => {
    // While it is gone that of before has to do: nodes of other regions share it.
    last = await askNode(signal).catch(() => last);
    return last.certificate_sha256 ? [last.certificate_sha256] : [];
  };
}

async function start() {
  const { problem, ...wanted } = settings();
  showSettings(wanted);
  const node = await findNode();
  const { webtransport, websocket } = node;
  if (!webtransport && !websocket) {
    trouble('The node listens nowhere: neither listen.public nor listen.plain is set.');
    return;
  }
  trouble(problem);
  const options = {
    name: 'skywave-demo',
    transport: wanted.transport,
    headStartMs: HEAD_START_MS,
    serverCertificateHashes: certificates(node),
  };
  try {
    const panes = Object.entries(twoNames(wanted.user)).map(
      ([id, name]) => new Pane({ id, name, channel: wanted.channel, url: { webtransport, websocket }, options }),
    );
    setInterval(() => panes.forEach((pane) => pane.tick()), TICK_MS);
  } catch (error) {
    if (!(error instanceof SkywaveError)) throw error;
    trouble(`“${wanted.channel}” will not do: ${error.message}.`);
  }
}

start();
