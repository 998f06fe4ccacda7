import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, sign as signWith } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { inspect } from 'node:util';

import { createVerifier, SessionRefused } from 'session-gateway-upstream';

import { claims, digest, KEY, OPTIONS, sign, vectors } from './support.js';

const NEVER = { ...OPTIONS, checkRequest: 'never' };
const contract = vectors();
const forVectors = {
  keys: { [contract.kid]: `base64:${contract.secret_b64}` },
  audience: contract.aud,
  issuer: 'gw.shop.example',
  checkRequest: 'always',
};

async function reason(options, token, request, now) {
  try {
    await createVerifier(options)(token, request, now);
  } catch (error) {
    assert(error instanceof SessionRefused, inspect(error));
    assert.equal(error.code, `x-session-${error.reason}`);
    return error.reason;
  }
  return 'good';
}

for (const [name, token] of Object.entries(contract.good)) {
  test(`the contract's good token is taken: ${name}`, async () => {
    const found = await createVerifier(forVectors)(token, contract.req, contract.now);
    assert.equal(found.sub, { user: '42', too_large: '42' }[name]);
    assert.equal(await reason(forVectors, token, { ...contract.req, target: '/cart' }, contract.now), 'other-request');
  });
}

const BAD = {
  'payload changed': 'signature',
  'alg none': 'algorithm',
  'signature empty': 'signature',
  'other typ, right key': 'algorithm',
  'unknown kid': 'unknown-kid',
  'wrong key': 'signature',
  'other audience': 'audience',
  expired: 'expired',
  'from the future': 'not-yet-valid',
  'two headers joined': 'malformed',
  empty: 'malformed',
};

for (const [name, token] of Object.entries(contract.bad)) {
  test(`the contract's bad token is refused for the right reason: ${name}`, async () => {
    assert.equal(await reason(forVectors, token, contract.req, contract.now), BAD[name]);
  });
}

test("the contract's EdDSA token is taken, and with no other key", async () => {
  const [{ kid, x }] = contract.eddsa.jwks.keys;
  const options = { ...forVectors, keys: undefined, publicKeys: { [kid]: x } };
  const { token } = contract.eddsa;
  assert.equal(await reason(options, token, contract.req, contract.now), 'good');
  const { publicKey } = generateKeyPairSync('ed25519');
  const other = { ...options, publicKeys: { [kid]: publicKey.export({ format: 'jwk' }).x } };
  assert.equal(await reason(other, token, contract.req, contract.now), 'signature');
  const padded = `${token}==`;
  assert.equal(await reason(options, padded, contract.req, contract.now), 'signature');
});

test('a key is good for its own algorithm only', async () => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const { x } = publicKey.export({ format: 'jwk' });
  const options = { ...NEVER, publicKeys: { gw: x } };
  // The public key is no secret: with it nobody may sign.
  const asSecret = sign(claims(), { header: { kid: 'gw' }, key: Buffer.from(x, 'base64url') });
  assert.equal(await reason(options, asSecret), 'algorithm');
  const head = Buffer.from('{"alg":"EdDSA","kid":"orders-1","typ":"x-session.v1+jwt"}').toString('base64url');
  const signed = `${head}.${Buffer.from(JSON.stringify(claims())).toString('base64url')}`;
  const token = `${signed}.${signWith(null, Buffer.from(signed), privateKey).toString('base64url')}`;
  assert.equal(await reason(options, token), 'algorithm');
});

test('no bit of a token can be changed', async () => {
  const token = sign(claims());
  assert.equal(await reason(NEVER, token), 'good');
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  for (let at = 0; at < token.length; at++) {
    if (token[at] === '.') continue;
    const value = letters.indexOf(token[at]);
    for (const bit of [1, 32]) {
      const changed = token.slice(0, at) + letters[value ^ bit] + token.slice(at + 1);
      assert.notEqual(await reason(NEVER, changed), 'good', `letter ${at}`);
    }
  }
});

