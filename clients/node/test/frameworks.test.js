// The program of the end-to-end tests, asked directly: what each framework sends to the gateway.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { before, after, describe, test } from 'node:test';

import { ask, KEY, OPTIONS, sign, claims } from './support.js';

const CHANGES = {
  'POST /set/n 5': '{"set":{"n":5}}',
  'POST /set/lang?x=%C3%A9 "Jos\u00e9"': '{"set":{"lang":"Jos\\u00e9"}}',
  'POST /append/cart {"id":2}': '{"set":{"cart":[1,{"id":2}]}}',
  'POST /append/fresh 1': '{"set":{"fresh":[1]}}',
  'POST /del/lang': '{"del":["lang"]}',
  'POST /flush': '{"flush":true}',
  'POST /cycle': '{"cycle":true}',
  'POST /expiry 60': '{"expiry":60}',
  'POST /expiry null': '{"expiry":null}',
  'POST /touch': '{}',
  'POST /nothing': undefined,
  'POST /guarded/n': '{"if":"rev-1","set":{"n":1}}',
  'POST /redirect/n 5': '{"set":{"n":5}}',
  'POST /stream/n 5': '{"set":{"n":5}}',
  'POST /late/n': undefined,
  'POST /fail/n 5': undefined,
  'POST /large/n': undefined,
  'POST /mixed/n 5': undefined,
  'POST /set/_auth_user_id "1"': undefined,
  'POST /missing/n': undefined,
  'GET /session': undefined,
  'HEAD /session': undefined,
};

const ANSWERS = {
  'POST /set/n 5': '{"session":{"cart":[1],"lang":"fr","n":5}}',
  'POST /flush': '{"session":{}}',
  'POST /stream/n 5': 'onetwothree',
  'POST /late/n': 'start;refused',
  'POST /large/n': '{"code":"x-session-set-too-large"}',
  'POST /mixed/n 5': '{"code":"x-session-set-twice"}',
};

const STATUS = {
  'POST /redirect/n 5': 303,
  'POST /fail/n 5': 500,
  'POST /large/n': 500,
  'POST /mixed/n 5': 500,
  'POST /set/_auth_user_id "1"': 500,
  'POST /missing/n': 404,
};

for (const framework of ['http', 'express', 'express4', 'fastify', 'fastify4']) {
  describe(framework, () => {
    let service;
    let port;
    let log = '';

    before(async () => {
      service = spawn(process.execPath, [new URL('service.js', import.meta.url).pathname, framework], {
        env: {
          ...process.env,
          XSESSION_KEYS: JSON.stringify(OPTIONS.keys),
          XSESSION_AUDIENCE: OPTIONS.audience,
          XSESSION_ISSUER: OPTIONS.issuer,
        },
      });
      service.stderr.setEncoding('utf8').on('data', (text) => (log += text));
      const [line] = await once(createInterface(service.stdout), 'line');
      assert.match(line, /^listening on 127\.0\.0\.1:\d+$/);
      port = Number(line.split(':')[1]);
    });

    after(async () => {
      const logEnded = once(service.stderr, 'end');
      const closed = once(service, 'close');
      service.stdin.end();
      await logEnded;
      const [code] = await closed;
      assert.equal(code, 0, 'it ends with its standard input');
      for (const reason of ['missing', 'malformed', 'twice', 'signature', 'expired', 'other-request']) {
        assert(log.includes(`x-session-${reason}`), `the log says ${reason}`);
      }
      assert(!log.includes(sign(claims()).split('.')[0]), 'no token is logged');
      assert(!log.includes(KEY) && !log.includes('xxx'), 'no secret and nothing of the session is logged');
    });

    for (const [asked, change] of Object.entries(CHANGES)) {
      test(`sends the right change: ${asked}`, async () => {
        const [method, path, ...body] = asked.split(' ');
        const got = await ask(port, { method, path, body: body.join(' '), session: { cart: [1], lang: 'fr' } });
        assert.equal(got.status, STATUS[asked] ?? 200);
        assert.equal(got.change, change);
        if (asked in ANSWERS) assert.equal(got.text, ANSWERS[asked]);
      });
    }

    test('tells the session, and the three states', async () => {
      const user = await ask(port, { path: '/session' });
      assert.deepEqual(JSON.parse(user.text), {
        framework: framework.replace('4', ''),
        user_id: '42',
        sid: 'sid-1',
        rev: 'rev-1',
        withheld: null,
        session: { cart: [1], lang: 'fr' },
      });
      const none = { sub: undefined, sid: undefined, rev: undefined, session_exp: undefined };
      const nobody = JSON.parse((await ask(port, { path: '/session', withClaims: { ...none, session: {} } })).text);
      assert.deepEqual([nobody.user_id, nobody.sid, nobody.session], [null, null, {}]);
      for (const withheld of ['off', 'unreadable', 'unavailable']) {
        const withClaims = { ...none, session: undefined, withheld };
        const unknown = JSON.parse((await ask(port, { path: '/session', withClaims })).text);
        assert.deepEqual([unknown.user_id, unknown.withheld, unknown.session], ['unknown', withheld, null]);
      }
      const withClaims = { session: undefined, withheld: 'too_large' };
      const large = JSON.parse((await ask(port, { path: '/session', withClaims })).text);
      assert.deepEqual([large.user_id, large.withheld, large.session], ['42', 'too_large', null]);
      const set = await ask(port, { method: 'POST', path: '/set/n', body: '1', withClaims });
      assert.deepEqual([set.status, set.change], [200, '{"set":{"n":1}}']);
    });

    test('lets nobody in without a good token, also where there is no route', async () => {
      const right = sign(claims());
      for (const path of ['/session', '/missing', '/healthz/']) {
        for (const token of [null, '', 'x', [right, right], sign(claims(), { key: 'x' }), sign(claims({ exp: 1 }))]) {
          const got = await ask(port, { path, token });
          assert.equal(got.status, 401);
          assert.match(got.text, /^\{"code":"x-session-[a-z-]+"\}$/);
          assert.equal(got.headers['content-type'].split(';')[0], 'application/json');
        }
      }
      const copied = await ask(port, { method: 'POST', path: '/set/n', body: '1', token: right });
      assert.deepEqual([copied.status, copied.text], [401, '{"code":"x-session-other-request"}']);
      const health = await ask(port, { path: '/healthz', token: null });
      assert.deepEqual([health.status, health.text], [200, 'ok']);
    });
  });
}
