import { SessionRefused } from './errors.js';
import { Gate } from './gate.js';
import { guardHead } from './head.js';

/** Plugin for Fastify 4 and 5 that sets `request.djangoSession`. */
export function djangoSession(fastify, options, done) {
  let gate;
  try {
    // Fastify's own options of register() are in there too.
    const { prefix: _prefix, logLevel: _logLevel, logSerializers: _logSerializers, ...own } = options;
    gate = new Gate(own);
  } catch (error) {
    done(error);
    return;
  }

  fastify.decorateRequest('djangoSession', null);
  fastify.addHook('onRequest', async (request, reply) => {
    const { raw } = request;
    const logger = options.logger ?? request.log;
    const target = raw.originalUrl ?? raw.url;
    try {
      if (gate.isExempt(request, target)) return;
      const session = await gate.open(raw, target);
      guardHead(reply.raw, session, logger);
      request.djangoSession = session;
    } catch (error) {
      if (!(error instanceof SessionRefused)) throw error;
      const { status, headers, body } = gate.refusal(error, logger);
      if (gate.settings.onRefused === undefined) await reply.code(status).headers(headers).send(body);
      else await gate.settings.onRefused(error, request, reply);
      return reply;
    }
  });
  done();
}

// What fastify-plugin would set: the hook counts where the plugin is registered, not only inside of it.
djangoSession[Symbol.for('skip-override')] = true;
djangoSession[Symbol.for('fastify.display-name')] = 'session-gateway-upstream';
djangoSession[Symbol.for('plugin-meta')] = { name: 'session-gateway-upstream', fastify: '>=4' };

export default djangoSession;
