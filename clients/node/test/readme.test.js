// The README's programs are saved and started as it says, and asked; its fragments are run on a session.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { Session } from 'session-gateway-upstream';
import { WebSocket } from 'ws';

import { ask, claims, digest, KEY, sign } from './support.js';

const folder = new URL('..', import.meta.url).pathname;
const readme = readFileSync(`${folder}README.md`, 'utf8');
const blocks = [...readme.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }));
const javascript = blocks.filter(({ language }) => language === 'js').map(({ code }) => code);
const programs = javascript.filter((code) => code.includes('.listen('));
const routes = javascript.filter((code) => code.startsWith('app.'));
const fragments = javascript.filter((code) => code.startsWith('const session'));
const SHOP = { iss: 'https://shop.example' };
const TOO_LARGE = { ...SHOP, session: undefined, withheld: 'too_large' };

/** The folder of somebody who has followed the README that far: `npm init -y`, the packages, the secret. */
function newcomer(t, program) {
  const scratch = mkdtempSync(join(tmpdir(), 'upstream-'));
  t.after(() => rmSync(scratch, { recursive: true }));
  mkdirSync(join(scratch, 'node_modules'));
  symlinkSync(folder, join(scratch, 'node_modules/session-gateway-upstream'), 'dir');
  for (const name of ['express', 'fastify', 'ws']) {
    symlinkSync(join(folder, 'node_modules', name), join(scratch, 'node_modules', name), 'dir');
  }
  mkdirSync(join(scratch, 'secrets'));
  writeFileSync(join(scratch, 'secrets/orders_key'), `${KEY}\n`);
  writeFileSync(join(scratch, 'package.json'), '{"name":"orders","version":"1.0.0","main":"index.js"}');
  writeFileSync(join(scratch, 'app.mjs'), program);
  return scratch;
}

