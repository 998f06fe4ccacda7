import { SessionRefused } from './errors.js';
import { Session } from './session.js';
import { readSettings } from './settings.js';
import { verifierOf } from './verify.js';

/** What is the same for all frameworks: from a request of node:http to its session, or a refusal. */
export class Gate {
  #verify;

  constructor(options) {
    this.settings = readSettings(options);
    this.#verify = verifierOf(this.settings);
  }

  /** Whether the request passes without a session. `shown` is the framework's request, for a function in `exempt`. */
  isExempt(shown, target) {
    return this.settings.isExempt(shown, target);
  }

  /** The session of a request, or a rejection with `SessionRefused`. The time counts at the call. */
  async open(raw, target, { upgrade = raw.headers.upgrade !== undefined } = {}) {
    const host = raw.headers[':authority'] ?? raw.headers.host;
    return new Session(await this.#verify(tokenOf(raw), { method: raw.method, host, target, upgrade }));
  }

  /** Says in the log why, and gives what a client may see. */
  refusal(error, logger = this.settings.logger) {
    logger.warn(`session-gateway-upstream: refused a request: ${error.message} (${error.code})`);
    return {
      status: error.status,
      headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' },
      body: JSON.stringify({ code: error.code }),
    };
  }
}

/** The one field. `headers` would join two of them with a comma. */
function tokenOf(raw) {
  const fields = raw.rawHeaders.filter((_, at, all) => at % 2 === 1 && all[at - 1].toLowerCase() === 'x-session');
  if (fields.length === 0) throw new SessionRefused('missing');
  if (fields.length > 1) throw new SessionRefused('twice');
  return fields[0];
}

/** Answers a refusal through node:http: as `onRefused` says, or with a small JSON. */
export async function refuse(gate, error, req, res) {
  const { status, headers, body } = gate.refusal(error);
  if (gate.settings.onRefused !== undefined) {
    // Unless it says another status: a refusal that goes out as 200 would be taken for an answer.
    res.statusCode = status;
    try {
      await gate.settings.onRefused(error, req, res);
    } catch (failure) {
      if (!res.headersSent) res.statusCode = 500;
      throw failure;
    }
    return;
  }
  res.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) });
  res.end(body);
}
