import { STATUS_CODES } from 'node:http';

import { SessionRefused } from './errors.js';
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
    // As without the wrapper: what a handler throws is the application's.
    await handler(req, res);
  };

  const answer = async (error, req, res) => {
    try {
      if (!(error instanceof SessionRefused)) throw error;
      await refuse(gate, error, req, res);
    } catch (unexpected) {
      logger.error(`session-gateway-upstream: answered 500: ${unexpected?.name ?? 'an error'} in exempt or onRefused`);
      if (res.headersSent) res.destroy();
      else res.writeHead(500, { 'Content-Length': 0 }).end();
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
    if (session !== undefined) socket.once('close', () => warnOfUnsealed(session, logger));
    socket.off('error', ignore);
    await handler(req, socket, head);
  };

  return wrap;
}

function refuseUpgrade(gate, error, socket) {
  let refusal = { status: 500, headers: {}, body: '' };
  if (error instanceof SessionRefused) refusal = gate.refusal(error);
  else gate.settings.logger.error(`session-gateway-upstream: answered 500: ${error?.name ?? 'an error'} in exempt`);
  const { status, headers, body } = refusal;
  const fields = { ...headers, 'Content-Length': Buffer.byteLength(body), Connection: 'close' };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  // The server's sockets stay half open until the other side ends, and nothing looks after this one any more.
  socket.once('finish', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
}

function warnOfUnsealed(session, logger) {
  let header = null;
  try {
    header = internals.isClosed(session) ? null : internals.header(session);
  } catch {
    header = 'one that cannot be sent';
  }
  if (header !== null || internals.changedSinceClose(session)) {
    logger.error('session-gateway-upstream: the session was changed in a handshake without seal(); that is not stored');
  }
}
