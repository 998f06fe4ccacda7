//! Every key that the configuration file may have, and where. A key that is not here is an error.

use super::report::nearest;

/// A table of the file and the keys that it may have.
#[derive(Debug)]
pub(super) struct Section {
    /// As it is written in the file: `[django]`; empty for the top.
    pub(super) name: &'static str,
    /// Its keys, and its tables.
    pub(super) keys: &'static [&'static str],
}

pub(super) const TOP: Section = Section {
    name: "",
    keys: &[
        "writes",
        "watch",
        "drain_delay",
        "shutdown_grace",
        "listener",
        "health",
        "admin",
        "gateway",
        "limits",
        "timeouts",
        "log",
        "error_pages",
        "django",
        "upstream",
        "route",
    ],
};
pub(super) const LOG: Section = Section {
    name: "[log]",
    keys: &["access", "fields"],
};
pub(super) const LISTENER: Section = Section {
    name: "[[listener]]",
    keys: &["address", "tls", "redirect_to_https", "proxy_protocol"],
};
pub(super) const HEALTH: Section = Section {
    name: "[health]",
    keys: &["address", "jwks"],
};
pub(super) const ADMIN: Section = Section {
    name: "[admin]",
    keys: &["address"],
};
pub(super) const GATEWAY: Section = Section {
    name: "[gateway]",
    keys: &[
        "issuer",
        "trusted_proxies",
        "trusted_origins",
        "signing",
        "published",
        "sid_key",
    ],
};
pub(super) const LIMITS: Section = Section {
    name: "[limits]",
    keys: &[
        "request_head",
        "request_fields",
        "request_body",
        "in_flight",
        "connections",
        "connections_per_address",
        "h2_streams",
        "session_data",
        "session_json",
        "session_write",
        "session_queue",
        "lookup_queue",
    ],
};
pub(super) const TIMEOUTS: Section = Section {
    name: "[timeouts]",
    keys: &[
        "tls_handshake",
        "head",
        "idle",
        "send",
        "body_progress",
        "connect",
        "response_head",
        "response_idle",
        "tunnel_idle",
    ],
};
pub(super) const DJANGO: Section = Section {
    name: "[django]",
    keys: &[
        "database",
        "secret_key",
        "secret_key_fallbacks",
        "release",
        "engine",
        "table",
        "salt",
        "time_zone",
        "verify",
        "backends",
        "max_staleness",
        "deadline",
        "connections",
        "write_connections",
        "pooler",
        "replica",
        "protected",
        "expire_at_browser_close",
        "save_every_request",
        "cookie",
        "user",
    ],
};
pub(super) const USER: Section = Section {
    name: "[django.user]",
    keys: &["table", "key", "password", "where", "groups"],
};
pub(super) const COOKIE: Section = Section {
    name: "[django.cookie]",
    keys: &[
        "name",
        "age",
        "domain",
        "path",
        "secure",
        "httponly",
        "samesite",
        "duplicate",
    ],
};
pub(super) const UPSTREAM: Section = Section {
    name: "[upstream.X]",
    keys: &[
        "servers",
        "weights",
        "balance",
        "protocol",
        "tls",
        "health",
        "resolve_every",
        "django",
        "algorithm",
        "keys",
        "host",
        "max_header_bytes",
        "token_ttl",
        "timeouts",
    ],
};
pub(super) const ROUTE: Section = Section {
    name: "[[route]]",
    keys: &[
        "host",
        "path",
        "upstream",
        "redirect",
        "session",
        "require",
        "groups",
        "user",
        "plain_headers",
        "forward",
        "writable",
        "may",
        "unsafe_writable",
        "on_anonymous",
        "login_url",
        "on_store_error",
        "cross_site",
        "cache",
        "strip_prefix",
        "encoded_slashes",
        "request_headers",
        "response_headers",
        "rate",
        "limits",
        "upgrades",
        "recheck",
        "recheck_grace",
        "timeouts",
    ],
};

/// `keys = [{ kid, secret }]` of an upstream.
pub(super) const KEY: Section = Section {
    name: "keys of [upstream.X]",
    keys: &["kid", "secret"],
};
/// `tls = { }` of an upstream.
pub(super) const UPSTREAM_TLS: Section = Section {
    name: "tls of [upstream.X]",
    keys: &["ca", "certificate", "key", "name"],
};
/// `health = { }` of an upstream.
pub(super) const UPSTREAM_HEALTH: Section = Section {
    name: "health of [upstream.X]",
    keys: &["path", "host", "every", "timeout", "fall", "rise", "status"],
};
/// `signing = { kid, private_key }` of the gateway.
pub(super) const SIGNING: Section = Section {
    name: "signing of [gateway]",
    keys: &["kid", "private_key"],
};
/// `published = [{ kid, public_key }]` of the gateway.
pub(super) const PUBLISHED: Section = Section {
    name: "published of [gateway]",
    keys: &["kid", "public_key"],
};
/// `timeouts = { }` of an upstream or a route.
pub(super) const OWN_TIMEOUTS: Section = Section {
    name: "timeouts of [upstream.X]",
    keys: &["connect", "response_head", "response_idle", "tunnel_idle"],
};
/// `rate = [{ by, requests, every }]` of a route.
pub(super) const RATE: Section = Section {
    name: "rate of [[route]]",
    keys: &["by", "requests", "every"],
};
/// `limits = { }` of a route.
pub(super) const OWN_LIMITS: Section = Section {
    name: "limits of [[route]]",
    keys: &["request_body", "in_flight"],
};
/// `tls = [{ certificate, key }]` of a listener.
pub(super) const CERTIFICATE: Section = Section {
    name: "tls of [[listener]]",
    keys: &["certificate", "key"],
};
/// `{ env = "NAME" }` or `{ file = "path" }`.
pub(super) const SECRET: Section = Section {
    name: "a secret",
    keys: &["env", "file"],
};

/// The sections that the file is made of; what a misplaced key is looked up in.
pub(super) const ALL: [&Section; 20] = [
    &TOP,
    &LISTENER,
    &HEALTH,
    &ADMIN,
    &GATEWAY,
    &LIMITS,
    &TIMEOUTS,
    &LOG,
    &DJANGO,
    &USER,
    &COOKIE,
    &UPSTREAM,
    &ROUTE,
    &KEY,
    &SIGNING,
    &PUBLISHED,
    &RATE,
    &UPSTREAM_TLS,
    &UPSTREAM_HEALTH,
    &CERTIFICATE,
];

impl Section {
    /// What an unknown key of this section was probably meant to be.
    pub(super) fn suggest(&self, unknown: &str) -> Option<String> {
        let home = ALL.iter().find(|section| section.keys.contains(&unknown));
        match home {
            Some(section) if section.name.is_empty() => {
                Some("it belongs at the top of the file".to_owned())
            }
            Some(section) => Some(format!("it belongs in {}", section.name)),
            None => nearest(unknown, self.keys.iter().copied()),
        }
    }
}
