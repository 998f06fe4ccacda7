import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Request, Response } from 'express';
import type { GateOptions, Session, SessionRefused } from './index.js';

/** Options of the middleware. */
export interface DjangoSessionOptions<
  Req extends IncomingMessage = Request,
  Res extends ServerResponse = Response,
> extends GateOptions<Req> {
  /** Answers a refused request instead of the 401. The status is 401 already. */
  onRefused?: (error: SessionRefused, req: Req, res: Res) => unknown;
}

/** Middleware for Express 4 and 5 that sets `req.djangoSession`. Use it before everything that reads the session. */
export function djangoSession(
  options: DjangoSessionOptions,
): (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => Promise<void>;

declare global {
  namespace Express {
    interface Request {
      /** The visitor's Django session. On exempt paths it is not there. */
      djangoSession: Session;
    }
  }
}