test('a token has one spelling', async () => {
  const token = sign(claims());
  const [head, body, signature] = token.split('.');
  const spellings = [
    `${token}=`,
    `${token}.`,
    ` ${token}`,
    `${token}\n`,
    `${head}.${body}=.${signature}`,
    `${head}.${body}.${signature.replace(/[-_]/g, (letter) => (letter === '-' ? '+' : '/'))}=`,
    `${head}..${signature}`,
    `${head}.${body}`,
  ];
  // Signed as they stand, so that only the spelling is wrong.
  for (const [one, other] of [
    [`${head}=`, body],
    [head, `${body}=`],
    [head, `${body}\n`],
    [`${head.slice(0, 4)} ${head.slice(4)}`, body],
  ]) {
    const signed = `${one}.${other}`;
    spellings.push(`${signed}.${createHmac('sha256', KEY).update(signed).digest('base64url')}`);
  }
  for (const spelling of spellings) assert.notEqual(await reason(NEVER, spelling), 'good', spelling);
});

test('the header is alg, kid and typ and nothing else', async () => {
  const bad = [
    { header: { crit: ['exp'] } },
    { header: { alg: undefined } },
    { header: { kid: 7 } },
    { header: { kid: undefined } },
    { header: '{"alg":"HS256","alg":"HS256","kid":"orders-1","typ":"x-session.v1+jwt"}' },
    { header: '[]' },
    { header: 'null' },
  ];
  for (const how of bad) assert.equal(await reason(NEVER, sign(claims(), how)), 'malformed', inspect(how));
  assert.equal(await reason(NEVER, sign(claims(), { header: { typ: 'JWT' } })), 'algorithm');
  assert.equal(await reason(NEVER, sign(claims(), { header: { alg: 'hs256' } })), 'algorithm');
  for (const kid of ['__proto__', 'constructor', 'toString', '']) {
    assert.equal(await reason(NEVER, sign(claims(), { header: { kid } })), 'unknown-kid', kid);
  }
  for (const alg of ['__proto__', 'constructor', 'none', 'HS512', 'RS256']) {
    assert.equal(await reason(NEVER, sign(claims(), { header: { alg } })), 'algorithm', alg);
  }
});

test('claims that are missing or of another type are refused', async () => {
  for (const name of ['iss', 'aud', 'iat', 'exp', 'jti', 'req', 'session']) {
    assert.equal(await reason(NEVER, sign(claims({ [name]: undefined }))), 'malformed', `${name} is missing`);
  }
  const all = ['iss', 'aud', 'iat', 'exp', 'jti', 'req', 'session', 'sub', 'sid', 'rev', 'user', 'session_exp'];
  for (const name of all) {
    for (const value of [null, true, [], 1.5]) {
      assert.equal(await reason(NEVER, sign(claims({ [name]: value }))), 'malformed', `${name}: ${value}`);
    }
  }
  assert.equal(await reason(NEVER, sign(claims({ withheld: 'off' }))), 'malformed', 'withheld beside session');
  assert.equal(await reason(NEVER, sign(claims({ new_one: 'unknown claims are nothing bad' }))), 'good');
});

test('payloads that readers could understand differently are refused', async () => {
  const text = JSON.stringify(claims());
  const bad = [
    text.replace('{', '{"sub":"1",'),
    text.replace('{"cart"', '{"cart":2,"cart"'),
    text.replace('{"cart"', '{"c\\u0061rt":2,"cart"'),
    text.replace('[1]', '[NaN]'),
    text.replace('"lang"', "'lang'"),
    `\ufeff${text}`,
    `${text}{}`,
    `[${text}]`,
    text.replace('[1]', `${'['.repeat(200)}${']'.repeat(200)}`),
  ];
  for (const payload of bad) assert.equal(await reason(NEVER, sign(payload)), 'malformed', payload.slice(0, 60));
  const notUtf8 = Buffer.concat([
    Buffer.from(text.slice(0, -1)),
    Buffer.from(',"x":"'),
    Buffer.from([0xff, 0x22, 0x7d]),
  ]);
  const head = sign('{}').split('.')[0];
  const signed = `${head}.${notUtf8.toString('base64url')}`;
  const token = `${signed}.${createHmac('sha256', KEY).update(signed).digest('base64url')}`;
  assert.equal(await reason(NEVER, token), 'malformed');
  // Names may be equal in different objects, and in strings there may be anything.
  const fine = text.replace('[1]', '[{"a":1,"b":"{\\"a\\":[,:"},{"a":{"a":2}}]');
  assert.equal(await reason(NEVER, sign(fine)), 'good');
});

test('a token over 64 KiB is refused', async () => {
  assert.equal(await reason(NEVER, sign(claims({ session: { long: 'x'.repeat(40000) } }))), 'good');
  assert.equal(await reason(NEVER, sign(claims({ session: { long: 'x'.repeat(50000) } }))), 'malformed');
});

