import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { runInThisContext } from 'node:vm';

import { Session, SessionClosed, SessionError, SessionValueError, SessionWithheld } from 'session-gateway-upstream';

import { claims } from './support.js';

const open = (session, more = {}) => new Session(claims({ session, ...more }));
/** What would be sent, as an object; null where there is no header. */
const sealed = (session) => JSON.parse(session.seal());

test('reading changes nothing', () => {
  const session = open({ cart: [{ id: 1 }], n: 1.5, none: null });
  assert.deepEqual({ ...session.data }, { cart: [{ id: 1 }], n: 1.5, none: null });
  assert.equal(session.data.cart[0].id, 1);
  assert.equal(session.data.missing, undefined);
  assert.equal(session.data.constructor, undefined, 'only keys of the session are in data');
  assert.equal(session.data.cart, session.data.cart, 'the same object at each look');
  assert.deepEqual(
    session.data.cart.map((item) => item.id),
    [1],
  );
  assert.equal(JSON.stringify(session.data), '{"cart":[{"id":1}],"n":1.5,"none":null}');
  assert.equal(session.seal(), null);
});

test('who and what is told', () => {
  const session = open({}, { user: { username: 'jo' }, session_exp: 1765206000 });
  assert.equal(session.userId, '42');
  assert.deepEqual(session.user, { username: 'jo' });
  assert.equal(session.sid, 'sid-1');
  assert.equal(session.rev, 'rev-1');
  assert.equal(session.expiresAt.toISOString(), '2025-12-08T15:00:00.000Z');
  assert.equal(session.withheld, null);
  assert.equal(session.claims.aud, 'orders');
  const nobody = open({}, { sub: undefined, sid: undefined, rev: undefined, session_exp: undefined });
  for (const name of ['userId', 'user', 'sid', 'rev', 'expiresAt', 'withheld']) assert.equal(nobody[name], null, name);
});

test('assigning, deleting and changing inside are found, and only they are sent', () => {
  const session = open({ cart: [1], prefs: { a: { b: 1 } }, same: 1, gone: 1 });
  session.data.cart.push(2);
  session.data.prefs.a.b = 2;
  session.data.fresh = null;
  delete session.data.gone;
  delete session.data.never;
  assert.deepEqual(sealed(session), {
    del: ['gone'],
    set: { cart: [1, 2], prefs: { a: { b: 2 } }, fresh: null },
  });
});

test('equal values are no change, in whatever order their names are', () => {
  const session = open({ prefs: { b: 1, a: [1, { y: 1, x: 2 }], 7: 0 }, n: 1, gone: 'x' });
  session.data.prefs = { 7: 0, a: [1, { x: 2, y: 1 }], b: 1 };
  session.data.n = 2;
  session.data.n = 1;
  delete session.data.gone;
  session.data.gone = 'x';
  session.data.extra = 1;
  delete session.data.extra;
  assert.equal(session.seal(), null);
});

test('an object of the application stays the same object, and later changes of it count', () => {
  const session = open({});
  const cart = (session.data.cart ??= []);
  cart.push({ id: 1 });
  assert.equal(session.data.cart, cart);
  assert(session.data.cart.includes(cart[0]));
  assert.deepEqual(sealed(session), { set: { cart: [{ id: 1 }] } });
});

test('objects of the session can be moved inside of it', () => {
  const session = open({ a: [{ id: 1 }], b: [] });
  const [item] = session.data.a;
  session.data.b.push(item);
  session.data.a.splice(session.data.a.indexOf(item), 1);
  session.data.c = session.data.b;
  session.data.c.push(2);
  assert.deepEqual(sealed(session), { set: { a: [], b: [{ id: 1 }, 2], c: [{ id: 1 }, 2] } });
});

