// Checks tokens with jose as docs say: reads {"kid","secret" or "jwks","audience","issuer","tokens"} as JSON, prints
// the claims as a JSON list. "jwks" is the URL of the gateway's public keys: then the tokens are EdDSA, else HS256.
// Run in a folder whose node_modules has jose.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { webcrypto } from 'node:crypto';
import { pathToFileURL } from 'node:url';

globalThis.crypto ??= webcrypto; // Node 18, as in Debian 12.
const jose = createRequire(`${process.cwd()}/`).resolve('jose');
const { createRemoteJWKSet, jwtVerify } = await import(pathToFileURL(jose));

const asked = JSON.parse(readFileSync(0, 'utf8'));
const [key, algorithm] = asked.jwks
  ? [createRemoteJWKSet(new URL(asked.jwks)), 'EdDSA']
  : [new TextEncoder().encode(asked.secret), 'HS256'];
const claims = [];
for (const token of asked.tokens) {
  const { payload, protectedHeader } = await jwtVerify(token, key, {
    algorithms: [algorithm],
    typ: 'x-session.v1+jwt',
    audience: asked.audience,
    issuer: asked.issuer,
    requiredClaims: ['exp', 'iat'],
    clockTolerance: 30,
  });
  if (protectedHeader.kid !== asked.kid) throw new Error(`kid ${protectedHeader.kid}`);
  claims.push(payload);
}
process.stdout.write(JSON.stringify(claims));
