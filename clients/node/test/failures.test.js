// Handlers that fail, and heads that do not go out: neither may end the process, or lose a change in silence.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request, ServerResponse } from 'node:http';
import { connect, createServer as createHttp2 } from 'node:http2';
import { test } from 'node:test';

import { SessionClosed } from 'session-gateway-upstream';
import { djangoSession } from 'session-gateway-upstream/http';

import { ask, claims, digest, KEY, logger, OPTIONS, serve, sign } from './support.js';

const change = (req) => {
  req.djangoSession.data.n = 1;
};
const fail = () => {
  throw new Error('as the test wants it');
};

/** A server of `handler`, and its log. */
async function served(t, handler, { options = {}, around = (inner) => inner, create = createServer } = {}) {
  const log = logger();
  const wrap = djangoSession({ ...OPTIONS, logger: log, ...options });
  const port = await serve(t, around(wrap(handler)), create);
  return { port, log: log.lines };
}

/** Sends a request whose answer is not waited for. */
function send(port, headers = {}) {
  const host = `127.0.0.1:${port}`;
  const token = sign(claims({ req: digest('GET', host, '/') }));
  const asked = request({ host: '127.0.0.1', port, agent: false, headers: { 'X-Session': token, ...headers } });
  asked.on('error', () => {}).end();
  return asked;
}

const FAILING = {
  throws: fail,
  rejects: async () => fail(),
  'throws nothing': () => {
    throw undefined;
  },
  'throws after fields were set': (req, res) => {
    change(req);
    res.setHeader('Content-Length', '5');
    res.setHeader('Set-Cookie', 'handler=1');
    res.statusMessage = 'Fine';
    fail();
  },
  'reads a session that was withheld': (req, res) => res.end(String(req.djangoSession.data.cart)),
};

for (const [name, handler] of Object.entries(FAILING)) {
  test(`a handler that fails is a 500, and its stack is in the log: ${name}`, async (t) => {
    const { port, log } = await served(t, handler);
    const got = await ask(port, { withClaims: { session: undefined, withheld: 'too_large' } });
    assert.deepEqual([got.status, got.text, got.change], [500, '', undefined]);
    assert.equal(got.headers['set-cookie'], undefined);
    assert.equal(log.length, 1);
    if (name === 'throws nothing') assert.match(log[0], /^error .*the handler failed: something that is no Error$/);
    else assert.match(log[0], /^error .*the handler failed: (Error|SessionWithheld): .*\n +at /);
  });
}

test('where a part of the answer is out, a handler that fails breaks it off', async (t) => {
  const { port, log } = await served(t, async (_req, res) => {
    await new Promise((resolve) => res.write('a', resolve));
    fail();
  });
  await assert.rejects(ask(port), { code: 'ECONNRESET' });
  assert.match(log[0], /the handler failed/);
});

test('where the whole answer is out, a handler that fails is only logged', async (t) => {
  const { port, log } = await served(t, (_req, res) => {
    res.end('whole');
    fail();
  });
  assert.equal((await ask(port)).text, 'whole');
  assert.match(log[0], /the handler failed/);
});

test('a handler that fails over HTTP/2 is a 500, or breaks the stream', async (t) => {
  const handler = (req, res) => {
    if (req.url === '/late') res.write('a');
    fail();
  };
  const { port, log } = await served(t, handler, { create: createHttp2 });
  const client = connect(`http://127.0.0.1:${port}`);
  t.after(() => client.close());
  const early = client.request({ ':path': '/', 'x-session': sign(claims()) });
  const [headers] = await once(early.resume(), 'response');
  assert.equal(headers[':status'], 500);
  const late = client.request({ ':path': '/late', 'x-session': sign(claims()) }).on('error', () => {});
  await new Promise((resolve) => late.resume().once('close', resolve));
  assert.equal(late.rstCode, 2);
  assert.equal(log.length, 2);
});

for (const [name, handler] of Object.entries({ throws: fail, rejects: async () => fail() })) {
  test(`a handler of a handshake that fails closes the connection: ${name}`, async (t) => {
    const log = logger();
    const wrap = djangoSession({ ...OPTIONS, logger: log });
    const port = await serve(t, undefined, () => createServer().on('upgrade', wrap.upgrade(handler)));
    const asked = send(port, { Connection: 'upgrade', Upgrade: 'test' });
    await new Promise((resolve) => asked.once('close', resolve));
    assert.equal(log.lines.length, 1);
    assert.match(log.lines[0], /^error .*the handler of a handshake failed: Error: as the test wants it\n +at /);
  });
}

