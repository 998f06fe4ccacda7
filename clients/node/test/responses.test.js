// How changes get onto the head, and what happens where they cannot: with node:http, where every way is open.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { connect, createServer as createHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';

import { SessionClosed } from 'session-gateway-upstream';
import { djangoSession } from 'session-gateway-upstream/http';

import { ask, claims, digest, logger, OPTIONS, serve, sign } from './support.js';

const CHANGE = '{"set":{"n":1}}';

/** Serves `handler` with a session, asks once, and gives the answer and the log. */
async function answer(t, handler, { asked = {}, options = {}, around = (inner) => inner } = {}) {
  const log = logger();
  const wrap = djangoSession({ ...OPTIONS, logger: log, ...options });
  const port = await serve(t, around(wrap(handler)));
  return { ...(await ask(port, asked)), log: log.lines };
}

const change = (req) => {
  req.djangoSession.data.n = 1;
};

const WAYS = {
  'end with a body': (res) => res.end('body'),
  'end with a body and a callback': (res) => res.end('body', 'utf8', () => {}),
  'end without a body': (res) => res.end(),
  write: (res) => (res.write('bo'), res.end('dy')),
  flushHeaders: (res) => (res.flushHeaders(), res.end('body')),
  'writeHead(status)': (res) => res.writeHead(200).end('body'),
  'writeHead(status, text)': (res) => res.writeHead(200, 'Fine').end('body'),
  'writeHead(status, fields)': (res) => res.writeHead(200, { 'X-Other': '1' }).end('body'),
  'writeHead(status, text, fields)': (res) => res.writeHead(200, 'Fine', { 'X-Other': '1' }).end('body'),
  'writeHead(status, list)': (res) =>
    res.writeHead(200, ['X-Other', '1', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2']).end(),
  'writeHead(status, pairs)': (res) => res.writeHead(200, [['X-Other', '1']]).end('body'),
  'writeHead(status, undefined)': (res) => res.writeHead(200, undefined).end('body'),
  'writeHead(status, fields, undefined)': (res) => res.writeHead(200, { 'X-Other': '1' }, undefined).end('body'),
  'writeHead(status, fields, null)': (res) => res.writeHead(200, { 'X-Other': '1' }, null).end('body'),
  'writeHead(status, text, fields, more)': (res) => res.writeHead(200, 'Fine', { 'X-Other': '1' }, {}).end('body'),
  'setHeader and writeHead': (res) => (res.setHeader('X-Other', '1'), res.writeHead(200, { 'X-More': '1' }).end()),
  pipe: (res) => Readable.from(['bo', 'dy']).pipe(res),
  pipeline: (res) => pipeline(Readable.from(['bo', 'dy']), res),
  'status 204': (res) => res.writeHead(204).end(),
  'status 304': (res) => res.writeHead(304).end(),
  'status 404': (res) => ((res.statusCode = 404), res.end('not there')),
  'a redirect': (res) => res.writeHead(303, { Location: '/' }).end(),
};

for (const [name, way] of Object.entries(WAYS)) {
  test(`a change goes onto the head: ${name}`, async (t) => {
    const {
      status,
      headers,
      change: header,
      log,
    } = await answer(t, (req, res) => {
      change(req);
      return way(res);
    });
    assert.equal(header, CHANGE);
    assert(status < 500);
    if (name.includes('fields') || name.includes('list') || name.includes('pairs'))
      assert.equal(headers['x-other'], '1');
    if (name.includes('list')) assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2']);
    if (name === 'end with a body') assert.equal(headers['content-length'], '4');
    assert.deepEqual(log, []);
  });
  test(`without a change there is no header: ${name}`, async (t) => {
    const { change: header } = await answer(t, (req, res) => {
      assert.deepEqual({ ...req.djangoSession.data }, { cart: [1], lang: 'fr' });
      return way(res);
    });
    assert.equal(header, undefined);
  });
}

test('HEAD is answered like GET', async (t) => {
  const way = (req, res) => (change(req), res.end('body'));
  const { change: header, text } = await answer(t, way, { asked: { method: 'HEAD' } });
  assert.deepEqual([header, text], [CHANGE, '']);
});

test('nothing is sent with 500 and above', async (t) => {
  for (const way of [(res) => res.writeHead(500), (res) => (res.statusCode = 503)]) {
    const { change: header, log } = await answer(t, (req, res) => {
      change(req);
      way(res);
      res.end();
    });
    assert.equal(header, undefined);
    assert.deepEqual(log, []);
  }
});

test('text beyond ASCII comes out as it went in', async (t) => {
  const { change: header } = await answer(t, (req, res) => {
    req.djangoSession.data.name = 'José 日本 \u{1f600} "\\\n\u2028\x7f';
    res.end();
  });
  assert.equal(header, '{"set":{"name":"Jos\\u00e9 \\u65e5\\u672c \\ud83d\\ude00 \\"\\\\\\n\\u2028\\u007f"}}');
});

const CODES = {
  'too large': 'too-large',
  'not JSON': 'invalid',
  'a getter that fails': 'invalid',
  'set by hand too': 'twice',
};

const BAD = {
  'too large': (req) => (req.djangoSession.data.n = 'x'.repeat(20000)),
  'not JSON': (req) => {
    req.djangoSession.data.n = [1];
    req.djangoSession.data.n.push(NaN);
  },
  'a getter that fails': (req) => {
    req.djangoSession.data.n = [1];
    req.djangoSession.data.n.push({
      get xxx() {
        throw new RangeError('xxx');
      },
    });
  },
  'set by hand too': (req, res) => {
    change(req);
    res.setHeader('x-session-set', '{}');
  },
};

for (const [why, act] of Object.entries(BAD)) {
  for (const [name, way] of Object.entries(WAYS)) {
    test(`a change that cannot be sent is a 500 and no body of the handler: ${why}, ${name}`, async (t) => {
      const got = await answer(t, (req, res) => {
        act(req, res);
        res.setHeader('Set-Cookie', 'handler=1');
        return way(res);
      });
      assert.equal(got.status, 500);
      assert.equal(got.text, `{"code":"x-session-set-${CODES[why]}"}`);
      assert.equal(got.change, undefined);
      assert.equal(got.headers['set-cookie'], undefined);
      assert.equal(got.log.length, 1);
      assert.match(got.log[0], /^error .*nothing of the session is stored/);
      assert(got.log[0].endsWith(`(x-session-set-${CODES[why]})`));
      assert.doesNotMatch(got.log[0], /xxx/);
    });
  }
}

test('a replaced response ends what was written to it, with its callbacks', async (t) => {
  const called = [];
  const got = await answer(t, async (req, res) => {
    BAD['too large'](req);
    await new Promise((resolve) => res.write('body', () => resolve(called.push('write'))));
    await new Promise((resolve) => res.end('more', () => resolve(called.push('end'))));
  });
  assert.equal(got.status, 500);
  assert.deepEqual(called, ['write', 'end']);
});

test('X-Session-Set by hand is left alone where the session was not changed', async (t) => {
  const byHand = '{"set":{"own":1}}';
  for (const way of [
    (res) => (res.setHeader('X-Session-Set', byHand), res.end()),
    (res) => res.writeHead(200, { 'x-session-set': byHand }).end(),
    (res) => res.writeHead(200, ['x-session-set', byHand]).end(),
  ]) {
    const got = await answer(t, (_req, res) => way(res));
    assert.equal(got.change, byHand);
  }
});

test('X-Session-Set by hand beside a change is an error in every form of writeHead', async (t) => {
  for (const fields of [{ 'X-SESSION-SET': '{}' }, ['x-session-set', '{}'], [['X-Session-Set', '{}']]]) {
    for (const more of [[], [undefined], [null], [undefined, {}]]) {
      const got = await answer(t, (req, res) => (change(req), res.writeHead(200, fields, ...more).end()));
      assert.equal(got.status, 500);
      assert.equal(got.change, undefined);
    }
  }
});

test('a change after the head has gone out throws', async (t) => {
  for (const way of [(res) => res.write('a'), (res) => res.writeHead(200), (res) => res.flushHeaders()]) {
    let thrown;
    const got = await answer(t, (req, res) => {
      way(res);
      try {
        change(req);
      } catch (error) {
        thrown = error;
      }
      res.end();
    });
    assert(thrown instanceof SessionClosed);
    assert.equal(got.change, undefined);
    assert.deepEqual(got.log, []);
  }
});

test('what slips past that is logged at the end', async (t) => {
  const log = logger();
  const wrap = djangoSession({ ...OPTIONS, logger: log });
  let closed;
  const port = await serve(
    t,
    wrap((req, res) => {
      closed = once(res, 'close');
      const cart = (req.djangoSession.data.cart = [1]);
      res.write('a');
      cart.push(2);
      res.end();
    }),
  );
  await ask(port);
  await closed;
  assert.deepEqual(log.lines.length, 1);
  assert.match(log.lines[0], /^error .*changed after the head had gone out; that is not stored/);
});

test('a head that does not go out leaves the session open', async (t) => {
  const got = await answer(t, (req, res) => {
    change(req);
    assert.throws(() => res.writeHead(99), RangeError);
    assert.throws(() => res.writeHead(200, { 'X-Bad': 'a\nb' }), TypeError);
    req.djangoSession.data.n = 2;
    res.writeHead(200).end();
  });
  assert.equal(got.change, '{"set":{"n":2}}');
});

/** What the module on-headers does, which compression and others use: the last to wrap is the first to run. */
function onHeaders(res, listener) {
  const { writeHead } = res;
  res.writeHead = function (...args) {
    res.writeHead = writeHead;
    listener();
    return writeHead.apply(res, args);
  };
}

test('others may wrap the response too, and change the session just before the head', async (t) => {
  for (const way of Object.values(WAYS)) {
    const got = await answer(t, (req, res) => {
      onHeaders(res, () => change(req));
      return way(res);
    });
    assert.equal(got.change, CHANGE);
    const bad = await answer(t, (req, res) => {
      onHeaders(res, () => BAD['too large'](req));
      return way(res);
    });
    assert.equal(bad.status, 500);
    assert.equal(bad.change, undefined);
  }
});

test('who wrapped the response before cannot change the session in silence', async (t) => {
  let request;
  let thrown;
  const around = (inner) => (req, res) => {
    request = req;
    onHeaders(res, () => {
      try {
        change(request);
      } catch (error) {
        thrown = error;
      }
    });
    return inner(req, res);
  };
  const got = await answer(t, (_req, res) => res.end(), { around });
  assert(thrown instanceof SessionClosed);
  assert.equal(got.change, undefined);
});

test('a request without a good token never reaches the handler', async (t) => {
  const never = () => assert.fail('the handler was called');
  const right = sign(claims());
  const cases = {
    missing: { token: null },
    twice: { token: [right, right] },
    malformed: { token: `${right}, ${right}` },
    signature: { token: sign(claims(), { key: 'another' }) },
    expired: { token: sign(claims({ iat: 1, exp: 61 })) },
    'other-request': { token: right, method: 'POST' },
  };
  for (const [reason, asked] of Object.entries(cases)) {
    const got = await answer(t, never, { asked });
    assert.equal(got.status, 401);
    assert.equal(got.text, `{"code":"x-session-${reason}"}`);
    assert.equal(got.headers['cache-control'], 'no-store');
    assert.equal(got.log.length, 1);
    assert.match(got.log[0], new RegExp(`^warn .*\\(x-session-${reason}\\)$`));
    assert(!got.log[0].includes(right.slice(0, 20)), 'nothing of the token is logged');
  }
});

test('an unsafe request passes with a token for just it, with its query as it was spelt', async (t) => {
  const asked = { method: 'POST', path: '/a%2Fb//?x=%C3%A9&&y', body: 'x' };
  const got = await answer(t, (_req, res) => res.end('fine'), { asked });
  assert.deepEqual([got.status, got.text], [200, 'fine']);
});

test('exempt paths pass without a session, and only they', async (t) => {
  const handler = (req, res) => res.end(String(req.djangoSession));
  const options = { exempt: ['/healthz'] };
  for (const path of ['/healthz', '/healthz?deep']) {
    const got = await answer(t, handler, { options, asked: { path, token: null } });
    assert.deepEqual([got.status, got.text], [200, 'undefined']);
  }
  for (const path of ['/healthz/', '/Healthz', '/healthz/../x', '//healthz', '/x?/healthz', '/healthz%3F']) {
    assert.equal((await answer(t, handler, { options, asked: { path, token: null } })).status, 401, path);
  }
  const byFunction = { exempt: (req) => req.url === '/livez' };
  assert.equal((await answer(t, handler, { options: byFunction, asked: { path: '/livez', token: null } })).status, 200);
  assert.equal((await answer(t, handler, { options: byFunction, asked: { token: null } })).status, 401);
  const promise = { exempt: async () => false };
  assert.equal(
    (await answer(t, handler, { options: promise, asked: { token: null } })).status,
    401,
    'a promise is no yes',
  );
  const fails = {
    exempt: () => {
      throw new Error('x');
    },
  };
  assert.equal((await answer(t, handler, { options: fails, asked: { token: null } })).status, 500);
});

test('onRefused answers instead, and where it fails nobody is let in', async (t) => {
  const never = () => assert.fail('the handler was called');
  const asked = { token: null };
  const own = { onRefused: async (error, _req, res) => res.writeHead(403).end(error.reason) };
  const got = await answer(t, never, { asked, options: own });
  assert.deepEqual([got.status, got.text, got.log.length], [403, 'missing', 1]);
  const fails = {
    onRefused: async () => {
      throw new Error('x');
    },
  };
  assert.equal((await answer(t, never, { asked, options: fails })).status, 500);
});

test('a function for keys that fails is a 500: the visitor has done nothing wrong', async (t) => {
  const options = {
    keys: () => {
      throw new Error('away');
    },
  };
  const got = await answer(t, () => assert.fail('the handler was called'), { options });
  assert.deepEqual([got.status, got.text], [500, '{"code":"x-session-no-key"}']);
});

/** The answer to an upgrade, whether it is a 101 or not. */
async function handshake(port, path, token) {
  const headers = { Connection: 'upgrade', Upgrade: 'test', ...(token && { 'X-Session': token }) };
  const asked = request({ port, host: '127.0.0.1', path, headers, agent: false });
  asked.end();
  const [response, socket] = await Promise.race([once(asked, 'upgrade'), once(asked, 'response')]);
  (socket ?? response).resume();
  return response;
}

test('a handshake is read, and seal() gives the field for its answer', async (t) => {
  const log = logger();
  const wrap = djangoSession({ ...OPTIONS, logger: log });
  let unsealed;
  const upgrade = wrap.upgrade((req, socket) => {
    assert.equal(req.djangoSession.userId, '42');
    change(req);
    const fields = ['HTTP/1.1 101 Switching Protocols', 'Connection: upgrade', 'Upgrade: test'];
    if (req.url === '/unsealed') {
      unsealed = once(socket, 'close');
    } else {
      fields.push(`X-Session-Set: ${req.djangoSession.seal()}`);
      assert.throws(() => change(req), SessionClosed);
    }
    socket.end(`${fields.join('\r\n')}\r\n\r\n`);
  });
  const port = await serve(t, undefined, () => createServer().on('upgrade', upgrade));
  const host = `127.0.0.1:${port}`;
  const good = await handshake(port, '/chat', sign(claims({ req: digest('GET', host, '/chat') })));
  assert.deepEqual([good.statusCode, good.headers['x-session-set']], [101, CHANGE]);
  const copied = await handshake(port, '/chat', sign(claims({ req: digest('GET', host, '/other') })));
  assert.equal(copied.statusCode, 401, 'a handshake needs a token for just this request, though it is a GET');
  assert.equal((await handshake(port, '/chat')).statusCode, 401);
  assert.equal(log.lines.length, 2);
  await handshake(port, '/unsealed', sign(claims({ req: digest('GET', host, '/unsealed') })));
  await unsealed;
  assert.match(log.lines[2], /without seal\(\)/);
});

test('a refused handshake is closed, also where the other side does not', async (t) => {
  const wrap = djangoSession({ ...OPTIONS, logger: logger() });
  const never = wrap.upgrade(() => assert.fail('the handler was called'));
  let closed;
  const port = await serve(t, undefined, () =>
    createServer()
      .on('upgrade', never)
      .on('connection', (socket) => {
        closed = once(socket, 'close');
      }),
  );
  const client = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true });
  t.after(() => client.destroy());
  client.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n');
  const [answer] = await once(client.setEncoding('latin1'), 'data');
  assert.match(answer, /^HTTP\/1\.1 401 Unauthorized\r\n.*\r\n\r\n\{"code":"x-session-missing"\}$/s);
  await closed;
});

