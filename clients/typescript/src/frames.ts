/** Every frame on the wire, with the field names that it has there; docs/protocol.md explains them. */
import type { Position } from './position.js';

/** An outgoing payload: JSON text, or bytes. */
export type Payload = string | Uint8Array;

export interface SubscribeOptions {
  position?: Position | undefined;
  history?: number | undefined;
  presence?: boolean | undefined;
}

/** What is known of the network, for the node's heartbeats. */
export interface Network {
  /** Such as `wifi`, `cellular`, `ethernet`; at most 32 bytes. */
  kind?: string | undefined;
  /** Whether the application is in the background, where battery counts more than a quick notice of a dead path. */
  background?: boolean | undefined;
}

/** What a client sends. An encoding leaves out what is `undefined`. */
export interface ClientFrames {
  connect: {
    id: number;
    token?: string | undefined;
    resume?: string | undefined;
    /** Counts every `connect` of this client. */
    attempt?: number | undefined;
    subscriptions?: Record<string, SubscribeOptions>;
    client?: { name: string; version?: string | undefined };
    network?: Network;
  };
  subscribe: { id: number; channel: string } & SubscribeOptions;
  unsubscribe: { id: number; channel: string };
  publish: { id: number; channel: string; key?: string | undefined; data: Payload };
  emit: { channel: string; slot?: string | undefined; data: Payload };
  history: { id: number; channel: string; limit: number; after?: Position | undefined; before?: string | undefined };
  presence: { id: number; channel: string };
  call: { id: number; method: string; deadline_ms?: number | undefined; data: Payload };
  refresh: { id: number; token: string };
  network: Network;
  pong: { seq: number };
}

export interface WireMember {
  session: string;
  user?: string;
  data?: unknown;
  since_ms: number;
}

export interface WirePublication {
  channel: string;
  origin: string;
  epoch: string;
  offset: number;
  time_ms: number;
  key?: string;
  user?: string;
  /** A JSON value, or a `Uint8Array`. */
  data: unknown;
}

export interface Heartbeat {
  interval_ms: number;
  timeout_ms: number;
}

/** Why publications are missing for good; a later node may know other reasons. */
export type GapReason = 'trimmed' | 'epoch_changed' | 'unknown_position' | 'too_far_behind' | (string & {});

/** What a node sends. */
export interface ServerFrames {
  connected: {
    id: number;
    session: string;
    resume: string;
    node: string;
    region: string;
    user?: string;
    expires_at_ms?: number;
    resumed: boolean;
    heartbeat: Heartbeat;
    limits: { frame_bytes: number; publishes_per_second: number; idempotency_ms?: number };
    regions: { name: string; url: string }[];
    prefer_url?: string;
  };
  subscribed: {
    id?: number;
    channel: string;
    /** Names this subscription among those of the transport. */
    subscription?: number;
    position: Position;
    recovered?: boolean;
    reason?: GapReason;
    /** How many publications follow from what is retained. */
    recovers?: number;
    presence?: { count: number; members: WireMember[] };
  };
  unsubscribed: { id?: number; channel: string; code?: number; reason?: string };
  stream: { channel: string; subscription: number };
  published: { id: number; channel: string; origin: string; epoch: string; offset: number };
  history: { id: number; channel: string; publications: WirePublication[]; cursor?: string; more?: boolean };
  presence: { id: number; channel: string; count: number; members: WireMember[] };
  result: { id: number; data: unknown };
  refreshed: { id: number; expires_at_ms: number };
  publication: WirePublication;
  event: { channel: string; session: string; user?: string; slot?: string; data: unknown };
  gap: { channel: string; origin: string; reason: GapReason; epoch: string; offset: number };
  presence_changed: { channel: string; count: number; joined: WireMember[]; left: WireMember[] };
  ping: { seq: number } & Heartbeat;
  drain: { after_ms: number; url?: string };
  error: {
    id?: number;
    code: number;
    reason: string;
    message: string;
    transient: boolean;
    retry_after_ms?: number;
  };
  disconnect: { code: number; reason: string; message?: string; reconnect: boolean; retry_after_ms?: number };
}

/** A frame: its name and its fields. */
export type Frame<Frames> = { [Name in keyof Frames]: readonly [Name, Frames[Name]] }[keyof Frames];
export type ClientFrame = Frame<ClientFrames>;
export type ServerFrame = Frame<ServerFrames>;
