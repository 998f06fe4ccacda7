import { describe, SessionError } from './errors.js';

const LIFE = 300_000;
/** Anybody can send a `kid` that there is not: it must not become a request each. */
const PAUSE = 5_000;
const TIMEOUT = 5_000;
const MAX_BYTES = 65_536;

/**
 * A function for `publicKeys` that fetches them from the gateway's JWK set: every five minutes, and for a `kid` that it
 * does not know, but at most every five seconds. An answer that takes longer than that, or is over 64 KiB, is a failure.
 */
export function remoteKeys(url, { now = () => performance.now(), timeout = TIMEOUT } = {}) {
  const address = new URL(url);
  let keys = new Map();
  let good = -Infinity;
  let tried = -Infinity;
  let fetching = null;

  const refresh = () => {
    tried = now();
    fetching ??= fetchKeys(address, timeout)
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

async function fetchKeys(address, timeout) {
  const text = await fetchText(address, timeout);
  const { keys } = JSON.parse(text);
  const ours = keys.filter(({ kty, crv, kid, x }) => {
    return kty === 'OKP' && crv === 'Ed25519' && typeof kid === 'string' && typeof x === 'string';
  });
  return new Map(ours.map(({ kid, x }) => [kid, x]));
}

/**
 * Once the head of the answer is there, `fetch` holds its signal weakly: after a garbage collection an abort no longer
 * ends the body. So the time is kept here; the signal only ends what waits for the head.
 */
async function fetchText(address, timeout) {
  const controller = new AbortController();
  let timer;
  let reader;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new SessionError(`it took longer than ${timeout / 1000} s`)), timeout);
  });

  const read = async () => {
    const response = await fetch(address, { redirect: 'error', signal: controller.signal });
    reader = response.body?.getReader();
    if (!response.ok) throw new SessionError(`the answer was ${response.status}`);
    const chunks = [];
    let size = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new TextDecoder().decode(Buffer.concat(chunks));
      size += value.length;
      if (size > MAX_BYTES) throw new SessionError(`it is larger than ${MAX_BYTES / 1024} KiB`);
      chunks.push(value);
    }
  };

  try {
    return await Promise.race([read(), late]);
  } finally {
    clearTimeout(timer);
    controller.abort();
    // What is left of the answer is not waited for.
    reader?.cancel().catch(() => {});
  }
}
