import assert from 'node:assert/strict';
import { test } from 'node:test';

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
  state.find = remoteKeys(`http://127.0.0.1:${port}/.well-known/jwks.json`, { now: () => state.now });
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
