import { describe, SessionError } from './errors.js';

const LIFE = 300_000;
/** Anybody can send a `kid` that there is not: it must not become a request each. */
const PAUSE = 5_000;
const TIMEOUT = 5_000;

/**
 * A function for `publicKeys` that fetches them from the gateway's JWK set: every five minutes, and for a `kid` that it
 * does not know, but at most every five seconds.
 */
export function remoteKeys(url, { now = Date.now } = {}) {
  const address = new URL(url);
  let keys = new Map();
  let good = -Infinity;
  let tried = -Infinity;
  let fetching = null;

  const refresh = () => {
    tried = now();
    fetching ??= fetchKeys(address)
      .then((found) => {
        keys = found;
        good = now();
      })
      .catch((error) => {
        throw new SessionError(`the JWK set of the gateway could not be fetched: ${describe(error)}`);
      })
      .finally(() => {
        fetching = null;
      });
    return fetching;
  };

  return async function publicKey(kid) {
    const isStale = now() - good >= LIFE;
    // Without good keys each request waits for the next try or joins the one that is under way.
    if (fetching !== null || now() - tried >= PAUSE) {
      if (isStale || !keys.has(kid)) await refresh();
    } else if (isStale) {
      throw new SessionError('the JWK set of the gateway could not be fetched');
    }
    return keys.get(kid);
  };
}

async function fetchKeys(address) {
  const response = await fetch(address, { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT) });
  if (!response.ok) throw new SessionError(`the answer was ${response.status}`);
  const { keys } = await response.json();
  const ours = keys.filter(({ kty, crv, kid, x }) => {
    return kty === 'OKP' && crv === 'Ed25519' && typeof kid === 'string' && typeof x === 'string';
  });
  return new Map(ours.map(({ kid, x }) => [kid, x]));
}
