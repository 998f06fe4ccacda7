//! The top of the file, `[[listener]]`, `[health]`, `[admin]` and `[log]`.

use super::{
    DAY, Key, Kind, List, Map, NONE, Otherwise, Section,
    django::DJANGO,
    forms,
    gateway::{GATEWAY, LIMITS, TIMEOUTS},
    route::ROUTE,
    upstream::UPSTREAM,
};

pub(in crate::config) static TOP: Section = Section {
    name: "",
    about: "The configuration of session-gateway.",
    keys: &[
        Key {
            name: "writes",
            kind: Kind::Choice(&["on", "off"]),
            otherwise: Otherwise::Is("\"on\""),
            about: "`\"off\"` answers every change of a session with `session-not-saved`: a switch for maintenance \
                    that leaves the routes as they are",
        },
        Key {
            name: "watch",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("false"),
            about: "a file that has changed is put into force without a SIGHUP, and so is one with secrets or \
                    certificates that it names. It is looked at every second, and must be the same at two looks. Not \
                    by default: a file half written can be valid ([Changing the \
                    configuration](operations.md#changing-the-configuration))",
        },
        Key {
            name: "drain_delay",
            kind: Kind::Duration(NONE..=DAY),
            otherwise: Otherwise::Is("\"5s\""),
            about: "how long connections are still taken after SIGTERM, while `/readyz` says no: the time in which \
                    load balancers notice. Probes are some seconds apart. `\"0s\"` where there are none \
                    ([Ending](operations.md#ending))",
        },
        Key {
            name: "shutdown_grace",
            kind: Kind::Duration(NONE..=DAY),
            otherwise: Otherwise::Is("\"20s\""),
            about: "how long requests, tunnels and session writes may go on after that; Kubernetes kills 30 s after \
                    SIGTERM",
        },
        Key {
            name: "listener",
            kind: Kind::Tables(&LISTENER, 1),
            otherwise: Otherwise::Words("one on `127.0.0.1:8080`"),
            about: "",
        },
        Key {
            name: "health",
            kind: Kind::Table(&HEALTH),
            otherwise: Otherwise::None,
            about: "",
        },
        Key {
            name: "admin",
            kind: Kind::Table(&ADMIN),
            otherwise: Otherwise::None,
            about: "",
        },
        Key {
            name: "gateway",
            kind: Kind::Table(&GATEWAY),
            otherwise: Otherwise::Required("x"),
            about: "",
        },
        Key {
            name: "limits",
            kind: Kind::Table(&LIMITS),
            otherwise: Otherwise::None,
            about: "",
        },
        Key {
            name: "timeouts",
            kind: Kind::Table(&TIMEOUTS),
            otherwise: Otherwise::None,
            about: "",
        },
        Key {
            name: "log",
            kind: Kind::Table(&LOG),
            otherwise: Otherwise::None,
            about: "",
        },
        Key {
            name: "error_pages",
            kind: Kind::Map(&Map {
                names: &forms::ERROR_PAGE,
                values: Kind::Text(&forms::FILE),
                called: "codes, statuses and HTML files",
            }),
            otherwise: Otherwise::None,
            about: "pages of your own for the gateway's own answers: [`[error_pages]`](#error_pages)",
        },
        Key {
            name: "django",
            kind: Kind::Table(&DJANGO),
            otherwise: Otherwise::Required("x"),
            about: "",
        },
        Key {
            name: "upstream",
            kind: Kind::Named(&UPSTREAM),
            otherwise: Otherwise::None,
            about: "",
        },
        Key {
            name: "route",
            kind: Kind::Tables(&ROUTE, 1),
            otherwise: Otherwise::Required("x"),
            about: "",
        },
    ],
    either: &[],
};

