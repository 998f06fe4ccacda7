/**
 * The session's contents by key. Declare your keys by augmenting it:
 *
 *     declare module 'session-gateway-upstream' {
 *       interface SessionData { cart?: string[] }
 *     }
 */
export interface SessionData {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  [key: string]: any;
}

/** Why a request was refused. */
export type Reason =
  | 'missing'
  | 'twice'
  | 'malformed'
  | 'algorithm'
  | 'unknown-kid'
  | 'no-key'
  | 'signature'
  | 'audience'
  | 'issuer'
  | 'expired'
  | 'not-yet-valid'
  | 'other-request';

/** Why the gateway withheld something. With `too_large` and `not_json` only the contents are not known. */
export type Withheld = 'too_large' | 'not_json' | 'off' | 'unreadable' | 'unavailable' | (string & {});

/** The claims of a token, as the gateway signed them. They are frozen. */
export interface Claims {
  readonly iss: string;
  readonly aud: string;
  readonly iat: number;
  readonly exp: number;
  readonly jti: string;
  readonly req: string;
  readonly sub?: string;
  readonly sid?: string;
  readonly rev?: string;
  readonly session_exp?: number;
  readonly session?: Readonly<SessionData>;
  readonly user?: Readonly<Record<string, unknown>>;
  readonly withheld?: Withheld;
  readonly [claim: string]: unknown;
}

/** A shared secret: text as the gateway's file or variable holds it, or the bytes themselves. */
export type Secret = string | Uint8Array;

/**
 * Keys by `kid`, or a function that finds the key of a `kid`: nothing for one that it does not know. A kid is 1 to 64 of
 * the letters A-Z a-z 0-9 . _ - and the function is asked for no other.
 */
export type Keys<Key> =
  Readonly<Record<string, Key>> | ((kid: string) => Key | null | undefined | Promise<Key | null | undefined>);

/** Takes the log lines: `console`, or a logger such as pino. */
export interface Logger {
  warn(line: string): void;
  error(line: string): void;
}

/** What is needed to check a token. `keys` or `publicKeys` must be given. */
export interface VerifierOptions {
  /** Secrets shared with the gateway (HS256). At least 32 bytes each. */
  keys?: Keys<Secret>;
  /** The gateway's public keys (EdDSA): the member `x` of the JWK. */
  publicKeys?: Keys<string>;
  /** This service's name in the gateway's configuration. */
  audience: string;
  /** The gateway's `issuer`. */
  issuer: string;
  /** Seconds that the clocks may differ: 30. */
  leeway?: number;
  /** For which requests the token must have been made for just this request: `unsafe` (not GET, HEAD, OPTIONS and TRACE; and every handshake). */
  checkRequest?: 'unsafe' | 'always' | 'never';
}

/** What the token must have been made for. */
export interface RequestParts {
  method: string;
  /** The `Host` field as it came. */
  host: string | undefined;
  /** Path and query as they stood on the request line: `req.url` of `node:http`. */
  target: string;
  /** The request is a handshake, such as of a WebSocket: it counts as unsafe. */
  upgrade?: boolean;
}

/** Options of all frameworks. */
export interface GateOptions<Request> extends VerifierOptions {
  /** Requests that pass without a session: exact paths, or a function that returns `true` (and no promise). */
  exempt?: readonly string[] | ((req: Request) => boolean);
  /** Where log lines go: `console`; in Fastify `request.log`. */
  logger?: Logger;
}

/** Checks a token. `now` is in Unix seconds. Rejects with `SessionRefused`. */
export type Verify = (token: string, request?: RequestParts, now?: number) => Promise<Claims>;

/** A function that checks tokens. Throws a `TypeError` where an option is wrong. */
export function createVerifier(options: VerifierOptions): Verify;

/**
 * A function for `publicKeys` that fetches them from the gateway's JWK set: every five minutes, and for a `kid` that it
 * does not know, but at most every five seconds. An answer that takes longer than that, or is over 64 KiB, is a failure.
 */
export function remoteKeys(url: string | URL): (kid: string) => Promise<string | undefined>;

/** The Django session of one request. */
export class Session {
  constructor(claims: Partial<Claims>);
  /** The session's contents. Set and delete keys, and change what is in them, until the head of the response is out. */
  get data(): SessionData;
  /** The primary key of the logged-in user, or null. Throws `SessionWithheld` where nobody knows who is calling. */
  get userId(): string | null;
  /** The columns of the user's row that the gateway's route asks for, or null. Throws where they may be withheld. */
  get user(): Readonly<Record<string, any>> | null;
  /** Stands for the session, the same as long as its key is. Null where there is no session. */
  get sid(): string | null;
  /** The version of the contents, or null. */
  get rev(): string | null;
  /** When the session ends, or null where there is none. */
  get expiresAt(): Date | null;
  /** Why contents are not known, or null. */
  get withheld(): Withheld | null;
  /** All claims of the token. */
  get claims(): Claims;
  /** Destroys the session: a logout. Keys set afterwards go into a fresh one. */
  flush(): void;
  /** Gives the session a new key. Do this when the visitor gets more rights. */
  cycleKey(): void;
  /** Django's `set_expiry`: seconds after each save; 0: until the browser closes; null: the site's default. */
  setExpiry(seconds: number | null): void;
  /** Extends the session, also where nothing else changes. */
  touch(): void;
  /**
   * Stores only if nobody else has changed what this request saw. Otherwise the client gets a 409. Where there is no
   * session yet, it does nothing.
   */
  onlyIfUnchanged(): void;
  /**
   * Ends the changes and gives the value for `X-Session-Set`, or null where nothing changed. Only for a head that is
   * written by hand, such as that of a WebSocket handshake: everywhere else the package does it.
   */
  seal(): string | null;
}

/** Thrown for what an application does wrong with a session. */
export class SessionError extends Error {
  /** The code of the 500 that the client gets where the error shows when the head goes out. */
  readonly code?: string;
}
/** What was asked for is not known: the gateway withheld it. */
export class SessionWithheld extends SessionError {
  readonly withheld: Withheld;
}
/**
 * The session was changed after the head of the response had gone out. Where the client left before that, a change
 * throws nothing: one line in the log says that it is not stored.
 */
export class SessionClosed extends SessionError {}
/** A value or key that cannot be stored. */
export class SessionValueError extends SessionError {}

/** A request is refused. `message` is for logs, `code` for clients. */
export class SessionRefused extends Error {
  readonly reason: Reason;
  readonly code: string;
  readonly status: 401 | 500;
}