test('random changes, applied to what came, give what is there at the end', () => {
  let seed = 20261123;
  const random = (below) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const names = ['a', 'b', '1', '10', 'é', 'constructor', 'toString', 'length'];
  const name = () => names[random(names.length)];
  const value = (depth) => {
    const kinds = [
      () => random(9),
      () => null,
      () => random(2) === 0,
      () => `t${random(9)}\u65e5`,
      () => random(9) / 8,
    ];
    if (depth < 3) {
      kinds.push(
        () => Array.from({ length: random(4) }, () => value(depth + 1)),
        () => Object.fromEntries(Array.from({ length: random(4) }, () => [name(), value(depth + 1)])),
      );
    }
    return kinds[random(kinds.length)]();
  };
  const change = (data) => {
    const key = name();
    const there = data[key];
    const acts = [() => (data[key] = value(0)), () => delete data[key]];
    if (Array.isArray(there)) {
      acts.push(
        () => there.push(value(1)),
        () => there.pop(),
        () => there.reverse(),
        () => there.splice(random(3), 1, value(1)),
      );
    } else if (typeof there === 'object' && there !== null) {
      acts.push(
        () => (there[name()] = value(1)),
        () => delete there[name()],
      );
    }
    acts[random(acts.length)]();
  };
  for (let round = 0; round < 3000; round++) {
    const came = Object.fromEntries(names.filter(() => random(2) === 0).map((key) => [key, value(0)]));
    const session = open(came);
    const flushed = random(8) === 0;
    for (let count = random(6); count > 0; count--) change(session.data);
    if (flushed) session.flush();
    for (let count = random(6); count > 0; count--) change(session.data);
    const end = JSON.parse(JSON.stringify(session.data));
    const header = session.seal();
    assert.equal(header === null, !flushed && isEqual(came, end), `seed ${seed}`);
    if (header === null) continue;
    assert.match(header, /^[\x20-\x7e]*$/);
    const { set = {}, del = [], flush } = JSON.parse(header);
    assert.equal(flush, flushed || undefined);
    const result = flush ? {} : { ...came };
    for (const key of del) {
      assert(Object.hasOwn(result, key), 'only what is there is deleted');
      delete result[key];
    }
    for (const [key, item] of Object.entries(set)) {
      assert(!Object.hasOwn(result, key) || !isEqual(result[key], item), 'only what differs is set');
      result[key] = item;
    }
    assert.deepEqual(result, end, `seed ${seed}`);
  }
});

function isEqual(one, other) {
  try {
    assert.deepStrictEqual(one, other);
    return true;
  } catch {
    return false;
  }
}

test('flush, cycleKey, setExpiry, touch and onlyIfUnchanged', () => {
  const acts = [
    [(s) => s.flush(), { flush: true }],
    [(s) => s.cycleKey(), { cycle: true }],
    [(s) => s.setExpiry(0), { expiry: 0 }],
    [(s) => s.setExpiry(null), { expiry: null }],
    [(s) => s.touch(), {}],
    [(s) => (s.touch(), (s.data.n = 1)), { set: { n: 1 } }],
    [(s) => s.onlyIfUnchanged(), null],
    [(s) => (s.onlyIfUnchanged(), (s.data.n = 1)), { if: 'rev-1', set: { n: 1 } }],
    [(s) => (s.onlyIfUnchanged(), s.touch()), { if: 'rev-1' }],
    [(s) => (s.cycleKey(), s.flush()), { flush: true }],
    [(s) => (s.flush(), s.cycleKey()), { flush: true }],
    [(s) => (s.setExpiry(60), s.flush()), { flush: true }],
    [(s) => (s.flush(), s.setExpiry(60)), { flush: true, expiry: 60 }],
    [(s) => ((s.data.n = 1), s.flush()), { flush: true }],
    [(s) => (s.flush(), (s.data.lang = 'fr')), { flush: true, set: { lang: 'fr' } }],
    [(s) => (s.flush(), delete s.data.lang), { flush: true }],
    [(s) => (s.cycleKey(), (s.data.paid = true)), { cycle: true, set: { paid: true } }],
  ];
  for (const [act, expected] of acts) {
    const session = open({ lang: 'fr' });
    act(session);
    assert.deepEqual(sealed(session), expected, String(act));
  }
  const flushed = open({ lang: 'fr' });
  flushed.flush();
  assert.deepEqual(Object.keys(flushed.data), []);
  for (const wrong of [-1, 1.5, NaN, '60', undefined, true, 2 ** 53]) {
    assert.throws(() => open({}).setExpiry(wrong), SessionValueError);
  }
  const nobody = open({}, { sid: undefined, rev: undefined });
  nobody.onlyIfUnchanged();
  nobody.data.cart = ['book'];
  assert.deepEqual(sealed(nobody), { set: { cart: ['book'] } });
});

