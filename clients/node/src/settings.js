import { createPublicKey, createSecretKey } from 'node:crypto';

import { SessionError } from './errors.js';
import { encodeString } from './json.js';

/** What a `kid` is. One that comes in a token goes to functions of the application, and into the log. */
export const KID = /^[A-Za-z0-9._-]{1,64}$/;
const MIN_SECRET = 32;
const OPTIONS = ['keys', 'publicKeys', 'audience', 'issuer', 'leeway', 'checkRequest', 'exempt', 'onRefused', 'logger'];
const CHECKS = ['unsafe', 'always', 'never'];

function wrong(sentence) {
  return new TypeError(`session-gateway-upstream: ${sentence}`);
}

/** Reads the options; a mistake is a TypeError of one sentence. */
export function readSettings(options) {
  if (typeof options !== 'object' || options === null) throw wrong('options are missing');
  const unknown = Object.keys(options).find((name) => !OPTIONS.includes(name));
  if (unknown !== undefined)
    throw wrong(`there is no option ${JSON.stringify(unknown)}; there are ${OPTIONS.join(', ')}`);
  const { keys, publicKeys, leeway = 30, checkRequest = 'unsafe', exempt = [], onRefused, logger = console } = options;
  if (keys === undefined && publicKeys === undefined) throw wrong('keys or publicKeys is required');
  if (typeof leeway !== 'number' || !(leeway >= 0 && leeway <= 300)) {
    throw wrong('leeway is a number of seconds from 0 to 300');
  }
  if (!CHECKS.includes(checkRequest)) throw wrong("checkRequest is 'unsafe', 'always' or 'never'");
  if (onRefused !== undefined && typeof onRefused !== 'function') throw wrong('onRefused is a function');
  if (typeof logger?.warn !== 'function' || typeof logger?.error !== 'function') {
    throw wrong('logger has the methods warn and error');
  }
  const settings = {
    audience: name(options, 'audience'),
    issuer: name(options, 'issuer'),
    leeway,
    checkRequest,
    isExempt: exemption(exempt),
    onRefused,
    logger,
    secret: keyFinder('keys', keys, secretKey),
    publicKey: keyFinder('publicKeys', publicKeys, publicKey),
  };
  return Object.freeze(settings);
}

function name(options, option) {
  const value = options[option];
  if (typeof value !== 'string' || value === '') throw wrong(`${option} is required, and is a string`);
  return value;
}

function exemption(exempt) {
  // Not any truthy value: the promise of an async function would let everybody in.
  if (typeof exempt === 'function') return (req) => exempt(req) === true;
  if (!Array.isArray(exempt) || exempt.some((path) => typeof path !== 'string' || !path.startsWith('/'))) {
    throw wrong('exempt is an array of paths that begin with /, or a function');
  }
  const paths = new Set(exempt);
  return (_req, target) => paths.has(target.split('?', 1)[0]);
}

/** A function from `kid` to a KeyObject, or to undefined for a `kid` that is not known. */
function keyFinder(option, keys, read) {
  if (keys === undefined) return async () => undefined;
  if (typeof keys === 'function') {
    return async (kid) => {
      const found = await keys(kid);
      if (found === undefined || found === null) return undefined;
      try {
        return read(option, kid, found);
      } catch (error) {
        // A sentence of this package, not one of the application's.
        throw new SessionError(error.message);
      }
    };
  }
  if (typeof keys !== 'object' || keys === null || Object.keys(keys).length === 0) {
    throw wrong(`${option} is an object of at least one kid and its key, or a function`);
  }
  const bad = Object.keys(keys).find((kid) => !KID.test(kid));
  if (bad !== undefined) {
    throw wrong(`${option}: ${encodeString(bad)} is no kid; a kid is 1 to 64 of the letters A-Z a-z 0-9 . _ -`);
  }
  const found = new Map(Object.entries(keys).map(([kid, key]) => [kid, read(option, kid, key)]));
  return async (kid) => found.get(kid);
}

/** Text is what the gateway's file or variable holds; bytes are the secret itself. */
function secretKey(option, kid, written) {
  const at = `${option}[${JSON.stringify(kid)}]`;
  let bytes = written;
  if (typeof written === 'string') {
    const text = written.replace(/\r?\n$/, '');
    if (text.startsWith('base64:')) {
      const encoded = text.slice('base64:'.length).replace(/={0,2}$/, '');
      bytes = Buffer.from(encoded, 'base64');
      // Buffer leaves out what it does not know.
      if (![bytes.toString('base64'), bytes.toString('base64url')].some((one) => one.replace(/=*$/, '') === encoded)) {
        throw wrong(`${at}: what follows base64: is not base64`);
      }
    } else {
      bytes = Buffer.from(text, 'utf8');
    }
  } else if (!(written instanceof Uint8Array)) {
    throw wrong(`${at} is not a secret: it is neither text nor bytes`);
  } else if (Buffer.from(written.subarray(0, 7)).toString('latin1') === 'base64:') {
    throw wrong(`${at} begins with base64: but is bytes; read it as text, such as readFileSync(path, 'utf8')`);
  }
  if (bytes.length < MIN_SECRET) throw wrong(`${at} has ${bytes.length} bytes; a secret has at least ${MIN_SECRET}`);
  return createSecretKey(bytes);
}

function publicKey(option, kid, x) {
  const fault = wrong(`${option}[${JSON.stringify(kid)}] is not the member x of an Ed25519 key's JWK`);
  if (typeof x !== 'string' || !/^[A-Za-z0-9_-]{43}$/.test(x)) throw fault;
  try {
    return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  } catch {
    throw fault;
  }
}
