import { STATUS_CODES } from 'node:http';

import { describe, SessionRefused } from './errors.js';
import { Gate, refuse } from './gate.js';
import { guardHead } from './head.js';
import { internals } from './session.js';

/** A wrapper for handlers of node:http (and of HTTP/2's compatibility API) that sets `req.djangoSession`. */
export function djangoSession(options) {
  const gate = new Gate(options);
  const { logger } = gate.settings;

  const wrap = (handler) => async (req, res) => {
    try {
      if (!gate.isExempt(req, req.url)) {
        const session = await gate.open(req, req.url);
        guardHead(res, session, logger);
        req.djangoSession = session;
      }
    } catch (error) {
      await answer(error, req, res);
      return;
    }
    try {
      await handler(req, res);
    } catch (error) {
      // Not thrown on: nobody takes the rejection, and one visitor would end the process for all.
      logger.error(`session-gateway-upstream: the handler failed: ${stackOf(error)}`);
      answer500(res);
    }
  };

  const answer = async (error, req, res) => {
    try {
      if (!(error instanceof SessionRefused)) throw error;
      await refuse(gate, error, req, res);
    } catch (unexpected) {
      logger.error(`session-gateway-upstream: answered 500: ${describe(unexpected)} in exempt or onRefused`);
      answer500(res);
    }
  };

  wrap.upgrade = (handler) => async (req, socket, head) => {
    // Until a handler listens, a connection that breaks would end the process.
    const ignore = () => {};
    socket.on('error', ignore);
    try {
      if (!gate.isExempt(req, req.url)) {
        req.djangoSession = await gate.open(req, req.url, { upgrade: true });
      }
    } catch (error) {
      refuseUpgrade(gate, error, socket);
      return;
    }
    const session = req.djangoSession;
    if (session !== undefined) {
      if (socket.destroyed) warnOfUnsealed(session, logger);
      else socket.once('close', () => warnOfUnsealed(session, logger));
    }
    try {
      await handler(req, socket, head);
      socket.off('error', ignore);
    } catch (error) {
      logger.error(`session-gateway-upstream: the handler of a handshake failed: ${stackOf(error)}`);
      socket.destroy();
    }
  };

  return wrap;
}

/** What a handler throws is the application's: its stack goes into the log, as Node would print it. */
function stackOf(error) {
  return typeof error?.stack === 'string' ? error.stack : describe(error);
}

/** RFC 9113, 7. Without it the stream would end as if the answer were whole. */
const HTTP2_INTERNAL_ERROR = 2;

/** Where a part of an answer is out, only breaking it off tells that it is not whole. */
function answer500(res) {
  if (res.writableEnded) return;
  if (res.headersSent) {
    if (res.req.httpVersionMajor === 2) res.stream.close(HTTP2_INTERNAL_ERROR);
    else res.destroy();
    return;
  }
  for (const name of res.getHeaderNames()) res.removeHeader(name);
  if (res.req.httpVersionMajor !== 2) res.statusMessage = '';
  res.writeHead(500, { 'Content-Length': 0 }).end();
}

function refuseUpgrade(gate, error, socket) {
  let refusal = { status: 500, headers: {}, body: '' };
  if (error instanceof SessionRefused) refusal = gate.refusal(error);
  else gate.settings.logger.error(`session-gateway-upstream: answered 500: ${describe(error)} in exempt`);
  const { status, headers, body } = refusal;
  const fields = { ...headers, 'Content-Length': Buffer.byteLength(body), Connection: 'close' };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  // The server's sockets stay half open until the other side ends, and nothing looks after this one any more.
  socket.once('finish', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
}

/** At the end of the connection. */
function warnOfUnsealed(session, logger) {
  const warn = () => {
    logger.error(
      'session-gateway-upstream: the session was changed in a handshake that ended without seal(); that is not stored',
    );
  };
  if (!internals.isClosed(session)) internals.abandon(session, warn);
  else if (internals.changedSinceClose(session)) warn();
}
