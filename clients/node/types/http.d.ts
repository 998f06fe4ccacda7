import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { GateOptions, Session, SessionRefused } from './index.js';

/** A request with its session. On exempt paths it is not there. */
export type WithSession<Request = IncomingMessage> = Request & { djangoSession: Session };

/** Options of the wrapper. */
export interface DjangoSessionOptions<
  Request extends IncomingMessage = IncomingMessage,
  Response extends ServerResponse = ServerResponse,
> extends GateOptions<Request> {
  /** Answers a refused request instead of the 401. The status is 401 already. A refused handshake is always answered with the 401. */
  onRefused?: (error: SessionRefused, req: Request, res: Response) => unknown;
}

/** Gives handlers `req.djangoSession`. */
export interface Wrap {
  /** For `createServer` and the event `request`. Where the handler fails, the answer is a 500 with a line in the log. */
  (
    handler: (req: WithSession, res: ServerResponse) => unknown,
  ): (req: IncomingMessage, res: ServerResponse) => Promise<void>;
  /**
   * For the event `upgrade`. Changes go out with the value of `req.djangoSession.seal()`. Where the handler fails, the
   * connection is closed, with a line in the log.
   */
  upgrade(
    handler: (req: WithSession, socket: Duplex, head: Buffer) => unknown,
  ): (req: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>;
}

/** A wrapper for handlers of `node:http`. */
export function djangoSession(options: DjangoSessionOptions): Wrap;
