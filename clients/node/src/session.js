import { inspect } from 'node:util';

import { SessionClosed, SessionError, SessionValueError, SessionWithheld } from './errors.js';
import { checkString, comparable, encode, encodeString } from './json.js';

const MAX_HEADER = 16384;
/** With these the session is known, but not its contents. With all others nobody knows who is calling. */
const CONTENTS_WITHHELD = ['too_large', 'not_json'];

/** What the framework's side of this package may do with a session, and nobody else. */
export let internals;

/**
 * `req.djangoSession.cart = []` is what users of express-session write. It must not do nothing: an assignment to a
 * property that a session does not have comes up here, also in sloppy mode.
 */
function Guarded() {}
Guarded.prototype = new Proxy(Object.create(Object.prototype), {
  set(_target, name) {
    throw new SessionError(
      `a session has no property ${String(name)} to be set; keys of the session are in session.data`,
    );
  },
});

/** The Django session of one request. */
export class Session extends Guarded {
  #claims;
  #withheld;
  /** The contents as they came: `{}` after a flush, `null` while they are not known. */
  #came;
  /** The contents as they are now, made at the first look. While they are not known: what was set. */
  #now = null;
  /** Keys that were deleted while the contents are not known. */
  #deleted = new Set();
  #data = null;
  /** Objects that came in the token. Others belong to the application. */
  #ours = new WeakSet();
  #proxies = new WeakMap();
  /** There may be an object of the application in the session: it can be changed past the proxies. */
  #holdsForeign = false;
  #flush = false;
  #cycle = false;
  #touch = false;
  #expiry;
  #if;
  #closed = false;
  #atClose = null;
  /** Tells the log that a change is not stored; set once the client has left. */
  #onLost = null;

  /** Claims as `verify` gives them. */
  constructor(claims) {
    super();
    this.#claims = claims;
    this.#withheld = claims.session === undefined ? (claims.withheld ?? 'unavailable') : null;
    this.#came = claims.session === undefined ? null : JSON.parse(JSON.stringify(claims.session));
  }

  static {
    internals = {
      header: (session) => session.#header(),
      close: (session) => session.#close(),
      reopen: (session) => {
        session.#closed = false;
      },
      abandon: (session, tell) => session.#abandon(tell),
      isClosed: (session) => session.#closed,
      isAbandoned: (session) => session.#onLost !== null,
      changedSinceClose: (session) => session.#changedSinceClose(),
    };
  }

  get claims() {
    return this.#claims;
  }

  get withheld() {
    return this.#withheld;
  }

  get userId() {
    this.#checkKnown('userId');
    return this.#claims.sub ?? null;
  }

