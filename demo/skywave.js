/*
 * The package `skywave` as one readable file, for the demo page. Built from clients/typescript/src; do not edit it.
 * After a change there: `npm ci && npm run demo -- --write` in clients/typescript.
 */

// src/abort.ts
function onAbort(signal, listener) {
  signal?.addEventListener("abort", listener);
  return () => {
    signal?.removeEventListener("abort", listener);
  };
}

// src/codes.ts
var FORBIDDEN = 103;
var ALREADY_SUBSCRIBED = 105;
var LIMIT_REACHED = 106;
var TOKEN_EXPIRED = 3005;
var OVERLOADED = 3006;
var ROTATE = 3007;
var REPLACED = 3500;
var UNAUTHENTICATED = 3503;
var ErrorCode = {
  internal: 100,
  unauthenticated: 101,
  unknown_namespace: 102,
  forbidden: 103,
  not_subscribed: 104,
  already_subscribed: ALREADY_SUBSCRIBED,
  limit_reached: LIMIT_REACHED,
  bad_request: 107,
  not_available: 108,
  token_expired: 109,
  unavailable: 110,
  rate_limited: 111,
  timeout: 112
};
var CloseCode = {
  drain: 3e3,
  shutdown: 3001,
  heartbeat_timeout: 3002,
  slow_consumer: 3003,
  connect_timeout: 3004,
  token_expired: TOKEN_EXPIRED,
  overloaded: 3006,
  rotate: ROTATE,
  replaced: REPLACED,
  bad_frame: 3501,
  frame_too_large: 3502,
  unauthenticated: UNAUTHENTICATED,
  disconnected: 3504,
  too_many_sessions: 3505
};
function isTransient(code2) {
  return code2 === 100 || code2 >= 110 && code2 <= 112;
}

// src/errors.ts
var CODES = {
  internal: 100,
  unauthenticated: 101,
  not_subscribed: 104,
  limit_reached: 106,
  bad_request: 107,
  unavailable: 110,
  timeout: 112
};
var SkywaveError = class extends Error {
  name = "SkywaveError";
  /** One of the protocol's error or close codes, the fitting one for what failed on this side. */
  code;
  /** The word for `code`. */
  reason;
  /** Whether the same may succeed later. */
  transient;
  /** How long to wait before it is tried again, in milliseconds, where the node said so. */
  retryAfterMs;
  constructor(code2, reason2, message, transient, details = {}) {
    super(message, details);
    this.code = code2;
    this.reason = reason2;
    this.transient = transient;
    this.retryAfterMs = details.retryAfterMs;
  }
};
var RequestError = class extends SkywaveError {
  name = "RequestError";
};
var OUTCOME_UNKNOWN = "outcome_unknown";
var OutcomeUnknownError = class extends RequestError {
  name = "OutcomeUnknownError";
  constructor() {
    super(CODES.timeout, OUTCOME_UNKNOWN, "it may have taken effect", false);
  }
};
var ConnectionError = class extends SkywaveError {
  name = "ConnectionError";
};
var TokenError = class extends SkywaveError {
  name = "TokenError";
  constructor(message, options) {
    super(CODES.unauthenticated, "unauthenticated", message, options.transient, { cause: options.cause });
  }
};
var InvalidDataError = class extends SkywaveError {
  name = "InvalidDataError";
  issues;
  constructor(issues) {
    const message = issues.map((issue) => issue.message).join("; ");
    super(CODES.bad_request, "bad_request", message, false);
    this.issues = issues;
  }
};
function requestError(reason2, message, transient = isTransient(CODES[reason2])) {
  return new RequestError(CODES[reason2], reason2, message, transient);
}
function check(isRight, rule) {
  if (!isRight) throw requestError("bad_request", rule);
}
function lost(message, cause) {
  return new ConnectionError(CODES.unavailable, "unavailable", message, true, { cause });
}
function tooLarge(maxBytes) {
  return requestError("bad_request", `more than ${maxBytes} bytes`);
}
function report(error) {
  queueMicrotask(() => {
    throw error;
  });
}
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

// src/emitter.ts
var Emitter = class {
  /** And how to forget the signal of each. */
  #listeners = /* @__PURE__ */ new Map();
  #removed;
  /** `removed` is called after a listener has gone. */
  constructor(removed) {
    this.#removed = removed;
  }
  /** Whether anybody listens to one of these. */
  hasAny(names) {
    return names.some((name) => this.#listeners.get(name)?.size);
  }
  /** Adds a listener; answers how to remove it. */
  on(name, listener, { signal } = {}) {
    if (signal?.aborted) return () => void 0;
    const own = (event) => {
      if (listeners.has(own)) listener(event);
    };
    const listeners = this.#listeners.get(name) ?? /* @__PURE__ */ new Map();
    this.#listeners.set(name, listeners);
    const remove = () => {
      listeners.get(own)?.();
      listeners.delete(own);
      this.#removed?.();
    };
    listeners.set(own, onAbort(signal, remove));
    return remove;
  }
  /** Nobody listens any more. */
  clear() {
    for (const listeners of this.#listeners.values()) {
      for (const forget of listeners.values()) forget();
      listeners.clear();
    }
    this.#removed?.();
  }
  emit(name, event) {
    for (const listener of new Map(this.#listeners.get(name)).keys()) {
      try {
        listener(event);
      } catch (error) {
        report(error);
      }
    }
  }
};

// src/text.ts
function toUtf8(text2) {
  return new TextEncoder().encode(text2);
}
function byteLength(text2) {
  return toUtf8(text2).length;
}
function isText(text2, maxBytes) {
  return byteLength(text2) <= maxBytes && !/\p{Cs}/u.test(text2);
}

// src/frame_shapes.ts
var MAX_LIST = 1e5;
var MAX_ORIGINS = 64;
var integer = (least, most = 2 ** 64) => (value) => Number.isInteger(value) && value >= least && value <= most;
var text = (maxBytes = Infinity) => (value) => typeof value === "string" && (value.length * 3 <= maxBytes || byteLength(value) <= maxBytes);
var flag = (value) => typeof value === "boolean";
function isFields(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
var object = (shape, ...more) => (value, reader3) => {
  if (!isFields(value)) return false;
  for (const [name, check2] of Object.entries(shape)) {
    const field = name.replace("?", "");
    const isOptional = field !== name;
    if (isOptional && (value[field] ?? void 0) === void 0) Reflect.deleteProperty(value, field);
    else if (!Object.hasOwn(value, field) || !check2(value[field], reader3)) return false;
  }
  return more.every((check2) => check2(value, reader3));
};
var list = (check2) => (value, reader3) => Array.isArray(value) && value.length <= MAX_LIST && value.every((item) => check2(item, reader3));
var payload = (body, reader3) => reader3(body);
var id = integer(1, 4294967295);
var u64 = integer(0);
var name32 = text(32);
var name64 = text(64);
var channel = text(255);
var code = integer(0, 65535);
var point = object({ epoch: name32, offset: u64 });
var position = (value, reader3) => {
  if (!isFields(value)) return false;
  const entries = Object.entries(value);
  return entries.length <= MAX_ORIGINS && entries.every(([origin, at]) => name32(origin, reader3) && point(at, reader3));
};
function isPosition(value) {
  return position(value, () => false) && !/\\ud[89a-f]/i.test(JSON.stringify(value));
}
var heartbeat = { interval_ms: u64, timeout_ms: u64 };
var reason = text(64);
var members = {
  count: u64,
  members: list(object({ session: name64, "user?": text(), since_ms: u64 }))
};
var memberList = members.members;
var place = { channel, origin: name32, epoch: name32, offset: u64 };
var publication = object({ ...place, time_ms: u64, "key?": name64, "user?": text() }, payload);
var SHAPES = {
  connected: object({
    id,
    session: name64,
    resume: text(),
    node: text(),
    region: name32,
    "user?": text(),
    "expires_at_ms?": u64,
    resumed: flag,
    heartbeat: object(heartbeat),
    limits: object({
      // The others are the node's own business.
      frame_bytes: u64,
      publishes_per_second: u64,
      "idempotency_ms?": u64
    }),
    regions: list(object({ name: name32, url: text() })),
    "prefer_url?": text()
  }),
  subscribed: object({
    "id?": id,
    channel,
    "subscription?": u64,
    position,
    "recovered?": flag,
    "reason?": reason,
    "recovers?": u64,
    "presence?": object(members)
  }),
  unsubscribed: object({ "id?": id, channel, "code?": code, "reason?": text() }),
  stream: object({ channel, subscription: u64 }),
  published: object({ id, ...place }),
  history: object({ id, channel, publications: list(publication), "cursor?": text(128), "more?": flag }),
  presence: object({ id, channel, ...members }),
  result: object({ id }, payload),
  refreshed: object({ id, expires_at_ms: u64 }),
  publication,
  event: object({ channel, session: name64, "user?": text(), "slot?": name64 }, payload),
  gap: object({ ...place, reason }),
  presence_changed: object({ channel, count: u64, joined: memberList, left: memberList }),
  ping: object({ seq: integer(0, 4294967295), ...heartbeat }),
  drain: object({ after_ms: u64, "url?": text() }),
  error: object({
    "id?": id,
    code,
    reason: text(),
    message: text(),
    transient: flag,
    "retry_after_ms?": u64
  }),
  disconnect: object({ code, reason: text(), "message?": text(), reconnect: flag, "retry_after_ms?": u64 })
};
function shapeOf(name) {
  return Object.hasOwn(SHAPES, name) ? SHAPES[name] : void 0;
}

// src/messages.ts
function toError({ code: code2, reason: reason2, message, transient, retry_after_ms: retryAfterMs }) {
  if (reason2 === OUTCOME_UNKNOWN) return new OutcomeUnknownError();
  return new RequestError(code2, reason2, message, transient, { retryAfterMs });
}
function toPublished({ origin, epoch, offset }) {
  return { origin, epoch, offset };
}
function toMember({ session, user, data, since_ms: sinceMs }) {
  return { session, user, data, sinceMs };
}
function toPublication(wire, data) {
  const { channel: channel2, origin, epoch, offset, time_ms: timeMs, key: key2, user } = wire;
  return { data, channel: channel2, origin, epoch, offset, timeMs, key: key2, user };
}

// src/payload.ts
function toPayload(data) {
  if (data instanceof ArrayBuffer) return new Uint8Array(data.slice(0));
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  const text2 = textOf(data) ?? textWithBigInts(data) ?? "";
  const { constructor } = Object(data);
  const isSaid = text2 !== "" && (text2 !== "{}" || constructor === void 0 || constructor.name === "Object");
  let depth = 0;
  const marks = text2.replace(/"(\\.|[^"\\]+)*"|[^"[\]{}]+/g, "");
  const isTooDeep = Array.from(marks).some((mark) => (depth += "[{".includes(mark) ? 1 : -1) > 100);
  check(isSaid && !isTooDeep, "bytes, or JSON of at most 100 levels");
  return text2;
}
function checkText(text2, maxBytes) {
  check(isText(text2 ?? "", maxBytes), `a text of at most ${maxBytes} bytes`);
}
function textOf(data, replacer) {
  try {
    return JSON.stringify(data, replacer);
  } catch {
    return void 0;
  }
}
function textWithBigInts(data) {
  const mark = `${Math.random()}${Math.random()}:`;
  const text2 = textOf(data, (_, value) => typeof value === "bigint" ? `${mark}${String(value)}` : value);
  return text2?.replace(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1");
}

// src/payload_schema.ts
function validate(schema, value) {
  if (schema === void 0) return value;
  const result = answer(schema, value);
  if (result.issues !== void 0) throw new InvalidDataError(result.issues);
  return result.value;
}
function answer(schema, value) {
  try {
    const result = schema["~standard"].validate(value);
    if (!(result instanceof Promise)) return result;
    result.catch(report);
    return { issues: [{ message: "the schema answers by a promise" }] };
  } catch (error) {
    return { issues: [{ message: messageOf(error) }] };
  }
}

// src/position.ts
function isNext(position2, { origin, epoch, offset }) {
  const seen = pointOf(position2, origin) ?? { epoch, offset: 0 };
  return seen.epoch === epoch && offset === seen.offset + 1;
}
function moved(position2 = {}, { origin, epoch, offset }) {
  return { ...position2, [origin]: { epoch, offset } };
}
function isPast(position2 = {}, { origin, epoch, offset }) {
  const seen = pointOf(position2, origin);
  return seen?.epoch === epoch && offset <= seen.offset;
}
function earlier(one, other, now) {
  let both = {};
  for (const [origin, point2] of Object.entries(one)) {
    const known = pointOf(other, origin);
    if (!known) continue;
    const isEarlier = known.epoch === point2.epoch ? point2.offset < known.offset : known.epoch === pointOf(now, origin)?.epoch;
    both = { ...both, [origin]: isEarlier ? point2 : known };
  }
  return both;
}
function pointOf(position2 = {}, origin) {
  return Object.hasOwn(position2, origin) ? position2[origin] : void 0;
}

// src/random_key.ts
function randomKey() {
  const words = new Uint32Array(4).map(() => Math.random() * 2 ** 32);
  globalThis.crypto?.getRandomValues(words);
  return [...words].map((word) => word.toString(36)).join("");
}

// src/reading.ts
var Reading = class {
  isOver = false;
  /** It had no room, and has to go back to get what it has missed. */
  isBehind = false;
  /** What it has been given. */
  filled;
  #limit;
  #left;
  #queue = [];
  /** Readers that wait for something to read. */
  #waiting = [];
  #error;
  /** `left` is called when the reader has made room, and when it goes. */
  constructor(limit, left) {
    this.#limit = limit;
    this.#left = left;
  }
  /** What its reader has taken. */
  get taken() {
    return this.#queue[0]?.after ?? this.filled;
  }
  get hasRoom() {
    return this.#queue.length < this.#limit && !this.isBehind;
  }
  /** Whether so much has been read that it is worth asking for more. */
  get hasMuchRoom() {
    return this.#queue.length <= this.#limit / 2;
  }
  /** Takes what is new to it, if there is room. */
  push(value) {
    const { filled: after = {} } = this;
    this.isBehind = !this.hasRoom;
    if (this.isBehind) return;
    this.filled = moved(after, value);
    this.#queue.push({ value, after });
    this.#wake();
  }
  /** What lies before the place, which is new to it, will never come. Answers whether it is there already. */
  pass(place2) {
    if (!this.isBehind) this.filled = moved(this.filled, place2);
    return !this.isBehind;
  }
  /** No more will come. An error is thrown to the reader once it has read what waits. */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.#error = error;
    this.#wake();
    this.#left();
  }
  #wake() {
    for (const wake of this.#waiting.splice(0)) wake();
  }
  async next() {
    while (this.#queue.length === 0 && !this.isOver) await new Promise((wake) => this.#waiting.push(wake));
    const next = this.#queue.shift();
    if (next !== void 0) {
      this.#left();
      return { value: next.value, done: false };
    }
    const error = this.#error;
    this.#error = void 0;
    if (error !== void 0) throw error;
    return { value: void 0, done: true };
  }
  return() {
    this.#queue.length = 0;
    this.end();
    this.#error = void 0;
    return this.next();
  }
  [Symbol.asyncIterator]() {
    return this;
  }
};

// src/session/subscription.ts
var REMEMBERED_KEYS = 1e3;
function forgetOldest(keys) {
  const [oldest = ""] = keys.keys();
  if (keys.size > REMEMBERED_KEYS) keys.delete(oldest);
}
var Subscription = class {
  /** What the reader has; none before the first `subscribed`. */
  position;
  /** Left on the wire for now: the reader has no room, or the node asked to come back later. */
  isPaused = false;
  /** When a paused one is asked for again. */
  resumeAt = Infinity;
  failures = 0;
  failedAt = 0;
  reader;
  #options;
  /** Where each was seen first. */
  keys;
  /** `keys`: those of the one that this one takes the place of. */
  constructor(options, reader3, keys = /* @__PURE__ */ new Map()) {
    this.keys = keys;
    this.position = options.position;
    this.#options = options;
    this.reader = reader3;
  }
  /** How to subscribe now: from the position held, or as at first. */
  request() {
    const { position: position2 } = this;
    const { history, presence } = this.#options;
    return { position: position2, history: position2 === void 0 && history !== 0 ? history : void 0, presence };
  }
  subscribed(body) {
    this.position ??= body.position;
    this.reader.subscribed(body, this.position);
  }
  /** Hands on a frame of this channel that came after `subscribed`, or says why not. */
  deliver([name, body]) {
    if (name === "event") this.reader.event(body);
    else if (!this.reader.hasRoom()) return "full";
    else if (name === "publication") return this.#publication(body);
    else if (name === "gap") this.#gap(body);
    else if (name === "presence_changed") this.reader.presenceChanged(body);
    return void 0;
  }
  #publication(publication2) {
    const { origin, epoch, offset, key: key2 } = publication2;
    if (!this.position) return "out_of_order";
    if (isPast(this.position, publication2)) return void 0;
    if (!isNext(this.position, publication2)) return "out_of_order";
    this.position = moved(this.position, publication2);
    this.reader.publication(publication2, key2 !== void 0 && !this.#isNew(key2, `${origin} ${epoch} ${offset}`));
    return void 0;
  }
  #isNew(key2, place2) {
    const known = this.keys.get(key2);
    if (known !== void 0) return known === place2;
    this.keys.set(key2, place2);
    forgetOldest(this.keys);
    return true;
  }
  #gap(gap) {
    if (!isPast(this.position, gap)) this.position = moved(this.position, gap);
    this.reader.gap(gap);
  }
};

