// Handlers that fail, and heads that do not go out: neither may end the process, or lose a change in silence.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request, ServerResponse } from 'node:http';
import { connect, createServer as createHttp2 } from 'node:http2';
import { test } from 'node:test';

import express5 from 'express';
import express4 from 'express4';
import { SessionClosed } from 'session-gateway-upstream';
import { djangoSession as expressSession } from 'session-gateway-upstream/express';
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

/** A handler, and a promise of its end, whether it fails or not, and of what the package does about it. */
function ending(handler) {
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  return [(...args) => (async () => handler(...args))().finally(() => setImmediate(ended)), end];
}

const NO_HEAD = /^error .*the session was changed, and no head went out; that is not stored$/;

// A throw would depend on the visitor alone, and in a callback it would end the process.
test('a change is logged where the client left while the token was checked', async (t) => {
  const seen = changing();
  let response;
  const around = (inner) => (req, res) => {
    response = res;
    return inner(req, res);
  };
  const keys = async () => {
    const closed = once(response, 'close');
    asked.destroy();
    await closed;
    return KEY;
  };
  const [handler, end] = ending(seen.handler);
  const { port, log } = await served(t, handler, { around, options: { keys } });
  const asked = send(port);
  await end;
  assert.equal(seen.thrown, null);
  assert.equal(log.length, 1);
  assert.match(log[0], NO_HEAD);
});

/** What a handler may still do after the client has left: whether it changes the session. */
const AFTER_LEAVING = {
  'a key': [change, 1],
  'a nested value': [(req) => req.djangoSession.data.cart.push(2), 1],
  'a deleted key': [(req) => delete req.djangoSession.data.cart, 1],
  'a flush': [(req) => req.djangoSession.flush(), 1],
  'a touch': [(req) => req.djangoSession.touch(), 1],
  'what cannot be sent': [(req) => (req.djangoSession.data.n = 'x'.repeat(20000)), 1],
  'two changes': [(req) => (change(req), req.djangoSession.cycleKey()), 1],
  'no change': [(req) => req.djangoSession.data.cart.length, 0],
};

for (const [name, [act, lines]] of Object.entries(AFTER_LEAVING)) {
  test(`after a client that leaves a change is logged once, and throws nothing: ${name}`, async (t) => {
    const [handler, end] = ending(async (req, res) => {
      const closed = once(res, 'close');
      asked.destroy();
      await closed;
      act(req);
      res.end();
      act(req);
    });
    const { port, log } = await served(t, handler);
    const asked = send(port);
    await end;
    assert.equal(log.length, lines, log.join('\n'));
    for (const line of log) assert.match(line, NO_HEAD);
  });
}

test('a change before a client that leaves and one after it are one line in the log', async (t) => {
  const [handler, end] = ending(async (req, res) => {
    change(req);
    const closed = once(res, 'close');
    asked.destroy();
    await closed;
    assert.equal(log.length, 1);
    req.djangoSession.data.n = 2;
    res.end();
  });
  const { port, log } = await served(t, handler);
  const asked = send(port);
  await end;
  assert.equal(log.length, 1);
  assert.match(log[0], NO_HEAD);
});

test('after the head has gone out a change throws, also where the client has left since', async (t) => {
  const [handler, end] = ending(async (req, res) => {
    res.write('a');
    const closed = once(res, 'close');
    asked.destroy();
    await closed;
    assert.throws(() => change(req), SessionClosed);
  });
  const { port, log } = await served(t, handler);
  const asked = send(port);
  await end;
  assert.deepEqual(log, []);
});

const app = (express) => (log, handler) => {
  const made = express();
  made.use(expressSession({ ...OPTIONS, logger: log }));
  made.get('/', handler);
  return made;
};
const SERVERS = {
  'node:http': (log, handler) => djangoSession({ ...OPTIONS, logger: log })(handler),
  'Express 4': app(express4),
  'Express 5': app(express5),
};
/** Called with what changes the session, once the client has left. */
const WAYS = {
  'in a callback': (left, later) => void left.then(() => setImmediate(later)),
  'in an async handler': (left, later) => left.then(later),
};

for (const [server, build] of Object.entries(SERVERS)) {
  for (const [way, run] of Object.entries(WAYS)) {
    // The test runner fails the test for what would have ended the process.
    test(`a client that leaves does not end the process: ${server}, ${way}`, async (t) => {
      let ended;
      const all = new Promise((resolve) => (ended = resolve));
      const log = logger();
      const handler = (req, res) => {
        const left = once(res, 'close');
        asked.destroy();
        return run(left, () => {
          // After the throw has had its effect.
          setImmediate(ended);
          change(req);
          res.end();
        });
      };
      const port = await serve(t, build(log, handler));
      const asked = send(port);
      await all;
      assert.equal(log.lines.length, 1);
      assert.match(log.lines[0], NO_HEAD);
    });
  }
}

test('a client that leaves does not end the process: HTTP/2', async (t) => {
  let ended;
  const all = new Promise((resolve) => (ended = resolve));
  const handler = (req, res) => {
    req.stream.once('close', () => {
      setImmediate(() => {
        setImmediate(ended);
        change(req);
        res.end();
      });
    });
    stream.close();
  };
  const { port, log } = await served(t, handler, { create: createHttp2 });
  const client = connect(`http://127.0.0.1:${port}`);
  t.after(() => client.close());
  const stream = client.request({ ':path': '/', 'x-session': sign(claims()) }).on('error', () => {});
  await all;
  assert.equal(log.length, 1);
  assert.match(log[0], NO_HEAD);
});

for (const when of ['before its handler', 'in its handler']) {
  test(`a client that leaves a handshake ${when} gets a change logged once, and nothing throws`, async (t) => {
    const log = logger();
    const leave = async (socket) => {
      const closed = once(socket, 'close');
      asked.destroy();
      await closed;
    };
    let raw;
    const keys = async () => {
      if (when === 'before its handler') await leave(raw);
      return KEY;
    };
    const [handler, end] = ending(async (req, socket) => {
      if (when === 'in its handler') await leave(socket);
      change(req);
      assert.equal(req.djangoSession.seal(), '{"set":{"n":1}}');
    });
    const upgrade = djangoSession({ ...OPTIONS, keys, logger: log }).upgrade(handler);
    const port = await serve(t, undefined, () =>
      createServer().on('upgrade', (req, socket, head) => {
        // Such a socket stays half open.
        raw = socket.resume().once('end', () => socket.end());
        upgrade(req, socket, head);
      }),
    );
    const asked = send(port, { Connection: 'upgrade', Upgrade: 'test' });
    await end;
    assert.equal(log.lines.length, 1);
    assert.match(log.lines[0], /^error .*the session was changed in a handshake that ended without seal\(\)/);
  });
}

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
