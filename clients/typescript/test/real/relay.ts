/** A relay in front of a node, for UDP and TCP, that can be cut like a network: packets vanish, nobody is told. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { TestNode } from './node.js';

export class Relay {
  /** Whether datagrams, and whether bytes of connections, get through. */
  udp = true;
  tcp = true;
  readonly #node: TestNode;
  readonly #udp = createSocket('udp4');
  readonly #tcp: Server;
  /** A socket towards the node for each peer's address. */
  readonly #paths = new Map<string, UdpSocket>();
  readonly #sockets = new Set<Socket>();
  /** Peers that were cut: a QUIC connection would survive a mere change of its path. */
  readonly #cut = new Set<string>();

  private constructor(node: TestNode) {
    this.#node = node;
    this.#tcp = createServer((client) => {
      this.#connected(client);
    });
  }

  static async start(node: TestNode): Promise<Relay> {
    const relay = new Relay(node);
    relay.#tcp.listen(0, '127.0.0.1');
    await once(relay.#tcp, 'listening');
    relay.#udp.on('message', (packet, { address, port }) => {
      relay.#packet(packet, address, port);
    });
    relay.#udp.bind(0, '127.0.0.1');
    await once(relay.#udp, 'listening');
    return relay;
  }

  get udpPort(): number {
    return this.#udp.address().port;
  }

  get tcpPort(): number {
    return (this.#tcp.address() as AddressInfo).port;
  }

  #packet(packet: Buffer, address: string, port: number): void {
    if (!this.udp) return;
    const peer = `${address}:${String(port)}`;
    if (this.#cut.has(peer)) return;
    let path = this.#paths.get(peer);
    if (path === undefined) {
      path = createSocket('udp4');
      path.on('message', (answer) => {
        if (this.udp) this.#udp.send(answer, port, address);
      });
      // A node that is gone is answered by its host; here that is nobody's business.
      path.on('error', () => undefined);
      this.#paths.set(peer, path);
    }
    path.send(packet, Number(this.#node.places.public.split(':').pop()), '127.0.0.1');
  }

  #connected(client: Socket): void {
    const [host = '127.0.0.1', port] = this.#node.places.plain.split(':');
    const node = connect(Number(port), host);
    for (const [from, to] of [
      [client, node],
      [node, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (bytes) => {
        if (this.tcp) to.write(bytes);
      });
      from.on('error', () => undefined);
      from.on('close', () => {
        this.#sockets.delete(from);
        if (this.tcp) to.destroy();
      });
    }
  }

  /** Cuts all connections: those of TCP are closed, nothing of those of UDP gets through any more. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    for (const [peer, path] of this.#paths) {
      this.#cut.add(peer);
      path.close();
    }
    this.#paths.clear();
  }

  stop(): void {
    this.cut();
    this.#udp.close();
    this.#tcp.close();
  }
}