pub(in crate::config) static LISTENER: Section = Section {
    name: "[[listener]]",
    about: "Where clients are served. Without any: `127.0.0.1:8080`.",
    keys: &[
        Key {
            name: "address",
            kind: Kind::Text(&forms::ADDRESS),
            otherwise: Otherwise::Required("\"127.0.0.1:8080\""),
            about: "port 0 lets the system choose; the address is logged. `[::]:443` is IPv6 only, on every system: \
                    for both write two listeners. [Unix sockets](operations.md#listeners)",
        },
        Key {
            name: "tls",
            kind: Kind::Tables(&CERTIFICATE, 1),
            otherwise: Otherwise::None,
            about: "clients must speak TLS 1.2 or 1.3. PEM files: the certificate with its chain, and its key. A \
                    client gets the certificate for the name that it asks for (a wildcard is for one label), or else \
                    the first; of several for one name the first that it can check. Read again by a reload",
        },
        Key {
            name: "redirect_to_https",
            kind: Kind::Or(&[Kind::Flag, Kind::Count(1..=65_535)]),
            otherwise: Otherwise::Is("false"),
            about: "answers requests without TLS with 308 to the same URL over https: `true` for the port of the \
                    listener with TLS, or the port where the world sees another. Not where a trusted proxy says that TLS ended \
                    there, and not for a route whose path begins with `/.well-known/acme-challenge`: certificate \
                    authorities ask without TLS",
        },
        Key {
            name: "proxy_protocol",
            kind: Kind::Flag,
            otherwise: Otherwise::Is("false"),
            about: "each connection begins with a header of the PROXY protocol, version 1 or 2, that tells the \
                    client's address. Only peers in `trusted_proxies` may connect",
        },
    ],
    either: &[],
};

/// `tls = [{ certificate, key }]` of a listener.
pub(in crate::config) static CERTIFICATE: Section = Section {
    name: "tls of [[listener]]",
    about: "A certificate and its key.",
    keys: &[
        Key {
            name: "certificate",
            kind: Kind::Text(&forms::FILE),
            otherwise: Otherwise::Required("\"cert.pem\""),
            about: "the certificate with its chain, in PEM",
        },
        Key {
            name: "key",
            kind: Kind::Text(&forms::FILE),
            otherwise: Otherwise::Required("\"key.pem\""),
            about: "its key, in PEM",
        },
    ],
    either: &[],
};

pub(in crate::config) static HEALTH: Section = Section {
    name: "[health]",
    about: "Where the gateway is asked how it is.",
    keys: &[
        Key {
            name: "address",
            kind: Kind::Text(&forms::ADDRESS),
            otherwise: Otherwise::None,
            about: "serves `/healthz`, `/readyz` and `/metrics`; has no secrets, so it may listen anywhere",
        },
        Key {
            name: "jwks",
            kind: Kind::Text(&forms::JWKS),
            otherwise: Otherwise::Is("\"/.well-known/jwks.json\""),
            about: "where the public keys of `signing` and `published` are served, as a JWK set; only with `signing`",
        },
    ],
    either: &[],
};

pub(in crate::config) static ADMIN: Section = Section {
    name: "[admin]",
    about: "The status page, for people on this machine.",
    keys: &[Key {
        name: "address",
        kind: Kind::Text(&forms::LOOPBACK),
        otherwise: Otherwise::None,
        about: "serves the [status page](operations.md#status-page). It asks nobody who they are, so other \
                    addresses are refused",
    }],
    either: &[],
};

pub(in crate::config) static LOG: Section = Section {
    name: "[log]",
    about: "The access log, a line a request.",
    keys: &[
        Key {
            name: "access",
            kind: Kind::Choice(&["text", "json", "off"]),
            otherwise: Otherwise::Words("as `--log`"),
            about: "how its lines are written; `--log-level info,access=off` turns it off too",
        },
        Key {
            name: "fields",
            kind: Kind::List(&List {
                of: Kind::Choice(&FIELDS),
                called: "fields",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Words("all but the last three"),
            about: "what is told, in this order. A field without a value is left out of its line",
        },
    ],
    either: &[],
};

/// What the access log can tell.
const FIELDS: [&str; 24] = [
    "client",
    "protocol",
    "method",
    "host",
    "path",
    "status",
    "route",
    "upstream",
    "server",
    "sid",
    "user",
    "request_id",
    "trace_id",
    "error",
    "received",
    "sent",
    "aborted",
    "duration_us",
    "head_us",
    "lookup_us",
    "upstream_us",
    "write_us",
    "user_agent",
    "referer",
];
