import { SessionValueError } from './errors.js';

/** The gateway takes 32 levels; the object of the header and its `set` are two of them. */
const MOST_NESTED = 30;
/** What is read may be deeper than what may be written. This only keeps the stack safe. */
const MOST_NESTED_READ = 100;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The value of a JSON text. Throws where it is not UTF-8, not JSON, nested too deep, or says a name twice. */
export function parseJson(bytes) {
  const text = utf8.decode(bytes);
  const value = JSON.parse(text);
  checkNames(text);
  return value;
}

/** `text` is JSON. `JSON.parse` takes the last of two equal names; other readers take the first. */
function checkNames(text) {
  const open = [];
  let isName = false;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
      case '[':
        isName = text[at] === '{';
        open.push(isName ? new Set() : null);
        if (open.length > MOST_NESTED_READ) throw new SyntaxError('nested too deep');
        break;
      case '}':
      case ']':
        open.pop();
        break;
      case ',':
        isName = open.at(-1) !== null;
        break;
      case ':':
        isName = false;
        break;
      case '"': {
        const start = at;
        for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
        if (!isName) break;
        const name = JSON.parse(text.slice(start, at + 1));
        if (open.at(-1).has(name)) throw new SyntaxError('a name stands twice');
        open.at(-1).add(name);
      }
    }
  }
}

/** The value as JSON in ASCII, by the gateway's rules. Throws a `SessionValueError` that names `key`. */
export function encode(value, key) {
  return write(value, key, { strict: true, sorted: false }, 0);
}

/** Two values have the same text if they are equal as JSON: order of names aside, and whatever numbers they hold. */
export function comparable(value, key) {
  return write(value, key, { strict: false, sorted: true }, 0);
}

/** A string as JSON in ASCII: Node would write `é` as one byte of Latin-1, and throw on `日`. */
export function encodeString(text) {
  return JSON.stringify(text).replace(
    /[^\x20-\x7e]/g,
    (unit) => '\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0'),
  );
}

/** Refuses a string that Django's databases or other readers of JSON would not take. */
export function checkString(text, key) {
  if (text.includes('\0')) throw cannot(key, 'a NUL character');
  // With the flag u, a half of a surrogate pair is a character of its own.
  if (/\p{Surrogate}/u.test(text)) throw cannot(key, 'half a surrogate pair');
}

function cannot(key, what) {
  return new SessionValueError(`session key ${encodeString(key)} cannot hold ${what}`);
}

function write(value, key, how, depth) {
  if (typeof value === 'object' && value !== null && typeof value.toJSON === 'function') value = value.toJSON('');
  switch (typeof value) {
    case 'string':
      if (how.strict) checkString(value, key);
      return encodeString(value);
    case 'boolean':
      return String(value);
    case 'number':
      if (!Number.isFinite(value)) throw cannot(key, 'NaN or Infinity');
      // Such a number may have lost digits when it was read. Written back it would be another one.
      if (how.strict && Number.isInteger(value) && !Number.isSafeInteger(value)) {
        throw cannot(key, 'an integer beyond 2^53: JavaScript does not keep its digits; use a string');
      }
      return JSON.stringify(value);
    case 'object':
      return value === null ? 'null' : writeContainer(value, key, how, depth + 1);
    case 'undefined':
      throw cannot(key, 'undefined: delete the key, or use null');
    default:
      throw cannot(key, `a ${typeof value}`);
  }
}

function writeContainer(value, key, how, depth) {
  if (depth > (how.strict ? MOST_NESTED : MOST_NESTED_READ)) {
    throw cannot(key, `more than ${MOST_NESTED} objects and arrays inside each other, or itself`);
  }
  if (Array.isArray(value)) {
    // Not map(): it leaves holes out.
    return `[${Array.from(value, (item) => write(item, key, how, depth)).join(',')}]`;
  }
  const tag = Object.prototype.toString.call(value);
  if (tag !== '[object Object]') throw cannot(key, `a ${tag.slice(8, -1)}`);
  if (Object.getOwnPropertySymbols(value).length > 0) throw cannot(key, 'a name that is a symbol');
  // As in JSON.stringify, a member that is undefined is not there.
  const names = Object.keys(value).filter((name) => value[name] !== undefined);
  if (how.sorted) names.sort();
  const members = names.map((name) => {
    if (how.strict) checkString(name, key);
    return `${encodeString(name)}:${write(value[name], key, how, depth)}`;
  });
  return `{${members.join(',')}}`;
}
