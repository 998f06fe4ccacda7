import { SessionRefused } from './errors.js';
import { Gate, refuse } from './gate.js';
import { guardHead } from './head.js';

/** Middleware for Express 4 and 5 that sets `req.djangoSession`. */
export function djangoSession(options) {
  const gate = new Gate(options);
  /** Requests that were let in here: the middleware may be used twice. */
  const passed = new WeakSet();

  return async function djangoSession(req, res, next) {
    try {
      const target = req.originalUrl ?? req.url;
      if (!passed.has(req) && !gate.isExempt(req, target)) {
        const session = await gate.open(req, target);
        guardHead(res, session, gate.settings.logger);
        req.djangoSession = session;
        passed.add(req);
      }
    } catch (error) {
      if (!(error instanceof SessionRefused)) return next(error);
      return refuse(gate, error, req, res).catch(next);
    }
    next();
  };
}