test('it works over HTTP/2 as well', async (t) => {
  const log = logger();
  const wrap = djangoSession({ ...OPTIONS, logger: log });
  const acts = {
    '/end': (_req, res) => res.end('body'),
    '/empty': (_req, res) => res.end(),
    '/write': (_req, res) => (res.write('a'), res.end()),
    '/head': (_req, res) => res.writeHead(201, { 'x-other': '1' }).end('b'),
    '/204': (_req, res) => ((res.statusCode = 204), res.end()),
    '/flush': (_req, res) => (res.flushHeaders(), res.end('x')),
    '/large': (req, res) => (BAD['too large'](req), res.end('x')),
    '/large-empty': (req, res) => (BAD['too large'](req), res.end()),
  };
  const handler = wrap((req, res) => (change(req), acts[req.url](req, res)));
  const port = await serve(t, handler, createHttp2);
  const client = connect(`http://127.0.0.1:${port}`);
  t.after(() => client.close());
  for (const path of Object.keys(acts)) {
    const token = sign(claims({ req: digest('POST', `127.0.0.1:${port}`, path) }));
    const stream = client.request({ ':method': 'POST', ':path': path, 'x-session': token });
    stream.end();
    const [headers] = await once(stream, 'response');
    stream.resume();
    await once(stream, 'close');
    assert.equal(headers['x-session-set'], path.startsWith('/large') ? undefined : CHANGE, path);
    if (path.startsWith('/large')) assert.equal(headers[':status'], 500, path);
  }
  const stream = client.request({ ':method': 'POST', ':path': '/end', 'x-session': sign(claims()) });
  stream.end();
  const [headers] = await once(stream, 'response');
  stream.resume();
  await once(stream, 'close');
  assert.equal(headers[':status'], 401);
});
