/**
 * One connection for all tabs of an origin: one of them holds it, elected by a Web Lock; the others talk to that one.
 */
import { type NodeUrl, parseAddress } from './address.js';
import { SkywaveCore, type StateChange } from './client.js';
import { Emitter, type Listener, type ListenOptions } from './emitter.js';
import { lost, requestError, SkywaveError } from './errors.js';
import type { Network } from './frames.js';
import type { Published } from './messages.js';
import type { OutboxEntry } from './outbox.js';
import { followPage, networkOf } from './page_life.js';
import type { Parts } from './parts.js';
import { checkText } from './payload.js';
import { FixedRoute } from './session/fixed_route.js';
import type { Connection, State } from './session/state.js';
import type { SkywaveEvents, SkywaveOptions } from './skywave.js';
import type { SkywaveClient } from './skywave_client.js';
import { Holder } from './tabs/holder.js';
import { fromTold, type Status } from './tabs/status.js';
import { Tab } from './tabs/tab.js';
import type { TransportChoice } from './transport_kind.js';

export interface SharedOptions extends SkywaveOptions {
  /** Tabs with the same name share a connection; one for each user. `skywave` by default. */
  readonly share?: string;
}

/** A tab that lost the hub asks for the next one at once, and waits for it as long as it takes. */
const BACKOFF = { firstMs: 20, maxMs: 1_000 };
/** How many tokens are kept: of several that are brought at once the node may refuse all but the first. */
const MOST_TOKENS = 8;

/** Whether this runtime has what sharing needs: Web Locks and BroadcastChannel. */
export function canShare(): boolean {
  const runtime = globalThis as { navigator?: { locks?: unknown }; BroadcastChannel?: unknown };
  return runtime.navigator?.locks !== undefined && runtime.BroadcastChannel !== undefined;
}

/**
 * A client whose connection all tabs share that name it alike. When the tab that holds it is closed, another one takes
 * over, from the positions that each tab has reached: nothing is lost or repeated. What is told of the connection is
 * the same in all of them.
 */
export class SharedSkywave extends SkywaveCore implements SkywaveClient {
  readonly #events = new Emitter<SkywaveEvents>();
  readonly #closing = new AbortController();
  readonly #tab: Tab;
  /** What was told last. */
  #shown: StateChange = { state: 'disconnected', error: undefined, retryAtMs: undefined };
  #shownConnection = '';
  /** The session that was told last. */
  #shownSession: string | undefined;
  /** Whether this tab wants the connection. */
  #isWanting: boolean;
  /** Whether the holder keeps what is published. */
  readonly #hasOutbox: boolean;
  /** Given since, for when this tab holds the connection: the newest last, without those that the node has refused. */
  #tokens: readonly string[] = [];

