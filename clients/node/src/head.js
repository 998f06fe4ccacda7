import { describe, SessionError } from './errors.js';
import { internals } from './session.js';

const NAME = 'X-Session-Set';
const LOWER = NAME.toLowerCase();

/**
 * Puts the session's changes on the head of `res` just before it goes out, and closes the session.
 *
 * Every way to a head in node:http ends in `writeHead`, also the implicit ones of `write`, `end`, `flushHeaders` and
 * `pipe`. The implicit ways are looked at one step earlier as well: where the change cannot be sent, the whole response
 * is replaced, and from inside of `write` it would be too late.
 */
export function guardHead(res, session, logger) {
  const lost = () => {
    logger.error('session-gateway-upstream: the session was changed, and no head went out; that is not stored');
  };
  // While the token was checked: a timeout in front of this answered, or the client has left.
  if (res.headersSent) internals.close(session);
  else if (res.destroyed || res.stream?.destroyed) internals.abandon(session, lost);

  const { writeHead, write, end, flushHeaders } = res;
  let replaced = false;
  /** A call of Node's own `write`, `end` or `flushHeaders` is under way. */
  let inside = false;

  const isOpen = () => !replaced && !internals.isClosed(session) && !internals.isAbandoned(session) && !res.headersSent;

  /** The value for the head, or null. Nothing goes with 5xx: the gateway would ignore it. */
  const valueFor = (status, headers) => {
    if (status >= 500) return null;
    const value = internals.header(session);
    if (value !== null && (res.hasHeader(NAME) || namesOf(headers).includes(LOWER))) {
      throw new SessionError(`the session was changed, and ${NAME} was also set by hand`, 'x-session-set-twice');
    }
    return value;
  };

  const replace = (error) => {
    internals.close(session);
    const code = error instanceof SessionError && error.code !== undefined ? error.code : 'x-session-set-invalid';
    logger.error(
      `session-gateway-upstream: answered 500, nothing of the session is stored: ${describe(error)} (${code})`,
    );
    res.statusCode = 500;
    if (res.req?.httpVersionMajor !== 2) res.statusMessage = '';
    if (inside) {
      // Another wrapper of the head made this change while a body was being written: that one has to follow.
      res.removeHeader(NAME);
      writeHead.call(res, 500);
      return;
    }
    for (const name of res.getHeaderNames()) res.removeHeader(name);
    const body = JSON.stringify({ code });
    writeHead.call(res, 500, {
      'Content-Type': 'application/json',
      'Content-Length': body.length,
      'Cache-Control': 'no-store',
    });
    end.call(res, body);
    replaced = true;
  };

  const within = (method, args) => {
    const outer = inside;
    inside = true;
    try {
      return method.apply(res, args);
    } finally {
      inside = outer;
    }
  };

  /** Before an implicit head. */
  const look = () => {
    if (!isOpen()) return;
    try {
      valueFor(res.statusCode, undefined);
    } catch (error) {
      replace(error);
    }
  };

  res.writeHead = function (...args) {
    if (replaced) return res;
    if (!isOpen()) return writeHead.apply(res, args);
    // Node takes the fields from the second argument where the third is nothing, and looks at no fourth.
    args.length = Math.min(args.length, 3);
    while (args.length > 1 && (args.at(-1) === undefined || args.at(-1) === null)) args.pop();
    let value;
    try {
      value = valueFor(args[0], args.at(-1));
    } catch (error) {
      replace(error);
      return res;
    }
    // Other wrappers run inside of this: what they change would be lost.
    internals.close(session);
    const hadHeaders = typeof args.at(-1) === 'object' && args.at(-1) !== null;
    try {
      if (value === null) return writeHead.apply(res, args);
      if (hadHeaders) args[args.length - 1] = withField(args.at(-1), value);
      else res.setHeader(NAME, value);
      return writeHead.apply(res, args);
    } catch (error) {
      // No head went out, for instance because of a status that there is not.
      internals.reopen(session);
      if (value !== null) res.removeHeader(NAME);
      throw error;
    }
  };

  res.write = function (...args) {
    look();
    if (!replaced) return within(write, args);
    const callback = args.find((arg) => typeof arg === 'function');
    if (callback !== undefined) process.nextTick(callback);
    return true;
  };

  res.end = function (...args) {
    look();
    if (!replaced) return within(end, args);
    const callback = args.find((arg) => typeof arg === 'function');
    if (callback !== undefined) {
      if (res.writableFinished) process.nextTick(callback);
      else res.once('finish', callback);
    }
    return res;
  };

  res.flushHeaders = function () {
    look();
    if (!replaced) within(flushHeaders, []);
  };

  const ended = () => {
    if (internals.isClosed(session)) {
      if (!internals.changedSinceClose(session)) return;
      logger.error('session-gateway-upstream: the session was changed after the head had gone out; that is not stored');
    } else {
      // The client has left before it, or it was written past `res`, as WebSocket plugins do.
      internals.abandon(session, lost);
    }
  };
  res.once('close', ended);
  // Such a response is made for middleware only, and never ends.
  if (res.socket === null && res.req?.headers.upgrade !== undefined) res.req.socket.once('close', ended);
}

/** The lower-case names in the last argument of `writeHead`: an object, pairs, or names and values in turn. */
function namesOf(headers) {
  if (typeof headers !== 'object' || headers === null) return [];
  let names = Object.keys(headers);
  if (Array.isArray(headers)) {
    names = Array.isArray(headers[0]) ? headers.map(([name]) => name) : headers.filter((_, at) => at % 2 === 0);
  }
  return names.map((name) => String(name).toLowerCase());
}

function withField(headers, value) {
  if (!Array.isArray(headers)) return { ...headers, [NAME]: value };
  return Array.isArray(headers[0]) ? [...headers, [NAME, value]] : [...headers, NAME, value];
}
