// The service of the end-to-end tests: the same routes as in the packages of other languages, with the framework named
// on the command line. It ends with its standard input.
import { createServer, request as httpRequest } from 'node:http';
import { setTimeout as later } from 'node:timers/promises';
import { Readable } from 'node:stream';

const framework = process.argv[2];
const parse = (name) => (process.env[name] === undefined ? undefined : JSON.parse(process.env[name]));
const options = {
  keys: parse('XSESSION_KEYS'),
  publicKeys: parse('XSESSION_PUBLIC_KEYS'),
  audience: process.env.XSESSION_AUDIENCE,
  issuer: process.env.XSESSION_ISSUER,
  exempt: ['/healthz'],
};

function orElse(read, otherwise) {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

function contents(session) {
  return orElse(() => ({ ...session.data }), null);
}

function show(session) {
  return {
    framework: framework.replace(/\d$/, ''),
    user_id: orElse(() => session.userId, 'unknown'),
    sid: orElse(() => session.sid, null),
    rev: session.rev,
    withheld: session.withheld,
    session: contents(session),
  };
}

/** POSTs another change to the same session, through the gateway, and waits for its end. */
function changeFirst(headers) {
  const url = headers['x-test-change-first'];
  if (url === undefined) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const fields = { Cookie: headers['x-test-cookie'], Origin: headers['x-test-origin'] };
    const request = httpRequest(url, { method: 'POST', headers: fields }, (response) => {
      response.resume().once('end', resolve);
    });
    request.once('error', reject).end('"other"');
  });
}

/** What is the same in all frameworks: changes that are answered with the session as it is then. */
const changes = {
  set: (session, key, body) => {
    session.data[key] = JSON.parse(body);
  },
  append: (session, key, body) => {
    session.data[key] ??= [];
    session.data[key].push(JSON.parse(body));
  },
  del: (session, key) => {
    delete session.data[key];
  },
  flush: (session) => session.flush(),
  cycle: (session) => session.cycleKey(),
  expiry: (session, _key, body) => session.setExpiry(JSON.parse(body)),
  touch: (session) => session.touch(),
  nothing: (session) => {
    const [key] = Object.keys(session.data);
    if (key !== undefined) session.data[key] = JSON.parse(JSON.stringify(session.data[key]));
  },
  guarded: async (session, key, _body, headers) => {
    await changeFirst(headers);
    session.onlyIfUnchanged();
    session.data[key] = (session.data[key] ?? 0) + 1;
  },
  large: (session, key) => {
    session.data[key] = 'x'.repeat(20000);
  },
};

/** A stream whose second chunk is made when the first has gone out. */
async function* lateChunks(session, key) {
  yield 'start;';
  await later(0);
  try {
    session.data[key] = 'late';
    yield 'stored';
  } catch {
    yield 'refused';
  }
}

const assign = (session, key, body) => {
  session.data[key] = JSON.parse(body);
};

async function plain() {
  const { djangoSession } = await import('session-gateway-upstream/http');
  const read = async (req) => {
    let body = '';
    for await (const chunk of req.setEncoding('utf8')) body += chunk;
    return body;
  };
  const json = (res, value) => {
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify(value));
  };
  const handler = async (req, res) => {
    const [, act, key] = req.url.split('?')[0].split('/').map(decodeURIComponent);
    if (act === 'healthz') return res.end('ok');
    const session = req.djangoSession;
    if (req.method !== 'POST' && act === 'session') return json(res, show(session));
    const body = await read(req);
    if (Object.hasOwn(changes, act)) {
      await changes[act](session, key, body, req.headers);
      return json(res, { session: contents(session) });
    }
    if (act === 'redirect') {
      session.data[key] = JSON.parse(body);
      return res.writeHead(303, { Location: '/session' }).end();
    }
    if (act === 'late') return Readable.from(lateChunks(session, key)).pipe(res);
    if (act === 'stream') {
      assign(session, key, body);
      return Readable.from(['one', 'two', 'three']).pipe(res);
    }
    if (act === 'mixed') {
      assign(session, key, body);
      return res.writeHead(200, { 'X-Session-Set': '{}' }).end('mixed');
    }
    res.statusCode = 404;
    if (act === 'fail') {
      assign(session, key, body);
      res.statusCode = 500;
    }
    res.end();
  };
  return createServer(djangoSession(options)(handler));
}