  /** @throws TypeError for what is no address of a node. */
  constructor(url: NodeUrl | readonly NodeUrl[], options: SharedOptions = {}) {
    const { share = 'skywave', autoConnect = true, followPage: follows = true, ...rest } = options;
    const urls: NodeUrl[] = [url].flat();
    if (urls.length === 0) throw new TypeError('no address is given');
    for (const one of urls) parseAddress(one);
    const tab = new Tab(share, follows ? networkOf() : {});
    // Tokens are the holder's business.
    const own = Object.entries(rest).filter(([name]) => name !== 'token' && name !== 'getToken');
    const choice = { transport: 'websocket', headStartMs: 0, storage: undefined } as const;
    super('ws://tab', { ...Object.fromEntries(own), backoff: BACKOFF, autoConnect: false }, tabParts(tab, share), choice);
    this.#tab = tab;
    this.#isWanting = autoConnect;
    this.#hasOutbox = rest.outbox !== undefined;
    if (this.#hasOutbox) this.asking.publish = (entry, signal) => this.#publishKept(entry, signal);
    super.on('state', () => {
      this.#show();
    });
    tab.listen({
      hold: () => {
        const [token, brought] = [rest.token, ...this.#tokens].slice(-2);
        const holder = new Holder(urls, { ...rest, token }, share, brought);
        return () => {
          holder.close();
        };
      },
      failed: (error) => {
        this.session.refused(error instanceof SkywaveError ? error : lost('this tab cannot hold a connection', error));
      },
      now: () => this.session.now(),
      isWanting: () => super.state === 'connecting' || super.state === 'connected',
      status: (status) => {
        this.#heard(status);
      },
      delivered: (delivered) => {
        this.#events.emit('delivered', delivered);
      },
      token: (token) => {
        this.#brought(token);
      },
      tokenRefused: (token) => {
        this.#refused(token);
      },
    });
    if (follows) this.#followPage();
    this.#comeAndGo();
    this.#enter();
  }

  #enter(): void {
    if (canShare()) this.#tab.enter();
    if (this.#isWanting) this.session.connect();
  }

  /**
   * A page that the browser puts aside or freezes holds nothing: it leaves, and comes again if it is taken up.
   * Chromium brings a frozen page what other tabs say, and nothing else: it would go on to answer that all is well.
   */
  #comeAndGo(): void {
    const { signal } = this.#closing;
    const page = globalThis as Partial<Pick<EventTarget, 'addEventListener'>> & { readonly document?: EventTarget };
    const leave = (): void => {
      this.session.disconnect();
      this.#tab.leave();
    };
    const enter = (): void => {
      this.#enter();
    };
    page.document?.addEventListener('freeze', leave, { signal });
    page.document?.addEventListener('resume', enter, { signal });
    page.addEventListener?.('pagehide', leave, { signal });
    page.addEventListener?.(
      'pageshow',
      (event) => {
        if ((event as PageTransitionEvent).persisted) enter();
      },
      { signal },
    );
  }

  #followPage(): void {
    const tab = this.#tab;
    const stop = followPage({
      networkChanged: (network, isOther) => {
        tab.page(network, isOther ? 'network' : undefined);
      },
      check: () => {
        this.check();
      },
      woke: () => {
        this.session.woke();
        tab.page(tab.network, 'woke');
      },
    });
    this.#closing.signal.addEventListener('abort', stop);
  }

  // ---- what the holder tells

  #heard({ state, error }: Status): void {
    const own = super.state;
    if (state === 'disconnected' && error !== undefined) {
      if (own !== 'disconnected') {
        this.session.refused(fromTold(error));
        if (!this.#hasOutbox) this.#tab.refused();
      }
    } else if (state === 'connected' && this.#isWanting && own === 'disconnected') this.session.connect();
    this.#show();
  }

  /** Tells what has changed: of the way to the holder, or of its connection. */
  #show(): void {
    const own = super.state;
    const { status } = this.#tab;
    const change: StateChange =
      own === 'connected'
        ? {
            state: status.state === 'connected' ? 'connected' : 'connecting',
            error: status.error && fromTold(status.error),
            retryAtMs: status.retryAtMs,
          }
        : { state: own, error: super.error, retryAtMs: undefined };
    const connection = JSON.stringify(change.state === 'connected' ? status.connection : null);
    const isSame =
      change.state === this.#shown.state &&
      change.error?.message === this.#shown.error?.message &&
      change.retryAtMs === this.#shown.retryAtMs &&
      connection === this.#shownConnection;
    if (isSame) return;
    this.#shown = change;
    this.#shownConnection = connection;
    this.#events.emit('state', change);
    const before = this.#shownSession;
    const { connection: now } = this;
    this.#shownSession = now?.session ?? before;
    // Tabs that came later have lost nothing.
    if (now?.hasExpired && before !== undefined && before !== now.session) this.#events.emit('expired', now);
  }

  // ---- for the application

  /** Whether this tab holds the connection. */
  get isHolder(): boolean {
    return this.#tab.isHolder;
  }

  override get state(): State {
    return this.#shown.state;
  }

  override get error(): SkywaveError | undefined {
    return this.#shown.error;
  }

  /** The session and the connection that all tabs share. */
  override get connection(): Connection | undefined {
    return this.state === 'connected' ? this.#tab.status.connection : undefined;
  }

  override on<Name extends keyof SkywaveEvents>(
    name: Name,
    listener: Listener<SkywaveEvents[Name]>,
    options?: ListenOptions,
  ): () => void {
    return this.#events.on(name, listener, options);
  }