test('what JSON or the gateway cannot carry is refused at the assignment, and what was there stays', () => {
  const circle = {};
  circle.self = circle;
  const nested = (levels) => JSON.parse('['.repeat(levels) + ']'.repeat(levels));
  const bad = [
    NaN,
    Infinity,
    undefined,
    () => 1,
    Symbol('s'),
    1n,
    2 ** 53,
    -(2 ** 60),
    1e300,
    new Map([[1, 2]]),
    new Set(),
    /x/,
    new Error('x'),
    new Uint8Array(2),
    Object(1),
    Promise.resolve(),
    [undefined],
    new Array(2),
    { a: { b: NaN } },
    { [Symbol('s')]: 1 },
    '\ud800',
    'a\udc00b',
    '\0',
    { '\ud800': 1 },
    { 'a\0': 1 },
    circle,
    nested(31),
    new Date(NaN).getTime(),
  ];
  for (const value of bad) {
    const session = open({ n: 1 });
    assert.throws(() => (session.data.n = value), SessionValueError, inspect(value));
    assert.throws(() => (session.data.fresh = value), SessionValueError, inspect(value));
    assert.throws(() => Object.assign(session.data, { n: value }), SessionValueError, inspect(value));
    assert.deepEqual({ ...session.data }, { n: 1 });
    assert.equal(session.seal(), null);
  }
  const session = open({});
  session.data.date = new Date(0);
  session.data.deep = nested(30);
  session.data.safe = Number.MAX_SAFE_INTEGER;
  session.data.pair = '\u{1f600}';
  session.data.own = new (class Item {
    id = 1;
    left = undefined;
  })();
  assert.equal(
    session.seal(),
    `{"set":{"date":"1970-01-01T00:00:00.000Z","deep":${'['.repeat(30)}${']'.repeat(30)},` +
      '"safe":9007199254740991,"pair":"\\ud83d\\ude00","own":{"id":1}}}',
  );
});

test('what came in by a later change is refused at the end, and nothing is sent', () => {
  for (const value of [NaN, undefined, () => 1, 2n, '\ud800', new Map(), 2 ** 53]) {
    const session = open({ list: [], other: 1 });
    session.data.other = 2;
    session.data.list.push(value);
    assert.throws(() => session.seal(), SessionValueError, inspect(value));
  }
});

test('errors name the key, never the value', () => {
  const session = open({});
  const message = (act) => {
    try {
      act();
    } catch (error) {
      return error.message;
    }
  };
  assert.match(
    message(() => (session.data.card = ['4111 1111', NaN])),
    /"card"/,
  );
  assert.doesNotMatch(
    message(() => (session.data.card = ['4111 1111', NaN])),
    /4111/,
  );
  session.data.card = '4111'.repeat(5000);
  assert.doesNotMatch(
    message(() => session.seal()),
    /4111/,
  );
});

test('errors show a key in ASCII only', () => {
  const session = open({});
  assert.throws(
    () => (session.data['a\u009b\u2028'] = NaN),
    ({ message }) => message.includes('"a\\u009b\\u2028"'),
  );
});

test('more than 16 KiB cannot be sent', () => {
  const session = open({});
  session.data.x = 'x'.repeat(16384 - '{"set":{"x":""}}'.length);
  assert.equal(session.seal().length, 16384);
  const larger = open({});
  larger.data.x = 'x'.repeat(16385 - '{"set":{"x":""}}'.length);
  assert.throws(() => larger.seal(), SessionValueError);
  const escaped = open({});
  escaped.data.x = 'é'.repeat(3000);
  assert.throws(() => escaped.seal(), SessionValueError);
});

