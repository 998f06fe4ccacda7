//! `[upstream.X]` and its tables.

use std::time::Duration;

use super::{
    DAY, HOUR, HUNDRED_MS, Key, Kind, List, Otherwise, SECOND, Section, forms,
    gateway::OWN_TIMEOUTS,
};

pub(in crate::config) static UPSTREAM: Section = Section {
    name: "[upstream.X]",
    about: "A service behind the gateway. X, its name (letters, digits, `-`, `_`, `.`), is the `aud` of its \
                    tokens.",
    keys: &[
        Key {
            name: "servers",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::SERVER),
                called: "`host:port`, `unix:PATH`",
                least: 1,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Required("[\"127.0.0.1:3001\"]"),
            about: "IPv6 addresses stand in brackets. Each address of a name is a server",
        },
        Key {
            name: "weights",
            kind: Kind::List(&List {
                of: Kind::Count(1..=1000),
                called: "counts, 1 to 1000",
                least: 1,
                most: None,
                unique: false,
            }),
            otherwise: Otherwise::Words("all `1`"),
            about: "how much of the requests each of `servers` takes, in their order; each address of a name takes as \
                    much",
        },
        Key {
            name: "balance",
            kind: Kind::Choice(&["round-robin", "least-requests", "hash"]),
            otherwise: Otherwise::Is("\"round-robin\""),
            about: "which server takes a request: see [several servers](#several-servers)",
        },
        Key {
            name: "protocol",
            kind: Kind::Choice(&["http1", "h2"]),
            otherwise: Otherwise::Is("\"http1\""),
            about: "what is spoken to the servers. `h2` is HTTP/2 by prior knowledge, with `tls` by ALPN; gRPC needs \
                    it. Many requests share a connection",
        },
        Key {
            name: "tls",
            kind: Kind::Table(&UPSTREAM_TLS),
            otherwise: Otherwise::None,
            about: "`tls = {}` is enough: the servers' certificates are verified by the system's authorities. There is \
                    no way to leave that out",
        },
        Key {
            name: "health",
            kind: Kind::Table(&UPSTREAM_HEALTH),
            otherwise: Otherwise::None,
            about: "the servers are asked whether they are well: see [several servers](#several-servers)",
        },
        Key {
            name: "resolve_every",
            kind: Kind::Duration(SECOND..=DAY),
            otherwise: Otherwise::Is("\"30s\""),
            about: "how often names in `servers` are looked up again; when a server cannot be reached, at once. The \
                    last addresses stay while a name cannot be looked up",
        },
        Key {
            name: "django",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("false"),
            about: "this is the Django site itself: its routes may be `session = \"pass\"`",
        },
        Key {
            name: "algorithm",
            kind: Kind::Choice(&["HS256", "EdDSA"]),
            otherwise: Otherwise::Is("\"HS256\""),
            about: "what its tokens are signed with. `HS256`: the first of its `keys`, a secret that it shares with \
                    the gateway; fast, and any library checks it. `EdDSA`: `signing` of `[gateway]`, and it has no \
                    `keys`: it can check tokens and make none",
        },
        Key {
            name: "keys",
            kind: Kind::Tables(&KEY, 0),
            otherwise: Otherwise::Is("[]"),
            about: "what signs its tokens: the first one; the others are for rotation. Without keys and `EdDSA` its \
                    routes are `off` or `pass`, and it gets no `X-Session`",
        },
        Key {
            name: "host",
            kind: Kind::Choice(&["client", "upstream"]),
            otherwise: Otherwise::Is("\"client\""),
            about: "whether `Host` goes to it as the client sent it, or is the server's own name",
        },
        Key {
            name: "max_header_bytes",
            kind: Kind::Count(1024..=1024 * 1024),
            otherwise: Otherwise::Is("4096"),
            about: "largest `X-Session`. A session that does not fit is left out as a whole. uWSGI's limit for all \
                    header fields is 4096; raise both, or say `forward = [...]`",
        },
        Key {
            name: "token_ttl",
            kind: Kind::Seconds(Duration::from_secs(5)..=HOUR),
            otherwise: Otherwise::Is("\"60s\""),
            about: "how long a token is good: a copied one is useless soon",
        },
        Key {
            name: "timeouts",
            kind: Kind::Table(&OWN_TIMEOUTS),
            otherwise: Otherwise::None,
            about: "`connect`, `response_head`, `response_idle`, `tunnel_idle` of this upstream",
        },
    ],
    either: &[],
};