async function express(name) {
  const { default: express } = await import(name);
  const { djangoSession } = await import('session-gateway-upstream/express');
  const app = express();
  app.use(djangoSession(options));
  app.use(express.text({ type: () => true }));
  app.get('/healthz', (_req, res) => res.send('ok'));
  app.get('/session', (req, res) => res.json(show(req.djangoSession)));
  app.post('/redirect/:key', (req, res) => {
    req.djangoSession.data[req.params.key] = JSON.parse(req.body);
    res.redirect(303, '/session');
  });
  app.post('/stream/:key', (req, res) => {
    assign(req.djangoSession, req.params.key, req.body);
    Readable.from(['one', 'two', 'three']).pipe(res);
  });
  app.post('/late/:key', (req, res) => {
    Readable.from(lateChunks(req.djangoSession, req.params.key)).pipe(res);
  });
  app.post('/fail/:key', (req) => {
    assign(req.djangoSession, req.params.key, req.body);
    throw new Error('as the test wants it');
  });
  app.post('/mixed/:key', (req, res) => {
    assign(req.djangoSession, req.params.key, req.body);
    res.set('X-Session-Set', '{}').send('mixed');
  });
  const change = async (req, res, next) => {
    try {
      const { act, key } = req.params;
      if (!Object.hasOwn(changes, act)) return next();
      const body = typeof req.body === 'string' ? req.body : '';
      await changes[act](req.djangoSession, key, body, req.headers);
      res.json({ session: contents(req.djangoSession) });
    } catch (error) {
      next(error);
    }
  };
  app.post('/:act', change);
  app.post('/:act/:key', change);
  return createServer(app);
}

async function fastify(name) {
  const { default: Fastify } = await import(name);
  const { djangoSession } = await import('session-gateway-upstream/fastify');
  const app = Fastify({ logger: { level: 'warn', stream: process.stderr } });
  await app.register(djangoSession, options);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body));
  app.get('/healthz', async () => 'ok');
  app.get('/session', async (request) => show(request.djangoSession));
  app.post('/redirect/:key', async (request, reply) => {
    request.djangoSession.data[request.params.key] = JSON.parse(request.body);
    return reply.code(303).redirect('/session');
  });
  app.post('/stream/:key', async (request, reply) => {
    assign(request.djangoSession, request.params.key, request.body);
    return reply.send(Readable.from(['one', 'two', 'three']));
  });
  app.post('/late/:key', async (request, reply) => {
    return reply.send(Readable.from(lateChunks(request.djangoSession, request.params.key)));
  });
  app.post('/fail/:key', async (request) => {
    assign(request.djangoSession, request.params.key, request.body);
    throw new Error('as the test wants it');
  });
  app.post('/mixed/:key', async (request, reply) => {
    assign(request.djangoSession, request.params.key, request.body);
    return reply.header('X-Session-Set', '{}').send('mixed');
  });
  const change = async (request, reply) => {
    const { act, key } = request.params;
    if (!Object.hasOwn(changes, act)) return reply.callNotFound();
    await changes[act](request.djangoSession, key, request.body ?? '', request.headers);
    return { session: contents(request.djangoSession) };
  };
  app.post('/:act', change);
  app.post('/:act/:key', change);
  await app.ready();
  return app;
}

const programs = {
  http: plain,
  express: () => express('express'),
  express4: () => express('express4'),
  fastify: () => fastify('fastify'),
  fastify4: () => fastify('fastify4'),
};
if (!Object.hasOwn(programs, framework)) {
  console.error(`usage: service.js ${Object.keys(programs).join('|')}`);
  process.exit(2);
}
const server = await programs[framework]();
if (server.server === undefined) await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
else await server.listen({ port: 0, host: '127.0.0.1' });
const { port } = (server.server ?? server).address();
process.stdout.write(`listening on 127.0.0.1:${port}\n`);
// Not before what was logged is written: under load a pipe takes it later.
process.stdin.on('end', () => process.stderr.write('', () => process.exit(0))).resume();
