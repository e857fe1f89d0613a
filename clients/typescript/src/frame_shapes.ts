/** The shapes of a node's frames: what comes from outside is checked against them, field by field. */
import type { ServerFrames } from './frames.js';
import { byteLength } from './text.js';

/**
 * How an encoding carries what is opaque to the protocol: puts the payload's value under `data`, and answers whether
 * the frame has exactly one.
 */
export type PayloadReader = (body: Fields) => boolean;

export type Fields = Record<string, unknown>;
type Check = (value: unknown, reader: PayloadReader) => boolean;

const MAX_LIST = 100_000;
const MAX_ORIGINS = 64;

const integer =
  (least: number, most = 2 ** 64): Check =>
  (value) =>
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most;

const text =
  (maxBytes = Infinity): Check =>
  (value) =>
    typeof value === 'string' && (value.length * 3 <= maxBytes || byteLength(value) <= maxBytes);

const flag: Check = (value) => typeof value === 'boolean';

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A map with these fields; names that end with `?` may be absent, and `null` is the same as absent there. */
const object =
  (shape: Record<string, Check>, ...more: Check[]): Check =>
  (value, reader) => {
    if (!isFields(value)) return false;
    for (const [name, check] of Object.entries(shape)) {
      const field = name.replace('?', '');
      const isOptional = field !== name;
      if (isOptional && (value[field] ?? undefined) === undefined) Reflect.deleteProperty(value, field);
      else if (!Object.hasOwn(value, field) || !check(value[field], reader)) return false;
    }
    return more.every((check) => check(value, reader));
  };

const list =
  (check: Check): Check =>
  (value, reader) =>
    Array.isArray(value) && value.length <= MAX_LIST && value.every((item) => check(item, reader));

const payload: Check = (body, reader) => reader(body as Fields);

const id = integer(1, 0xffffffff);
const u64 = integer(0);
const name32 = text(32);
const name64 = text(64);
const channel = text(255);
const code = integer(0, 0xffff);
const point = object({ epoch: name32, offset: u64 });
const position: Check = (value, reader) => {
  if (!isFields(value)) return false;
  const entries = Object.entries(value);
  return entries.length <= MAX_ORIGINS && entries.every(([origin, at]) => name32(origin, reader) && point(at, reader));
};

/** Whether a node takes it for a position. */
export function isPosition(value: unknown): boolean {
  // Half of a surrogate pair is written as an escape, and is no text to a node.
  return position(value, () => false) && !/\\ud[89a-f]/i.test(JSON.stringify(value));
}

const heartbeat = { interval_ms: u64, timeout_ms: u64 };
/** A later node may have more of them: a gap is one whatever its reason. */
const reason = text(64);
const members = {
  count: u64,
  members: list(object({ session: name64, 'user?': text(), since_ms: u64 })),
};
const memberList = members.members;
const place = { channel, origin: name32, epoch: name32, offset: u64 };
const publication = object({ ...place, time_ms: u64, 'key?': name64, 'user?': text() }, payload);

const SHAPES: Record<keyof ServerFrames, Check> = {
  connected: object({
    id,
    session: name64,
    resume: text(),
    node: text(),
    region: name32,
    'user?': text(),
    'expires_at_ms?': u64,
    resumed: flag,
    heartbeat: object(heartbeat),
    limits: object({
      // The others are the node's own business.
      frame_bytes: u64,
      publishes_per_second: u64,
      'idempotency_ms?': u64,
    }),
    regions: list(object({ name: name32, url: text() })),
    'prefer_url?': text(),
  }),
  subscribed: object({
    'id?': id,
    channel,
    'subscription?': u64,
    position,
    'recovered?': flag,
    'reason?': reason,
    'recovers?': u64,
    'presence?': object(members),
  }),
  unsubscribed: object({ 'id?': id, channel, 'code?': code, 'reason?': text() }),
  stream: object({ channel, subscription: u64 }),
  published: object({ id, ...place }),
  history: object({ id, channel, publications: list(publication), 'cursor?': text(128), 'more?': flag }),
  presence: object({ id, channel, ...members }),
  result: object({ id }, payload),
  refreshed: object({ id, expires_at_ms: u64 }),
  publication,
  event: object({ channel, session: name64, 'user?': text(), 'slot?': name64 }, payload),
  gap: object({ ...place, reason }),
  presence_changed: object({ channel, count: u64, joined: memberList, left: memberList }),
  ping: object({ seq: integer(0, 0xffffffff), ...heartbeat }),
  drain: object({ after_ms: u64, 'url?': text() }),
  error: object({
    'id?': id,
    code,
    reason: text(),
    message: text(),
    transient: flag,
    'retry_after_ms?': u64,
  }),
  disconnect: object({ code, reason: text(), 'message?': text(), reconnect: flag, 'retry_after_ms?': u64 }),
};

/**
 * Checks whether fields are those of the frame `name`, and brings payloads and absent fields into their final form.
 * None where nodes send no frames of this name.
 */
export function shapeOf(name: string): Check | undefined {
  return Object.hasOwn(SHAPES, name) ? SHAPES[name as keyof ServerFrames] : undefined;
}
