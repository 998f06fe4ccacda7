import { createHash, createHmac } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const KEY = 'a secret of the tests, long enough for them';
export const OPTIONS = { keys: { 'orders-1': KEY }, audience: 'orders', issuer: 'gw.test' };

/** tests/vectors/contract.json of the repository: where SG_VECTORS says, or in a folder above this one. */
export function vectors() {
  const given = process.env.SG_VECTORS;
  if (given !== undefined) return read(statSync(given).isDirectory() ? join(given, 'contract.json') : given);
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, 'tests/vectors/contract.json');
    if (existsSync(file)) return read(file);
    if (folder === dirname(folder)) throw new Error('no tests/vectors/contract.json above: set SG_VECTORS');
  }
}

const read = (file) => JSON.parse(readFileSync(file, 'utf8'));

const base64url = (value) => Buffer.from(value).toString('base64url');

/** A token of these texts; `header` and `payload` may be objects too. */
export function sign(payload, { header = {}, key = KEY } = {}) {
  const text = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const whole =
    typeof header === 'string' ? header : { alg: 'HS256', kid: 'orders-1', typ: 'x-session.v1+jwt', ...header };
  const signed = `${base64url(text(whole))}.${base64url(text(payload))}`;
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
}

/** Claims of a logged-in visitor, good now; a claim that is undefined is not there. */
export function claims(changes = {}) {
  const now = Math.floor(Date.now() / 1000);
  return {
    iss: 'gw.test',
    aud: 'orders',
    iat: now,
    exp: now + 60,
    jti: 'AAECAwQFBgcICQoLDA0ODw',
    req: 'x',
    sid: 'sid-1',
    rev: 'rev-1',
    session_exp: now + 3600,
    sub: '42',
    session: { cart: [1], lang: 'fr' },
    ...changes,
  };
}

export const digest = (method, host, target) =>
  createHash('sha256').update(`${method} ${host} ${target}`, 'latin1').digest('base64url');

/** Collects log lines. */
export function logger() {
  const lines = [];
  return { lines, warn: (line) => lines.push(`warn ${line}`), error: (line) => lines.push(`error ${line}`) };
}

/** A server of `handler` on a port of its own, ended after the test `t`. Gives the port. */
export async function serve(t, handler, create = createServer) {
  const server = create(handler);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections?.();
    server.close();
  });
  return server.address().port;
}

/** One request with a token for just this request; `token: null` sends none, an array several. */
export function ask(port, { method = 'GET', path = '/', body, headers = {}, session, withClaims = {}, token } = {}) {
  const given = session === undefined ? withClaims : { session, ...withClaims };
  const right = sign(claims({ req: digest(method, `127.0.0.1:${port}`, path), ...given }));
  const fields = { ...headers };
  if (token !== null) fields['X-Session'] = token ?? right;
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, method, path, headers: fields, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => (text += chunk));
      response.once('error', reject);
      response.once('end', () => {
        const { statusCode: status, headers, rawHeaders } = response;
        resolve({ status, headers, rawHeaders, text, change: headers['x-session-set'] });
      });
    });
    asked.once('error', reject).end(body);
  });
}
