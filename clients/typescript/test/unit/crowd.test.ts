/** Many clients of one node that is slow for a while: what they do about it must not make it slower. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type FakeTransport, World } from './world.js';

const CLIENTS = 200;
const HEARTBEAT = { interval_ms: 7_000, timeout_ms: 4_000 };
const STEP_MS = 10;
/** What the node has to do for a handshake, and for a frame. */
const HANDSHAKE_MS = 3;
const FRAME_MS = 0.2;

interface Client {
  world: World;
  transports: { transport: FakeTransport; read: number }[];
  dialled: number;
  published: number;
  answered: number;
}

/** A node that does one thing after the other, and its clients, of which each publishes once a second. */
class Crowd {
  readonly clients: Client[];
  /** How many handshakes there were for each client. */
  readonly handshakes: number[];
  slowness = 1;
  isHalted = false;
  #time = 0;
  #leftMs = 0;
  readonly #queue: { costMs: number; act: () => void }[] = [];

  constructor() {
    this.clients = Array.from({ length: CLIENTS }, (_, number) => {
      const world = new World();
      world.chance = number / CLIENTS;
      world.session.connect();
      return { world, transports: [], dialled: 0, published: 0, answered: 0 };
    });
    this.handshakes = this.clients.map(() => 0);
  }

  pass(milliseconds: number): void {
    for (const end = this.#time + milliseconds; this.#time < end; this.#time += STEP_MS) {
      for (const [number, client] of this.clients.entries()) {
        if (this.#time % 1_000 === (number * STEP_MS) % 1_000) this.#publish(client);
        client.world.pass(STEP_MS);
        this.#hear(number, client);
      }
      this.#work();
    }
  }

  #publish(client: Client): void {
    client.published += 1;
    const { traffic } = client.world.session;
    traffic.publish({
      channel: 'chat:1',
      data: '1',
      key: String(client.published),
      done: () => (client.answered += 1),
      failed: (error) => assert.fail(error),
    });
    client.world.session.settle();
  }

  /** Takes what the client has begun and sent. */
  #hear(number: number, client: Client): void {
    const { world } = client;
    for (; client.dialled < world.dials.length; client.dialled += 1) {
      const dial = world.dials[client.dialled];
      this.handshakes[number] = (this.handshakes[number] ?? 0) + 1;
      this.#queue.push({
        costMs: HANDSHAKE_MS,
        act: () => {
          if (dial && !dial.isCancelled && dial === world.dials.at(-1)) client.transports.push({ transport: world.opens(), read: 0 });
        },
      });
    }
    client.transports = client.transports.filter(({ transport }) => !transport.isClosed);
    for (const one of client.transports) {
      for (; one.read < one.transport.sent.length; one.read += 1) {
        const frame = one.transport.sent[one.read];
        if (frame) this.#queue.push({ costMs: FRAME_MS, act: () => { this.#answer(one.transport, frame); } });
      }
    }
  }

  #answer(transport: FakeTransport, [name, body]: FakeTransport['sent'][number]): void {
    if (name === 'connect') transport.welcomes({ heartbeat: HEARTBEAT });
    else if (name === 'publish') transport.says(['published', { id: body.id, channel: 'chat:1', origin: 'eu', epoch: 'e', offset: 1 }]);
    else if (name === 'unsubscribe') {
      transport.says(['error', { id: body.id, code: 104, reason: 'not_subscribed', message: 'no', transient: false }]);
    }
  }

  #work(): void {
    if (this.isHalted) return;
    for (this.#leftMs += STEP_MS / this.slowness; this.#leftMs > 0; ) {
      const next = this.#queue.shift();
      if (next === undefined) this.#leftMs = 0;
      else {
        this.#leftMs -= next.costMs;
        next.act();
      }
    }
  }
}

describe('a node with many clients', () => {
  it('that is slowed to a tenth after it stood still gets no storm of handshakes', () => {
    const crowd = new Crowd();
    crowd.pass(5_000);
    assert.equal(Math.max(...crowd.handshakes), 1);
    crowd.isHalted = true;
    crowd.pass(3_000);
    crowd.isHalted = false;
    crowd.slowness = 10;
    crowd.pass(60_000);
    assert.ok(Math.max(...crowd.handshakes) <= 2, 'one looks for another connection only now and then');
    crowd.pass(2_000);
    assert.ok(crowd.clients.every(({ published, answered }) => answered >= published - 1), 'all are answered');
  });
});
