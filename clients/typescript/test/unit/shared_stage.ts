/** Tabs of one process that share a client: the node is the test, the browser's locks are fakes. */
import assert from 'node:assert/strict';
import { SharedSkywave, type SharedOptions } from '../../src/shared_skywave.js';
import { FakeLocks } from './fake_locks.js';
import { FakeNode } from './fake_node.js';

export class SharedStage {
  readonly locks = new FakeLocks();
  readonly node = new FakeNode();
  readonly share = crypto.randomUUID();
  readonly #clients: SharedSkywave[] = [];

  constructor() {
    this.locks.install();
  }

  /** Opens a tab. */
  tab(options: SharedOptions = {}): SharedSkywave {
    const { WebSocket } = this.node;
    const backoff = { firstMs: 1, maxMs: 10 };
    const client = new SharedSkywave('ws://node.example', { share: this.share, transport: 'websocket', WebSocket, backoff, ...options });
    this.#clients.push(client);
    return client;
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }
}

/** Waits until it is so. */
export async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 5_000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 2))) {
    assert.ok(Date.now() < deadline, `never: ${what}`);
  }
}
