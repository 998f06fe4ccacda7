import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { createVerifier, SessionError } from 'session-gateway-upstream';

import { remoteKeys } from '../src/jwks.js';
import { serve, vectors } from './support.js';

const contract = vectors();
const { kid, x } = contract.eddsa.jwks.keys[0];

/** A JWK set that can be changed, a clock that can be moved, and how often it was asked. */
async function gateway(t) {
  const state = { status: 200, body: JSON.stringify(contract.eddsa.jwks), asked: 0, now: 0, location: '/' };
  const port = await serve(t, (_req, res) => {
    state.asked++;
    res.writeHead(state.status, { Location: state.location }).end(state.body);
  });
  state.address = `http://127.0.0.1:${port}/.well-known/jwks.json`;
  state.find = remoteKeys(state.address, { now: () => state.now });
  return state;
}

test("a token is checked with the gateway's JWK set", async (t) => {
  const { find } = await gateway(t);
  const options = { publicKeys: find, audience: contract.aud, issuer: 'gw.shop.example', checkRequest: 'always' };
  const claims = await createVerifier(options)(contract.eddsa.token, contract.req, contract.now);
  assert.equal(claims.aud, contract.aud);
});

test('keys are kept for five minutes, and many requests at once ask once', async (t) => {
  const state = await gateway(t);
  assert.deepEqual(await Promise.all([state.find(kid), state.find(kid), state.find(kid)]), [x, x, x]);
  state.now = 299_999;
  assert.equal(await state.find(kid), x);
  assert.equal(state.asked, 1);
  state.now = 300_000;
  state.body = '{"keys":[]}';
  assert.equal(await state.find(kid), undefined, 'a key that was taken away is gone');
  assert.equal(state.asked, 2);
});

test('a new kid is looked for, but not at each request', async (t) => {
  const state = await gateway(t);
  assert.equal(await state.find('new'), undefined);
  state.body = JSON.stringify({
    keys: [
      { ...contract.eddsa.jwks.keys[0], kid: 'new' },
      { kty: 'RSA', kid: 'other' },
    ],
  });
  state.now = 4_999;
  for (const made of ['new', 'up', 'names']) assert.equal(await state.find(made), undefined);
  assert.equal(state.asked, 1);
  state.now = 5_000;
  assert.equal(await state.find('new'), x);
  assert.equal(await state.find('other'), undefined);
  assert.equal(state.asked, 2);
});

test('without a good JWK set there is no key', async (t) => {
  const state = await gateway(t);
  const elsewhere = await serve(t, (_req, res) => res.end(JSON.stringify(contract.eddsa.jwks)));
  state.location = `http://127.0.0.1:${elsewhere}/`;
  for (const [status, body] of [
    [302, ''],
    [500, '{"keys":[]}'],
    [200, 'no JSON'],
    [200, '{}'],
  ]) {
    Object.assign(state, { status, body });
    state.now += 10_000;
    await assert.rejects(state.find(kid), SessionError);
    await assert.rejects(state.find(kid), /could not be fetched/);
  }
  assert.equal(state.asked, 4);
  Object.assign(state, { status: 200, body: JSON.stringify(contract.eddsa.jwks) });
  state.now += 5_000;
  assert.equal(await state.find(kid), x);
});

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');

/** Waits for `promise`, and collects garbage all the while. */
async function collecting(t, promise) {
  let settled = false;
  const end = promise.finally(() => (settled = true));
  end.catch(() => {});
  while (!settled && !t.signal.aborted) {
    collect();
    await new Promise(setImmediate);
  }
  return end;
}

test('a body that stalls is given up, also after a garbage collection', { timeout: 20_000 }, async (t) => {
  let answers = true;
  let closed;
  const port = await serve(t, (_req, res) => {
    if (answers) return res.end(JSON.stringify(contract.eddsa.jwks));
    closed = once(res, 'close');
    return res.write('{"keys":');
  });
  const clock = { now: 0 };
  const find = remoteKeys(`http://127.0.0.1:${port}/`, { now: () => clock.now, timeout: 2_000 });
  assert.equal(await find(kid), x);
  answers = false;
  clock.now = 10_000;
  const unknown = collecting(t, find('unknown'));
  assert.equal(await find(kid), x, 'who has a key does not wait');
  await assert.rejects(unknown, { name: 'SessionError', message: /could not be fetched: .*took longer than 2 s$/ });
  await closed;
  answers = true;
  clock.now = 20_000;
  assert.equal(await find('unknown'), undefined, 'the next one is asked again');
});

test('an answer that does not begin is given up', { timeout: 20_000 }, async (t) => {
  let closed;
  const port = await serve(t, (_req, res) => (closed = once(res, 'close')));
  const find = remoteKeys(`http://127.0.0.1:${port}/`, { timeout: 200 });
  await assert.rejects(collecting(t, find(kid)), { name: 'SessionError', message: /took longer than 0.2 s$/ });
  await closed;
});

test('a JWK set of 64 KiB is read, and a larger one is refused before its end', { timeout: 20_000 }, async (t) => {
  const state = await gateway(t);
  state.body = state.body.padEnd(65_536);
  assert.equal(await state.find(kid), x);
  state.now = 300_000;
  state.body += ' ';
  await assert.rejects(state.find(kid), { name: 'SessionError', message: /larger than 64 KiB$/ });

  let closed;
  const port = await serve(t, (_req, res) => {
    closed = once(res, 'close');
    res.write(' '.repeat(65_537));
  });
  await assert.rejects(remoteKeys(`http://127.0.0.1:${port}/`)(kid), /larger than 64 KiB$/);
  await closed;
});

test('a clock that is set back does not stop the fetches', async (t) => {
  const state = await gateway(t);
  const find = remoteKeys(state.address);
  const [wall, steady] = [Date.now(), performance.now()];
  assert.equal(await find('new'), undefined);
  t.mock.method(Date, 'now', () => wall - 3_600_000);
  t.mock.method(performance, 'now', () => steady + 10_000);
  state.body = JSON.stringify({ keys: [{ ...contract.eddsa.jwks.keys[0], kid: 'new' }] });
  assert.equal(await find('new'), x);
  assert.equal(state.asked, 2);
});
