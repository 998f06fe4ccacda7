// Not run: a CommonJS file of TypeScript takes the same types.
import { createVerifier } from 'session-gateway-upstream';
import upstream = require('session-gateway-upstream/express');

export const verifier = createVerifier;
export const middleware = upstream.djangoSession;
