import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';

import express4 from 'express4';
import express5 from 'express';
import { SessionClosed } from 'session-gateway-upstream';
import { djangoSession } from 'session-gateway-upstream/express';

import { ask, claims, logger, OPTIONS, serve, sign } from './support.js';

async function served(t, express, build, options = {}) {
  const log = logger();
  const app = express();
  build(app, djangoSession({ ...OPTIONS, logger: log, ...options }));
  // Express's own error page is not what is tested, nor what it prints.
  app.use((error, _req, res, next) => (res.headersSent ? next(error) : res.status(500).end(`failed: ${error.name}`)));
  const port = await serve(t, app, createServer);
  return { port, log: log.lines };
}

for (const [name, express] of Object.entries({ 'Express 4': express4, 'Express 5': express5 })) {
  test(`${name}: a mounted router compares the whole target, and may use the middleware again`, async (t) => {
    const { port } = await served(t, express, (app, session) => {
      const router = express.Router();
      router.use(session, session);
      router.post('/cart', (req, res) => {
        req.djangoSession.data.n = 1;
        res.json({});
      });
      app.use('/api', session, (req, _res, next) => {
        req.djangoSession.data.m = 1;
        next();
      });
      app.use('/api', router);
      app.get('/open', (req, res) => res.send(String(req.djangoSession)));
    });
    const got = await ask(port, { method: 'POST', path: '/api/cart?a=1' });
    assert.deepEqual([got.status, got.change], [200, '{"set":{"m":1,"n":1}}']);
    assert.equal((await ask(port, { path: '/api/cart', token: null })).status, 401);
    assert.equal((await ask(port, { path: '/open', token: null })).text, 'undefined');
  });

  test(`${name}: what is changed after res.json throws into the error handler`, async (t) => {
    let thrown;
    const { port } = await served(t, express, (app, session) => {
      app.use(session);
      app.get('/', (req, res) => {
        res.json({});
        try {
          req.djangoSession.data.n = 1;
        } catch (error) {
          thrown = error;
        }
      });
    });
    await ask(port);
    assert(thrown instanceof SessionClosed);
  });

  test(`${name}: an error handler that answers below 500 keeps the change`, async (t) => {
    const { port } = await served(t, express, (app, session) => {
      app.use(session);
      app.get('/', (req) => {
        req.djangoSession.data.n = 1;
        throw Object.assign(new Error('no'), { status: 404 });
      });
      app.use((error, _req, res, _next) => res.status(error.status).send('not there'));
    });
    const got = await ask(port);
    assert.deepEqual([got.status, got.change], [404, '{"set":{"n":1}}']);
  });

  test(`${name}: what cannot be stored goes to the error handler at the assignment`, async (t) => {
    const { port } = await served(t, express, (app, session) => {
      app.use(session);
      app.get('/', (req, res) => {
        req.djangoSession.data.n = 1;
        req.djangoSession.data.n = NaN;
        res.end();
      });
    });
    const got = await ask(port);
    assert.deepEqual([got.status, got.text, got.change], [500, 'failed: SessionValueError', undefined]);
  });

  test(`${name}: files, redirects and empty answers carry the change`, async (t) => {
    const { port } = await served(t, express, (app, session) => {
      app.use(session, (req, _res, next) => {
        req.djangoSession.data.n = 1;
        next();
      });
      app.get('/file', (_req, res) => res.sendFile('package.json', { root: new URL('..', import.meta.url).pathname }));
      app.get('/redirect', (_req, res) => res.redirect('/'));
      app.get('/empty', (_req, res) => res.sendStatus(204));
      app.get('/fresh', (_req, res) => res.set('ETag', '"1"').send('x'));
    });
    for (const [path, status] of Object.entries({ '/file': 200, '/redirect': 302, '/empty': 204, '/missing': 404 })) {
      const got = await ask(port, { path });
      assert.deepEqual([got.status, got.change], [status, '{"set":{"n":1}}'], path);
    }
    const fresh = await ask(port, { path: '/fresh', headers: { 'If-None-Match': '"1"' } });
    assert.deepEqual([fresh.status, fresh.change], [304, '{"set":{"n":1}}']);
  });

  test(`${name}: a refused request never reaches the handler`, async (t) => {
    let called = 0;
    for (const options of [{}, { onRefused: (_error, _req, res) => void setImmediate(() => res.status(403).end()) }]) {
      const { port } = await served(
        t,
        express,
        (app, session) => {
          app.use(session);
          app.use((_req, res) => {
            called++;
            if (!res.headersSent) res.end();
          });
        },
        options,
      );
      assert.equal((await ask(port, { token: null })).status, options.onRefused === undefined ? 401 : 403);
    }
    assert.equal(called, 0);
  });

  test(`${name}: a handshake needs a token for just this request, though it is a GET`, async (t) => {
    const { port } = await served(t, express, (app, session) => {
      app.use(session, (_req, res) => res.send('in'));
    });
    const headers = { Connection: 'upgrade', Upgrade: 'websocket' };
    assert.equal((await ask(port, { headers })).status, 200);
    const copied = await ask(port, { headers, token: sign(claims()) });
    assert.deepEqual([copied.status, copied.text], [401, '{"code":"x-session-other-request"}']);
  });

  test(`${name}: an onRefused that says no status answers 401, and one that fails 500`, async (t) => {
    const build = (app, session) => app.use(session);
    const says = { onRefused: (error, _req, res) => res.send(error.reason) };
    const got = await ask((await served(t, express, build, says)).port, { token: null });
    assert.deepEqual([got.status, got.text], [401, 'missing']);
    const fails = { onRefused: () => assert.fail('as the test wants it') };
    const { port } = await served(t, express, build, fails);
    assert.equal((await ask(port, { token: null })).status, 500);
  });

  test(`${name}: onRefused and a function for exempt`, async (t) => {
    const { port, log } = await served(
      t,
      express,
      (app, session) => {
        app.use(session);
        app.get('/livez', (_req, res) => res.send('ok'));
        app.get('/', () => assert.fail('the handler was called'));
      },
      {
        exempt: (req) => req.path === '/livez',
        onRefused: (error, _req, res) => void res.status(403).send(error.reason),
      },
    );
    assert.equal((await ask(port, { path: '/livez', token: null })).text, 'ok');
    const got = await ask(port, { token: null });
    assert.deepEqual([got.status, got.text, log.length], [403, 'missing', 1]);
  });
}