test("keys that begin with _ are Django's", () => {
  const session = open({ _mine: [1] });
  assert.deepEqual(session.data._mine, [1], 'they can be read where the route forwards them');
  assert.throws(() => (session.data._auth_user_id = '1'), SessionValueError);
  assert.throws(() => delete session.data._mine, SessionValueError);
  assert.throws(() => (session.data.__proto__ = { admin: true }), SessionValueError);
  assert.equal(session.seal(), null);
  const inside = open({ _mine: [1] });
  inside.data._mine.push(2);
  assert.throws(() => inside.seal(), SessionValueError);
});

test('names like __proto__ in the session pollute nothing, and are kept', () => {
  const text = '{"__proto__":{"admin":true},"prefs":{"__proto__":{"admin":true},"constructor":1}}';
  const session = new Session({ ...claims(), session: JSON.parse(text) });
  assert.equal({}.admin, undefined);
  assert.equal(session.data.admin, undefined);
  assert.equal(session.data.prefs.admin, undefined);
  assert.throws(() => (session.data.prefs.__proto__ = {}), SessionValueError);
  assert.throws(() => Object.setPrototypeOf(session.data.prefs, {}), TypeError);
  session.data.prefs.more = 1;
  assert.equal(session.seal(), '{"set":{"prefs":{"__proto__":{"admin":true},"constructor":1,"more":1}}}');
});

test('numbers that JavaScript cannot keep are never written back wrong', () => {
  const session = new Session({
    ...claims(),
    session: JSON.parse('{"id":12345678901234567890,"o":{"id":9007199254740993},"n":1}'),
  });
  session.data.n = 2;
  session.data.id = session.data.id; // eslint-disable-line no-self-assign
  assert.deepEqual(sealed(session), { set: { n: 2 } }, 'what was not changed is not written');
  const changed = new Session({ ...claims(), session: JSON.parse('{"o":{"id":9007199254740993}}') });
  changed.data.o.seen = true;
  assert.throws(() => changed.seal(), SessionValueError);
  const copied = new Session({ ...claims(), session: JSON.parse('{"id":9007199254740993}') });
  assert.throws(() => (copied.data.copy = copied.data.id), SessionValueError);
});

test('withheld contents are unknown, not empty, and can be changed', () => {
  for (const withheld of ['too_large', 'not_json']) {
    const session = open(undefined, { withheld });
    assert.equal(session.userId, '42');
    assert.equal(session.sid, 'sid-1');
    const reads = [
      () => session.data.cart,
      () => 'cart' in session.data,
      () => Object.keys(session.data),
      () => ({ ...session.data }),
      () => JSON.stringify(session.data),
      () => Object.hasOwn(session.data, 'cart'),
      () => session.data.cart.push(1),
      () => (session.data.n += 1),
      () => (session.data.cart ??= []),
    ];
    for (const read of reads) assert.throws(read, SessionWithheld, String(read));
    session.data.lang = ['fr'];
    session.data.lang.push('de');
    delete session.data.note;
    delete session.data.back;
    session.data.back = 1;
    assert.equal(session.data.note, undefined, 'what this request did is known');
    assert.deepEqual(session.data.lang, ['fr', 'de']);
    assert.throws(() => session.data.other, SessionWithheld);
    assert.deepEqual(sealed(session), { del: ['note'], set: { lang: ['fr', 'de'], back: 1 } });
    const flushed = open(undefined, { withheld });
    flushed.flush();
    assert.deepEqual(Object.keys(flushed.data), [], 'after a flush it is known to be empty');
    flushed.data.a = 1;
    assert.deepEqual(sealed(flushed), { flush: true, set: { a: 1 } });
  }
  for (const withheld of ['too_large', 'not_json']) {
    assert.throws(() => open(undefined, { withheld }).user, SessionWithheld, 'unknown is not absent');
    assert.deepEqual({ ...open(undefined, { withheld, user: { email: 'a@b' } }).user }, { email: 'a@b' });
  }
  assert.throws(() => open(undefined, { withheld: 'not_json', rev: undefined }).onlyIfUnchanged(), SessionError);
});