  get user() {
    this.#checkKnown('user');
    // The gateway leaves the user out too where the token would still be too large.
    if (this.#withheld !== null && this.#claims.user === undefined) throw new SessionWithheld('user', this.#withheld);
    return this.#claims.user ?? null;
  }

  get sid() {
    this.#checkKnown('sid');
    return this.#claims.sid ?? null;
  }

  get rev() {
    return this.#claims.rev ?? null;
  }

  get expiresAt() {
    this.#checkKnown('expiresAt');
    return this.#claims.session_exp === undefined ? null : new Date(this.#claims.session_exp * 1000);
  }

  get data() {
    this.#checkKnown('data');
    if (this.#data === null) {
      this.#now = this.#copy(this.#came ?? {});
      this.#data = new Proxy(this.#now, this.#topHandler());
    }
    return this.#data;
  }

  set data(_value) {
    throw new SessionError('session.data cannot be replaced; set and delete its keys, or use session.flush()');
  }

  flush() {
    this.#checkChangeable('flush');
    this.#flush = true;
    this.#cycle = false;
    this.#expiry = undefined;
    this.#came = {};
    this.#deleted.clear();
    if (this.#now !== null) for (const key of Object.keys(this.#now)) delete this.#now[key];
  }

  cycleKey() {
    this.#checkChangeable('cycleKey');
    // A flush gives a new key by itself, and the gateway refuses both.
    if (!this.#flush) this.#cycle = true;
  }

  setExpiry(seconds) {
    this.#checkChangeable('setExpiry');
    if (seconds !== null && !(Number.isSafeInteger(seconds) && seconds >= 0)) {
      throw new SessionValueError('setExpiry takes a whole number of seconds from 0, or null');
    }
    this.#expiry = seconds;
  }

  touch() {
    this.#checkChangeable('touch');
    this.#touch = true;
  }

  onlyIfUnchanged() {
    this.#checkChangeable('onlyIfUnchanged');
    // What is set goes into a new session then, which nobody else can have changed.
    if (this.sid === null) return;
    if (this.rev === null)
      throw new SessionError('onlyIfUnchanged: the token has no rev, as its contents are withheld');
    this.#if = this.rev;
  }

  seal() {
    if (this.#closed) throw new SessionClosed();
    const header = this.#header();
    this.#close();
    return header;
  }

  [inspect.custom](_depth, options) {
    const about = { withheld: this.#withheld, closed: this.#closed };
    return `Session ${inspect(about, options)}`;
  }

  get #blind() {
    return this.#withheld !== null && !CONTENTS_WITHHELD.includes(this.#withheld);
  }

  #checkKnown(what) {
    if (this.#blind) throw new SessionWithheld(what, this.#withheld);
  }

  /** Before each change. */
  #checkOpen() {
    if (this.#onLost !== null) {
      this.#lose();
      return;
    }
    if (this.#closed) throw new SessionClosed();
  }

  #checkChangeable(what) {
    this.#checkKnown(what);
    this.#checkOpen();
  }

  /** The first look's copy: without a prototype, so that `data.constructor` is a key like others. */
  #copy(contents) {
    const copy = Object.assign(Object.create(null), JSON.parse(JSON.stringify(contents)));
    const open = Object.values(copy);
    while (open.length > 0) {
      const next = open.pop();
      if (typeof next !== 'object' || next === null) continue;
      this.#ours.add(next);
      open.push(...Object.values(next));
    }
    return copy;
  }

  #topHandler() {
    const known = (key) => {
      if (typeof key !== 'string' || this.#came !== null) return;
      if (Object.hasOwn(this.#now, key) || this.#deleted.has(key)) return;
      throw new SessionWithheld(`session key ${encodeString(key)}`, this.#withheld);
    };
    const allKnown = () => {
      if (this.#came === null) throw new SessionWithheld('keys of the session', this.#withheld);
    };
    return {
      ...this.#nestedHandler(),
      get: (target, key, receiver) => {
        known(key);
        return this.#view(target, key, Reflect.get(target, key, receiver));
      },
      has: (target, key) => {
        known(key);
        return Reflect.has(target, key);
      },
      getOwnPropertyDescriptor: (target, key) => {
        known(key);
        return Reflect.getOwnPropertyDescriptor(target, key);
      },
      ownKeys: (target) => {
        allKnown();
        return Reflect.ownKeys(target);
      },
      set: (target, key, value, receiver) => {
        if (receiver !== this.#data) return Reflect.set(target, key, value, receiver);
        this.#assign(target, key, value);
        return true;
      },
      defineProperty: (target, key, descriptor) => {
        const { configurable, enumerable, writable, get, set } = descriptor;
        if (get !== undefined || set !== undefined || [configurable, enumerable, writable].includes(false)) {
          throw new SessionValueError('session data has no getters and no hidden or constant keys');
        }
        this.#assign(target, key, descriptor.value);
        return true;
      },
      deleteProperty: (target, key) => {
        this.#checkOpen();
        checkKey(key);
        this.#deleted.add(key);
        return Reflect.deleteProperty(target, key);
      },
      preventExtensions: () => false,
    };
  }

  #assign(target, key, value) {
    this.#checkOpen();
    checkKey(key);
    // What is equal to what came is no change, and may hold what could not be written.
    if (!this.#isAsItCame(key, value)) encode(value, key);
    this.#noteForeign(value);
    this.#deleted.delete(key);
    target[key] = value;
  }

  /** Objects and arrays inside the session. The application gets no other way to those that came in the token. */
  #nestedHandler() {
    return {
      get: (target, key, receiver) => this.#view(target, key, Reflect.get(target, key, receiver)),
      set: (target, key, value, receiver) => {
        if (receiver !== this.#proxies.get(target)) return Reflect.set(target, key, value, receiver);
        this.#checkOpen();
        if (key === '__proto__') throw new SessionValueError('a member __proto__ cannot be assigned');
        this.#noteForeign(value);
        return Reflect.set(target, key, value);
      },
      defineProperty: (target, key, descriptor) => {
        this.#checkOpen();
        this.#noteForeign(descriptor.value);
        return Reflect.defineProperty(target, key, descriptor);
      },
      deleteProperty: (target, key) => {
        this.#checkOpen();
        return Reflect.deleteProperty(target, key);
      },
      setPrototypeOf: () => false,
    };
  }

  /**
   * What is read from the session. Objects of the application come out as they went in, so that `===` and methods
   * work, until the session is closed: then plain ones come out behind a proxy that refuses changes.
   */
  #view(target, key, value) {
    if (typeof value !== 'object' || value === null) return value;
    if (!this.#ours.has(value) && !(this.#closed && isPlain(value))) return value;
    const own = Reflect.getOwnPropertyDescriptor(target, key);
    // The application froze it: a proxy may not give another object for it.
    if (own !== undefined && !own.configurable && !own.writable) return value;
    let proxy = this.#proxies.get(value);
    if (proxy === undefined) {
      proxy = new Proxy(value, this.#nestedHandler());
      this.#proxies.set(value, proxy);
    }
    return proxy;
  }

  #noteForeign(value) {
    if (typeof value === 'object' && value !== null) this.#holdsForeign = true;
  }

  #isAsItCame(key, value) {
    if (this.#came === null || !Object.hasOwn(this.#came, key)) return false;
    return comparable(value, key) === comparable(this.#came[key], key);
  }

  /** The value for `X-Session-Set`, or null where nothing is to be told. */
  #header() {
    const members = [];
    if (this.#if !== undefined) members.push(`"if":${encodeString(this.#if)}`);
    const conditions = members.length;
    if (this.#flush) members.push('"flush":true');
    if (this.#cycle) members.push('"cycle":true');
    if (this.#now !== null) members.push(...this.#changes());
    if (this.#expiry !== undefined) members.push(`"expiry":${this.#expiry}`);
    if (members.length === conditions && !this.#touch) return null;
    const header = `{${members.join(',')}}`;
    if (header.length > MAX_HEADER) {
      const sentence = `X-Session-Set would have ${header.length} bytes; at most ${MAX_HEADER} can be sent`;
      throw new SessionValueError(sentence, 'x-session-set-too-large');
    }
    return header;
  }

  #changes() {
    const now = this.#now;
    const set = Object.keys(now)
      .filter((key) => !this.#isAsItCame(key, now[key]))
      .map((key) => {
        checkKey(key);
        return `${encodeString(key)}:${encode(now[key], key)}`;
      });
    const del =
      this.#came === null ? [...this.#deleted] : Object.keys(this.#came).filter((key) => !Object.hasOwn(now, key));
    const members = [];
    if (del.length > 0 && !this.#flush) members.push(`"del":[${del.map(encodeString).join(',')}]`);
    if (set.length > 0) members.push(`"set":{${set.join(',')}}`);
    return members;
  }

  #close() {
    this.#closed = true;
    this.#atClose = this.#holdsForeign ? this.#picture() : null;
  }

  /**
   * No head will go out, because of the visitor alone. So a change throws nothing: in a callback that would end the
   * process. `tell` is called for the first one, or at once where there is one already.
   */
  #abandon(tell) {
    this.#onLost ??= tell;
    if (this.#wouldSend()) this.#lose();
  }

  #lose() {
    const tell = this.#onLost;
    this.#onLost = () => {};
    tell();
  }

  /** Whether there is a change, be it one that cannot be sent. */
  #wouldSend() {
    try {
      return this.#header() !== null;
    } catch {
      return true;
    }
  }

  #changedSinceClose() {
    return this.#closed && this.#atClose !== null && this.#picture() !== this.#atClose;
  }

  #picture() {
    try {
      return Object.entries(this.#now)
        .map(([key, value]) => comparable(value, key))
        .join();
    } catch {
      return 'no JSON';
    }
  }
}

function checkKey(key) {
  if (typeof key !== 'string') throw new SessionValueError('a session key is a string');
  if (key.startsWith('_')) {
    throw new SessionValueError(`session key ${encodeString(key)}: keys that begin with _ are Django's own`);
  }
  checkString(key, key);
}

function isPlain(value) {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === Array.prototype || prototype === null;
}
