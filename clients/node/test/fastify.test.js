import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { test } from 'node:test';

import fastify5 from 'fastify';
import fastify4 from 'fastify4';
import { SessionClosed } from 'session-gateway-upstream';
import pluginByDefault, { djangoSession } from 'session-gateway-upstream/fastify';

import { ask, claims, logger, OPTIONS, sign } from './support.js';

async function served(t, Fastify, build, options = {}) {
  const log = logger();
  const app = Fastify();
  await build(app, (scope = app) => scope.register(djangoSession, { ...OPTIONS, logger: log, ...options }));
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.after(() => app.close());
  return { app, port: app.server.address().port, log: log.lines };
}

/** Fastify 5 itself asks for Node 20. */
const OLD_NODE = Number(process.versions.node.split('.')[0]) < 20;
const CHANGE = '{"set":{"n":1}}';

test('the plugin is also the default export', () => assert.equal(pluginByDefault, djangoSession));

for (const [name, Fastify] of Object.entries({ 'Fastify 4': fastify4, 'Fastify 5': fastify5 })) {
  test(`${name}: every way to answer carries the change`, async (t) => {
    const ways = {
      '/value': async () => ({ a: 1 }),
      '/send': (_request, reply) => reply.send('text'),
      '/empty': (_request, reply) => reply.code(204).send(),
      '/stream': (_request, reply) => reply.send(Readable.from(['a', 'b'])),
      '/redirect': (_request, reply) => reply.redirect('/'),
      '/bad': async () => {
        throw Object.assign(new Error('no'), { statusCode: 400 });
      },
      '/raw': (_request, reply) => {
        reply.hijack();
        reply.raw.writeHead(200, { 'Content-Type': 'text/plain' });
        reply.raw.end('raw');
      },
      '/raw-implicit': (_request, reply) => {
        reply.hijack();
        Readable.from(['a', 'b']).pipe(reply.raw);
      },
    };
    const { port } = await served(t, Fastify, async (app, register) => {
      await register();
      app.addHook('preHandler', async (request) => {
        request.djangoSession.data.n = 1;
      });
      for (const [path, way] of Object.entries(ways)) app.get(path, way);
    });
    for (const path of Object.keys(ways)) assert.equal((await ask(port, { path })).change, CHANGE, path);
  });

  test(`${name}: an onSend hook may change the session, and what is later throws`, async (t) => {
    let thrown;
    const { port } = await served(t, Fastify, async (app, register) => {
      await register();
      app.addHook('onSend', async (request) => {
        request.djangoSession.data.n = 1;
      });
      app.addHook('onResponse', async (request) => {
        try {
          request.djangoSession.data.n = 2;
        } catch (error) {
          thrown = error;
        }
      });
      app.get('/', async () => 'x');
    });
    assert.equal((await ask(port)).change, CHANGE);
    // onResponse may run after the client has the whole answer: the next request tells that it has.
    await ask(port);
    assert(thrown instanceof SessionClosed);
  });

  test(`${name}: a handler that fails stores nothing`, async (t) => {
    const { port } = await served(t, Fastify, async (app, register) => {
      await register();
      app.get('/', async (request) => {
        request.djangoSession.data.n = 1;
        throw new Error('as the test wants it');
      });
    });
    const got = await ask(port);
    assert.deepEqual([got.status, got.change], [500, undefined]);
  });

  test(`${name}: it counts where it is registered`, async (t) => {
    const { port } = await served(t, Fastify, async (app, register) => {
      app.get('/open', async (request) => String(request.djangoSession));
      await app.register(async (scope) => {
        await register(scope);
        scope.get('/mine', async (request) => request.djangoSession.userId);
      });
    });
    assert.equal((await ask(port, { path: '/open', token: null })).status, 200);
    assert.equal((await ask(port, { path: '/mine', token: null })).status, 401);
    assert.equal((await ask(port, { path: '/mine' })).text, '42');
  });

  test(`${name}: a target that was rewritten inside is compared as it came`, async (t) => {
    const log = logger();
    const app = Fastify({ rewriteUrl: (raw) => raw.url.replace('/old', '/new') });
    await app.register(djangoSession, { ...OPTIONS, logger: log });
    app.post('/new', async () => 'ok');
    await app.listen({ port: 0, host: '127.0.0.1' });
    t.after(() => app.close());
    const got = await ask(app.server.address().port, { method: 'POST', path: '/old?x=1' });
    assert.deepEqual([got.status, log.lines], [200, []]);
  });

  test(`${name}: a refused request never reaches the handler`, async (t) => {
    let called = 0;
    for (const options of [
      {},
      { onRefused: (_error, _request, reply) => void setImmediate(() => reply.code(403).send()) },
    ]) {
      const build = async (app, register) => {
        await register();
        app.get('/', async () => {
          called++;
          return 'x';
        });
      };
      const { port } = await served(t, Fastify, build, options);
      assert.equal((await ask(port, { token: null })).status, options.onRefused === undefined ? 401 : 403);
    }
    assert.equal(called, 0);
  });

  test(`${name}: onRefused, a function for exempt, and the log of Fastify`, async (t) => {
    const lines = [];
    const app = Fastify({ logger: { level: 'warn', stream: { write: (line) => lines.push(JSON.parse(line)) } } });
    await app.register(djangoSession, {
      ...OPTIONS,
      exempt: (request) => request.routeOptions.url === '/livez',
      onRefused: (error, _request, reply) => reply.code(403).send({ why: error.reason }),
    });
    app.get('/livez', async () => 'ok');
    app.get('/', async () => assert.fail('the handler was called'));
    await app.listen({ port: 0, host: '127.0.0.1' });
    t.after(() => app.close());
    const { port } = app.server.address();
    assert.equal((await ask(port, { path: '/livez', token: null })).text, 'ok');
    const got = await ask(port, { token: null });
    assert.deepEqual([got.status, got.text], [403, '{"why":"missing"}']);
    assert.deepEqual(
      lines.map(({ level, msg }) => [level, msg.includes('x-session-missing')]),
      [[40, true]],
    );
  });

  test(`${name}: inject() works for tests of the application`, { skip: name === 'Fastify 5' && OLD_NODE }, async () => {
    const app = Fastify();
    await app.register(djangoSession, OPTIONS);
    app.get('/', async (request) => {
      request.djangoSession.data.n = 1;
      return request.djangoSession.userId;
    });
    const got = await app.inject({ url: '/', headers: { 'x-session': sign(claims()) } });
    assert.deepEqual([got.statusCode, got.body, got.headers['x-session-set']], [200, '42', CHANGE]);
    const log = logger();
    const other = Fastify();
    await other.register(djangoSession, { ...OPTIONS, logger: log });
    other.get('/', async () => 'x');
    assert.equal((await other.inject('/')).statusCode, 401);
  });

  test(`${name}: a handshake needs a token for just this request, though it is a GET`, async (t) => {
    const { port } = await served(t, Fastify, async (app, register) => {
      await register();
      app.get('/', async () => 'in');
    });
    const headers = { Connection: 'upgrade', Upgrade: 'websocket' };
    assert.equal((await ask(port, { headers })).status, 200);
    const copied = await ask(port, { headers, token: sign(claims()) });
    assert.deepEqual([copied.status, copied.text], [401, '{"code":"x-session-other-request"}']);
  });

  test(`${name}: what onRefused returns is sent, and where it gives nothing it is a 500`, async (t) => {
    const hooks = [
      [() => 'no', 401, 'no'],
      [() => ({ why: 'no' }), 401, '{"why":"no"}'],
      [async (error) => ({ why: error.reason }), 401, '{"why":"missing"}'],
      [async (_error, _request, reply) => (reply.code(403), 'no'), 403, 'no'],
      [async (_error, _request, reply) => reply.code(403).send('no'), 403, 'no'],
      [async (_error, _request, reply) => void reply.code(403).send('no'), 403, 'no'],
      [async (_error, _request, reply) => void reply.redirect('/login'), 302, ''],
      [async () => {}, 500],
      [() => assert.fail('as the test wants it'), 500],
      [async () => assert.fail('as the test wants it'), 500],
    ];
    for (const [onRefused, status, text] of hooks) {
      const build = async (app, register) => {
        await register();
        // What was sent is not out at once.
        app.addHook('onSend', () => new Promise((resolve) => setImmediate(resolve)));
        app.get('/', async () => assert.fail('the handler was called'));
      };
      const { port } = await served(t, Fastify, build, { onRefused });
      const got = await ask(port, { token: null });
      assert.deepEqual([got.status, text && got.text], [status, text], String(onRefused));
    }
  });

  test(`${name}: a head that is written to the socket is logged with a change`, async (t) => {
    // As @fastify/websocket does.
    let closed;
    const { port, log } = await served(t, Fastify, async (app, register) => {
      await register();
      app.get('/', (request, reply) => {
        request.djangoSession.data.n = 1;
        closed = once(reply.raw, 'close');
        reply.hijack();
        request.raw.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      });
    });
    await ask(port);
    await closed;
    assert.equal(log.length, 1);
    assert.match(log[0], /^error .*no head went out; that is not stored$/);
  });

  test(`${name}: two registrations in one scope, or inside each other, stop the start`, async () => {
    const twice = Fastify();
    twice.register(djangoSession, OPTIONS).register(djangoSession, OPTIONS);
    const nested = Fastify();
    nested.register(djangoSession, OPTIONS).register(async (scope) => scope.register(djangoSession, OPTIONS));
    for (const app of [twice, nested]) await assert.rejects(async () => app.ready(), /registered already/);
    const beside = Fastify();
    for (const _ of 'ab') beside.register(async (scope) => void (await scope.register(djangoSession, OPTIONS)));
    await beside.ready();
  });

  test(`${name}: a mistake in the options stops the start`, async () => {
    const app = Fastify();
    await assert.rejects(
      async () => app.register(djangoSession, { ...OPTIONS, audience: '' }).ready(),
      /audience is required/,
    );
  });
}