test('iss, aud and time are compared', async () => {
  assert.equal(await reason({ ...NEVER, audience: 'billing' }, sign(claims())), 'audience');
  assert.equal(await reason({ ...NEVER, issuer: 'gw.other' }, sign(claims())), 'issuer');
  const token = sign(claims({ iat: 1000, exp: 1060 }));
  const at = { 969: 'not-yet-valid', 970: 'good', 1090: 'good', 1091: 'expired' };
  for (const [now, expected] of Object.entries(at)) assert.equal(await reason(NEVER, token, {}, +now), expected, now);
  assert.equal(await reason({ ...NEVER, leeway: 0 }, token, {}, 1061), 'expired');
  assert.equal(await reason(NEVER, token, {}, NaN), 'expired');
});

test('unsafe methods and handshakes need a token for just this request', async () => {
  const parts = { method: 'POST', host: 'shop.example', target: '/cart?x=%C3%A9' };
  const token = sign(claims({ req: digest('POST', 'shop.example', '/cart?x=%C3%A9') }));
  assert.equal(await reason(OPTIONS, token, parts), 'good');
  for (const change of [{ method: 'PUT' }, { host: 'shop.example:80' }, { target: '/cart' }, { target: undefined }]) {
    assert.equal(await reason(OPTIONS, token, { ...parts, ...change }), 'other-request', inspect(change));
  }
  assert.equal(await reason(OPTIONS, token), 'other-request', 'what is not known is not the same');
  const unknownHost = sign(claims({ req: digest('POST', 'undefined', '/') }));
  assert.equal(await reason(OPTIONS, unknownHost, { method: 'POST', target: '/' }), 'other-request');
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE']) {
    assert.equal(await reason(OPTIONS, token, { ...parts, method }), 'good', method);
  }
  assert.equal(await reason(OPTIONS, token, { ...parts, method: 'GET', upgrade: true }), 'other-request');
  assert.equal(await reason(OPTIONS, token, { ...parts, method: 'get' }), 'other-request');
  assert.equal(
    await reason({ ...OPTIONS, checkRequest: 'always' }, token, { ...parts, method: 'GET' }),
    'other-request',
  );
  assert.equal(await reason(NEVER, token, { ...parts, method: 'PUT' }), 'good');
});

test('secrets are read as the gateway reads them', async () => {
  const text = 'x'.repeat(32);
  const token = sign(claims(), { key: text });
  const spellings = [
    text,
    `${text}\n`,
    `${text}\r\n`,
    Buffer.from(text),
    new Uint8Array(Buffer.from(text)),
    `base64:${Buffer.from(text).toString('base64')}\n`,
    `base64:${Buffer.from(text).toString('base64url')}`,
  ];
  for (const secret of spellings) {
    assert.equal(await reason({ ...NEVER, keys: { 'orders-1': secret } }, token), 'good', String(secret));
  }
  const ending = Buffer.concat([Buffer.alloc(31, 7), Buffer.from('\n')]);
  const options = { ...NEVER, keys: { 'orders-1': ending } };
  assert.equal(await reason(options, sign(claims(), { key: ending })), 'good', 'bytes are taken as they are');
});

test('keys may come from a function', async () => {
  const asked = [];
  const keys = async (kid) => {
    asked.push(kid);
    return { 'orders-1': KEY, short: 'x' }[kid];
  };
  const options = { ...NEVER, keys };
  assert.equal(await reason(options, sign(claims())), 'good');
  assert.equal(await reason(options, sign(claims(), { header: { kid: 'orders-2' } })), 'unknown-kid');
  assert.deepEqual(asked, ['orders-1', 'orders-2']);
  assert.equal(await reason(options, sign(claims(), { header: { kid: 'short' } })), 'no-key');
  const fails = () => {
    throw new Error('away');
  };
  await assert.rejects(createVerifier({ ...NEVER, keys: fails })(sign(claims())), { reason: 'no-key', status: 500 });
});

/** What the log would say, as it stands. */
async function words(options, token) {
  const { message } = await createVerifier(options)(token).catch((error) => error);
  return message;
}

