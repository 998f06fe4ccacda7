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
    if (fastify.hasRequestDecorator('djangoSession')) {
      throw new TypeError('session-gateway-upstream: the plugin is registered already, in this scope or around it');
    }
    fastify.decorateRequest('djangoSession', null);
  } catch (error) {
    // Thrown past `done` it would end the process.
    done(error);
    return;
  }

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
      const { onRefused } = gate.settings;
      if (onRefused === undefined) await reply.code(status).headers(headers).send(body);
      else await answerRefused(onRefused, error, request, reply);
      return reply;
    }
  });
  done();
}

/** As Fastify does with a handler: what it returns is sent, and what returns nothing at once answers later by itself. */
async function answerRefused(onRefused, error, request, reply) {
  let answered = false;
  // `reply.sent` is not yet true while hooks look at what was sent.
  reply.send = function (...args) {
    answered = true;
    delete reply.send;
    return reply.send(...args);
  };
  // Unless it says another status: a refusal that goes out as 200 would be taken for an answer. Not with code(): then
  // redirect() would keep it.
  reply.raw.statusCode = error.status;
  try {
    const returned = onRefused(error, request, reply);
    if (returned === undefined || returned === reply) return;
    const body = await returned;
    if (answered || reply.sent) return;
    if (body === undefined) throw new Error('onRefused neither answered nor returned a body');
    await reply.send(body);
  } catch (failure) {
    if (!answered) reply.code(500);
    throw failure;
  }
}

// What fastify-plugin would set: the hook counts where the plugin is registered, not only inside of it.
djangoSession[Symbol.for('skip-override')] = true;
djangoSession[Symbol.for('fastify.display-name')] = 'session-gateway-upstream';
djangoSession[Symbol.for('plugin-meta')] = { name: 'session-gateway-upstream', fastify: '>=4' };

export default djangoSession;
