/** The package's public names. */
export type { NodeUrl } from './address.js';
export type { Backoff } from './backoff.js';
export {
  Channel,
  type ChannelEvents,
  type ChannelOptions,
  type HistoryOptions,
  type HistoryPage,
  type PublishOptions,
} from './channel.js';
export type { CallOptions, ClientEvents, CoreOptions, StateChange } from './client.js';
export { CloseCode, ErrorCode } from './codes.js';
export type { Delivered } from './courier.js';
export type { Listener, ListenOptions } from './emitter.js';
export { type Carrier, type Encoding, json } from './encoding.js';
export { exactJson } from './exact_json.js';
export type { GetToken } from './engine.js';
export { ConnectionError, InvalidDataError, type Issue, OutcomeUnknownError, RequestError, SkywaveError, TokenError } from './errors.js';
export type { GapReason, Network, Payload } from './frames.js';
export type { ChannelEvent, Gap, Member, PresenceChange, Publication, Published, Subscribed } from './messages.js';
export type { Outbox, OutboxEntry } from './outbox.js';
export type { Point, Position } from './position.js';
export type { MemoryStorage, TransportChoice } from './race_memory.js';
export type { SchemaResult, StandardSchema } from './schema.js';
export type { Connection, State } from './session/state.js';
export type { TransportKind } from './transport.js';
export type { WebSocketConstructor, WebSocketLike } from './transport/websocket.js';
export { type CertificateHashes, type GetCertificateHashes, Skywave, type SkywaveEvents, type SkywaveOptions } from './skywave.js';
export type { SkywaveClient } from './skywave_client.js';
