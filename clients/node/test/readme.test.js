// The README's programs are started and asked; its fragments are run on a session.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';

import { Session } from 'session-gateway-upstream';
import { WebSocket } from 'ws';

import { ask, claims, digest, KEY, sign } from './support.js';

const folder = new URL('..', import.meta.url).pathname;
const readme = readFileSync(`${folder}README.md`, 'utf8');
const blocks = [...readme.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }));
const javascript = blocks.filter(({ language }) => language === 'js').map(({ code }) => code);
const programs = javascript.filter((code) => code.includes('.listen('));
const fragments = javascript.filter((code) => !code.includes('.listen('));
const SHOP = { iss: 'shop.example' };

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function start(t, program) {
  const port = await freePort();
  const type = program.includes('require(') ? 'commonjs' : 'module';
  const child = spawn(process.execPath, [`--input-type=${type}`], {
    cwd: folder,
    env: { ...process.env, PORT: String(port), ORDERS_KEY: KEY, NODE_NO_WARNINGS: '1' },
  });
  t.after(() => child.kill());
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
  child.stdin.end(program);
  const ended = once(child, 'exit').then(() => assert.fail(errors));
  await Promise.race([once(child.stdout, 'data'), ended]);
  ended.catch(() => {});
  return port;
}

for (const [at, program] of programs.entries()) {
  const name = /upstream\/(\w+)/.exec(program)[1];
  test(`program ${at + 1} of the README runs as it stands: ${name}`, async (t) => {
    // Since Node 20.19 and 22.12.
    if (program.includes('require(') && !process.features.require_module) return t.skip('this Node cannot');
    const port = await start(t, program);
    assert.equal((await ask(port, { token: null })).status, 401);
    if (program.includes('WebSocket')) {
      const host = `127.0.0.1:${port}`;
      const token = sign(claims({ ...SHOP, req: digest('GET', host, '/') }));
      const socket = new WebSocket(`ws://${host}/`, { headers: { 'X-Session': token } });
      const message = once(socket, 'message');
      const [response] = await once(socket, 'upgrade');
      assert.equal(response.headers['x-session-set'], '{"set":{"chats":1}}');
      assert.equal(String((await message)[0]), 'hello, user 42');
      socket.terminate();
      return;
    }
    const got = await ask(port, { withClaims: SHOP });
    assert.deepEqual(JSON.parse(got.text), { userId: '42', cart: [1] });
    assert.equal(got.change, undefined);
    if (!program.includes("'/cart/:sku'")) return;
    assert.equal((await ask(port, { path: '/healthz', token: null })).text, 'ok');
    const posted = await ask(port, { method: 'POST', path: '/cart/A-1', withClaims: SHOP });
    assert.deepEqual([posted.status, posted.change], [303, '{"set":{"cart":[1,"A-1"]}}']);
  });
}

const RESULTS = [
  '{"del":["coupon"],"set":{"cart":[{"sku":"A-1","qty":2}],"language":"fr"}}',
  '{"if":"rev-1","set":{"visits":1}}',
];

for (const [at, fragment] of fragments.entries()) {
  test(`fragment ${at + 1} of the README does what it says`, () => {
    const djangoSession = new Session(claims({ session: { cart: [], coupon: 'x' } }));
    new Function('req', `'use strict'; ${fragment}`)({ djangoSession });
    assert.equal(djangoSession.seal(), RESULTS[at]);
  });
}

test('the README has all of its programs and fragments', () => {
  assert.deepEqual([programs.length, fragments.length], [4, RESULTS.length]);
});

test("the README's types are those that are compiled", () => {
  const usage = readFileSync(`${folder}test/types/usage.ts`, 'utf8');
  for (const { code } of blocks.filter(({ language }) => language === 'ts')) assert(usage.includes(code));
});

test('the README makes a session for tests that works', () => {
  const [, code] = /`(new Session\(.*?\))`/.exec(readme);
  const session = new Function('Session', `return ${code}`)(Session);
  session.data.cart.push(1);
  assert.deepEqual([session.userId, session.seal()], ['42', '{"set":{"cart":[1]}}']);
});
