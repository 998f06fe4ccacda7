import type { IncomingMessage, ServerResponse } from 'node:http';
import type { GateOptions, Session, SessionRefused } from './index.js';

/** Options of the middleware. */
export interface DjangoSessionOptions<
  Request extends IncomingMessage = IncomingMessage,
  Response extends ServerResponse = ServerResponse,
> extends GateOptions<Request> {
  /** Answers a refused request instead of the 401. */
  onRefused?: (error: SessionRefused, req: Request, res: Response) => void | Promise<void>;
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