/** What the handler gets when it changes the session, and whether it got so far. */
function changing() {
  const seen = { thrown: null };
  seen.handler = (req, res) => {
    try {
      change(req);
    } catch (error) {
      seen.thrown = error;
    }
    res.end();
  };
  return seen;
}

test('a change throws where another has answered before the session was there', async (t) => {
  const seen = changing();
  const around = (inner) => (req, res) => {
    res.writeHead(503).end();
    return inner(req, res);
  };
  const { port } = await served(t, seen.handler, { around });
  assert.equal((await ask(port)).status, 503);
  assert(seen.thrown instanceof SessionClosed);
});

test('a change throws where another has answered while the token was checked', async (t) => {
  const seen = changing();
  let response;
  const around = (inner) => (req, res) => {
    response = res;
    return inner(req, res);
  };
  const keys = async () => {
    await new Promise((resolve) => response.writeHead(503).end(resolve));
    return KEY;
  };
  const { port } = await served(t, seen.handler, { around, options: { keys } });
  assert.equal((await ask(port)).status, 503);
  // The client may have its answer before the handler runs: the next request comes after it.
  await ask(port);
  assert(seen.thrown instanceof SessionClosed);
});

test('a change throws where the client left while the token was checked', async (t) => {
  const seen = changing();
  let response;
  let done;
  const around = (inner) => (req, res) => {
    response = res;
    done = inner(req, res);
    return done;
  };
  const keys = async () => {
    const closed = once(response, 'close');
    asked.destroy();
    await closed;
    return KEY;
  };
  const ended = new Promise((resolve) => {
    seen.inner = seen.handler;
    seen.handler = (req, res) => (seen.inner(req, res), resolve());
  });
  const { port } = await served(t, (req, res) => seen.handler(req, res), { around, options: { keys } });
  const asked = send(port);
  await ended;
  await done;
  assert(seen.thrown instanceof SessionClosed);
});

const NO_HEAD = /^error .*the session was changed, and no head went out; that is not stored$/;

test('a change before a client that leaves is logged, and one after it throws', async (t) => {
  let thrown;
  let ended;
  const all = new Promise((resolve) => (ended = resolve));
  const { port, log } = await served(t, async (req, res) => {
    change(req);
    const closed = once(res, 'close');
    asked.destroy();
    await closed;
    try {
      change(req);
    } catch (error) {
      thrown = error;
    }
    res.end();
    ended();
  });
  const asked = send(port);
  await all;
  assert(thrown instanceof SessionClosed);
  assert.equal(log.length, 1);
  assert.match(log[0], NO_HEAD);
});

const RAW = {
  'a change': [change, 1],
  'a change that cannot be sent': [(req) => (req.djangoSession.data.n = 'x'.repeat(20000)), 1],
  'no change': [(req) => req.djangoSession.data.cart, 0],
};

for (const [name, [act, lines]] of Object.entries(RAW)) {
  test(`a head that is written past node:http is logged with a change: ${name}`, async (t) => {
    let closed;
    const { port, log } = await served(t, (req, res) => {
      act(req);
      closed = once(res, 'close');
      res.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    });
    const got = await ask(port);
    await closed;
    assert.equal(got.change, undefined);
    assert.equal(log.length, lines);
    for (const line of log) assert.match(line, NO_HEAD);
  });
}

test('a change is logged where middleware runs with a response that goes nowhere', async (t) => {
  // As express-ws does: the 101 went out before.
  const log = logger();
  const wrap = djangoSession({ ...OPTIONS, logger: log });
  let closed;
  const port = await serve(t, undefined, () =>
    createServer().on('upgrade', (req, socket) => {
      closed = once(socket, 'close');
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n');
      wrap((req) => {
        change(req);
        socket.end();
      })(req, new ServerResponse(req));
    }),
  );
  const asked = send(port, { Connection: 'upgrade', Upgrade: 'test' });
  const [, socket] = await once(asked, 'upgrade');
  socket.resume().end();
  await closed;
  assert.equal(log.lines.length, 1);
  assert.match(log.lines[0], NO_HEAD);
});
