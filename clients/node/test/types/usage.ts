// Not run: tsc tells whether the declared types let right use pass and stop wrong use.
import { createServer } from 'node:http';
import express from 'express';
import Fastify from 'fastify';
import {
  createVerifier,
  remoteKeys,
  Session,
  SessionClosed,
  SessionError,
  SessionRefused,
  SessionValueError,
  SessionWithheld,
  type Claims,
} from 'session-gateway-upstream';
import { djangoSession as forExpress } from 'session-gateway-upstream/express';
import fastifyDefault, { djangoSession as forFastify } from 'session-gateway-upstream/fastify';
import { djangoSession as forHttp } from 'session-gateway-upstream/http';

declare module 'session-gateway-upstream' {
  interface SessionData {
    cart?: string[];
  }
}

const options = { keys: { 'orders-1': 'secret' }, audience: 'orders', issuer: 'gateway' };

const verify = createVerifier({ ...options, keys: async (kid) => (kid === 'a' ? new Uint8Array(32) : undefined) });
const claims: Claims = await verify('token', { method: 'GET', host: 'shop', target: '/' }, 1);
createVerifier({ publicKeys: { gw: 'x' }, audience: 'orders', issuer: 'gateway', leeway: 5, checkRequest: 'always' });
createVerifier({ publicKeys: remoteKeys('http://gateway'), audience: 'orders', issuer: 'gateway' });
// @ts-expect-error: audience is missing
createVerifier({ keys: {}, issuer: 'gateway' });
// @ts-expect-error: no such word
createVerifier({ ...options, checkRequest: 'sometimes' });
// @ts-expect-error: claims are read only
claims.sub = '2';

const session = new Session({ sub: '1', session: { cart: [] } });
const userId: string | null = session.userId;
const ends: Date | null = session.expiresAt;
session.data.cart?.push('tea');
session.data['anything'] = { of: ['json'] };
// @ts-expect-error: a cart holds strings
session.data.cart = [1];
// @ts-expect-error: keys are in data
session.cart = [];
// @ts-expect-error: data is not replaced as a whole
session.data = {};
session.setExpiry(null);
// @ts-expect-error: seconds
session.setExpiry('1h');
const header: string | null = session.seal();

const app = express();
app.use(forExpress({ ...options, exempt: ['/healthz'], onRefused: (error, _req, res) => void res.end(error.code) }));
app.use(
  forExpress({
    ...options,
    exempt: (req) => req.path === '/healthz' || req.query['token'] !== undefined,
    onRefused: (error, _req, res) => res.status(403).json({ code: error.code }),
  }),
);
app.use(
  forExpress({ ...options, onRefused: async (_error, req, res) => res.redirect(`/login?next=${req.originalUrl}`) }),
);
// @ts-expect-error: a boolean, and no promise of one
app.use(forExpress({ ...options, exempt: async (req) => req.path === '/healthz' }));
app.get('/', (req, res) => {
  res.json(req.djangoSession.data.cart);
});

const fastify = Fastify({ logger: true });
await fastify.register(forFastify, { ...options, exempt: (request) => request.url === '/healthz' });
await fastify.register(fastifyDefault, { ...options, onRefused: (_error, _request, reply) => reply.code(403).send() });
fastify.get('/', async (request) => request.djangoSession.userId);

const wrap = forHttp({ ...options, logger: console });
forHttp({ ...options, onRefused: (_error, req, res) => res.writeHead(403).end(req.url) });
const server = createServer(
  wrap((req, res) => {
    res.end(req.djangoSession.sid);
  }),
);
server.on(
  'upgrade',
  wrap.upgrade((req, socket) => socket.end(req.djangoSession.seal() ?? '')),
);

const errors: SessionError[] = [new SessionClosed(), new SessionValueError(), new SessionWithheld()];
const refused = (error: unknown) => error instanceof SessionRefused && error.reason === 'expired' && error.status;

export { ends, errors, header, refused, userId };