// src/channel.ts
var SUBSCRIBING = ["publication", "event", "presence", "subscribed", "gap"];
var WAITING = ["invalid", "error"];
var USUAL_QUEUE = 1024;
var USUAL_HISTORY = 100;
var MOST_MEMBERS = 1e3;
var ASK_AGAIN_MS = 5e3;
var Channel = class {
  name;
  #events = new Emitter(() => {
    this.#checkSoon();
  });
  #asking;
  #used;
  #reader;
  #readings = /* @__PURE__ */ new Set();
  /** Who waits for the confirmation. */
  #waiting = /* @__PURE__ */ new Set();
  #members = /* @__PURE__ */ new Map();
  /** Of what was published here and is not to be heard, the newest ones. */
  #ownKeys = /* @__PURE__ */ new Set();
  #options = {};
  #isKept = false;
  #isStopped = false;
  #isSubscribed = false;
  #isChecking = false;
  /** What has changed since the members were asked for, while there is no answer. */
  #meanwhile;
  /** Up to where listeners have heard. */
  #heard;
  /**
   * Where the subscription has begun in epochs that are over: they are for whoever is still there. No epoch comes
   * again.
   */
  #back;
  #subscribed;
  /** `used` is told whether somebody needs it to be there, though nobody may hold it. @internal */
  constructor(name, asking, used) {
    checkName(name);
    this.name = name;
    this.#asking = asking;
    this.#used = used;
    this.#reader = this.#toReader();
  }
  /** Changes how the next subscription begins; `presence` and schemas are for the present one as well. @internal */
  configure(options) {
    const { history, position: position2 } = options;
    if (history) checkPage(history);
    checkPosition(position2);
    const isMore = this.#isSubscribed && options.presence && !this.#options.presence;
    for (const [name, value] of Object.entries(options)) if (value !== void 0) this.#options = { ...this.#options, [name]: value };
    if (isMore) this.#beginAgain();
  }
  // ---- subscribing
  /** Whether the subscription stands. */
  get isSubscribed() {
    return this.#subscribed !== void 0;
  }
  /**
   * What has been handed out, to listeners and to the slowest iteration: to be kept where the next visit should go on
   * from here. It is there as long as the channel is subscribed.
   */
  get position() {
    return this.#earliest(({ taken }) => taken);
  }
  /** Who is there, where `presence` was asked for. */
  get members() {
    return [...this.#members.values()].map(toMember);
  }
  /** Listens, which subscribes. Answers how to stop; the last one to stop unsubscribes. */
  on(name, listener, options) {
    const remove = this.#events.on(name, listener, options);
    if (SUBSCRIBING.includes(name) && !options?.signal?.aborted) this.#wanted();
    this.#checkSoon();
    return remove;
  }
  /**
   * Subscribes, and stays subscribed until `unsubscribe()`. Waits until the node has confirmed it; rejects when that
   * cannot come any more.
   */
  subscribe({ signal } = {}) {
    return this.#asking.promise(signal, (resolve, reject) => {
      this.#isKept = true;
      this.#isStopped = false;
      this.#check();
      if (this.#subscribed) resolve(this.#subscribed);
      const waiter = { resolve, reject };
      this.#waiting.add(waiter);
      return () => {
        this.#waiting.delete(waiter);
        if (signal?.aborted && this.#waiting.size === 0 && !this.isSubscribed) {
          this.#isKept = false;
          this.#checkSoon();
        }
      };
    });
  }
  /** Ends the subscription and all iterations, until somebody subscribes or listens anew. */
  unsubscribe() {
    this.#isKept = false;
    this.#isStopped = true;
    for (const reading of this.#readings) void reading.return();
    this.#fail(requestError("not_subscribed", "unsubscribed"));
    this.#check();
  }
  /**
   * Ends the subscription, all iterations and listeners, and forgets the options: the channel is as if it had never
   * been named. There is no need for it where they end by themselves.
   */
  release() {
    this.unsubscribe();
    this.#events.clear();
    this.#options = {};
  }
  /** Iterates over the publications from now on, which subscribes. */
  [Symbol.asyncIterator]() {
    return this.publications();
  }
  /** Iterates over the publications from now on, until `signal` aborts. */
  publications({ signal } = {}) {
    let forget;
    const reading = new Reading(Math.max(this.#options.queue ?? USUAL_QUEUE, 1), () => {
      if (reading.isOver) {
        forget?.();
        if (this.#readings.delete(reading)) this.#checkSoon();
      } else if (reading.hasMuchRoom) {
        if (reading.isBehind) this.#beginAgain();
        else this.#asking.traffic.resume(this.name);
      }
    });
    const end = () => {
      void reading.return();
    };
    const { refusal, isClosed } = this.#asking;
    if (signal?.aborted) end();
    else if (refusal) reading.end(isClosed ? void 0 : refusal);
    else {
      forget = onAbort(signal, end);
      this.#readings.add(reading);
      const position2 = this.#start();
      reading.filled = position2 ?? this.#heard;
      if (position2 && this.#isSubscribed) this.#beginAgain();
      this.#wanted();
    }
    return reading;
  }
  /** The position that was named to begin at, once: another subscription begins anew. */
  #start() {
    const { position: position2, ...options } = this.#options;
    this.#options = options;
    return position2;
  }
  /** Somebody has come who takes what comes, even if others do not. */
  #wanted() {
    this.#isStopped = false;
    this.#asking.traffic.resume(this.name);
    this.#checkSoon();
  }
  /**
   * Subscribes anew from where the slowest is, of those that have room: the others ask for what they miss once they
   * have.
   */
  #beginAgain() {
    for (const reading of this.#readings) reading.isBehind &&= !reading.hasMuchRoom;
    const position2 = this.#earliest(({ filled, isBehind }) => isBehind ? void 0 : filled);
    this.#asking.traffic.subscribe(this.name, { ...this.#options, position: position2 }, this.#reader);
  }
  /** Where the slowest is. One that has been given nothing yet begins where the subscription does. */
  #earliest(of) {
    const now = this.#heard ?? this.#asking.traffic.positionOf(this.name);
    let position2 = now;
    for (const reading of this.#readings) {
      const other = of(reading);
      if (other) position2 = position2 ? earlier(other, position2, now ?? position2) : other;
    }
    return position2;
  }
  /** Looks whether to subscribe once the application has done what it is doing: it may be about to change it again. */
  #checkSoon() {
    if (this.#isChecking) return;
    this.#isChecking = true;
    queueMicrotask(() => {
      this.#isChecking = false;
      this.#check();
    });
  }
  #check() {
    const isNeeded2 = this.#isKept || this.#readings.size > 0 || this.#events.hasAny(SUBSCRIBING);
    this.#used?.(isNeeded2 || this.#events.hasAny(WAITING));
    const isWanted = isNeeded2 && !this.#isStopped;
    if (isWanted === this.#isSubscribed) return;
    this.#isSubscribed = isWanted;
    if (isWanted) {
      this.#heard = this.#start();
      this.#beginAgain();
    } else {
      this.#forget();
      this.#asking.traffic.unsubscribe(this.name);
    }
  }
  #forget() {
    this.#subscribed = void 0;
    this.#heard = void 0;
    this.#members.clear();
  }
  #toReader() {
    return {
      // Listeners hear all, and a reader that is too slow for them goes back later.
      hasRoom: () => this.#events.hasAny(SUBSCRIBING) || this.#readings.size === 0 || [...this.#readings].some((reading) => reading.hasRoom),
      subscribed: (body, position2) => {
        this.#confirmed(body, position2);
      },
      publication: (wire, isRepeated) => {
        this.#publication(wire, isRepeated);
      },
      event: ({ channel: channel2, session, user, slot, data }) => {
        const checked = this.#valid(this.#options.eventSchema, data);
        if (checked) this.#events.emit("event", { data: checked.value, channel: channel2, session, user, slot });
      },
      gap: (gap) => {
        let isNew = !isPast(this.#heard, gap);
        if (isNew) this.#heard = moved(this.#heard, gap);
        for (const reading of this.#readings) if (!isPast(reading.filled, gap)) isNew = reading.pass(gap) || isNew;
        if (isNew) this.#events.emit("gap", gap);
      },
      presenceChanged: (changed) => {
        this.#meanwhile?.push(changed);
        apply(this.#members, changed);
        this.#presence(changed, changed.joined.length + changed.left.length);
      },
      refused: (error) => {
        this.#isKept &&= this.isSubscribed;
        this.#fail(error);
        this.#checkSoon();
      },
      ended: (error) => {
        this.#isKept = false;
        this.#isStopped = true;
        this.#isSubscribed = false;
        this.#forget();
        this.#fail(error);
        this.#events.emit("error", error);
        this.#checkSoon();
      }
    };
  }
  #publication(wire, isRepeated) {
    const isNew = !this.#isPast(this.#heard, wire);
    if (isNew) {
      this.#enter(wire.origin, wire.epoch, wire.offset - 1);
      this.#heard = moved(this.#heard, wire);
    }
    const isHidden = isRepeated || this.#options.echo === false && this.#ownKeys.has(wire.key ?? "");
    const publication2 = isHidden ? void 0 : this.#checked(wire, isNew);
    for (const reading of this.#readings) {
      if (this.#isPast(reading.filled, wire)) continue;
      if (!publication2) reading.pass(wire);
      else reading.push(publication2);
    }
    if (publication2 && isNew) this.#events.emit("publication", publication2);
  }
  /** Whether somebody at the position has seen the place, or has left its epoch. */
  #isPast(position2, place2) {
    const { epoch } = pointOf(position2, place2.origin) ?? place2;
    return epoch === place2.epoch ? isPast(position2, place2) : pointOf(this.#back, place2.origin)?.epoch === place2.epoch;
  }
  #confirmed({ recovered, reason: reason2, recovers, presence }, position2) {
    this.#subscribed = { position: position2, recovered, reason: reason2, recovers };
    this.#heard ??= position2;
    this.#back = recovered === false ? position2 : void 0;
    for (const reading of this.#readings) reading.filled ??= position2;
    for (const { resolve } of this.#waiting) resolve(this.#subscribed);
    this.#events.emit("subscribed", this.#subscribed);
    for (const [origin, { epoch, offset }] of Object.entries(recovered ? position2 : {})) this.#enter(origin, epoch, offset);
    if (presence) this.#found(presence);
  }
  /** Where somebody has named where to begin, the others may not have heard of an epoch. */
  #enter(origin, epoch, offset) {
    if ((pointOf(this.#heard, origin)?.epoch ?? epoch) !== epoch) this.#reader.gap({ channel: this.name, origin, epoch, offset, reason: "epoch_changed" });
  }
  /** `told`: how many were named. */
  #presence({ count, joined, left }, told = 1) {
    this.#events.emit("presence", { count, members: this.members, joined: joined.map(toMember), left: left.map(toMember) });
    if ((told && this.#members.size) !== count && count <= MOST_MEMBERS) void this.#askMembers();
  }
  async #askMembers() {
    if (this.#meanwhile) return;
    let presence;
    do {
      this.#meanwhile = [];
      presence = await this.#who().catch(() => new Promise((later) => setTimeout(later, ASK_AGAIN_MS)));
    } while (!presence && this.#asking.session.live && this.isSubscribed);
    if (presence && this.isSubscribed) this.#found(presence, this.#meanwhile);
    this.#meanwhile = void 0;
  }
  /** Who is there, and what has changed since, some of which that may know. */
  #found({ count, members: members2 }, since = []) {
    const before = this.#members;
    const there = this.#members = new Map(members2.map((member) => [member.session, member]));
    this.#meanwhile &&= [];
    for (const change of since) {
      apply(there, change);
      count = change.count;
    }
    const joined = [...there.values()].filter(({ session }) => !before.has(session));
    const left = [...before.values()].filter(({ session }) => !there.has(session));
    this.#presence({ count, joined, left });
  }
  /** `isNew`: it has not been told before. */
  #checked(wire, isNew = true) {
    const checked = this.#valid(this.#options.schema, wire.data, isNew);
    return checked && toPublication(wire, checked.value);
  }
  #valid(schema, data, isNew = true) {
    try {
      return { value: validate(schema, data) };
    } catch (error) {
      if (isNew) this.#events.emit("invalid", error);
      return void 0;
    }
  }
  /** Tells whoever iterates or waits for the confirmation that there is nothing to wait for. */
  #fail(error) {
    for (const reading of this.#readings) reading.end(this.#asking.isClosed ? void 0 : error);
    for (const { reject } of this.#waiting) reject(error);
  }
  // ---- requests
  /**
   * Publishes, and waits for the position that the publication got. It is sent again, with the same key, after a break
   * or a transient error, until it is answered: its effect is one. Needs the right, not a subscription.
   */
  async publish(data, { key: key2 = randomKey(), signal } = {}) {
    validate(this.#options.schema, data);
    checkText(key2, 64);
    const entry = { channel: this.name, data: toPayload(data), key: key2 };
    if (this.#options.echo === false) forgetOldest(this.#ownKeys.add(key2));
    return this.#asking.publish(entry, signal);
  }
  /**
   * Sends an event to whoever is there now; it may be lost. Of those with the same `slot` only the latest matters.
   * Answers whether it went out: without a connection, or when too much waits already, it does not.
   */
  emit(data, { slot } = {}) {
    validate(this.#options.eventSchema, data);
    checkText(slot, 64);
    return this.#asking.traffic.emit(this.name, toPayload(data), slot);
  }
  /** Reads retained publications. */
  async history({ limit = USUAL_HISTORY, after, before, signal } = {}) {
    checkPage(limit, after, before);
    const body = await this.#asking.ask("history", { channel: this.name, limit, after, before }, { signal });
    const publications = body.publications.flatMap((wire) => this.#checked(wire) ?? []);
    return { publications, cursor: body.cursor, more: body.more ?? false };
  }
  /** Asks who is subscribed, on all nodes of all regions. */
  async presence({ signal } = {}) {
    const { count, members: members2 } = await this.#who(signal);
    return { count, members: members2.map(toMember) };
  }
  #who(signal) {
    return this.#asking.ask("presence", { channel: this.name }, { signal });
  }
};
function apply(members2, { joined, left }) {
  for (const { session } of left) members2.delete(session);
  for (const member of joined) members2.set(member.session, member);
}
function checkPage(count, after, before = "") {
  checkPosition(after);
  checkText(before, 128);
  check(Number.isInteger(count) && count >= 1 && count <= 1e3 && !(after && before), "a page has 1 to 1,000, after or before");
}
function checkPosition(position2) {
  check(position2 === void 0 || isPosition(position2), "no position");
}
function checkName(name) {
  const isRight = /^(@|[a-z0-9_-]{1,32}:)\P{Cc}+$/u.test(name) && isText(name, 255);
  check(isRight, "a channel is `namespace:name` or `@user`");
}

// src/encoding.ts
var DecodeError = class extends Error {
  problem;
  /** The name of a frame that is known, and what it says, right or wrong. */
  what;
  body;
  constructor(problem, what = "", body = {}) {
    super(`${problem} frame ${what}`);
    this.problem = problem;
    this.what = what;
    this.body = body;
  }
};
function toFrame(value, reader3) {
  const entries = isFields(value) ? Object.entries(value) : [];
  const [name, body] = entries[0] ?? [];
  if (name === void 0 || entries.length !== 1 || !isFields(body)) throw new DecodeError("malformed");
  const fits = shapeOf(name);
  if (fits === void 0) throw new DecodeError("unknown", name);
  let isRight = false;
  try {
    isRight = fits(body, reader3);
  } catch {
  }
  if (!isRight) throw new DecodeError("invalid", name, body);
  return [name, body];
}
function* decoded(all, decode) {
  for (const one of all) {
    try {
      yield decode(one);
    } catch (error) {
      if (!(error instanceof DecodeError) || error.problem === "malformed") throw error;
      const { id: id2, channel: channel2 } = error.body;
      if (id2 !== void 0) yield ["error", { id: id2, code: 100, reason: "internal", message: error.message, transient: true }];
      else if (error.what.includes("subscribed")) yield ["unsubscribed", { channel: channel2 }];
    }
  }
}
function parsed(parse) {
  try {
    return parse();
  } catch (error) {
    throw new DecodeError("malformed", messageOf(error));
  }
}
var reader = (body) => {
  const base64 = body["data_b64"] ?? void 0;
  delete body["data_b64"];
  if (base64 === void 0) return Object.hasOwn(body, "data");
  if (typeof base64 !== "string" || Object.hasOwn(body, "data")) return false;
  body["data"] = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return true;
};
function jsonEncoding(parse) {
  return { ...writing, decode: (frame2) => toFrame(valueOf(frame2, parse), reader), fromMessage: (message) => decoded(splitText(message, parse), (one) => toFrame(one, reader)) };
}
var writing = {
  name: "json",
  encode([name, body]) {
    const { data, ...fields } = body;
    const head = `{"${name}":${JSON.stringify(fields)}`;
    if (data === void 0) return `${head}}`;
    const [field, value] = typeof data === "string" ? ["data", data] : ["data_b64", `"${toBase64(data)}"`];
    return `${head.slice(0, -1)},"${field}":${value}}}`;
  },
  toMessage: (encoded) => encoded
};
var json = /* @__PURE__ */ jsonEncoding((text2) => JSON.parse(text2));
function valueOf(frame2, parse) {
  return parsed(() => parse(typeof frame2 === "string" ? frame2 : new TextDecoder("utf-8", { fatal: true }).decode(frame2)));
}
function toBase64(bytes) {
  let text2 = "";
  for (const byte of bytes) text2 += String.fromCharCode(byte);
  return btoa(text2);
}
function splitText(message, parse) {
  return [valueOf(message, parse)].flat();
}

// src/exact_json.ts
var STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
function parseExact(text2) {
  const value = JSON.parse(text2);
  if (!/\d{16}/.test(text2)) return value;
  const mark = `${Math.random()}${Math.random()}:`;
  const marked = text2.replace(STRING_OR_NUMBER, (token) => isUnsafe(token) ? `"${mark}${token}"` : token);
  return JSON.parse(marked, (_, one) => typeof one === "string" && one.startsWith(mark) ? BigInt(one.slice(mark.length)) : one);
}
function isUnsafe(token) {
  return /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token));
}
function numbersOfProtocol(value) {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(numbersOfProtocol);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, name === "data" ? field : numbersOfProtocol(field)]));
}
var exactJson = { ...jsonEncoding((text2) => numbersOfProtocol(parseExact(text2))), parse: parseExact };

// src/address.ts
var PATH = "/v1/connect";
function parseAddress(url) {
  const { webtransport, websocket } = typeof url === "string" ? { webtransport: url, websocket: url } : url ?? {};
  const first = webtransport === void 0 ? void 0 : endpoint(webtransport);
  const second = websocket === void 0 ? void 0 : endpoint(websocket);
  const address = {
    webtransport: first?.protocol === "https:" ? first.href : void 0,
    websocket: second?.href.replace(/^http/, "ws")
  };
  if (address.webtransport === void 0 && address.websocket === void 0) {
    throw noAddress(typeof url === "object" ? JSON.stringify(url) : url);
  }
  const isSecure = !address.websocket?.startsWith("ws:");
  return { ...address, isSecure, key: `${address.webtransport ?? ""} ${address.websocket ?? ""}`.trim() };
}
function endpoint(address) {
  let url;
  try {
    url = new URL(String(address));
  } catch {
    throw noAddress(address);
  }
  if (!/^(https?|wss?):$/.test(url.protocol)) throw noAddress(address);
  url.pathname = url.pathname.replace(/(\/v1\/connect)?\/*$/, PATH);
  url.hash = "";
  return url;
}
function noAddress(given) {
  return new TypeError(`\`${String(given)}\` is no address like https://example.com`);
}

// src/asking.ts
var Asking = class {
  session;
  constructor(session) {
    this.session = session;
  }
  get traffic() {
    return this.session.traffic;
  }
  /** Why nothing can be asked. */
  get refusal() {
    return this.session.refusal;
  }
  get isClosed() {
    return this.session.state === "closed";
  }
  /** Publishes, and waits for the answer; a client with an outbox puts another way in its place. */
  publish = (entry, signal) => this.promise(signal, (resolve, reject) => this.push(entry, resolve, reject));
  /** Publishes. Answers how to take it back, which says whether that could be: it has not been sent. */
  push(entry, done, failed, sent) {
    const number = this.traffic.publish({ ...entry, sent, done, failed });
    this.session.settle();
    return () => this.traffic.publishes.withdraw(number);
  }
  /** Sends a request, now or once there is a connection, and waits for its reply. */
  ask(name, fields, { signal, isRepeatable = true, timeoutMs }) {
    return this.promise(
      signal,
      (resolve, reject) => this.traffic.ask(name, fields, { isRepeatable, timeoutMs, done: resolve, failed: reject })
    );
  }
  /**
   * A promise of something that `begin` begins. What that answers undoes it, once it is settled or `signal` aborts.
   * `isKept`: it waits for a session even where the node does not want this client.
   */
  promise(signal, begin, isKept = false) {
    let undo;
    let forget;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.refusal && (this.isClosed || !isKept)) throw this.refusal;
      forget = onAbort(signal, () => {
        reject(signal?.reason);
      });
      undo = begin(resolve, reject);
      this.session.settle();
    }).finally(() => {
      forget?.();
      undo?.();
    });
  }
};

