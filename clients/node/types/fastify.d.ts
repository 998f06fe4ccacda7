import type { FastifyPluginCallback, FastifyReply, FastifyRequest } from 'fastify';
import type { GateOptions, Session, SessionRefused } from './index.js';

/** Options of the plugin. */
export interface DjangoSessionOptions extends GateOptions<FastifyRequest> {
  /** Answers a refused request instead of the 401. The status is 401 already. What it returns is the body. */
  onRefused?: (error: SessionRefused, request: FastifyRequest, reply: FastifyReply) => unknown;
}

/** Plugin for Fastify 4 and 5 that sets `request.djangoSession` for all routes of the scope that registers it. */
export const djangoSession: FastifyPluginCallback<DjangoSessionOptions>;
export default djangoSession;

declare module 'fastify' {
  interface FastifyRequest {
    /** The visitor's Django session. On exempt paths it is null. */
    djangoSession: Session;
  }
}
