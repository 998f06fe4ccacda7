/** Thrown for what the application does wrong with a session. All errors of this package but `SessionRefused` are one. */
export class SessionError extends Error {
  /** `code` is what a client gets with the 500 where the error shows only when the head goes out. */
  constructor(message, code) {
    super(message);
    this.name = new.target.name;
    if (code !== undefined) this.code = code;
  }
}

/** What was asked for is not known: the gateway withheld it. `withheld` says why. Unknown is never empty. */
export class SessionWithheld extends SessionError {
  constructor(what, withheld) {
    super(`${what}: the gateway withheld it (${withheld})`);
    this.withheld = withheld;
  }
}

/** The session was changed after the head of the response had gone out: it can no longer be stored. */
export class SessionClosed extends SessionError {
  constructor() {
    super('the session cannot be changed any more: the head of the response has gone out');
  }
}

/** A value that `X-Session-Set` cannot carry. The message names the key, never the value. */
export class SessionValueError extends SessionError {
  constructor(message, code = 'x-session-set-invalid') {
    super(message, code);
  }
}

/**
 * What a log may say of an error: the words of this package, which hold no values. Of others, such as of a getter in the
 * session or of a function for keys, nobody knows what they say: only the name.
 */
export function describe(error) {
  if (error instanceof SessionError) return error.message;
  const name = error?.name;
  return typeof name === 'string' && /^\w{1,64}$/.test(name) ? name : 'something that is no Error';
}

/** What a log says about a refusal. */
const REASONS = {
  missing: 'there is no X-Session: the request did not come through the gateway',
  twice: 'there is more than one X-Session',
  malformed: 'X-Session is not a token of the contract',
  algorithm: "the token's typ or algorithm is not that of its key",
  'unknown-kid': 'the token was signed with a key that is not configured here',
  'no-key': 'the function for keys failed',
  signature: "the token's signature does not fit",
  audience: 'the token is for another audience',
  issuer: 'the token is from another issuer',
  expired: 'the token has expired',
  'not-yet-valid': 'the token is not valid yet; are the clocks right?',
  'other-request': 'the token was made for another request (method, Host or target)',
};

/** Why a request is refused. `reason` is one of a few words, `status` what to answer, `code` what a client may see. */
export class SessionRefused extends Error {
  constructor(reason, detail) {
    super(detail === undefined ? REASONS[reason] : `${REASONS[reason]}: ${detail}`);
    this.name = 'SessionRefused';
    this.reason = reason;
    this.code = `x-session-${reason}`;
    this.status = reason === 'no-key' ? 500 : 401;
  }
}