// src/session/doubts.ts
var DOUBTS_APART_MS = 3e4;
var LEAST_SILENCE_MS = 1500;
var LEAST_CHECK_MS = 2e3;
var SPREAD = 0.4;
function askedAfterMs({ traffic }) {
  return Math.max(LEAST_SILENCE_MS, 3 * traffic.requests.trips.rtoMs) / 2;
}
function nextDoubt(session) {
  const { live, traffic, doubtsFrom } = session;
  return live ? Math.max(live.silentSince(traffic.requests.waitsSince) + askedAfterMs(session), doubtsFrom) : Infinity;
}
function doubt(session, withinMs = 0) {
  const { live, due, traffic } = session;
  traffic.check(Math.max(LEAST_CHECK_MS, withinMs, 2 * askedAfterMs(session)));
  if (!live || session.opening) return;
  const at = session.now() + askedAfterMs(session) * (1 + SPREAD * session.random());
  const later = due?.purpose === "drain" ? due : void 0;
  if (at < (due?.at ?? Infinity)) session.due = { at, purpose: "connect", address: later?.address, later };
}

// src/session/link.ts
var LATE_MS = 50;
var LEAST_PATIENCE_MS = 1e3;
var Link = class {
  address;
  transport;
  /** What its `connect` proves the user with. */
  token;
  /** The id of its `connect`. */
  connectId;
  /** What its `connect` asks for. */
  asked = /* @__PURE__ */ new Map();
  /** Which of the client's attempts it is. */
  attempt;
  /** What came before `connected`. */
  early = [];
  isConnected = false;
  phases = /* @__PURE__ */ new Map();
  /** The largest number of a subscription that it has heard of. */
  newestSubscription = -1;
  /** It is not left before because its node says so. */
  stayUntil = 0;
  /** Its node has said that it drains. */
  isDrained = false;
  /** Channels that the node would not let go for the moment, and when it is asked again. */
  leaveAgainAt = /* @__PURE__ */ new Map();
  /** From when on it counts as held. */
  since = 0;
  /** The largest frame that its node takes, or the one before as long as it has not told; 0: of any size. */
  frameBytes;
  /** When something came last, or would have. */
  heardAt;
  timeoutMs = 0;
  /** Somebody has too much to do: then a node may be silent, and a handshake is what it can least afford. */
  isSpared = false;
  #patienceMs = Infinity;
  /** Something has to be heard by then: it is being checked. */
  #checkedBy = Infinity;
  /** Until when it still may be heard, for one who looked late. */
  #lastChance = 0;
  constructor(address, transport, now) {
    this.address = address;
    this.transport = transport;
    this.heardAt = now;
  }
  /** Queues a frame; answers whether the node takes frames of that size. */
  send(frame2, lane = "reliable") {
    return this.transport.send(frame2, lane, this.frameBytes || Infinity);
  }
  heard(now) {
    this.heardAt = now;
    this.#checkedBy = Infinity;
    this.#lastChance = 0;
  }
  /** Takes the heartbeat's times from `connected` or a `ping`. */
  beats({ interval_ms, timeout_ms }) {
    this.timeoutMs = timeout_ms;
    this.#patienceMs = Math.max(interval_ms + timeout_ms, LEAST_PATIENCE_MS);
  }
  /** The system slept: what the node sent meanwhile may still come. */
  spare(now) {
    this.heardAt = Math.max(this.heardAt, now + this.timeoutMs - this.#patienceMs);
  }
  /**
   * Since when it is silent though something is due: its beat, or a reply that is waited for since then. Never where it
   * has no time-out for that, or is spared; and once in a silence, as a transport repeats what is lost.
   */
  silentSince(waitsSince) {
    if (this.isSpared || this.timeoutMs === 0 || this.#checkedBy < Infinity) return Infinity;
    return Math.min(this.heardAt + this.#patienceMs - this.timeoutMs, Math.max(this.heardAt, waitsSince));
  }
  /**
   * Unless something comes within `withinMs`, the connection is dead. Answers whether something has to be asked for.
   */
  check(now, withinMs) {
    const isFirst = this.#checkedBy === Infinity;
    this.#checkedBy = Math.min(this.#checkedBy, now + withinMs);
    return isFirst;
  }
  /** It has been asked for a sign of life in vain, and nobody has too much to do. */
  get isDoubted() {
    return this.#checkedBy < Infinity && !this.isSpared;
  }
  /** When the connection counts as dead unless something comes. */
  get deadAt() {
    return this.#lastChance || Math.min(this.heardAt + this.#patienceMs, this.#checkedBy);
  }
  /** Whether it is dead by now. */
  isDead(now) {
    if (now - this.deadAt > LATE_MS) this.#lastChance ||= now + LATE_MS;
    return now >= this.deadAt;
  }
};

// src/session/moving.ts
var HOUR_MS = 36e5;
function drain(session, link, { after_ms, url }) {
  const { due, pace, route } = session;
  const now = session.now();
  if (!link.isDrained) pace.credit(now - link.since);
  link.isDrained = true;
  const at = Math.max(now + Math.min(after_ms / 2 * session.random(), HOUR_MS), link.stayUntil);
  const before = due?.purpose === "drain" ? due : void 0;
  const address = route.trusted?.(url) ?? before?.address;
  session.due = { at: Math.min(at, before?.at ?? Infinity), address, purpose: "drain" };
}
function stay(session, live, purpose, error) {
  const { route } = session;
  if (purpose === "up") route.upFailed?.(live.address);
  if (error.code === OVERLOADED) live.isSpared = true;
  const isOthersTurn = error.transient && !route.isExhausted && error.code !== TOKEN_EXPIRED;
  if (purpose === "connect" && isOthersTurn && live.isDoubted) session.open(purpose);
  else if (purpose === "drain" && error.transient) {
    live.stayUntil = session.now() + (isOthersTurn ? 0 : session.backOff(error));
    session.due = { ...session.due, purpose, at: live.stayUntil };
  } else stand(session, live);
}
function stand(session, { address, transport }, preferUrl) {
  const { due, route } = session;
  if (due?.purpose !== "drain") session.due = due?.later ?? route.next?.(address, transport.kind, preferUrl);
}

// src/session/opening.ts
function ending({ code: code2 = 0, reason: reason2, message, reconnect = code2 < 3500, retry_after_ms: retryAfterMs }) {
  if (code2 < 3e3 || code2 > 3999) return lost(`connection lost: ${reason2}`);
  const text2 = `ended by the node: ${reason2} (${code2})${message ? `: ${message}` : ""}`;
  return new ConnectionError(code2, reason2, text2, reconnect, { retryAfterMs });
}
function isNeeded({ purpose }) {
  return purpose === "connect" || purpose === "drain";
}

// src/backoff.ts
function fullJitter({ firstMs, maxMs }, attempt, random) {
  return Math.min(maxMs, firstMs * 2 ** attempt) * random;
}

// src/session/pace.ts
var STABLE_MS = 5e3;
var HOUR_MS2 = 36e5;
var LONGEST_SPREAD_MS = 3e4;
var Pace = class {
  /** In a row. */
  failures = 0;
  #backoff;
  #random;
  constructor(backoff, random) {
    this.#backoff = backoff;
    this.#random = random;
  }
  /** How long to wait after one more failure, at random, so that not all come at once. */
  backOff(told) {
    const waitMs = fullJitter(this.#backoff, this.failures, this.#random());
    this.failures += 1;
    const toldMs = Math.min(told?.retryAfterMs ?? 0, HOUR_MS2);
    return Math.max(waitMs, toldMs + Math.min(toldMs, LONGEST_SPREAD_MS) * this.#random());
  }
  /** What failed before is made good by a connection that held for so long, if that is long enough. */
  credit(heldMs) {
    if (heldMs >= STABLE_MS) this.failures = 0;
  }
  /**
   * How long to wait after a connection that is over: where nothing is wrong, not at all, but for the one after another
   * that did not hold.
   */
  pause(isWell, told) {
    const isAtOnce = isWell && this.failures === 0 && told.retryAfterMs === void 0;
    const waitMs = this.backOff(told);
    return isAtOnce ? 0 : waitMs;
  }
};

// src/transport.ts
var UNNAMED = -1;

// src/session/phase.ts
var MAX_HELD = 8192;
var BY_CONNECT = 0;
var Phase = class {
  /** The request whose `subscribed` is awaited, or has come; none while the channel is only being left. */
  asked;
  /** The last `unsubscribe` that is not answered: until then the old subscription's frames may come. */
  leaving;
  isJoined = false;
  held = [];
  #subscription;
  /** Subscriptions up to this number are over. */
  #past = -1;
  /** Asks anew. Subscriptions up to the number `past` are older ones. */
  ask(request, past) {
    this.end(past);
    this.asked = request;
  }
  leave(request) {
    this.end();
    this.leaving = request;
  }
  /** Whatever comes of the present subscription from now on is dropped. */
  end(past = -1) {
    this.#past = Math.max(this.#past, past, this.#subscription ?? -1);
    this.asked = this.#subscription = void 0;
    this.isJoined = false;
    this.held = [];
  }
  /** A `subscribed` came. Answers whether it is the one that is awaited. */
  confirm(request, subscription = -1) {
    if (request !== this.asked || this.isJoined) {
      this.#past = Math.max(this.#past, subscription);
      return false;
    }
    this.isJoined = true;
    this.leaving = void 0;
    this.#subscription = subscription < 0 ? void 0 : subscription;
    return true;
  }
  /** Whether a frame of the channel is the present subscription's, by where it came from. */
  isOwn(stream) {
    if (this.asked === void 0) return false;
    if (stream === void 0) return this.leaving === void 0;
    if (stream === UNNAMED) return true;
    return this.isJoined ? stream === (this.#subscription ?? stream) : stream > this.#past;
  }
};
function hold(held, frame2, stream) {
  return frame2[0] === "event" && held.length >= MAX_HELD / 2 || held.push({ frame: frame2, stream }) <= MAX_HELD;
}

// src/session/token_schedule.ts
var LEAST_INTERVAL_MS = 200;
var LEAST_RETRY_MS = 1e3;
var SHARE_OF_LIFE = 0.75;
var SHORTEST_LIFE_MS = 1e4;
var TokenSchedule = class {
  refreshAt = Infinity;
  /** Gives up the fetch that is on its way. */
  giveUp;
  #expiresAt = Infinity;
  /** How many in a row seemed old already when the node took them. */
  #old = 0;
  /**
   * The node has just taken `token`, which expires at `at` by the node's clock, in milliseconds since 1970; never when
   * absent. The clock here may be wrong by more than the token's life, which the token itself tells.
   */
  expires(at, now, token) {
    const lifeMs = lifeOf(token);
    let leftMs = Math.min((at ?? Infinity) - now, lifeMs);
    if (leftMs <= 0) leftMs = lifeMs;
    this.#expiresAt = now + leftMs;
    this.#old = leftMs < (lifeMs < Infinity ? lifeMs / 2 : SHORTEST_LIFE_MS) ? this.#old + 1 : 0;
    this.#schedule(now, Math.min(LEAST_INTERVAL_MS * 2 ** this.#old, lifeMs * SHARE_OF_LIFE));
  }
  /** No new one could be had: tried again as long as the old one lives; after that, the node asks for it. */
  failed(now) {
    this.refreshAt = Infinity;
    if (now < this.#expiresAt) this.#schedule(now, LEAST_RETRY_MS);
  }
  #schedule(now, leastMs) {
    this.refreshAt = now + Math.max((this.#expiresAt - now) * SHARE_OF_LIFE, leastMs);
  }
  /** Nothing is to be fetched, and what is on its way is not needed. */
  stop() {
    this.refreshAt = Infinity;
    this.giveUp?.();
  }
};
function lifeOf(token = "") {
  try {
    const claims = atob((token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/"));
    const { iat, exp } = JSON.parse(claims);
    if (exp > iat) return (exp - iat) * 1e3;
  } catch {
  }
  return Infinity;
}

// src/session/tokens.ts
var Tokens = class extends TokenSchedule {
  /** The one that the next connection begins with, unless there is something that gives them. */
  current;
  /** The one that a node took last; before that, the one to begin with. */
  former;
  #session;
  #io;
  #canRefresh;
  constructor(session, io, canRefresh, given) {
    super();
    this.#session = session;
    this.#io = io;
    this.#canRefresh = canRefresh;
    this.former = this.current = given;
  }
  /** A node has taken this token, which expires then. */
  taken(token, atMs) {
    const session = this.#session;
    this.former = token;
    if (session.connection) session.connection = { ...session.connection, expiresAtMs: atMs };
    if (this.#canRefresh) this.expires(atMs, session.now(), token);
    else if (token !== this.current) this.renew();
    session.settle();
  }
  /**
   * A node does not take it: the one before counts again, unless another one was brought since. Answers whether there
   * is no other.
   */
  refused(token) {
    if (this.current === token) this.current = this.former;
    return this.current === token;
  }
  /** Has a new one fetched, and brings it. */
  renew() {
    const session = this.#session;
    const failed = () => {
      this.failed(session.now());
    };
    this.stop();
    this.giveUp = this.#io.fetchToken((token) => {
      const { live } = session;
      if (live && token !== void 0) {
        session.traffic.requests.send(live, session.now(), "refresh", { token }, {
          done: ({ expires_at_ms: atMs }) => {
            this.taken(token, atMs);
          },
          failed
        });
      } else if (live) failed();
      session.settle();
    });
  }
};

// src/replies.ts
var REPLIES = {
  subscribe: "subscribed",
  unsubscribe: "unsubscribed",
  publish: "published",
  history: "history",
  presence: "presence",
  call: "result",
  refresh: "refreshed"
};

// src/session/pacer.ts
var BURST_MS = 1e3;
var Pacer = class {
  #intervalMs = 0;
  #readyAt = 0;
  /** A node tells its limit, 0 for none. What was let out before still counts, at whichever node that was. */
  limit(perSecond) {
    this.#intervalMs = perSecond === 0 ? 0 : 1e3 / perSecond;
  }
  /** Whether one may go out now, which then counts. */
  take(now) {
    if (now < this.nextAt) return false;
    this.#readyAt = Math.max(this.#readyAt, now) + this.#intervalMs;
    return true;
  }
  /** When the next one may go out: perhaps a moment ago already. */
  get nextAt() {
    return this.#readyAt + this.#intervalMs - BURST_MS;
  }
};

// src/session/publishes.ts
var LONGEST_HOLD_MS = 1e3;
var USUAL_KEY_MS = 3e5;
var LONGEST_WAY_MS = 1e4;
var Publishes = class {
  pacer = new Pacer();
  /** How long the nodes remember a key at least, less what a publish may be under way. */
  #keyMs;
  #limit;
  #backoff;
  #random;
  /** In the order of their acceptance. */
  #waiting = /* @__PURE__ */ new Map();
  /** After a transient error a channel's publishes wait, the newer ones behind the older. */
  #holds = /* @__PURE__ */ new Map();
  /** `limit`: how many may wait for their answer. */
  constructor(limit, backoff, random) {
    this.#limit = limit;
    this.#backoff = { ...backoff, maxMs: Math.min(backoff.maxMs, LONGEST_HOLD_MS) };
    this.#random = random;
    this.remembers();
  }
  /** The node says how long it remembers a key; 0 where it does not say. */
  remembers(saidMs = 0) {
    const keyMs = saidMs || USUAL_KEY_MS;
    this.#keyMs = Math.max(0.9 * keyMs, keyMs - LONGEST_WAY_MS);
  }
  /** When a publish that was sent is given up: once its key is forgotten it would take effect again. */
  #expiresAt({ sentAt = Infinity }) {
    return sentAt + this.#keyMs;
  }
  /** Gives up what must not be sent again, though its answer may be on its way: no node takes that long. */
  expire(now) {
    for (const [number, waiting] of this.#waiting) {
      if (this.#expiresAt(waiting) <= now) this.refuse(number, new OutcomeUnknownError());
    }
  }
  /** Takes one in under a number above all others, which it gives; a full queue answers it at once. */
  push(number, publish) {
    if (this.#waiting.size >= this.#limit) {
      publish.failed(requestError("limit_reached", "too much waits", true));
      return void 0;
    }
    this.#waiting.set(number, { publish, sentOn: void 0, sentAt: publish.sentAtMs });
    return number;
  }
  /** Takes one back that never was sent; answers whether that was so. */
  withdraw(number = 0) {
    return this.#waiting.get(number)?.sentAt === void 0 && this.#waiting.delete(number);
  }
  /** Those that go out now on `connection`, oldest first; they count as sent there. */
  take(connection, now) {
    const taken = [];
    for (const [number, waiting] of this.#waiting) {
      if (this.#readyAt(number, waiting, connection) > now) continue;
      if (!this.pacer.take(now)) break;
      const { publish } = waiting;
      const hold2 = this.#holds.get(publish.channel);
      if (hold2) hold2.tried = number;
      waiting.sentOn = connection;
      if (waiting.sentAt === void 0) publish.sent?.(now);
      waiting.sentAt ??= now;
      taken.push([number, publish]);
    }
    return taken;
  }
  /** When one may go out on `connection`, as far as its channel is concerned. */
  #readyAt(number, { publish, sentOn }, connection) {
    const { until, tried = number } = this.#holds.get(publish.channel) ?? { until: 0 };
    return !connection || sentOn === connection || tried !== number ? Infinity : until;
  }
  answer(number, published) {
    this.#remove(number)?.done(published);
  }
  refuse(number, error) {
    this.#remove(number)?.failed(error);
  }
  #remove(number) {
    const publish = this.#waiting.get(number)?.publish;
    this.#waiting.delete(number);
    if (publish && this.#holds.get(publish.channel)?.tried === number) this.#holds.delete(publish.channel);
    return publish;
  }
  /** The node answered with an error on `connection`: a transient one puts the channel on hold. */
  failed(number, connection, error, now) {
    const waiting = this.#waiting.get(number);
    if (waiting?.sentOn !== connection) return;
    if (!error.transient) {
      this.refuse(number, error);
      return;
    }
    const { channel: channel2 } = waiting.publish;
    for (const other of this.#waiting.values()) if (other.publish.channel === channel2) other.sentOn = void 0;
    const failures = this.#holds.get(channel2)?.failures ?? 0;
    const waitMs = (error.retryAfterMs ?? 0) + fullJitter(this.#backoff, failures, this.#random());
    this.#holds.set(channel2, { until: now + waitMs, failures: failures + 1, tried: void 0 });
  }
  /** Forgets all holds: the node that caused them is no longer asked. */
  releaseAll() {
    this.#holds.clear();
  }
  /**
   * When the next of those that are not sent on `connection` may go out, perhaps a moment ago already, or is given up.
   */
  nextAt(connection) {
    let at = Infinity;
    for (const [number, waiting] of this.#waiting) {
      const readyAt = Math.max(this.#readyAt(number, waiting, connection), this.pacer.nextAt);
      at = Math.min(at, readyAt, this.#expiresAt(waiting));
    }
    return at;
  }
  /** Answers all of them with the same error, or those with a number below `end`. */
  failAll(error, end) {
    for (const number of [...this.#waiting.keys()]) if (!end || number < end) this.refuse(number, error);
  }
};

// src/session/round_trips.ts
var LOOK_MS = 1e3;
var LEAST_RTO_MS = 200;
var LATE_MS2 = 500;
var RoundTrips = class {
  /** In milliseconds; 0: none yet. */
  smoothedMs = 0;
  /** After so long a reply is late (RFC 6298). */
  rtoMs = LEAST_RTO_MS;
  /** By how much they differ from what is usual. */
  #variationMs = 0;
  /** When the next look is due, while replies are waited for. */
  nextAt = 0;
  #suspendedAt = -Infinity;
  /** Looks, while a reply is waited for and from when that begins. */
  look(now) {
    if (now - this.nextAt > LATE_MS2) this.#suspendedAt = now;
    this.nextAt = now + LOOK_MS;
  }
  /** The reply to what was sent then has come. */
  replied(sentAt, now) {
    this.look(now);
    if (sentAt < this.#suspendedAt) return;
    const tookMs = now - sentAt;
    const isFirst = this.smoothedMs === 0;
    this.#variationMs = isFirst ? tookMs / 2 : this.#variationMs + (Math.abs(tookMs - this.smoothedMs) - this.#variationMs) / 4;
    this.smoothedMs = isFirst ? tookMs : this.smoothedMs + (tookMs - this.smoothedMs) / 8;
    this.rtoMs = Math.max(LEAST_RTO_MS, this.smoothedMs + 4 * this.#variationMs);
  }
};

// src/session/requests.ts
var MAX_REQUESTS = 1024;
var Requests = class {
  trips = new RoundTrips();
  #timeoutMs;
  #pending = /* @__PURE__ */ new Map();
  #lastId = 0;
  constructor(timeoutMs) {
    this.#timeoutMs = timeoutMs;
  }
  /** An id that no pending request has. */
  nextId() {
    do
      this.#lastId = this.#lastId % 4294967295 + 1;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }
  /** Sends a request of the session itself; answers its id, none when the node takes no frames of that size. */
  send(link, now, name, fields, waiter) {
    const id2 = this.nextId();
    if (!link.send(frame(name, id2, fields))) return void 0;
    this.#begin(id2, { ...waiter, name, link, sentAt: now, expiresAt: Infinity });
    return id2;
  }
  #begin(id2, pending) {
    if (this.#pending.size === 0) this.trips.look(pending.sentAt);
    this.#pending.set(id2, pending);
  }
  /** Takes a request of the application, which is sent when there is a connection. Answers how to forget it. */
  ask(name, fields, asker, link, now) {
    const asked = [...this.#pending.values()].filter(({ fields: again }) => again);
    if (asked.length >= MAX_REQUESTS) throw requestError("limit_reached", "too much waits", true);
    const id2 = this.nextId();
    this.#begin(id2, { ...asker, name, fields, sentAt: now, expiresAt: now + (asker.timeoutMs ?? this.#timeoutMs) });
    if (link) this.sendWaiting(link, now);
    return () => {
      this.#pending.delete(id2);
    };
  }
  /** Sends what waits for a connection. */
  sendWaiting(link, now) {
    for (const [id2, pending] of this.#pending) {
      if (pending.link) continue;
      pending.link = link;
      pending.sentAt = now;
      if (pending.fields && !link.send(frame(pending.name, id2, pending.fields))) this.#fail(id2, tooLarge(link.frameBytes));
    }
  }
  #fail(id2, error) {
    this.#take(id2)?.failed?.(error);
  }
  /** Takes the request that the reply belongs to which has come now: none where nobody has asked. */
  replied(id2 = 0, now) {
    const pending = this.#take(id2);
    if (pending) this.trips.replied(pending.sentAt, now);
    return pending;
  }
  /** Takes a request that does not wait any longer. */
  #take(id2) {
    const pending = this.#pending.get(id2);
    this.#pending.delete(id2);
    return pending;
  }
  /** Whether somebody waits for a reply on this connection that no other can give. */
  needs(link) {
    return [...this.#pending.values()].some((pending) => pending.link === link && pending.isRepeatable === false);
  }
  /** The connection is gone: what may be asked twice waits for the next one, the rest failed. */
  lost(link) {
    for (const [id2, pending] of this.#pending) {
      if (pending.link !== link) continue;
      pending.link = void 0;
      if (!pending.fields) this.#pending.delete(id2);
      else if (!pending.isRepeatable) this.#fail(id2, requestError("unavailable", "connection lost"));
    }
  }
  /** Since when whoever has waited the longest waits for a reply. */
  get waitsSince() {
    return Math.min(...[...this.#pending.values()].map(({ sentAt }) => sentAt));
  }
  /** When the next one has waited for too long, or it is time to look. */
  get nextAt() {
    return Math.min(...[...this.#pending.values()].map(({ expiresAt }) => Math.min(expiresAt, this.trips.nextAt)));
  }
  expire(now) {
    this.trips.look(now);
    for (const [id2, { expiresAt }] of this.#pending) if (now >= expiresAt) this.#fail(id2, requestError("timeout", "no answer in time"));
  }
  /**
   * Those of the application: all, or with an id below `end`, but for new tokens, which say themselves whose they are.
   */
  failAll(error, end) {
    for (const [id2, { fields, name }] of this.#pending) if (fields && (!end || id2 < end && name !== "refresh")) this.#fail(id2, error);
  }
};
function frame(name, id2, fields) {
  return [name, { id: id2, ...fields }];
}

// src/session/traffic.ts
var RESUBSCRIBE_WAIT_MS = 500;
var FAILURE_MEMORY_MS = 6e4;
var LEAVE_WAIT_MS = 100;
var CONNECT_BYTES = 16 * 1024;
var NOBODYS_CHANNEL = "skywave:nobody";
var Traffic = class {
  publishes;
  requests;
  #host;
  #options;
  #subscriptions = /* @__PURE__ */ new Map();
  constructor(options, host) {
    this.#host = host;
    this.#options = options;
    this.publishes = new Publishes(options.publishQueue, options.backoff, () => host.random());
    this.requests = new Requests(options.requestTimeoutMs);
  }
  // ---- from the node
  /** Deals with a frame that came after `connected`, and is not about the connection itself. */
  frame(link, frame2, stream) {
    const [name, body] = frame2;
    switch (name) {
      case "publication":
      case "event":
      case "gap":
      case "presence_changed":
        this.#channelFrame(link, body.channel, frame2, stream);
        break;
      case "error":
        this.requests.replied(body.id, this.#host.now())?.failed?.(toError(body));
        break;
      default:
        if ("id" in body) this.#replied(frame2, body.id);
        if (name === "subscribed") this.#confirmed(link, body);
        else if (name === "unsubscribed") this.#unsubscribed(link, body);
    }
  }
  #replied([name, body], id2) {
    const request = this.requests.replied(id2, this.#host.now());
    if (request && name === REPLIES[request.name]) request.done?.(body);
    else request?.failed?.(requestError("internal", "unexpected reply"));
  }
  #channelFrame(link, channel2, frame2, stream) {
    const phase = link === this.#host.live ? link.phases.get(channel2) : void 0;
    if (!phase?.isOwn(stream)) return;
    if (phase.isJoined) this.#deliver(channel2, frame2);
    else if (!hold(phase.held, frame2, stream)) this.#host.fault(link, "too much");
  }
  #deliver(channel2, frame2) {
    const obstacle = this.#subscriptions.get(channel2)?.deliver(frame2);
    if (obstacle === "full") this.#pause(channel2, Infinity);
    else if (obstacle) this.#refused(channel2, requestError("unavailable", obstacle));
  }
  #confirmed(link, body) {
    const { id: id2 = BY_CONNECT, channel: channel2, subscription = -1 } = body;
    const phase = link.phases.get(channel2);
    link.newestSubscription = Math.max(link.newestSubscription, subscription);
    if (!phase?.confirm(id2, subscription) || link !== this.#host.live) return;
    this.#subscriptions.get(channel2)?.subscribed(body);
    for (const { frame: frame2, stream } of phase.held.splice(0)) this.#channelFrame(link, channel2, frame2, stream);
  }
  #unsubscribed(link, { id: id2, channel: channel2, code: code2 = 100, reason: reason2 = "unsubscribed" }) {
    const phase = link.phases.get(channel2);
    if (id2 === void 0) {
      if (phase?.leaving) return;
      link.phases.delete(channel2);
      if (link === this.#host.live) this.#refused(channel2, new RequestError(code2, reason2, `unsubscribed: ${reason2}`, isTransient(code2)));
      return;
    }
    this.#left(link, channel2, id2);
  }
  /** The node has let the channel go. */
  #left(link, channel2, request) {
    const phase = link.phases.get(channel2);
    if (phase?.leaving !== request) return;
    phase.leaving = void 0;
    if (phase.asked !== void 0) return;
    link.phases.delete(channel2);
    if (link === this.#host.live) this.#join(channel2);
  }
  /** The node will not have this subscription, for now or for good. */
  #refused(channel2, error, isForNow = error.transient) {
    const subscription = this.#subscriptions.get(channel2);
    if (!subscription) return;
    if (isForNow) {
      const now = this.#host.now();
      if (now - subscription.failedAt > FAILURE_MEMORY_MS) subscription.failures = 0;
      const jitter = fullJitter(this.#options.backoff, subscription.failures, this.#host.random());
      subscription.failures += 1;
      subscription.failedAt = now + (error.retryAfterMs ?? 0) + RESUBSCRIBE_WAIT_MS + jitter;
      this.#pause(channel2, subscription.failedAt);
      return;
    }
    this.#subscriptions.delete(channel2);
    subscription.reader.ended(error);
  }
  // ---- subscriptions
  /** Subscribes, or does so anew with other options. */
  subscribe(channel2, options, reader3) {
    this.#subscriptions.set(channel2, new Subscription(options, reader3, this.#subscriptions.get(channel2)?.keys));
    this.#leave(channel2);
    this.#join(channel2);
    this.#host.settle();
  }
  unsubscribe(channel2) {
    if (this.#subscriptions.delete(channel2)) this.#leave(channel2);
    this.#host.settle();
  }
  positionOf(channel2) {
    return this.#subscriptions.get(channel2)?.position;
  }
  /** The reader has room again; or it is time, where the node has named one. */
  resume(channel2, at = Infinity) {
    const subscription = this.#subscriptions.get(channel2);
    if (!subscription?.isPaused || subscription.resumeAt !== at) return;
    subscription.isPaused = false;
    subscription.resumeAt = Infinity;
    this.#join(channel2);
    this.#host.settle();
  }
  /** Leaves a channel on the wire until `until`, or until its reader has room. */
  #pause(channel2, until) {
    const subscription = this.#subscriptions.get(channel2);
    if (!subscription) return;
    subscription.resumeAt = until;
    subscription.isPaused = true;
    this.#leave(channel2);
  }
  /** Asks for a channel on the live connection. */
  #join(channel2) {
    const { live } = this.#host;
    const subscription = this.#subscriptions.get(channel2);
    if (!live || !subscription || subscription.isPaused) return;
    const request = this.requests.send(live, this.#host.now(), "subscribe", { channel: channel2, ...subscription.request() }, {
      failed: (error) => {
        const phase2 = live.phases.get(channel2);
        if (phase2 && phase2.asked === request) this.#notSubscribed(live, channel2, phase2, error);
      }
    });
    if (request === void 0) {
      this.#refused(channel2, tooLarge(live.frameBytes));
      return;
    }
    const phase = live.phases.get(channel2) ?? new Phase();
    phase.ask(request, live.newestSubscription);
    live.phases.set(channel2, phase);
  }
  /** The node did not take the last `subscribe`. */
  #notSubscribed(link, channel2, phase, error) {
    const isUnknown = error.code === ALREADY_SUBSCRIBED;
    if (phase.leaving) phase.end();
    else if (isUnknown) this.#leave(channel2);
    else link.phases.delete(channel2);
    if (isUnknown || link !== this.#host.live) return;
    const isLeaving = [...link.phases.values()].some((other) => other !== phase && other.leaving !== void 0);
    this.#refused(channel2, error, error.transient || error.code === LIMIT_REACHED && isLeaving);
  }
  #leave(channel2) {
    const { live } = this.#host;
    if (live?.phases.get(channel2)?.asked !== void 0) this.#sendUnsubscribe(live, channel2);
  }
  /** Asks the node to let a channel go, again and again where it cannot be bothered just now. */
  #sendUnsubscribe(live, channel2) {
    const request = this.requests.send(live, this.#host.now(), "unsubscribe", { channel: channel2 }, {
      failed: (error) => {
        if (live.phases.get(channel2)?.leaving !== request) return;
        if (!error.transient) this.#left(live, channel2, request ?? BY_CONNECT);
        else live.leaveAgainAt.set(channel2, this.#host.now() + (error.retryAfterMs ?? 0) + LEAVE_WAIT_MS * (1 + this.#host.random()));
      }
    });
    if (request !== void 0) live.phases.get(channel2)?.leave(request);
  }
  #leaveAgain(live, now) {
    for (const [channel2, at] of live.leaveAgainAt) {
      if (at > now) continue;
      live.leaveAgainAt.delete(channel2);
      if (live.phases.get(channel2)?.leaving === void 0) continue;
      const isWanted = live.phases.get(channel2)?.asked !== void 0;
      this.#sendUnsubscribe(live, channel2);
      if (isWanted) this.#join(channel2);
    }
  }
  // ---- connections
  /** All subscriptions, as far as they fit into one `connect`; the others are asked for after it. */
  asked(frameBytes) {
    let left = (frameBytes || Infinity) - CONNECT_BYTES;
    const asked = /* @__PURE__ */ new Map();
    const subscriptions = {};
    for (const [channel2, subscription] of this.#subscriptions) {
      if (subscription.isPaused) continue;
      const request = subscription.request();
      left -= 3 * JSON.stringify([channel2, request]).length + 8;
      if (left < 0) break;
      asked.set(channel2, [subscription, request]);
      subscriptions[channel2] = request;
    }
    return { asked, subscriptions };
  }
  /** Brings the new connection to what the application has asked for meanwhile. */
  catchUp(link) {
    for (const [channel2, [subscription, { position: position2 }]] of link.asked) {
      const phase = new Phase();
      phase.ask(BY_CONNECT, -1);
      link.phases.set(channel2, phase);
      const hasBegun = !position2 && subscription.position;
      if (this.#subscriptions.get(channel2) !== subscription || subscription.isPaused || hasBegun) this.#leave(channel2);
    }
    link.asked = /* @__PURE__ */ new Map();
    for (const channel2 of this.#subscriptions.keys()) {
      if (link.phases.get(channel2)?.asked === void 0) this.#join(channel2);
    }
    this.requests.sendWaiting(link, this.#host.now());
    this.sendPublishes();
  }
  // ---- to the node
  publish(publish) {
    const number = this.publishes.push(this.requests.nextId(), publish);
    this.sendPublishes();
    return number;
  }
  sendPublishes() {
    const { live, state } = this.#host;
    if (state !== "disconnected") this.publishes.expire(this.#host.now());
    if (!live) return;
    for (const [number, { channel: channel2, key: key2, data }] of this.publishes.take(live, this.#host.now())) {
      const request = this.requests.send(live, this.#host.now(), "publish", { channel: channel2, key: key2, data }, {
        done: (published) => {
          this.publishes.answer(number, toPublished(published));
        },
        failed: (error) => {
          this.publishes.failed(number, live, error, this.#host.now());
        }
      });
      if (request === void 0) this.publishes.refuse(number, tooLarge(live.frameBytes));
    }
  }
  /** Sends an event, unless so much waits already that it is better dropped; answers whether it went out. */
  emit(channel2, data, slot) {
    const { live } = this.#host;
    if (!live || live.transport.isCongested) return false;
    return live.send(["emit", { channel: channel2, slot, data }], "datagram");
  }
  /** Answers how to forget it. */
  ask(name, fields, asker) {
    return this.requests.ask(name, fields, asker, this.#host.live, this.#host.now());
  }
  /** Asks the node for a sign of life at once, and gives the connection up when none comes within so long at least. */
  check(leastMs) {
    const { live } = this.#host;
    const withinMs = Math.max(leastMs, 4 * this.requests.trips.smoothedMs);
    if (live?.check(this.#host.now(), withinMs)) this.#sendUnsubscribe(live, NOBODYS_CHANNEL);
  }
  // ---- time
  get nextAt() {
    const { live, state } = this.#host;
    let at = this.requests.nextAt;
    if (state !== "disconnected") at = Math.min(at, this.publishes.nextAt(live));
    if (!live) return at;
    for (const { resumeAt } of this.#subscriptions.values()) at = Math.min(at, resumeAt);
    return Math.min(at, ...live.leaveAgainAt.values());
  }
  tick(now) {
    this.requests.expire(now);
    this.sendPublishes();
    const { live } = this.#host;
    if (!live) return;
    this.#leaveAgain(live, now);
    for (const [channel2, { resumeAt }] of this.#subscriptions) if (resumeAt <= now) this.resume(channel2, resumeAt);
  }
  /** Whoever waits is told, or whoever did so when the next number was `end`. */
  failAll(error, end) {
    this.publishes.failAll(error, end);
    this.requests.failAll(error, end);
  }
  /** The node does not want this client: whoever waits is told. Subscriptions are kept for the next connection. */
  refuse(error) {
    this.failAll(error);
    for (const { reader: reader3 } of this.#subscriptions.values()) reader3.refused?.(error);
  }
  /** The client is closed. */
  end(error) {
    this.refuse(error);
    const subscriptions = [...this.#subscriptions.values()];
    this.#subscriptions.clear();
    for (const { reader: reader3 } of subscriptions) reader3.ended(error);
  }
};

// src/session.ts
var GREETING_MS = 2e3;
var RETIREMENT_MS = 2e3;
var SLEPT_MS = 5e3;
var Session = class {
  traffic;
  state = "disconnected";
  connection;
  /** Why nothing can be asked: the node does not want this client, until the next `connect`; or it is closed. */
  refusal;
  live;
  network;
  tokens;
  route;
  /** The connection that is on its way. */
  opening;
  /** The one that is opened next, unless something else comes first. */
  due;
  #options;
  #io;
  /** The secret of the newest transport. */
  #resume;
  /** How many `connect`s were sent: of the transports that resume this session, the latest attempt's has it. */
  #attempts = 0;
  #retiring;
  /** Whose session it was last; `null`: nobody's yet. */
  #user = null;
  /** Where it is to connect anew, perhaps as another user: the first number of what was asked for since. */
  #former;
  /** The node that served last. */
  #node;
  pace;
  #connects = 0;
  #frameBytes = 65536;
  #scheduledAt = Infinity;
  /** Before that, no node is doubted because it is silent. */
  doubtsFrom = 0;
  constructor(options, network, io) {
    this.#options = options;
    this.#io = io;
    this.tokens = new Tokens(this, io, options.canRefresh, options.token);
    this.network = network;
    this.route = io.route(options);
    this.pace = new Pace(options.backoff, () => io.random());
    this.traffic = new Traffic(options, this);
  }
  now() {
    return this.#io.now();
  }
  random() {
    return this.#io.random();
  }
  // ---- from the application
  /** Connects and stays connected. */
  connect() {
    if (this.state === "closed" || this.state === "connected" || this.opening) return;
    if (this.state === "disconnected") this.#former = this.traffic.requests.nextId();
    this.refusal = void 0;
    this.route.beginRound();
    this.pace.failures = 0;
    this.open("connect");
    this.settle();
  }
  /** Ends the connection and stays away until `connect`; subscriptions, positions and publishes are kept. */
  disconnect() {
    if (this.state === "closed") return;
    this.#stop();
    this.#setState("disconnected");
  }
  /** Ends the session for good. */
  close() {
    if (this.state === "closed") return;
    this.#stop();
    this.refusal = requestError("unavailable", "closed", false);
    this.#setState("closed");
    this.traffic.end(this.refusal);
    this.settle();
  }
  #stop() {
    this.#cancelOpening(lost("disconnected"));
    this.due = void 0;
    this.#retire();
    const { live } = this;
    this.live = void 0;
    this.tokens.stop();
    if (live) this.#drop(live);
    this.settle();
  }
  /** Something may have happened to the connection: looks at once instead of waiting for its time-out. */
  check() {
    if (this.due?.isTold === false) {
      this.route.beginRound();
      this.open("connect");
    }
    doubt(this);
    this.settle();
  }
  /** The page was frozen or the system slept. */
  woke() {
    this.live?.spare(this.now());
    this.check();
  }
  // ---- time
  /** Asks for the next tick; at the end of whatever was done from outside. */
  settle() {
    const { live } = this;
    const next = this.opening ? this.opening.greetBy : this.due?.at;
    const at = Math.min(
      this.traffic.nextAt,
      this.tokens.refreshAt,
      next ?? Infinity,
      live?.deadAt ?? Infinity,
      nextDoubt(this),
      this.#retiring?.until ?? Infinity
    );
    this.#scheduledAt = at;
    this.#io.schedule(at);
  }
  tick() {
    const now = this.now();
    if (now - this.#scheduledAt > SLEPT_MS) this.woke();
    const { live } = this;
    if (live?.isDead(now)) this.#lost(live, ending({ reason: "silence" }));
    if (this.#retiring && now >= this.#retiring.until) this.#retire();
    if (now >= this.tokens.refreshAt) this.tokens.renew();
    if (this.live && now >= nextDoubt(this)) doubt(this, this.live.timeoutMs);
    if (this.opening && now >= this.opening.greetBy) this.fail(this.opening, lost("no answer in time"));
    const { due } = this;
    if (due && !this.opening && now >= due.at) {
      this.due = due.later;
      this.open(due.purpose, due.address, due.kind);
    }
    this.traffic.tick(now);
    this.settle();
  }
  /** The connection lives: what is opened beside it because of a doubt is given up. */
  #trust(live) {
    const { opening } = this;
    if ((opening ?? this.due)?.purpose !== "connect" || opening?.link) return;
    this.#cancelOpening(lost("given up"));
    stand(this, live);
  }
  // ---- opening
  open(purpose, named, forced, settle) {
    const leaving = named || purpose === "connect" ? this.live?.address : void 0;
    const targets = this.route.targets(named, leaving, !isNeeded({ purpose }), forced);
    const opening = { purpose, targets, greetBy: Infinity, settle };
    this.opening = opening;
    if (!this.live) {
      this.due = void 0;
      this.#setState("connecting");
    } else if (purpose === "connect") this.doubtsFrom = this.now() + DOUBTS_APART_MS;
    const request = {
      targets,
      headStartMs: this.route.headStartMs?.(targets[0].address, named !== void 0) ?? 0,
      timeoutMs: this.#options.connectTimeoutMs
    };
    const dialed = (outcome) => {
      this.#dialed(opening, outcome);
      this.settle();
    };
    if (this.opening === opening) opening.cancel = this.#io.dial(request, dialed);
    return opening;
  }
  #cancelOpening(error) {
    const { opening } = this;
    this.opening = void 0;
    opening?.cancel?.();
    opening?.link?.transport.close();
    opening?.settle?.(error);
  }
  /** A handshake has completed: what follows is `connect`. */
  #dialed(opening, outcome) {
    if (opening !== this.opening) {
      if ("transport" in outcome) outcome.transport.close();
      return;
    }
    if ("error" in outcome) {
      this.fail(opening, outcome.error);
      return;
    }
    const { transport, target, tookMs, failed, token } = outcome;
    for (const other of failed) this.route.failed(other);
    this.route.dialed?.(target, transport.kind, tookMs);
    const link = new Link(target.address, transport, this.now());
    opening.link = link;
    const patienceMs = opening.targets.length > 1 ? GREETING_MS : Infinity;
    opening.greetBy = this.now() + Math.min(patienceMs, this.#options.connectTimeoutMs);
    transport.listen(this.#events(link));
    link.token = token;
    this.#greet(opening, link);
  }
  #greet(opening, link) {
    const { asked, subscriptions } = this.traffic.asked(this.#frameBytes);
    link.asked = asked;
    link.connectId = this.traffic.requests.nextId();
    link.frameBytes = this.#frameBytes;
    link.attempt = this.#attempts += 1;
    const isSent = link.send([
      "connect",
      {
        id: link.connectId,
        token: link.token,
        resume: this.#resume,
        attempt: link.attempt,
        subscriptions,
        client: this.#options.client,
        network: this.network
      }
    ]);
    if (!isSent) this.fail(opening, tooLarge(link.frameBytes));
  }
  #established(opening, link, connected) {
    this.opening = void 0;
    const hasExpired = this.#resume !== void 0 && !connected.resumed && this.#user === connected.user;
    this.#resume = connected.resume;
    if (this.#user !== null && this.#user !== connected.user) {
      this.traffic.failAll(new RequestError(FORBIDDEN, "another_user", "another user", false), this.#former);
    }
    this.#user = connected.user;
    this.#former = void 0;
    this.#frameBytes = link.frameBytes = connected.limits.frame_bytes;
    link.isConnected = true;
    link.beats(connected.heartbeat);
    this.route.arrived(link.address, connected.region, connected.regions);
    this.traffic.publishes.pacer.limit(connected.limits.publishes_per_second);
    this.traffic.publishes.remembers(connected.limits.idempotency_ms);
    if (this.#node !== connected.node) {
      this.traffic.publishes.releaseAll();
      this.due = void 0;
    }
    this.#node = connected.node;
    const old = this.live;
    this.live = link;
    link.since = this.now();
    if (old) {
      this.pace.credit(link.since - old.since);
      if (isNeeded(opening)) link.stayUntil = link.since += this.pace.backOff();
      this.#beginRetirement(old);
    }
    const { node, region, session, user, resumed, expires_at_ms: expiresAtMs } = connected;
    const transport = link.transport.kind;
    this.connection = { transport, node, region, session, user, resumed, hasExpired, expiresAtMs, connects: this.#connects += 1 };
    this.tokens.taken(link.token, expiresAtMs);
    stand(this, link, isNeeded(opening) ? connected.prefer_url : void 0);
    this.#setState("connected");
    opening.settle?.();
    if (this.live !== link) return;
    this.traffic.catchUp(link);
    for (const { frame: frame2, stream } of link.early.splice(0)) this.#frame(link, frame2, stream);
  }
  /** The attempt failed: the candidates that are left at once, or all of them again after a while. */
  fail(opening, error) {
    this.opening = void 0;
    const { link, targets } = opening;
    opening.cancel?.();
    link?.transport.close();
    const isExpired = this.#options.canRefresh && this.pace.failures < 2 && error.code === TOKEN_EXPIRED;
    if (isNeeded(opening) && !isExpired) {
      for (const target of targets) if (!link || link.address === target.address) this.route.failed(target, error);
    }
    opening.settle?.(error);
    if (this.live) stay(this, this.live, opening.purpose, error);
    else if (error.code === UNAUTHENTICATED && link && this.#resume) {
      this.#resume = void 0;
      this.#comeBack(error, 0);
    } else if (this.#isFinal(error, link?.token)) this.refused(error);
    else {
      const waitMs = this.route.isExhausted || isExpired ? this.backOff(error) : 0;
      this.#comeBack(error, isExpired ? 0 : waitMs);
    }
  }
  /** All are tried again after so long, and not before somebody wants to be asked. */
  backOff(error) {
    return this.pace.backOff(this.route.soonest?.() ?? error);
  }
  #comeBack(error, waitMs) {
    const at = this.now() + waitMs;
    this.due = { at, purpose: "connect", isTold: waitMs > 0 && error.retryAfterMs !== void 0 };
    this.#setState("connecting", error, at);
  }
  /** Whether coming back would not change anything. */
  #isFinal({ transient, code: code2 }, token) {
    if (this.#options.canRefresh || code2 !== TOKEN_EXPIRED && code2 !== UNAUTHENTICATED) return !transient;
    return this.tokens.refused(token);
  }
  /** The node does not want this client: it stays away until `connect`, and nobody waits for anything meanwhile. */
  refused(error) {
    this.#stop();
    this.refusal = new RequestError(error.code, error.reason, error.message, false);
    this.traffic.refuse(this.refusal);
    this.#setState("disconnected", error);
  }
  // ---- connections
  #events(link) {
    return {
      frame: (frame2, stream) => {
        link.heard(this.now());
        if (link === this.live) this.#trust(link);
        if (link.isConnected) this.#frame(link, frame2, stream);
        else this.#early(link, frame2, stream);
        this.settle();
      },
      fault: (problem) => {
        this.fault(link, problem);
        this.settle();
      },
      ended: (code2, reason2) => {
        this.#ended(link, ending({ code: code2, reason: reason2 }));
        this.settle();
      }
    };
  }
  /** A frame before `connected`. */
  #early(link, frame2, stream) {
    const { opening } = this;
    if (opening?.link !== link) return;
    const [name, body] = frame2;
    if (name === "connected" && body.id === link.connectId) this.#established(opening, link, body);
    else if (name === "disconnect") this.fail(opening, ending(body));
    else if (name === "error" && body.id === link.connectId) {
      this.fail(opening, toError(body));
    } else if (!hold(link.early, frame2, stream)) this.fault(link, "too much");
  }
  #frame(link, frame2, stream) {
    if (link !== this.live && link !== this.#retiring?.link) return;
    const [name, body] = frame2;
    if (name === "ping") {
      link.beats(body);
      link.send(["pong", { seq: body.seq }], "datagram");
    } else if (name === "disconnect") this.#ended(link, ending(body));
    else if (name !== "drain") this.traffic.frame(link, frame2, stream);
    else if (link === this.live) drain(this, link, body);
  }
  fault(link, problem) {
    this.#ended(link, lost(`protocol fault: ${problem}`));
  }
  #ended(link, error) {
    if (link === this.live) this.#lost(link, error);
    else if (link === this.#retiring?.link) this.#retire();
    else if (this.opening?.link === link) this.fail(this.opening, error);
  }
  /** The connection that carries the session is over. */
  #lost(link, error) {
    this.live = void 0;
    this.pace.credit(this.now() - link.since);
    this.#drop(link);
    this.tokens.stop();
    const { due } = this;
    this.due = void 0;
    if (due?.address && due.purpose !== "up") this.route.sendOn?.(due.address);
    const { code: code2 } = error;
    const isOwnDoing = code2 === REPLACED && link.attempt < this.#attempts;
    if (!isOwnDoing && this.#isFinal(error, this.tokens.former)) {
      this.#cancelOpening(error);
      this.refused(error);
      return;
    }
    if (this.opening && !this.route.isSpare?.(this.opening)) {
      this.#setState("connecting", error);
      return;
    }
    this.#cancelOpening(error);
    this.route.beginRound();
    this.#comeBack(error, this.pace.pause(code2 === ROTATE || code2 === TOKEN_EXPIRED, error));
  }
  #drop(link) {
    link.transport.close();
    this.traffic.requests.lost(link);
  }
  /** Keeps the old connection for replies that only it can give. */
  #beginRetirement(old) {
    this.#retire();
    this.#retiring = { link: old, until: this.now() + RETIREMENT_MS };
    if (!this.traffic.requests.needs(old)) this.#retire();
  }
  #retire() {
    const link = this.#retiring?.link;
    this.#retiring = void 0;
    if (!link) return;
    this.#drop(link);
    if (this.live) this.traffic.requests.sendWaiting(this.live, this.now());
  }
  #setState(state, error, retryAt) {
    if (this.state === state && !error && state !== "connected") return;
    this.state = state;
    if (state !== "connected") this.connection = void 0;
    this.#io.stateChanged(state, error, retryAt);
  }
};

// src/within.ts
async function within(timeoutMs, signal, work) {
  const attempt = new AbortController();
  const abort = () => {
    attempt.abort();
  };
  const timer = setTimeout(abort, timeoutMs);
  const forget = onAbort(signal, abort);
  const late = new Promise((_, reject) => {
    onAbort(attempt.signal, () => {
      reject(lost("no answer in time"));
    });
  });
  try {
    return await Promise.race([work(attempt.signal), late]);
  } finally {
    clearTimeout(timer);
    forget();
  }
}

// src/engine.ts
var SLEPT_MS2 = 1e3;
var LONGEST_TIMER_MS = 2 ** 31 - 1;
var Engine = class {
  session;
  stateChanged;
  random = Math.random;
  #options;
  #timer;
  #timerAt = Infinity;
  /** By how much the clock is ahead of the monotonic one. */
  #aheadMs = 0;
  constructor(options, stateChanged) {
    this.#options = options;
    this.stateChanged = stateChanged;
    const [first, ...others] = options.urls.map((url) => options.parts.address(url));
    if (first === void 0) throw new TypeError("no address is given");
    const canRefresh = options.getToken !== void 0;
    this.session = new Session({ ...options.session, addresses: [first, ...others], canRefresh }, options.parts.network(), this);
  }
  /** In milliseconds since 1970, by a clock that is never set back. */
  now() {
    const [wall, steady] = [Date.now(), performance.now()];
    if (wall - steady > this.#aheadMs + SLEPT_MS2) this.#aheadMs = wall - steady;
    return steady + this.#aheadMs;
  }
  route(options) {
    return this.#options.parts.route(options, () => this.now());
  }
  dial(request, done) {
    return undoable(
      async (signal) => {
        const token = await this.#fetch(signal, request.timeoutMs);
        return { ...await this.#options.parts.dial(request, signal), token };
      },
      done,
      (error) => {
        done({ error: error instanceof SkywaveError ? error : lost("connection lost", error) });
      }
    );
  }
  /** A token, from wherever they come. Rejects with a `SkywaveError`. */
  async #fetch(signal, timeoutMs) {
    const { getToken } = this.#options;
    if (getToken === void 0) return this.session.tokens.current;
    try {
      const token = await within(timeoutMs, signal, (given) => getToken({ signal: given }));
      if (typeof token === "string") return token;
      throw new TypeError("it is no text");
    } catch (error) {
      if (error instanceof SkywaveError && !error.transient) throw error;
      throw new TokenError(`no token: ${messageOf(error)}`, { transient: true, cause: error });
    }
  }
  fetchToken(done) {
    return undoable((signal) => this.#fetch(signal, this.#options.session.connectTimeoutMs), done, () => {
      done(void 0);
    });
  }
  schedule(at) {
    if (this.#timerAt <= at && at < Infinity) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    if (at === Infinity) return;
    const waitMs = Math.min(Math.max(at - this.now(), 0), LONGEST_TIMER_MS);
    this.#timer = setTimeout(() => {
      this.#timerAt = Infinity;
      this.session.tick();
    }, waitMs);
  }
};
function undoable(work, done, failed) {
  const controller = new AbortController();
  work(controller.signal).then(done, failed);
  return () => {
    controller.abort();
  };
}

// src/version.ts
var VERSION = "0.1.0";

// src/client.ts
var SkywaveCore = class {
  #events = new Emitter();
  /** @internal */
  session;
  /** All that somebody has named, as long as somebody holds them. */
  #channels = /* @__PURE__ */ new Map();
  /** Those that are there though nobody may hold them: with listeners, iterations or a subscription. */
  #used = /* @__PURE__ */ new Set();
  #error;
  /** What channels ask of the session. @internal */
  asking;
  /** @internal */
  constructor(url, options, parts2, choice) {
    const { token, getToken, name = "skywave-js", version = VERSION } = options;
    const session = {
      ...choice,
      token,
      connectTimeoutMs: options.connectTimeoutMs ?? 5e3,
      requestTimeoutMs: options.requestTimeoutMs ?? 1e4,
      publishQueue: options.publishQueue ?? 1024,
      backoff: options.backoff ?? { firstMs: 200, maxMs: 2e4 },
      client: { name, version }
    };
    const urls = [url].flat();
    const engine = new Engine({ urls, getToken, parts: parts2, session }, (state, error, retryAtMs) => {
      this.#error = error;
      this.#events.emit("state", { state, error, retryAtMs });
      if (state === "connected" && this.connection?.hasExpired) this.#events.emit("expired", this.connection);
    });
    this.session = engine.session;
    this.asking = new Asking(this.session);
    if (options.autoConnect !== false) this.session.connect();
  }
  get state() {
    return this.session.state;
  }
  /** The session and the connection that carries it now. */
  get connection() {
    return this.session.connection;
  }
  /** Why there is no connection, where something is wrong. */
  get error() {
    return this.#error;
  }
  /** The time from a request to its reply, smoothed, in milliseconds. */
  get rttMs() {
    return this.session.traffic.requests.trips.smoothedMs || void 0;
  }
  /** Listens. Answers how to stop. */
  on(name, listener, options) {
    return this.#events.on(name, listener, options);
  }
  /** Connects, if that has not been done, and waits until there is a session. Rejects when the node refuses it. */
  connect({ signal } = {}) {
    this.session.connect();
    return this.asking.promise(signal, (resolve, reject) => {
      const look = () => {
        const { state, connection } = this;
        if (connection) resolve(connection);
        else if (state !== "connecting") reject(this.#error ?? requestError("unavailable", "disconnected"));
      };
      const stop = this.on("state", look);
      look();
      return stop;
    });
  }
  /** Ends the connection and stays away until `connect()`; subscriptions and unanswered publishes are kept. */
  disconnect() {
    this.session.disconnect();
  }
  /** Ends the session for good: iterations end, what waits fails. */
  close() {
    this.session.close();
  }
  /**
   * A channel; the same one for the same name, with the options given last. One that has no listeners, iterations or
   * subscription, and that nobody holds, is let go with its options.
   */
  channel(name, options = {}) {
    const channel2 = this.#channels.get(name)?.deref() ?? this.#newChannel(name);
    const typed = channel2;
    typed.configure(options);
    return typed;
  }
  #newChannel(name) {
    const channel2 = new Channel(name, this.asking, (isUsed) => {
      if (isUsed) this.#used.add(channel2);
      else this.#used.delete(channel2);
    });
    if (Number.isInteger(Math.log2(this.#channels.size))) {
      for (const [other, held] of this.#channels) if (held.deref() === void 0) this.#channels.delete(other);
    }
    this.#channels.set(name, new WeakRef(channel2));
    return channel2;
  }
  /** Calls a method of the application behind the node. `deadlineMs`: how long the caller waits. */
  async call(method, data = null, { deadlineMs, schema, signal } = {}) {
    checkText(method, 128);
    const fields = { method, deadline_ms: deadlineMs && Math.min(Math.max(Math.ceil(deadlineMs), 0), 1e12), data: toPayload(data) };
    const body = await this.asking.ask("call", fields, { signal, isRepeatable: false, timeoutMs: deadlineMs });
    return validate(schema, body.data);
  }
  /** Gives the node a newer token of the same user. Answers when it expires, in milliseconds since 1970. */
  async refresh(token, { signal } = {}) {
    const { session } = this;
    session.tokens.current = token;
    try {
      const { expires_at_ms: atMs } = await this.asking.ask("refresh", { token }, { signal });
      session.tokens.taken(token, atMs);
      return atMs;
    } catch (error) {
      if (session.live && !error.transient) session.tokens.refused(token);
      throw error;
    }
  }
  /** Asks the node for a sign of life at once; where none comes within two seconds, the session goes on elsewhere. */
  check() {
    this.session.check();
  }
};

// src/courier.ts
var CLOCKS_DIFFER_MS = 1e4;
var Courier = class {
  #outbox;
  #asking;
  #limit;
  #delivered;
  #closing;
  /** How many the outbox holds, those on their way into it included. */
  #count = 0;
  /** All that was left by earlier pages is on its way; absent where that failed, so that it is tried again. */
  #loaded;
  /** All that was published before is stored, or could not be. */
  #stored = Promise.resolve();
  /** Settled, and still in the store because that failed. */
  #stale = /* @__PURE__ */ new Set();
  /**
   * How many are on their way in the session, whose queue takes `limit`; and those that wait for a place there, in
   * order.
   */
  #underWay = 0;
  #waiting = [];
  /** `limit`: how many may be in the outbox. `closing` aborts when the client is closed. */
  constructor(outbox, asking, limit, delivered, closing) {
    this.#outbox = outbox;
    this.#asking = asking;
    this.#limit = limit;
    this.#delivered = delivered;
    this.#closing = closing;
    this.#load().catch(() => void 0);
  }
  /** Publishes, once it is stored, after all that was published before. */
  publish(entry, signal) {
    return this.#asking.promise(
      signal,
      (resolve, reject) => {
        if (this.#count >= this.#limit) throw full();
        const abandoned = new AbortController();
        this.#bring(entry, abandoned.signal).then(resolve, reject);
        return () => {
          abandoned.abort();
        };
      },
      true
    );
  }
  async #bring(entry, abandoned) {
    this.#count += 1;
    const [before, stored] = [this.#stored, this.#store(entry)];
    this.#stored = Promise.allSettled([before, stored]);
    await before;
    return this.#send(entry, await stored, abandoned);
  }
  /** Why nothing is brought any more: the client is closed. */
  get #ended() {
    return this.#asking.isClosed ? this.#asking.refusal : void 0;
  }
  /** Answers whether it is noted as sent already. */
  async #store(entry) {
    try {
      await this.#load();
      if (this.#count > this.#limit) throw full();
      for (const key2 of this.#stale) await this.#remove(key2);
      if (this.#ended !== void 0) throw this.#ended;
      const { session } = this.#asking;
      const sentAtMs = entry.sentAtMs ?? (session.live && session.now());
      await this.#outbox.add({ ...entry, sentAtMs }, this.#closing);
      return sentAtMs !== void 0;
    } catch (error) {
      this.#count -= 1;
      throw failure(error);
    }
  }
  #load() {
    this.#loaded ??= this.#takeUp().catch((error) => {
      this.#loaded = void 0;
      throw failure(error);
    });
    return this.#loaded;
  }
  /** Sends what earlier pages left, before anything new. */
  async #takeUp() {
    const entries = await this.#outbox.load((left) => {
      if (!this.#asking.isClosed) this.#deliverAll(left);
    }, this.#closing);
    this.#deliverAll(entries);
  }
  #deliverAll(entries) {
    this.#count += entries.length;
    for (const entry of entries) void this.#deliver(entry);
  }
  async #deliver(entry) {
    const { sentAtMs } = entry;
    const isDoubtful = sentAtMs !== void 0 && sentAtMs > this.#asking.session.now() + CLOCKS_DIFFER_MS;
    try {
      const published = await this.#send(isDoubtful ? { ...entry, sentAtMs: 0 } : entry, sentAtMs !== void 0);
      this.#delivered({ ...entry, published });
    } catch (error) {
      this.#delivered({ ...entry, error });
    }
  }
  /** Publishes what is in the outbox, and takes it out once it is settled. */
  async #send(entry, isNoted, abandoned) {
    let noted = Promise.resolve();
    const sent = (sentAtMs) => {
      if (!isNoted) noted = this.#outbox.add({ ...entry, sentAtMs }, this.#closing).catch(() => void 0);
    };
    await this.#place();
    try {
      const published = await this.#sent(entry, sent, abandoned).finally(() => {
        this.#leave();
      });
      await noted;
      await this.#settled(entry.key);
      return published;
    } catch (error) {
      await noted;
      if (!this.#asking.isClosed) await this.#settled(entry.key);
      throw error;
    }
  }
  /** Waits for a place in the session's queue: an earlier page may have left more than it takes. */
  async #place() {
    if (this.#underWay >= this.#limit) await new Promise((resolve) => this.#waiting.push(resolve));
    else this.#underWay += 1;
  }
  /** Gives the place to whoever has waited for the longest time. */
  #leave() {
    const next = this.#waiting.shift();
    if (next === void 0) this.#underWay -= 1;
    else next();
  }
  /** What the node says. A publication that nobody waits for any more is taken back, unless it may have been sent. */
  #sent(entry, sent, abandoned) {
    return new Promise((resolve, reject) => {
      let { sentAtMs } = entry;
      let withdraw = () => true;
      const abandon = () => {
        if (withdraw()) reject(abandoned?.reason);
      };
      const send = () => {
        if (this.#ended !== void 0) {
          reject(this.#ended);
          return;
        }
        const failed = (error) => {
          if (error === this.#asking.refusal) send();
          else reject(error);
        };
        withdraw = this.#asking.push({ ...entry, sentAtMs }, resolve, failed, (atMs) => {
          sentAtMs = atMs;
          sent(atMs);
        });
      };
      if (abandoned?.aborted) abandon();
      else send();
      onAbort(abandoned, abandon);
    });
  }
  async #settled(key2) {
    this.#count -= 1;
    await this.#remove(key2).catch(() => this.#stale.add(key2));
  }
  async #remove(key2) {
    await this.#outbox.remove(key2);
    this.#stale.delete(key2);
  }
};
function full() {
  return requestError("limit_reached", "the outbox is full", true);
}
function failure(error) {
  if (error instanceof SkywaveError) return error;
  return new SkywaveError(110, "unavailable", `the outbox failed: ${messageOf(error) || String(error)}`, true, { cause: error });
}

// src/candidates.ts
var MAX_LEARNED = 16;
var Candidates = class {
  /** Never empty; the given ones, which stay, come first. */
  #known;
  #current;
  /** `given` has at least one. */
  constructor(given) {
    this.#known = given.map((address) => ({ address, isGiven: true, failed: false, restsUntil: 0 }));
    this.#current = given[0];
  }
  /** Where the session is, or was last, or was sent to. */
  get current() {
    return this.#current;
  }
  /** Whether nobody is left to be tried in this round. */
  isExhausted(now) {
    return this.#known.every(({ failed, restsUntil }) => failed || now < restsUntil);
  }
  /** Until when nobody wants to be asked. */
  get restsUntil() {
    return Math.min(...this.#known.map(({ restsUntil }) => restsUntil));
  }
  /**
   * Whom to try in this round: the current one, then the others, the fastest first. Of those in a region nobody has
   * been to the order in which they were told counts. Who does not want to be asked is left out, unless that is
   * everybody.
   */
  order(now) {
    const rank = (candidate) => candidate.address.key === this.#current.key ? -1 : this.#estimate(candidate) ?? Infinity;
    const isAnybody = this.isExhausted(now);
    const left = this.#known.filter(({ failed, restsUntil }) => !failed && (isAnybody || now >= restsUntil));
    const ranked = left.map((candidate) => ({ candidate, rank: rank(candidate) }));
    ranked.sort((a, b) => a.rank === b.rank ? 0 : a.rank - b.rank);
    return ranked.map(({ candidate }) => candidate.address);
  }
  /** How long a handshake takes: measured there, or else at the quickest of the same region. */
  #estimate({ handshakeMs, region }) {
    if (handshakeMs !== void 0 || region === void 0) return handshakeMs;
    const times = this.#known.filter((other) => other.region === region).map((other) => other.handshakeMs ?? Infinity);
    return Math.min(...times);
  }
  /** The time that a handshake with `address` usually takes, if one ever completed. */
  handshakeMs(address) {
    return address && this.#find(address)?.handshakeMs;
  }
  measured(address, tookMs) {
    const candidate = this.#find(address);
    if (candidate === void 0) return;
    candidate.handshakeMs = candidate.handshakeMs === void 0 ? tookMs : (candidate.handshakeMs * 3 + tookMs) / 4;
  }
  /** `address` is not to be tried again in this round, nor before `restsUntil`. */
  failed(address, restsUntil = 0) {
    const candidate = this.#find(address);
    if (candidate !== void 0) Object.assign(candidate, { failed: true, restsUntil });
  }
  /** From here on everybody may be tried again. */
  beginRound() {
    for (const candidate of this.#known) candidate.failed = false;
  }
  /** The session is at `address`, and stays there: nothing but a failure or the node's own word leads elsewhere. */
  succeeded(address, region) {
    this.go(address);
    this.beginRound();
    const candidate = this.#find(address);
    if (candidate !== void 0) Object.assign(candidate, { region, restsUntil: 0 });
  }
  /** Goes to `address` first from now on. */
  go(address) {
    if (this.#find(address) === void 0) {
      if (this.#known.filter((one) => !one.isGiven).length >= MAX_LEARNED) this.#known.pop();
      this.#known.push({ address, isGiven: false, failed: false, restsUntil: 0 });
    }
    this.#current = address;
  }
  /** Replaces what nodes told of others, with their regions; the current one stays. */
  learn(told) {
    const former = this.#known;
    const known = former.filter((candidate) => candidate.isGiven);
    const most = known.length + MAX_LEARNED;
    for (const { region, address } of told) {
      const same = (candidate) => candidate.address.key === address.key;
      const before = known.find(same);
      if (before !== void 0) before.region = region;
      else if (known.length < most) known.push({ ...former.find(same) ?? { address, isGiven: false, failed: false, restsUntil: 0 }, region });
    }
    this.#known = known;
    if (this.#find(this.#current) === void 0) {
      const stays = former.find(({ address }) => address.key === this.#current.key);
      known.length = Math.min(known.length, most - 1);
      if (stays !== void 0) known.push(stays);
    }
  }
  #find(address) {
    return this.#known.find((candidate) => candidate.address.key === address.key);
  }
};

// src/transport_kind.ts
var TRANSPORTS = ["webtransport", "websocket"];

// src/race_memory.ts
var FIRST_AVOIDANCE_MS = 3e4;
var LONGEST_AVOIDANCE_MS = 36e5;
var MAX_ENTRIES = 64;
var STORAGE_KEY = "skywave:transports";
var RaceMemory = class {
  #storage;
  #lost;
  constructor(storage) {
    this.#storage = storage;
    this.#lost = load(storage);
  }
  /** `network` names the network, as far as it can be told apart. */
  plan(address, choice, headStartMs, network, now) {
    if (choice !== "auto") return { kinds: [choice], headStartMs };
    const isAvoided = (kind) => now < this.avoidedUntil(address, kind, network);
    const kinds = transportsOf(address).sort((one, other) => Number(isAvoided(one)) - Number(isAvoided(other)));
    return { kinds, headStartMs };
  }
  /** Until when a transport is not tried first there; 0 when it may be. */
  avoidedUntil(address, kind, network) {
    return this.#lost.get(key(address, kind, network))?.avoidUntil ?? 0;
  }
  /** Remembers who won a race that others could have won. */
  remember(address, { kinds }, winner, network, now) {
    if (kinds.length === 1) return;
    this.worked(address, winner, network);
    const rank = (kind) => TRANSPORTS.indexOf(kind);
    for (const kind of kinds.slice(0, kinds.indexOf(winner))) {
      if (rank(kind) < rank(winner)) this.failed(address, kind, network, now);
    }
  }
  /** A transport works there. */
  worked(address, kind, network) {
    if (this.#lost.delete(key(address, kind, network))) this.#store();
  }
  /** A transport does not work there for now. */
  failed(address, kind, network, now) {
    const name = key(address, kind, network);
    const before = this.#lost.get(name)?.avoidanceMs ?? 0;
    const avoidanceMs = Math.min(Math.max(before * 2, FIRST_AVOIDANCE_MS), LONGEST_AVOIDANCE_MS);
    if (this.#lost.size >= MAX_ENTRIES) this.#lost.clear();
    this.#lost.set(name, { avoidUntil: now + avoidanceMs, avoidanceMs });
    this.#store();
  }
  #store() {
    try {
      this.#storage?.setItem(STORAGE_KEY, JSON.stringify([...this.#lost]));
    } catch {
    }
  }
};
function transportsOf(address) {
  return TRANSPORTS.filter((kind) => address[kind] !== void 0);
}
function key(address, kind, network) {
  return `${kind} ${network} ${address.key}`;
}
function load(storage) {
  const lost2 = /* @__PURE__ */ new Map();
  try {
    const stored = JSON.parse(storage?.getItem(STORAGE_KEY) ?? "[]");
    for (const [name, { avoidUntil, avoidanceMs }] of stored.slice(0, MAX_ENTRIES)) {
      if (!Number.isFinite(avoidUntil) || !Number.isFinite(avoidanceMs)) continue;
      lost2.set(name, { avoidUntil: Math.min(avoidUntil, Date.now() + avoidanceMs), avoidanceMs });
    }
  } catch {
  }
  return lost2;
}

// src/session/route.ts
var STAGGER_MS = 200;
var NAMED_HEAD_START_MS = 1e3;
var LONGEST_REST_MS = 36e5;
var LEAST_STAY_MS = 5e3;
var PREFERENCE_INTERVAL_MS = 6e4;
var Route = class {
  #options;
  #world;
  #candidates;
  #memory;
  /** The node that is gone has named the current candidate. */
  #isSentOn = false;
  #preferAgainAt = 0;
  #choice;
  constructor(options, world) {
    this.#options = options;
    this.#choice = options.transport;
    this.#world = world;
    this.#candidates = new Candidates(options.addresses);
    this.#memory = new RaceMemory(options.storage);
  }
  /** Whether nobody is left to be tried in this round. */
  get isExhausted() {
    return this.#candidates.isExhausted(this.#world.now());
  }
  /** From here on everybody may be tried again. */
  beginRound() {
    this.#candidates.beginRound();
  }
  /**
   * Whom to try: `named` first, then those that are left of this round, without `leaving`; without `named`, `leaving`
   * last. Or `named` alone, over another transport than the usual one, if one is named.
   */
  targets(named, leaving, isAlone = false, choice) {
    if (named !== void 0 && isAlone) return [this.#target(named, choice)];
    if (this.isExhausted) this.beginRound();
    const order = this.#candidates.order(this.#world.now());
    const others = order.filter(({ key: key2 }) => key2 !== named?.key && key2 !== leaving?.key);
    const last = named || others.length === order.length ? [] : order.filter(({ key: key2 }) => key2 === leaving?.key);
    const all = [...named ? [named] : [], ...others, ...last];
    return all.map((address) => this.#target(address));
  }
  /** The application wants this transport from now on. Answers which one it has wanted. */
  choose(choice) {
    const before = this.#choice;
    this.#choice = choice;
    return before;
  }
  #target(address, choice = this.#choice) {
    const network = this.#world.network();
    return { address, plan: this.#memory.plan(address, choice, this.#options.headStartMs, network, this.#world.now()) };
  }
  /**
   * How long the first one is tried alone: one that is slow by nature is not left for the sake of some milliseconds.
   */
  headStartMs(first, isNamed) {
    if (isNamed || this.#isSentOn) return NAMED_HEAD_START_MS;
    const usualMs = (this.#candidates.handshakeMs(first) ?? 0) * 1.5;
    return Math.min(Math.max(usualMs, STAGGER_MS), NAMED_HEAD_START_MS);
  }
  /** A handshake completed. */
  dialed({ address, plan }, kind, tookMs) {
    this.#candidates.measured(address, tookMs);
    this.#memory.remember(address, plan, kind, this.#world.network(), this.#world.now());
  }
  /** It is not to be tried again in this round. */
  failed({ address }, { retryAfterMs } = {}) {
    this.#isSentOn = false;
    this.#candidates.failed(address, retryAfterMs && this.#world.now() + Math.min(retryAfterMs, LONGEST_REST_MS));
  }
  /** What whoever may be asked the soonest said of it. */
  soonest() {
    const restMs = this.#candidates.restsUntil - this.#world.now();
    return restMs > 0 ? { retryAfterMs: restMs } : {};
  }
  /** The session is there; `regions`: where else it could go. */
  arrived(address, region, regions) {
    this.#isSentOn = false;
    this.#candidates.succeeded(address, region);
    const told = regions.flatMap(({ name, url }) => {
      const other = this.trusted(url);
      return other === void 0 ? [] : [{ region: name, address: other }];
    });
    this.#candidates.learn(told);
  }
  /** A node that is gone had named this one. */
  sendOn(address) {
    this.#candidates.go(address);
    this.#isSentOn = true;
  }
  /** An address that a node gave: the token goes there, so it may not be less protected than here. */
  trusted(url) {
    const address = url === void 0 ? void 0 : this.#world.parse(url);
    return address !== void 0 && (address.isSecure || !this.#candidates.current.isSecure) ? address : void 0;
  }
  /** Where the session goes next, while it stands. */
  next(address, kind, preferUrl) {
    const better = this.trusted(preferUrl);
    const now = this.#world.now();
    if (better !== void 0 && better.key !== address.key && now >= this.#preferAgainAt) {
      this.#preferAgainAt = now + PREFERENCE_INTERVAL_MS;
      return { at: now, purpose: "prefer", address: better };
    }
    return { at: this.#upAt(address, kind), purpose: "up", address, kind: transportsOf(address)[0] };
  }
  /** Beside a connection it may take as long as it likes; where there is none, all are tried. */
  isSpare({ purpose, link }) {
    return link === void 0 && (purpose === "up" || purpose === "prefer");
  }
  /** When the best transport is tried again there: UDP may have come back. */
  #upAt(address, kind) {
    if (this.#choice !== "auto") return Infinity;
    const network = this.#world.network();
    const [best] = transportsOf(address);
    if (kind === best) {
      this.#memory.worked(address, best, network);
      return Infinity;
    }
    return Math.max(this.#memory.avoidedUntil(address, best, network), this.#world.now() + LEAST_STAY_MS);
  }
  /** The best transport was tried, and does not work there yet. */
  upFailed(address) {
    this.#memory.failed(address, transportsOf(address)[0], this.#world.network(), this.#world.now());
  }
};

// src/staggered.ts
var MAX_CONCURRENT = 4;
var CROWDED_TIMEOUT_MS = 2e3;
function firstOf(attempts, pace, signal) {
  return new Promise((resolve, reject) => {
    const race2 = new Race(attempts, pace, { resolve, reject });
    const abort = () => {
      race2.giveUp([lost("given up")]);
    };
    if (signal.aborted) abort();
    else race2.begin();
    race2.whenOver(onAbort(signal, abort));
  });
}
var Race = class {
  #attempts;
  #pace;
  #settle;
  #running = /* @__PURE__ */ new Map();
  #errors = /* @__PURE__ */ new Map();
  #next = 0;
  #timer;
  #lastChance;
  #isOver = false;
  #over = () => void 0;
  constructor(attempts, pace, settle) {
    this.#attempts = attempts;
    this.#pace = pace;
    this.#settle = settle;
  }
  whenOver(over) {
    this.#over = over;
    if (this.#isOver) over();
  }
  /** Begins the next attempt, if there is one and room for it. */
  begin() {
    clearTimeout(this.#timer);
    const attempt = this.#attempts[this.#next];
    if (this.#isOver || attempt === void 0 || this.#running.size >= MAX_CONCURRENT) return;
    const index = this.#next;
    this.#next += 1;
    void this.#run(index, attempt);
    const delayMs = index === 0 ? this.#pace.headStartMs : this.#pace.staggerMs;
    this.#timer = setTimeout(() => {
      this.begin();
    }, delayMs);
  }
  async #run(index, attempt) {
    const controller = new AbortController();
    this.#running.set(index, controller);
    const isCrowded = this.#attempts.length > MAX_CONCURRENT;
    const timeoutMs = isCrowded ? Math.min(this.#pace.timeoutMs, CROWDED_TIMEOUT_MS) : this.#pace.timeoutMs;
    const timer = setTimeout(() => {
      this.#failed(index, lost("no handshake in time"));
    }, timeoutMs);
    const begunAt = performance.now();
    try {
      const value = await attempt(controller.signal);
      if (!controller.signal.aborted) this.#won({ index, value, tookMs: performance.now() - begunAt, failed: [...this.#errors.keys()] });
    } catch (error) {
      this.#failed(index, error);
    } finally {
      clearTimeout(timer);
    }
  }
  #won(winner) {
    if (this.#isOver) return;
    this.#running.delete(winner.index);
    this.#end();
    this.#settle.resolve(winner);
  }
  #failed(index, error) {
    const controller = this.#running.get(index);
    if (this.#isOver || controller === void 0) return;
    this.#running.delete(index);
    this.#errors.set(index, error);
    controller.abort();
    if (this.#errors.size === this.#attempts.length) {
      this.giveUp([...this.#errors].sort(([a], [b]) => a - b).map(([, reason2]) => reason2));
      return;
    }
    const underWay = [...this.#running.keys()];
    this.begin();
    if (this.#pace.lastChanceMs === void 0 || underWay.length === 0) return;
    this.#lastChance = setTimeout(() => {
      for (const other of underWay) this.#failed(other, lost("no handshake in time"));
    }, this.#pace.lastChanceMs);
  }
  giveUp(errors) {
    this.#end();
    this.#settle.reject(new AggregateError(errors, errors.map((error) => error instanceof Error ? error.message : "").join("; ")));
  }
  #end() {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#lastChance);
    for (const controller of this.#running.values()) controller.abort();
    this.#over();
  }
};

// src/transport/receiving.ts
var Receiving = class {
  isOver = false;
  #events;
  listen(events) {
    this.#events = events;
  }
  /** Tells the frames that `decode` gives, and which stream they came on. Answers whose stream it is from here on. */
  frames(decode, stream) {
    try {
      for (const frame2 of this.isOver ? [] : decode()) {
        if (this.isOver) break;
        if (frame2[0] !== "stream") this.#events?.frame(frame2, stream);
        else if (stream !== void 0) stream = frame2[1].subscription;
      }
    } catch (error) {
      if (!(error instanceof DecodeError || error instanceof RangeError)) report(error);
      this.#events?.fault(messageOf(error));
    }
    return stream;
  }
  /** It is over, unless it was before. */
  end(code2, reason2) {
    if (this.isOver) return;
    this.isOver = true;
    this.#events?.ended(code2, reason2);
  }
  /** Nothing is told any more. */
  stop() {
    this.isOver = true;
  }
};

// src/transport/websocket.ts
var CONGESTED_BYTES = 256 * 1024;
var WebSocketTransport = class {
  kind = "websocket";
  #socket;
  #encoding;
  #receiving = new Receiving();
  constructor(socket, encoding) {
    this.#socket = socket;
    this.#encoding = encoding;
  }
  listen(events) {
    this.#receiving.listen(events);
    this.#socket.onmessage = ({ data }) => {
      const message = typeof data === "string" ? data : new Uint8Array(data);
      this.#receiving.frames(() => this.#encoding.fromMessage(message));
    };
    this.#socket.onclose = ({ code: code2, reason: reason2 }) => {
      this.#receiving.end(code2, reason2 || closed(code2));
    };
    this.#socket.onerror = () => {
      setTimeout(() => {
        this.#receiving.end(void 0, FAILED);
      });
    };
  }
  send(frame2, _lane, maxBytes) {
    const encoded = this.#encoding.encode(frame2);
    const length = typeof encoded === "string" ? byteLength(encoded) : encoded.length;
    if (length > maxBytes) return false;
    if (!this.#receiving.isOver) this.#socket.send(this.#encoding.toMessage(encoded));
    return true;
  }
  get isCongested() {
    return this.#socket.bufferedAmount > CONGESTED_BYTES;
  }
  close() {
    this.#receiving.stop();
    this.#socket.close(1e3);
  }
};
var FAILED = "the WebSocket failed";
function closed(code2) {
  return `the WebSocket closed (${code2})`;
}
function openWebSocket(url, encoding, given, signal) {
  return new Promise((resolve, reject) => {
    const constructor = given ?? globalThis.WebSocket;
    if (constructor === void 0) {
      throw requestError("bad_request", "no WebSocket here: the option `WebSocket` takes `ws`");
    }
    const socket = new constructor(url, [`skywave.v1.${encoding.name}`]);
    socket.binaryType = "arraybuffer";
    const failed = (problem) => {
      forget();
      reject(lost(problem));
    };
    const forget = onAbort(signal, () => {
      socket.close();
      failed("given up");
    });
    socket.onopen = () => {
      forget();
      resolve(new WebSocketTransport(socket, encoding));
    };
    socket.onerror = () => {
      failed(FAILED);
    };
    socket.onclose = ({ code: code2 }) => {
      failed(closed(code2));
    };
  });
}

// src/framing.ts
var MAX_FRAME_BYTES = 32 * 1024 * 1024;
var MAX_LENGTH = 2 ** 30 - 1;
function prefixed(frame2) {
  const length = frame2.length;
  const size = length < 64 ? 1 : length < 16384 ? 2 : 4;
  if (length > MAX_LENGTH) throw new RangeError(`a frame of ${length} bytes`);
  const bytes = new Uint8Array(size + length);
  const view = new DataView(bytes.buffer);
  if (size === 1) view.setUint8(0, length);
  else if (size === 2) view.setUint16(0, 16384 | length);
  else view.setUint32(0, 2147483648 + length);
  bytes.set(frame2, size);
  return bytes;
}
function readVarint(bytes) {
  const first = bytes[0];
  if (first === void 0) return void 0;
  const size = 1 << (first >> 6);
  if (bytes.length < size) return void 0;
  let value = first & 63;
  for (const byte of bytes.subarray(1, size)) value = value * 256 + byte;
  return { value, size };
}
var FrameBuffer = class {
  #maximum;
  /** What has come and is no whole frame yet; joined only once it is enough. */
  #pieces = [];
  #length = 0;
  /** How many bytes the next frame needs with its prefix, as far as that is known. */
  #needed = 1;
  /** `maximum`: the largest frame in bytes. */
  constructor(maximum = MAX_FRAME_BYTES) {
    this.#maximum = maximum;
  }
  /** Whether a frame has begun and is not complete. */
  get isPartial() {
    return this.#length > 0;
  }
  /**
   * Takes a piece and gives the frames that are complete now.
   *
   * @throws RangeError when a frame announces itself larger than the maximum; those before it have been given.
   */
  *push(piece) {
    this.#pieces.push(piece);
    this.#length += piece.length;
    while (this.#length >= this.#needed) {
      const bytes = this.#join();
      const prefix = readVarint(bytes);
      if (prefix === void 0) {
        this.#needed = 1 << ((bytes[0] ?? 0) >> 6);
        continue;
      }
      if (prefix.value > this.#maximum) throw new RangeError(`a frame of ${prefix.value} bytes`);
      this.#needed = prefix.size + prefix.value;
      if (bytes.length < this.#needed) return;
      const frame2 = bytes.subarray(prefix.size, this.#needed);
      this.#keep(bytes.subarray(this.#needed));
      yield frame2;
    }
  }
  #join() {
    const only = this.#pieces[0];
    if (only !== void 0 && this.#pieces.length === 1) return only;
    const joined = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      joined.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [joined];
    return joined;
  }
  #keep(rest) {
    this.#pieces = [rest];
    this.#length = rest.length;
    this.#needed = 1;
  }
};

// src/quirks.ts
var AVOIDING_WEBTRANSPORT = [
  // Delivers two streams that the node opens, and never a third.
  // https://bugzilla.mozilla.org/show_bug.cgi?id=2046262
  { browser: "Firefox", mendedIn: 153 },
  // Never extends its flow control: stalls in silence after some 7,000 streams or 16 MiB.
  // https://github.com/moq-dev/moq/issues/2388
  { browser: "WebKit" }
];
function reasonToAvoidWebTransport(userAgent) {
  const { browser, version } = identify(userAgent);
  return AVOIDING_WEBTRANSPORT.find((quirk) => quirk.browser === browser && version < (quirk.mendedIn ?? Infinity));
}
function identify(userAgent) {
  const firefox = /\bFirefox\/(\d+)/.exec(userAgent);
  if (firefox !== null) return { browser: "Firefox", version: Number(firefox[1]) };
  const isWebKit = /\bAppleWebKit\b/.test(userAgent) && !/Chrom(e|ium)\//.test(userAgent);
  return isWebKit ? { browser: "WebKit", version: Number(/\bVersion\/(\d+)/.exec(userAgent)?.[1] ?? 0) } : { browser: void 0, version: 0 };
}
function datagramWritable(datagrams) {
  const either = datagrams;
  return either.createWritable?.() ?? either.writable;
}

// src/transport/nudge.ts
var LEAST_PATIENCE_MS2 = 1e3;
var LONGEST_TIMER_MS2 = 2 ** 31 - 1;
var Nudge = class {
  #send;
  #ping;
  #heardAt = 0;
  #timer;
  /** `send` sends the `pong` that nobody asked for, once in each silence. */
  constructor(send) {
    this.#send = send;
  }
  /** Something came: perhaps a `ping`, which says when to expect something. */
  heard(ping) {
    this.#ping = ping ?? this.#ping;
    this.#heardAt = performance.now();
    this.#timer ??= this.#wait(0);
  }
  stop() {
    clearTimeout(this.#timer);
    this.#ping = void 0;
  }
  /** Half of the time-out before the connection counts as dead. */
  #wait(silentMs) {
    const ping = this.#ping;
    if (ping === void 0) return void 0;
    const patienceMs = Math.min(Math.max(ping.interval_ms + ping.timeout_ms / 2, LEAST_PATIENCE_MS2), LONGEST_TIMER_MS2);
    return setTimeout(() => {
      const silent = performance.now() - this.#heardAt;
      const isSilent = silent >= patienceMs;
      if (isSilent) this.#send(ping.seq);
      this.#timer = isSilent ? void 0 : this.#wait(silent);
    }, patienceMs - silentMs);
  }
};

// src/transport/webtransport.ts
var CONGESTED_BYTES2 = 256 * 1024;
var CODE_TIMEOUT_MS = 1e3;
var WebTransportTransport = class {
  kind = "webtransport";
  #session;
  #encoding;
  #control;
  #readable;
  #datagrams;
  #receiving = new Receiving();
  #nudge = new Nudge((seq) => this.send(["pong", { seq }], "datagram", Infinity));
  #unsentBytes = 0;
  constructor(session, control, encoding) {
    this.#session = session;
    this.#encoding = encoding;
    this.#control = control.writable.getWriter();
    this.#datagrams = datagramWritable(session.datagrams)?.getWriter();
    this.#readable = control.readable;
  }
  listen(events) {
    this.#receiving.listen({
      ...events,
      frame: (frame2, stream) => {
        this.#nudge.heard(frame2[0] === "ping" ? frame2[1] : void 0);
        events.frame(frame2, stream);
      }
    });
    const ended = (code2, reason2 = "") => {
      this.#nudge.stop();
      this.#receiving.end(code2, reason2);
    };
    this.#session.closed.then(
      ({ closeCode, reason: reason2 }) => {
        ended(closeCode, reason2);
      },
      (error) => {
        ended(void 0, messageOf(error));
      }
    );
    void this.#readControl(reader2(this.#readable));
    void this.#readDatagrams(reader2(this.#session.datagrams.readable));
    void this.#acceptStreams();
  }
  send(frame2, lane, maxBytes) {
    const encoded = this.#encoding.encode(frame2, lane === "datagram" ? lane : "control");
    const bytes = typeof encoded === "string" ? toUtf8(encoded) : encoded;
    if (bytes.length > maxBytes) return false;
    if (this.#receiving.isOver) return true;
    const fits = bytes.length <= this.#session.datagrams.maxDatagramSize;
    if (lane === "datagram" && fits && this.#datagrams !== void 0) this.#write(this.#datagrams, bytes);
    else this.#write(this.#control, prefixed(bytes));
    return true;
  }
  #write(writer, bytes) {
    this.#unsentBytes += bytes.length;
    const written = () => {
      this.#unsentBytes -= bytes.length;
    };
    writer.write(bytes).then(written, written);
  }
  get isCongested() {
    return this.#unsentBytes > CONGESTED_BYTES2;
  }
  close() {
    this.#receiving.stop();
    this.#nudge.stop();
    this.#session.close({ closeCode: 0, reason: "" });
  }
  async #readControl(stream) {
    await this.#readFrames(stream, "control");
    setTimeout(() => {
      this.#receiving.end(void 0, "the control stream has ended");
    }, CODE_TIMEOUT_MS);
  }
  async #acceptStreams() {
    const streams = this.#session.incomingUnidirectionalStreams;
    const accepting = streams.getReader();
    try {
      for (; ; ) {
        const { done, value } = await accepting.read();
        if (done) return;
        void this.#readFrames(reader2(value), "stream");
      }
    } catch {
    }
  }
  /** Reads a stream to its end. One that is reset belonged to a subscription that is over. */
  async #readFrames(stream, carrier) {
    const buffer = new FrameBuffer();
    const encoding = this.#encoding;
    let subscription = carrier === "stream" ? UNNAMED : void 0;
    try {
      for (; ; ) {
        const { done, value } = await stream.read();
        if (done) return;
        const frames = () => decoded(buffer.push(value), (frame2) => encoding.decode(frame2, carrier));
        subscription = this.#receiving.frames(frames, subscription);
      }
    } catch {
    }
  }
  async #readDatagrams(stream) {
    try {
      for (; ; ) {
        const { done, value } = await stream.read();
        if (done) return;
        this.#receiving.frames(() => decoded([value], (frame2) => this.#encoding.decode(frame2, "datagram")));
      }
    } catch {
    }
  }
};
function reader2(stream) {
  return stream.getReader();
}
async function openWebTransport(url, encoding, constructor, serverCertificateHashes, signal) {
  const address = new URL(url);
  if (encoding.name === "json") address.searchParams.set("encoding", "json");
  const session = new constructor(address.href, { serverCertificateHashes });
  session.closed.catch(() => void 0);
  const forget = onAbort(signal, () => {
    session.close();
  });
  try {
    await session.ready;
    const control = await session.createBidirectionalStream();
    if (signal.aborted) throw lost("given up");
    return new WebTransportTransport(session, control, encoding);
  } catch (error) {
    throw lost(`no WebTransport: ${messageOf(error)}`, error);
  } finally {
    forget();
  }
}

// src/dialer.ts
var LAST_CHANCE_MS = 1e3;
function transportOpener({ encoding, webSocket, webTransport, ...given }) {
  const openers = {
    websocket: (address, signal) => openWebSocket(urlOf(address, "websocket"), encoding, webSocket, signal),
    webtransport: async (address, signal) => {
      if (webTransport === void 0) throw requestError("bad_request", "no WebTransport here");
      const hashes = await given.serverCertificateHashes(signal);
      if (signal.aborted) throw lost("given up");
      return openWebTransport(urlOf(address, "webtransport"), encoding, webTransport, hashes, signal);
    }
  };
  return async (kind, address, signal) => openers[kind](address, signal);
}
function urlOf(address, kind) {
  const url = address[kind];
  if (url === void 0) throw lost(`the address has no ${kind}`);
  return url;
}
async function dial(request, open, signal) {
  const { targets, headStartMs, timeoutMs } = request;
  const attempts = targets.map(
    (target) => async (aborted) => {
      const transport = await race(target.plan, timeoutMs, (kind, given) => open(kind, target.address, given), aborted);
      return { target, transport };
    }
  );
  try {
    const { value, tookMs, failed } = await firstOf(attempts, { headStartMs, staggerMs: STAGGER_MS, timeoutMs }, signal);
    return { ...value, tookMs, failed: targets.filter((_, place2) => failed.includes(place2)) };
  } catch (error) {
    throw summary(error);
  }
}
async function race({ kinds, headStartMs = 0 }, timeoutMs, open, signal) {
  const attempts = kinds.map((kind) => (given) => open(kind, given));
  const pace = { headStartMs, staggerMs: 0, timeoutMs, lastChanceMs: LAST_CHANCE_MS };
  try {
    return (await firstOf(attempts, pace, signal)).value;
  } catch (error) {
    throw summary(error);
  }
}
function summary(error) {
  const errors = error instanceof AggregateError ? error.errors : [];
  if (errors.every(({ transient }) => transient === false) && errors[0] instanceof SkywaveError) return errors[0];
  return error instanceof SkywaveError ? error : lost(messageOf(error), error);
}

// src/page_life.ts
function networkOf(page = globalThis) {
  const kind = page.navigator?.connection?.type;
  const visibility = page.document?.visibilityState;
  const background = visibility === void 0 ? void 0 : visibility === "hidden";
  return { kind, background };
}
function followPage(follower, page = globalThis) {
  const stops = new AbortController();
  const on = (target, name, listener) => {
    target?.addEventListener?.(name, listener, { signal: stops.signal });
  };
  let { kind } = networkOf(page);
  on(page.document, "visibilitychange", () => {
    const network = networkOf(page);
    follower.networkChanged(network, false);
    if (!network.background) follower.check();
  });
  on(page.document, "freeze", () => {
    follower.networkChanged({ ...networkOf(page), background: true }, false);
  });
  on(page.document, "resume", () => {
    follower.networkChanged(networkOf(page), false);
    follower.woke();
  });
  on(page, "pageshow", (event) => {
    if (event.persisted) follower.woke();
  });
  on(page, "online", () => {
    follower.networkChanged(networkOf(page), true);
  });
  on(page, "offline", () => {
    follower.check();
  });
  on(page.navigator?.connection, "change", () => {
    const network = networkOf(page);
    const isOther = network.kind !== kind;
    kind = network.kind;
    if (isOther) follower.networkChanged(network, true);
  });
  return () => {
    stops.abort();
  };
}

// src/session/network.ts
function networkChanged(session, network, isOther) {
  session.network = network;
  for (const link of [session.live, session.opening?.link]) link?.send(["network", network]);
  if (!isOther) return;
  if (session.due?.purpose === "up") session.due = { ...session.due, at: session.now() };
  session.check();
}
function pageFollower(session) {
  return {
    networkChanged: (network, isOther) => {
      networkChanged(session, network, isOther);
    },
    check: () => {
      session.check();
    },
    woke: () => {
      session.woke();
    }
  };
}

// src/session/switching.ts
function switchTo(session, choice, settle) {
  const { live, route } = session;
  if (live === void 0 || session.opening !== void 0) {
    settle(lost("cannot move now"));
    return () => void 0;
  }
  const before = route.choose?.(choice);
  const opening = session.open("switch", live.address, choice, (error) => {
    if (error !== void 0 && before !== void 0) route.choose?.(before);
    settle(error);
  });
  session.settle();
  return () => {
    if (session.opening !== opening) return;
    session.fail(opening, lost("given up"));
    session.settle();
  };
}

// src/skywave.ts
var Skywave = class extends SkywaveCore {
  #delivered = new Emitter();
  #closing = new AbortController();
  /** @throws TypeError for what is no address of a node. */
  constructor(url, options = {}) {
    const { transport = "auto", headStartMs = 500, storage = localStorageIfAny() } = options;
    super(url, options, parts(options, transport), { transport, headStartMs, storage });
    const { signal } = this.#closing;
    if (options.outbox !== void 0) {
      const delivered = (one) => {
        this.#delivered.emit("delivered", one);
      };
      const courier = new Courier(options.outbox, this.asking, options.publishQueue ?? 1024, delivered, signal);
      this.asking.publish = (entry, given) => courier.publish(entry, given);
    }
    if (options.followPage !== false) onAbort(signal, followPage(pageFollower(this.session)));
  }
  on(name, listener, options) {
    return name === "delivered" ? this.#delivered.on(name, listener, options) : super.on(name, listener, options);
  }
  /**
   * Tells what is known of the network, where the page does not: in React Native.
   *
   * @throws RequestError for a `kind` of more than 32 bytes.
   */
  setNetwork(network) {
    checkText(network.kind, 32);
    networkChanged(this.session, network, network.kind !== this.session.network.kind);
  }
  /**
   * Moves to another transport, make before break. It is the choice until the next one; `auto` leaves it to the client.
   * Where the move fails, or `signal` aborts, the present transport and the choice before go on. It fails with a
   * transient error at once where there is no connection, or another one is being opened already, as beside one that is
   * silent.
   */
  switchTransport(choice, { signal } = {}) {
    return this.asking.promise(
      signal,
      (resolve, reject) => switchTo(this.session, choice, (error) => {
        if (error === void 0) resolve(void 0);
        else reject(error);
      })
    );
  }
  close() {
    super.close();
    this.#closing.abort();
  }
};
function parts(options, transport) {
  const { encoding = json, serverCertificateHashes = [] } = options;
  const runtime = globalThis;
  const isAvoided = transport === "auto" && reasonToAvoidWebTransport(runtime.navigator?.userAgent ?? "") !== void 0;
  const webTransport = isAvoided ? void 0 : runtime.WebTransport;
  const open = transportOpener({
    encoding,
    webSocket: options.WebSocket,
    webTransport,
    async serverCertificateHashes(signal) {
      const hashes = typeof serverCertificateHashes === "function" ? await serverCertificateHashes({ signal }) : serverCertificateHashes;
      return hashes.map((hash) => ({ algorithm: "sha-256", value: toBytes(hash) }));
    }
  });
  const address = (url) => {
    const parsed2 = parseAddress(url);
    return webTransport === void 0 && parsed2.websocket !== void 0 ? { ...parsed2, webtransport: void 0 } : parsed2;
  };
  const parse = (url) => {
    try {
      return address(url);
    } catch {
      return void 0;
    }
  };
  const network = () => options.followPage === false ? {} : networkOf();
  return {
    address,
    dial: (request, signal) => dial(request, open, signal),
    route: (route, now) => new Route(route, { now, parse, network: () => network().kind ?? "" }),
    network
  };
}
function toBytes(hash) {
  return typeof hash === "string" ? Uint8Array.from(hash.match(/../g) ?? [], (pair) => parseInt(pair, 16)) : hash;
}
function localStorageIfAny() {
  try {
    return typeof document === "undefined" ? void 0 : localStorage;
  } catch {
    return void 0;
  }
}
export {
  Channel,
  CloseCode,
  ConnectionError,
  ErrorCode,
  InvalidDataError,
  OutcomeUnknownError,
  RequestError,
  Skywave,
  SkywaveError,
  TokenError,
  exactJson,
  json
};
