//! `[[route]]` and its tables.

use super::{
    DAY, HOUR, HUNDRED_MS, Key, Kind, List, Map, NONE, Otherwise, SECOND, Section, forms,
    gateway::{BODY, OWN_TIMEOUTS},
};

pub(in crate::config) static ROUTE: Section = Section {
    name: "[[route]]",
    about: "Which requests go where. Of the routes that match, the one for the host goes first, then the \
                    longest path.",
    keys: &[
        Key {
            name: "host",
            kind: Kind::Text(&forms::HOST),
            otherwise: Otherwise::Words("any"),
            about: "compared in lower case, without port and final dot",
        },
        Key {
            name: "path",
            kind: Kind::Text(&forms::PREFIX),
            otherwise: Otherwise::Required("\"/\""),
            about: "a prefix of whole segments: `/api` is not `/apifoo`; `/orders/` and `/orders` are the same",
        },
        Key {
            name: "upstream",
            kind: Kind::Text(&forms::NAME),
            otherwise: Otherwise::Unless("redirect", "\"orders\""),
            about: "an `[upstream.X]`",
        },
        Key {
            name: "redirect",
            kind: Kind::Text(&forms::REDIRECT),
            otherwise: Otherwise::None,
            about: "answers 308 instead of asking an upstream. `\"https://shop.example\"` leaves path and query as \
                    they are; with a path, which may be just `/`, that takes the place of the route's `path`. Browsers \
                    keep a 308 for good",
        },
        Key {
            name: "session",
            kind: Kind::Choice(&["read", "off", "pass"]),
            otherwise: Otherwise::Is("\"read\""),
            about: "`off`: no lookup, and the token says so. `pass`: for Django itself, cookies go through unchanged \
                    and there is no token",
        },
        Key {
            name: "require",
            kind: Kind::Choice(&["anyone", "session", "login", "staff", "superuser"]),
            otherwise: Otherwise::Is("\"anyone\""),
            about: "`session`: a known session, logged in or not; `login`: a logged-in user; `staff`, `superuser`: one \
                    with `is_staff` or `is_superuser`. Who is logged in but not allowed gets a 403",
        },
        Key {
            name: "groups",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::PLAIN),
                called: "group names",
                least: 1,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::None,
            about: "only members of at least one of these groups, with `require = \"login\"` or more. Being a \
                    superuser is no membership",
        },
        Key {
            name: "user",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::COLUMN),
                called: "columns, and `\"groups\"`",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "what the upstream is told of the logged-in user, in the claim [`user`](upstreams.md#the-user). \
                    Never the password, nor columns named like a `secret`, `token`, `key`, `hash` or `otp`. Read with \
                    the user, and only where a route asks",
        },
        Key {
            name: "plain_headers",
            kind: Kind::Map(&Map {
                names: &forms::PLAIN_HEADER,
                values: Kind::Text(&forms::SOURCE),
                called: "header names and sources",
            }),
            otherwise: Otherwise::None,
            about: "for software that reads a user's name from a header and cannot check a token: `{ \
                    \"X-WEBAUTH-USER\" = \"user.username\" }`. Sources: `user.COLUMN`, `sub`, `sid`, and \
                    `session.NAME` of a forwarded name. No header where there is no value. Clients cannot send these \
                    names, on any route and in any spelling; names that mean something else are errors. See [plain \
                    headers](upstreams.md#plain-headers)",
        },
        Key {
            name: "forward",
            kind: Kind::Or(&[Kind::Choice(&["*"]), NAMES]),
            otherwise: Otherwise::Is("\"*\""),
            about: "which names of the session the upstream gets. `\"*\"` leaves out the protected ones; a list may \
                    have them, but never `_auth_user_hash`, `_csrftoken` and `_password_reset_token`",
        },
        Key {
            name: "writable",
            kind: Kind::Or(&[Kind::Choice(&["*"]), NAMES]),
            otherwise: Otherwise::Is("[]"),
            about: "which names the upstream may set and delete. Nothing unless it is said; `\"*\"` leaves out the \
                    protected ones",
        },
        Key {
            name: "may",
            kind: Kind::List(&List {
                of: Kind::Choice(&["cycle", "flush", "expiry"]),
                called: "`\"cycle\"`, `\"flush\"`, `\"expiry\"`",
                least: 0,
                most: None,
                unique: false,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "what else it may do: give the session a new key, destroy it, set when it expires",
        },
        Key {
            name: "unsafe_writable",
            kind: NAMES,
            otherwise: Otherwise::Is("[]"),
            about: "protected names that it may write all the same. Whoever controls the upstream can then act as \
                    other users",
        },
        Key {
            name: "on_anonymous",
            kind: Kind::Choice(&["login-page", "401"]),
            otherwise: Otherwise::Is("\"login-page\""),
            about: "who lacks what `require` says: a page load is sent to the login page, anything else is a 401 ([the \
                    table](#who-may-not-enter)); or always a 401",
        },
        Key {
            name: "login_url",
            kind: Kind::Text(&forms::LOGIN_URL),
            otherwise: Otherwise::Is("\"/accounts/login/\""),
            about: "`LOGIN_URL`; `?next=` is added, where all of it has room in 3800 bytes",
        },
        Key {
            name: "on_store_error",
            kind: Kind::Choice(&["503", "forward"]),
            otherwise: Otherwise::Is("\"503\""),
            about: "while the database is away. `forward` sends a token that says `unavailable`; only with `require = \
                    \"anyone\"` and no grants",
        },
        Key {
            name: "cross_site",
            kind: Kind::Choice(&["refuse", "allow"]),
            otherwise: Otherwise::Is("\"refuse\""),
            about: "requests other than GET, HEAD and OPTIONS that another site's page sent, and WebSocket handshakes: \
                    [the table](security.md#what-browsers-send)",
        },
        Key {
            name: "cache",
            kind: Kind::Choice(&["private", "upstream"]),
            otherwise: Otherwise::Is("\"private\""),
            about: "`private` keeps shared caches from storing answers to requests with a session; `upstream` leaves \
                    its fields as they are",
        },
        Key {
            name: "strip_prefix",
            kind: Kind::Text(&forms::PREFIX),
            otherwise: Otherwise::None,
            about: "the beginning of `path` that is cut before the request goes on",
        },
        Key {
            name: "encoded_slashes",
            kind: Kind::Choice(&["refuse", "keep"]),
            otherwise: Otherwise::Is("\"refuse\""),
            about: "`%2f` in a path is a 400, because servers do not agree whether it ends a segment; `keep` hands it \
                    on",
        },
        Key {
            name: "request_headers",
            kind: FIELDS,
            otherwise: Otherwise::None,
            about: "fields that the upstream gets with this value, whatever the client sent; `false` removes them. \
                    Those that frame a message, `Cookie`, `X-Forwarded-*` and our own are not among them",
        },
        Key {
            name: "response_headers",
            kind: FIELDS,
            otherwise: Otherwise::None,
            about: "fields of the answers, such as `{ \"Strict-Transport-Security\" = \"max-age=31536000\", \"Server\" \
                    = false }`. The gateway's own answers get them too, where they do not say the same themselves. \
                    What caches must be told of a session stays as it is",
        },
        Key {
            name: "rate",
            kind: Kind::Tables(&RATE, 0),
            otherwise: Otherwise::None,
            about: "how often one client may come; more is a 429 with `Retry-After`. See [below](#rates)",
        },
        Key {
            name: "limits",
            kind: Kind::Table(&OWN_LIMITS),
            otherwise: Otherwise::None,
            about: "`request_body` of this route, and `in_flight`: most of its requests at the same time, so that a \
                    slow service does not take all of `[limits] in_flight`",
        },
        Key {
            name: "upgrades",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::PROTOCOL),
                called: "protocols",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[\"websocket\"]"),
            about: "for which protocols a request may leave HTTP and become a [tunnel](upstreams.md#websockets); `[]` \
                    for none. Any other `Upgrade` is cut, and the request served without it. `h2c` and other forms of \
                    HTTP or TLS cannot be named: through them requests would go past the gateway",
        },
        Key {
            name: "recheck",
            kind: Kind::Or(&[Kind::Duration(HUNDRED_MS..=DAY), Kind::Choice(&["off"])]),
            otherwise: Otherwise::Is("\"30s\""),
            about: "how often it is looked whether those who have something open may still have it: tunnels and event \
                    streams of routes that need more than `anyone`. A logout ends them within this time and a tenth. \
                    Where the route says `recheck` itself, tunnels and streams of visitors with a session are looked \
                    after whatever it needs, and all its other answers too, such as long downloads. `\"off\"`: what \
                    was opened stays open. See [live revocation](upstreams.md#when-the-session-ends)",
        },
        Key {
            name: "recheck_grace",
            kind: Kind::Duration(NONE..=DAY),
            otherwise: Otherwise::Is("\"5m\""),
            about: "how long they go on while the database does not answer: longer than a failover takes. Not knowing \
                    is no logout, and ending all of them at once would bring all their clients back at once",
        },
        Key {
            name: "timeouts",
            kind: Kind::Table(&OWN_TIMEOUTS),
            otherwise: Otherwise::None,
            about: "`connect`, `response_head`, `response_idle`, `tunnel_idle` of this route",
        },
    ],
    either: &["upstream", "redirect"],
};