test('a kid that is none reaches no function for keys, and no log', async () => {
  const asked = [];
  const readme = new URL('../package.json', import.meta.url);
  const folder = new URL('.', import.meta.url);
  const keys = (kid) => {
    asked.push(kid);
    return readFileSync(new URL(kid, folder), 'utf8');
  };
  // Whoever has a public file can sign with its text.
  const forged = sign(claims(), { header: { kid: '../package.json' }, key: readFileSync(readme, 'utf8').trimEnd() });
  assert.equal(await reason({ ...NEVER, keys }, forged), 'unknown-kid');
  const bad = ['', 'a/b', 'a\\b', 'a b', 'a%2Fb', 'é', 'a\n', 'a\u009b2J', 'a\u2028b', 'x'.repeat(65)];
  for (const kid of bad) {
    const token = sign(claims(), { header: { kid } });
    for (const options of [{ ...NEVER, keys }, NEVER, { ...NEVER, keys: undefined, publicKeys: keys }]) {
      assert.equal(await reason(options, token), 'unknown-kid', inspect(kid));
      assert.match(await words(options, token), /^[\x20-\x7e]*$/);
    }
  }
  assert.deepEqual(asked, []);
  const longest = 'Az09._-'.padEnd(64, 'x');
  const token = sign(claims(), { header: { kid: longest } });
  assert.equal(await reason({ ...NEVER, keys: { [longest]: KEY } }, token), 'good');
});

test('what a token says reaches a log in ASCII only', async () => {
  const token = sign(claims({ aud: 'a\u009b\u2028\n' }));
  assert.match(await words(NEVER, token), /"a\\u009b\\u2028\\n" is not "orders"$/);
});

test("of an application's function for keys only the name of its error is logged", async () => {
  const secret = 'postgres://user:password@host';
  const log = async (error) => {
    const keys = () => {
      throw error;
    };
    return words({ ...NEVER, keys }, sign(claims()));
  };
  assert.equal(await log(new RangeError(secret)), 'the function for keys failed: RangeError');
  const strange = Object.assign(new Error('x'), { name: `E\n${secret}` });
  for (const thrown of [secret, strange, undefined, null]) {
    assert.equal(await log(thrown), 'the function for keys failed: something that is no Error');
  }
  const short = { ...NEVER, keys: () => 'short' };
  assert.match(await words(short, sign(claims())), /failed: .*keys\["orders-1"\] has 5 bytes/);
});

test('mistakes in options are one sentence at the start, without the secret', () => {
  const wrong = [
    [{ keys: undefined }, /keys or publicKeys is required/],
    [{ keys: {} }, /at least one kid/],
    [{ keys: { '../a': KEY } }, /keys: "\.\.\/a" is no kid; a kid is/],
    [{ keys: { 'a\u009b\u2028': KEY } }, /keys: "a\\u009b\\u2028" is no kid/],
    [{ publicKeys: { '': 'x' } }, /publicKeys: "" is no kid/],
    [{ keys: { a: 'short' } }, /keys\["a"\] has 5 bytes; a secret has at least 32/],
    [{ keys: { a: undefined } }, /keys\["a"\] is not a secret/],
    [{ keys: { a: 'base64:!!!!' } }, /what follows base64: is not base64/],
    [{ keys: { a: `base64:${'A'.repeat(45)}` } }, /what follows base64: is not base64/],
    [{ keys: { a: Buffer.from(`base64:${'A'.repeat(44)}`) } }, /read it as text/],
    [{ publicKeys: { a: 'short' } }, /publicKeys\["a"\] is not the member x/],
    [{ audience: undefined }, /audience is required/],
    [{ audience: '' }, /audience is required/],
    [{ issuer: ['a'] }, /issuer is required/],
    [{ leeway: '30' }, /leeway/],
    [{ leeway: NaN }, /leeway/],
    [{ checkRequest: true }, /checkRequest/],
    [{ exempt: '/healthz' }, /exempt/],
    [{ exempt: ['healthz'] }, /exempt/],
    [{ onRefused: 403 }, /onRefused/],
    [{ logger: {} }, /logger/],
    [{ audiance: 'orders' }, /no option "audiance"/],
  ];
  for (const [change, message] of wrong) {
    assert.throws(() => createVerifier({ ...OPTIONS, ...change }), { name: 'TypeError', message });
    assert.throws(
      () => createVerifier({ ...OPTIONS, ...change }),
      ({ message }) => !message.includes('\n') && !message.includes(KEY),
    );
  }
  assert.throws(() => createVerifier(), TypeError);
});

test('claims are frozen', async () => {
  const found = await createVerifier(NEVER)(sign(claims()));
  assert.throws(() => found.session.cart.push(2), TypeError);
  assert.throws(() => {
    found.sub = '1';
  }, TypeError);
});
