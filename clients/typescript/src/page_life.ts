/** The life of a page: hidden and shown, frozen and resumed, offline and online, on one network and another. */
import type { Network } from './frames.js';

/** Whoever follows the page. */
export interface PageFollower {
  networkChanged(network: Network, isOther: boolean): void;
  /** Something may have happened to the connection. */
  check(): void;
  /** The page was frozen. */
  woke(): void;
}

/** As much of a page as there is: a worker has no document, and not all browsers tell of the network. */
interface Page extends Partial<Pick<EventTarget, 'addEventListener' | 'removeEventListener'>> {
  readonly document?: EventTarget & { readonly visibilityState: string };
  readonly navigator?: { readonly connection?: EventTarget & { readonly type?: string } };
}

/** What is known of the network now. */
export function networkOf(page: Page = globalThis as Page): Network {
  const kind = page.navigator?.connection?.type;
  const visibility = page.document?.visibilityState;
  const background = visibility === undefined ? undefined : visibility === 'hidden';
  return { kind, background };
}

/** Tells `follower` what happens to the page. Answers how to stop. */
export function followPage(follower: PageFollower, page: Page = globalThis as Page): () => void {
  const stops = new AbortController();
  const on = (target: Page | EventTarget | undefined, name: string, listener: (event: Event) => void): void => {
    target?.addEventListener?.(name, listener, { signal: stops.signal });
  };
  let { kind } = networkOf(page);
  on(page.document, 'visibilitychange', () => {
    const network = networkOf(page);
    follower.networkChanged(network, false);
    // Its timers were held up while it was hidden.
    if (!network.background) follower.check();
  });
  on(page.document, 'freeze', () => {
    // Nothing is answered from now on, visible or not.
    follower.networkChanged({ ...networkOf(page), background: true }, false);
  });
  on(page.document, 'resume', () => {
    follower.networkChanged(networkOf(page), false);
    follower.woke();
  });
  on(page, 'pageshow', (event) => {
    if ((event as PageTransitionEvent).persisted) follower.woke();
  });
  on(page, 'online', () => {
    follower.networkChanged(networkOf(page), true);
  });
  on(page, 'offline', () => {
    follower.check();
  });
  on(page.navigator?.connection, 'change', () => {
    const network = networkOf(page);
    const isOther = network.kind !== kind;
    kind = network.kind;
    // It also tells changes of the estimated speed, which say nothing of the path.
    if (isOther) follower.networkChanged(network, true);
  });
  return () => {
    stops.abort();
  };
}