test('where nobody knows who is calling, nothing is told and nothing can be changed', () => {
  for (const withheld of ['off', 'unreadable', 'unavailable', 'a word of the future']) {
    const session = open(undefined, {
      withheld,
      sub: undefined,
      sid: undefined,
      rev: undefined,
      session_exp: undefined,
    });
    const acts = [
      () => session.userId,
      () => session.user,
      () => session.sid,
      () => session.expiresAt,
      () => session.data,
      () => (session.data.a = 1),
      () => session.flush(),
      () => session.cycleKey(),
      () => session.setExpiry(1),
      () => session.touch(),
      () => session.onlyIfUnchanged(),
    ];
    for (const act of acts) assert.throws(act, { name: 'SessionWithheld', withheld }, String(act));
    assert.equal(session.withheld, withheld);
    assert.equal(session.seal(), null);
  }
});

test('a sealed session can be read, and every change of it throws', () => {
  const session = open({ cart: [{ id: 1 }], prefs: { deep: {} } });
  const own = { a: [1] };
  session.data.own = own;
  const { cart } = session.data;
  session.seal();
  assert.equal(session.data.cart[0].id, 1);
  assert.deepEqual(session.data.own, { a: [1] });
  const acts = [
    () => (session.data.x = 1),
    () => delete session.data.cart,
    () => delete session.data.never,
    () => session.data.cart.push(1),
    () => cart.push(1),
    () => (cart[0].id = 2),
    () => cart.fill(0),
    () => (cart.length = 0),
    () => (session.data.prefs.deep.x = 1),
    () => delete session.data.prefs.deep,
    () => Object.defineProperty(session.data.prefs, 'x', { value: 1 }),
    () => session.data.own.a.push(2),
    () => session.flush(),
    () => session.cycleKey(),
    () => session.setExpiry(1),
    () => session.touch(),
    () => session.onlyIfUnchanged(),
    () => session.seal(),
  ];
  for (const act of acts) assert.throws(act, SessionClosed, String(act));
  const sloppy = runInThisContext('(function (data) { data.prefs.deep.x = 1; })');
  assert.throws(() => sloppy(session.data), SessionClosed, 'also where the caller is not in strict mode');
  assert.deepEqual(own, { a: [1] });
  own.a.push(2);
  assert.deepEqual(own, { a: [1, 2] }, "the application's own objects are not frozen");
});

test('what users of express-session write by habit throws', () => {
  const session = open({});
  const sloppy = runInThisContext('(function (session) { session.cart = []; })');
  assert.throws(() => sloppy(session), /session\.data/);
  assert.throws(() => (session.data = { cart: [] }), /cannot be replaced/);
});

test('session data cannot be hidden, frozen or made of getters', () => {
  const session = open({});
  assert.throws(() => Object.defineProperty(session.data, 'x', { get: () => 1 }), SessionValueError);
  assert.throws(() => Object.defineProperty(session.data, 'x', { value: 1, enumerable: false }), SessionValueError);
  assert.throws(() => Object.freeze(session.data), TypeError);
  assert.throws(() => (session.data[Symbol('s')] = 1), SessionValueError);
  Object.create(session.data).inherited = 1;
  assert.equal(session.seal(), null);
});

test('an object that the application froze can be read', () => {
  const session = open({ list: [{ id: 1 }] });
  Object.freeze(session.data.list);
  session.data.own = Object.freeze({ inner: Object.freeze({ id: 2 }) });
  session.seal();
  assert.equal(session.data.list[0].id, 1);
  assert.equal(session.data.own.inner.id, 2);
});

test('a session shows nothing of its contents when it is printed', () => {
  const session = open({ card: '4111' }, { user: { email: 'jo@shop.example' } });
  session.data.card = '4222';
  for (const text of [
    inspect(session),
    inspect({ session }, { depth: 9, showHidden: true }),
    JSON.stringify(session),
    `${session}`,
  ]) {
    assert.doesNotMatch(text, /4111|4222|shop\.example/);
  }
  assert.equal(inspect(session), 'Session { withheld: null, closed: false }');
});