/// `rate = [{ by, requests, every }]` of a route.
pub(in crate::config) static RATE: Section = Section {
    name: "rate of [[route]]",
    about: "How often one client may come.",
    keys: &[
        Key {
            name: "by",
            kind: Kind::Choice(&["address", "session"]),
            otherwise: Otherwise::Required("\"address\""),
            about: "`address`: one IPv4 address, or one IPv6 network of 64 bits, which a household or server has for \
                    itself; by what trusted proxies say. `session`: one session that is there; who has none counts by \
                    address, or made-up cookies would never be counted twice",
        },
        Key {
            name: "requests",
            kind: Kind::Count(1..=1_000_000),
            otherwise: Otherwise::Required("100"),
            about: "so many",
        },
        Key {
            name: "every",
            kind: Kind::Duration(SECOND..=HOUR),
            otherwise: Otherwise::Required("\"10s\""),
            about: "in any such time",
        },
    ],
    either: &[],
};

/// `limits = { }` of a route.
pub(in crate::config) static OWN_LIMITS: Section = Section {
    name: "limits of [[route]]",
    about: "What is too much for this route.",
    keys: &[
        Key {
            name: "request_body",
            kind: Kind::Or(&BODY),
            otherwise: Otherwise::Words("that of `[limits]`"),
            about: "largest request body of this route; more is a 413",
        },
        Key {
            name: "in_flight",
            kind: Kind::Count(1..=1_000_000),
            otherwise: Otherwise::None,
            about: "most requests of this route at the same time, so that a slow service does not take all of \
                    `[limits] in_flight`; more are a 503 at once",
        },
    ],
    either: &[],
};

/// Names of a session.
const NAMES: Kind = Kind::List(&List {
    of: Kind::Text(&forms::SESSION_NAME),
    called: "names",
    least: 0,
    most: None,
    unique: true,
});

/// What becomes of header fields.
const FIELDS: Kind = Kind::Map(&Map {
    names: &forms::FIELD,
    values: Kind::Or(&[Kind::Text(&forms::FIELD_VALUE), Kind::False]),
    called: "texts or `false`",
});