  /**
   * Connects, if that has not been done, and waits until there is a session. After a refusal the holder tries again.
   */
  override connect(options?: { readonly signal?: AbortSignal }): Promise<Connection> {
    this.#isWanting = true;
    return super.connect(options);
  }

  /** This tab does without the connection until `connect()`. It is given up when no tab wants it any more. */
  override disconnect(): void {
    this.#isWanting = false;
    super.disconnect();
    this.#tab.goWithout();
  }

  /** Ends this tab's part for good; another tab takes the connection over if this one holds it. */
  override close(): void {
    super.close();
    this.#closing.abort();
    this.#tab.leave();
  }

  /** Gives the node a newer token of the same user, and to the tabs for when they hold the connection. */
  override async refresh(token: string, options?: { readonly signal?: AbortSignal }): Promise<number> {
    this.#brought(token);
    this.#tab.post({ kind: 'token', token });
    try {
      return await super.refresh(token, options);
    } catch (error) {
      // Whoever waits no longer says nothing of the token, nor does a node that does not want this client at all.
      if (this.session.live && error instanceof SkywaveError && !error.transient) {
        this.#refused(token);
        this.#tab.post({ kind: 'refused', token });
      }
      throw error;
    }
  }

  #brought(token: string): void {
    this.#tokens = [...this.#tokens, token].slice(-MOST_TOKENS);
  }

  #refused(token: string): void {
    this.#tokens = this.#tokens.filter((one) => one !== token);
  }

  /**
   * What the holder was given it keeps where the node refuses this client, and sends at the next `connect`: it is
   * waited for.
   */
  #publishKept(entry: OutboxEntry, signal: AbortSignal | undefined): Promise<Published> {
    const { asking } = this;
    return asking.promise<Published>(signal, (resolve, reject) => {
      let isGiven = false;
      let withdraw: (() => boolean) | undefined;
      const given = (): void => {
        isGiven = true;
      };
      const failed = (error: SkywaveError): void => {
        if (isGiven && error === asking.refusal && !asking.isClosed) push();
        else reject(error);
      };
      const push = (): void => {
        withdraw = asking.push(entry, resolve, failed, given);
      };
      push();
      return () => withdraw?.();
    });
  }

  override check(): void {
    super.check();
    this.#tab.page(this.#tab.network, 'check');
  }

  /**
   * Tells what is known of the network, where the page does not.
   *
   * @throws RequestError for a `kind` of more than 32 bytes.
   */
  setNetwork(network: Network): void {
    checkText(network.kind, 32);
    this.#tab.page(network, network.kind === this.#tab.network.kind ? undefined : 'network');
  }

  /**
   * Moves the connection that all tabs share to another transport; `auto` leaves it to the holder's client. Where that
   * fails, the present one goes on. `signal` ends the wait for it, and not the move.
   */
  switchTransport(choice: TransportChoice, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    const begin = (resolve: (value: undefined) => void, reject: (error: unknown) => void): (() => void) => {
      needSharing();
      this.#tab.switchTransport(choice, (error) => {
        if (error === undefined) resolve(undefined);
        else reject(error);
      });
      return () => undefined;
    };
    // It is for the holder to say whether there is a session to move.
    return this.asking.promise<undefined>(signal, begin, true);
  }
}

/** @throws RequestError where tabs cannot share. */
function needSharing(): void {
  if (canShare()) return;
  const needs = 'a browser with Web Locks and BroadcastChannel, and a page over https or of localhost';
  throw requestError('bad_request', `tabs cannot share a connection here: it needs ${needs}; \`Skywave\` works without`);
}

function tabParts(tab: Tab, share: string): Parts {
  return {
    address: () => ({ key: share, webtransport: undefined, websocket: share, isSecure: true }),
    dial: async ({ targets: [target] }, signal) => {
      needSharing();
      return { transport: await tab.open(signal), target, tookMs: 0, failed: [] };
    },
    route: ({ addresses }) => new FixedRoute(addresses),
    network: () => ({}),
  };
}