/// `keys = [{ kid, secret }]` of an upstream.
pub(in crate::config) static KEY: Section = Section {
    name: "keys of [upstream.X]",
    about: "A key that signs the tokens of this upstream.",
    keys: &[
        Key {
            name: "kid",
            kind: Kind::Text(&forms::NAME),
            otherwise: Otherwise::Required("\"orders-2026\""),
            about: "tells the upstream which key it was; once in an upstream",
        },
        Key {
            name: "secret",
            kind: Kind::Secret("32 bytes or more"),
            otherwise: Otherwise::Required("{ env = \"ORDERS_KEY\" }"),
            about: "the bytes as they are, or decoded after `base64:`. No two upstreams share one and none is Django's \
                    `SECRET_KEY`: who knows a key can forge with it",
        },
    ],
    either: &[],
};

/// `tls = { }` of an upstream.
pub(in crate::config) static UPSTREAM_TLS: Section = Section {
    name: "tls of [upstream.X]",
    about: "How the servers prove who they are, and the gateway to them.",
    keys: &[
        Key {
            name: "ca",
            kind: Kind::Text(&forms::FILE),
            otherwise: Otherwise::Words("the system's"),
            about: "the authorities that sign the servers' certificates, in PEM",
        },
        Key {
            name: "certificate",
            kind: Kind::Text(&forms::FILE),
            otherwise: Otherwise::None,
            about: "the gateway's own certificate and those between it and its authority, in PEM, for servers that ask \
                    for one",
        },
        Key {
            name: "key",
            kind: Kind::Text(&forms::FILE),
            otherwise: Otherwise::None,
            about: "its key, in PEM",
        },
        Key {
            name: "name",
            kind: Kind::Text(&forms::TLS_NAME),
            otherwise: Otherwise::Words("the one in `servers`"),
            about: "whose certificate a server must have; required for a Unix socket",
        },
    ],
    either: &[],
};

/// `health = { }` of an upstream.
pub(in crate::config) static UPSTREAM_HEALTH: Section = Section {
    name: "health of [upstream.X]",
    about: "How the servers are asked whether they are well.",
    keys: &[
        Key {
            name: "path",
            kind: Kind::Text(&forms::HEALTH_PATH),
            otherwise: Otherwise::Required("\"/healthz\""),
            about: "what is asked for, with GET",
        },
        Key {
            name: "host",
            kind: Kind::Text(&forms::AUTHORITY),
            otherwise: Otherwise::Words("the server's own"),
            about: "the `Host` of the question: Django answers 400 to one that is not among its ALLOWED_HOSTS",
        },
        Key {
            name: "every",
            kind: Kind::Duration(HUNDRED_MS..=HOUR),
            otherwise: Otherwise::Is("\"5s\""),
            about: "from one question to the next, a tenth more or less",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(HUNDRED_MS..=HOUR),
            otherwise: Otherwise::Is("\"2s\""),
            about: "for an answer",
        },
        Key {
            name: "fall",
            kind: Kind::Count(1..=100),
            otherwise: Otherwise::Is("3"),
            about: "after so many wrong answers in a row a server is left out. The very first answer counts alone",
        },
        Key {
            name: "rise",
            kind: Kind::Count(1..=100),
            otherwise: Otherwise::Is("2"),
            about: "after so many right answers in a row it is back",
        },
        Key {
            name: "status",
            kind: Kind::Text(&forms::STATUS),
            otherwise: Otherwise::Is("\"200-399\""),
            about: "the right answers. A redirect is one: a server that sends them works",
        },
    ],
    either: &[],
};
