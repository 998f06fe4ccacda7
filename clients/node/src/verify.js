import { createHash, createHmac, timingSafeEqual, verify as verifySignature } from 'node:crypto';

import { describe, SessionRefused } from './errors.js';
import { encodeString, parseJson } from './json.js';
import { KID, readSettings } from './settings.js';

const MAX_TOKEN = 65536;
const TYP = 'x-session.v1+jwt';
const SAFE = ['GET', 'HEAD', 'OPTIONS', 'TRACE'];
const TEXTS = ['iss', 'aud', 'jti', 'req'];
const OPTIONAL_TEXTS = ['sub', 'sid', 'rev', 'withheld'];

/** A function that checks tokens: `verify(token, request)` gives the claims, or rejects with a `SessionRefused`. */
export function createVerifier(options) {
  return verifierOf(readSettings(options));
}

/** The same for options that were read. */
export function verifierOf(settings) {
  return async function verify(token, request, now = Date.now() / 1000) {
    const { header, signed, signature, payload } = split(token);
    checkHeader(header);
    await checkSignature(settings, header, signed, signature);
    const claims = asObject(payload);
    checkClaims(claims);
    checkParties(claims, settings);
    checkTime(claims, now, settings.leeway);
    checkRequest(claims, request, settings.checkRequest);
    return deepFreeze(claims);
  };
}

function split(token) {
  if (typeof token !== 'string') throw new SessionRefused('malformed', 'no string');
  if (token.length > MAX_TOKEN) throw new SessionRefused('malformed', 'over 64 KiB');
  const parts = token.split('.');
  if (parts.length !== 3) throw new SessionRefused('malformed', 'not three parts');
  const [head, body, signature] = parts;
  return { header: asObject(decode(head)), signed: `${head}.${body}`, signature, payload: decode(body) };
}

/** Strict base64url: Buffer takes padding, blanks, both alphabets and any last bits. */
function decode(text) {
  const bytes = Buffer.from(text, 'base64url');
  if (text === '' || bytes.toString('base64url') !== text) throw new SessionRefused('malformed', 'not base64url');
  return bytes;
}

function asObject(bytes) {
  let value;
  try {
    value = parseJson(bytes);
  } catch {
    // The reason of JSON.parse quotes the text.
    throw new SessionRefused('malformed', 'not JSON, or a name twice');
  }
  if (!isObject(value)) throw new SessionRefused('malformed', 'not an object');
  return value;
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function checkHeader(header) {
  // Nothing else is defined. What a new member would mean, such as "crit", is not known here.
  const names = Object.keys(header).sort().join();
  if (names !== 'alg,kid,typ' || Object.values(header).some((value) => typeof value !== 'string')) {
    throw new SessionRefused('malformed', 'the header is not alg, kid and typ');
  }
  if (header.typ !== TYP) throw new SessionRefused('algorithm', `the typ is not ${TYP}`);
}

/** The key is looked up among those of the algorithm, so that a token never chooses how a key is used. */
async function checkSignature(settings, { alg, kid }, signed, signature) {
  const finders = { HS256: settings.secret, EdDSA: settings.publicKey };
  if (!Object.hasOwn(finders, alg)) throw new SessionRefused('algorithm');
  // Nothing of the token is proven yet, and a function of the application may make a path or a query of the kid.
  if (!KID.test(kid))
    throw new SessionRefused('unknown-kid', 'the kid is not 1 to 64 of the letters A-Z a-z 0-9 . _ -');
  const key = await find(finders[alg], kid);
  if (key === undefined) {
    const other = await find(alg === 'HS256' ? settings.publicKey : settings.secret, kid);
    throw other === undefined ? new SessionRefused('unknown-kid', kid) : new SessionRefused('algorithm');
  }
  const fits = alg === 'HS256' ? fitsSecret(key, signed, signature) : fitsPublicKey(key, signed, signature);
  if (!fits) throw new SessionRefused('signature');
}

async function find(finder, kid) {
  try {
    return await finder(kid);
  } catch (error) {
    throw new SessionRefused('no-key', describe(error));
  }
}

/** The encoded text is compared, in constant time: there is only one spelling of the right signature. */
function fitsSecret(key, signed, signature) {
  const right = Buffer.from(createHmac('sha256', key).update(signed, 'latin1').digest('base64url'), 'latin1');
  const got = Buffer.from(signature, 'utf8');
  return got.length === right.length && timingSafeEqual(got, right);
}

function fitsPublicKey(key, signed, signature) {
  const bytes = Buffer.from(signature, 'base64url');
  if (bytes.length !== 64 || bytes.toString('base64url') !== signature) return false;
  return verifySignature(null, Buffer.from(signed, 'latin1'), key, bytes);
}

function checkClaims(claims) {
  const isText = (name) => typeof claims[name] === 'string';
  const has = (name) => Object.hasOwn(claims, name);
  const good =
    TEXTS.every((name) => has(name) && isText(name)) &&
    OPTIONAL_TEXTS.every((name) => !has(name) || isText(name)) &&
    ['iat', 'exp'].every((name) => has(name) && Number.isSafeInteger(claims[name])) &&
    (!has('session_exp') || Number.isSafeInteger(claims.session_exp)) &&
    ['session', 'user'].every((name) => !has(name) || isObject(claims[name])) &&
    has('session') !== has('withheld');
  if (!good) throw new SessionRefused('malformed', 'a claim is missing or of another type');
}

function checkParties({ aud, iss }, { audience, issuer }) {
  const difference = (got, own) => `${encodeString(got)} is not ${encodeString(own)}`;
  if (aud !== audience) throw new SessionRefused('audience', difference(aud, audience));
  if (iss !== issuer) throw new SessionRefused('issuer', difference(iss, issuer));
}

function checkTime({ iat, exp }, now, leeway) {
  if (!(now <= exp + leeway)) throw new SessionRefused('expired');
  if (!(now >= iat - leeway)) throw new SessionRefused('not-yet-valid');
}

/** What is not known is not the same: without method, host and target a token is refused. */
function checkRequest(claims, request, when) {
  if (when === 'never') return;
  const { method, host, target, upgrade } = request ?? {};
  if (when === 'unsafe' && SAFE.includes(method) && upgrade !== true) return;
  if (![method, host, target].every((part) => typeof part === 'string')) {
    throw new SessionRefused('other-request', 'method, host and target must be told to compare them');
  }
  const digest = createHash('sha256').update(`${method} ${host} ${target}`, 'latin1').digest('base64url');
  if (digest !== claims.req) throw new SessionRefused('other-request');
}

function deepFreeze(value) {
  const open = [value];
  while (open.length > 0) {
    const next = open.pop();
    if (typeof next !== 'object' || next === null) continue;
    Object.freeze(next);
    open.push(...Object.values(next));
  }
  return value;
}