/** `node app.mjs`. Gives its port, and a look at its log. */
async function start(t, program) {
  const port = new URL('port.cjs', import.meta.url).pathname;
  const child = spawn(process.execPath, ['-r', port, 'app.mjs'], {
    cwd: newcomer(t, program),
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const closed = once(child, 'close');
  t.after(async () => {
    child.kill();
    await closed;
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (more) => {
      text += more;
      child.emit('log');
    });
  }
  const ended = closed.then(() => assert.fail(`the program has ended: ${text}`));
  const [address] = await Promise.race([once(child, 'message'), ended]);
  ended.catch(() => {});
  /** Waits for a line: it may come later than the answer. */
  const says = async (pattern) => {
    while (!pattern.test(text)) await Promise.race([once(child, 'log'), ended]);
  };
  return { port: address.port, child, says };
}

/** A handshake with these claims: what the socket gives first, or how it fails. */
async function handshake(port, withClaims) {
  const host = `127.0.0.1:${port}`;
  const token = sign(claims({ ...SHOP, req: digest('GET', host, '/'), ...withClaims }));
  const socket = new WebSocket(`ws://${host}/`, { headers: { 'X-Session': token } });
  const message = once(socket, 'message');
  message.catch(() => {});
  const [response] = await once(socket, 'upgrade');
  return { change: response.headers['x-session-set'], message: String((await message)[0]), socket };
}

async function tryWebSockets(port, says) {
  const good = await handshake(port);
  assert.equal(good.change, '{"if":"rev-1","set":{"chats":1}}');
  assert.equal(good.message, 'hello, user 42');
  // A frame that is none.
  const closed = new Promise((resolve) => good.socket.on('error', () => {}).once('close', resolve));
  good.socket._socket.write(Buffer.alloc(8, 0xff));
  await closed;
  const nobody = { sub: undefined, sid: undefined, rev: undefined, session_exp: undefined, session: {} };
  const first = await handshake(port, nobody);
  assert.equal(first.change, '{"set":{"chats":1}}');
  first.socket.terminate();
  await assert.rejects(handshake(port, TOO_LARGE), { code: 'ECONNRESET' });
  await says(/the handler of a handshake failed: SessionWithheld/);
  // In \u escapes it is three times as long.
  await assert.rejects(handshake(port, { session: { chats: 'é'.repeat(3000) } }), { code: 'ECONNRESET' });
  await says(/the handler of a handshake failed: SessionValueError/);
  const last = await handshake(port);
  assert.equal(last.message, 'hello, user 42');
  last.socket.terminate();
}

for (const [at, program] of programs.entries()) {
  const name = /upstream\/(\w+)/.exec(program)[1];
  test(`program ${at + 1} of the README runs as it stands: ${name}`, { timeout: 60_000 }, async (t) => {
    const { port, child, says } = await start(t, program);
    assert.equal((await ask(port, { token: null })).text, '{"code":"x-session-missing"}');
    if (program.includes('WebSocket')) {
      await tryWebSockets(port, says);
    } else {
      const path = '/orders/';
      // What is not known ends no process.
      assert.equal((await ask(port, { path, withClaims: TOO_LARGE })).status, 500);
      const got = await ask(port, { path, withClaims: SHOP });
      assert.deepEqual(JSON.parse(got.text), { userId: '42', cart: [1] });
      assert.equal(got.change, undefined);
    }
    if (program.includes("'/healthz'")) {
      assert.equal((await ask(port, { path: '/healthz', token: null })).text, 'ok');
    }
    assert.equal(child.exitCode, null);
  });
}

test('the route of the README that changes the session runs in its first program', async (t) => {
  const [program] = programs;
  const at = program.indexOf('app.listen(');
  const { port, child } = await start(t, `${program.slice(0, at)}${routes[0]}\n${program.slice(at)}`);
  const add = (withClaims) => ask(port, { method: 'POST', path: '/orders/add/A-1', withClaims });
  const got = await add(SHOP);
  assert.deepEqual([got.status, got.headers.location], [303, '/orders/']);
  assert.equal(got.change, '{"if":"rev-1","set":{"cart":[1,"A-1"]}}');
  const first = { ...SHOP, sub: undefined, sid: undefined, rev: undefined, session_exp: undefined, session: {} };
  assert.equal((await add(first)).change, '{"set":{"cart":["A-1"]}}');
  const large = await add(TOO_LARGE);
  assert.deepEqual([large.status, large.change], [500, undefined]);
  assert.equal((await add(SHOP)).status, 303);
  assert.equal(child.exitCode, null);
});

const RESULTS = ['{"del":["coupon"],"set":{"language":"fr","address":{"city":"Lyon","zip":"69001"}}}'];

for (const [at, fragment] of fragments.entries()) {
  test(`fragment ${at + 1} of the README does what it says`, () => {
    const djangoSession = new Session(claims({ session: { cart: [], coupon: 'x' } }));
    new Function('req', `'use strict'; ${fragment}`)({ djangoSession });
    assert.equal(djangoSession.seal(), RESULTS[at]);
  });
}

test('the README has all of its programs and fragments', () => {
  assert.deepEqual([programs.length, routes.length, fragments.length], [4, 1, RESULTS.length]);
  assert.equal(javascript.length, 5 + RESULTS.length);
});

test("the README's types are those that are compiled", () => {
  const usage = readFileSync(`${folder}test/types/usage.ts`, 'utf8');
  for (const { code } of blocks.filter(({ language }) => language === 'ts')) assert(usage.includes(code));
});

test('the README lists every code', () => {
  const declarations = readFileSync(`${folder}types/index.d.ts`, 'utf8');
  const reasons = [...declarations.matchAll(/^ {2}\| '([\w-]+)';?$/gm)].map(([, reason]) => reason);
  assert(reasons.length > 10);
  for (const reason of [...reasons, 'set-invalid', 'set-too-large', 'set-twice']) {
    assert(readme.includes(`\n| \`x-session-${reason}\` | `), reason);
  }
});

test('the README makes a session for tests that works', () => {
  const [, code] = /`(new Session\(.*?\))`/.exec(readme);
  const session = new Function('Session', `return ${code}`)(Session);
  session.data.cart.push(1);
  assert.deepEqual([session.userId, session.seal()], ['42', '{"set":{"cart":[1]}}']);
});
