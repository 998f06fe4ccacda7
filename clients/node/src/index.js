export { SessionClosed, SessionError, SessionRefused, SessionValueError, SessionWithheld } from './errors.js';
export { remoteKeys } from './jwks.js';
export { Session } from './session.js';
export { createVerifier } from './verify.js';
