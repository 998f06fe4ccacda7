//! `[gateway]`, `[limits]` and `[timeouts]`.

use super::{DAY, Key, Kind, List, MILLISECOND, Otherwise, Section, forms};
use crate::config::value::{GIB, KIB, MIB};

pub(in crate::config) static GATEWAY: Section = Section {
    name: "[gateway]",
    about: "What the gateway says of itself, and whom it believes.",
    keys: &[
        Key {
            name: "issuer",
            kind: Kind::Text(&forms::ISSUER),
            otherwise: Otherwise::Required("\"https://shop.example\""),
            about: "the `iss` of every token, by which upstreams know this gateway; also the realm of a 401",
        },
        Key {
            name: "trusted_proxies",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::NETWORK),
                called: "addresses and networks",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Nobody by default; lists that \
                    come to all addresses are refused, because then every client could claim any address and scheme",
        },
        Key {
            name: "trusted_fields",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::PROXY_FIELD),
                called: "names of header fields",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "what else services hear from `trusted_proxies`, such as `[\"X-Forwarded-Host\", \"X-Real-IP\"]`. All \
                    other fields with which proxies say who asks and for what are removed from everybody, because most \
                    fronts pass on what clients write there: list only what the front sets or removes itself",
        },
        Key {
            name: "trusted_origins",
            kind: Kind::List(&List {
                of: Kind::Text(&forms::ORIGIN),
                called: "origins, `https://host[:port]`",
                least: 0,
                most: None,
                unique: true,
            }),
            otherwise: Otherwise::Is("[]"),
            about: "other sites whose pages may send requests past the cross-site guard",
        },
        Key {
            name: "signing",
            kind: Kind::Table(&SIGNING),
            otherwise: Otherwise::None,
            about: "signs the tokens of all upstreams with `algorithm = \"EdDSA\"`. `session-gateway key new \
                    --algorithm EdDSA` makes one",
        },
        Key {
            name: "published",
            kind: Kind::Tables(&PUBLISHED, 0),
            otherwise: Otherwise::Is("[]"),
            about: "public keys that are served beside the one of `signing` and sign nothing here: the next key before \
                    it signs, the last one after. A list of its own, because a gateway that only publishes a key needs \
                    no private one",
        },
        Key {
            name: "sid_key",
            kind: Kind::Secret("32 bytes or more"),
            otherwise: Otherwise::Words("`secret_key` of `[django]`"),
            about: "what `sid` and `rev` are derived from. With one of its own they stay the same when SECRET_KEY is \
                    rotated. Give it the bytes of the present SECRET_KEY, and nothing changes today either",
        },
    ],
    either: &[],
};

/// `signing = { kid, private_key }` of the gateway.
pub(in crate::config) static SIGNING: Section = Section {
    name: "signing of [gateway]",
    about: "The key that signs.",
    keys: &[
        Key {
            name: "kid",
            kind: Kind::Text(&forms::NAME),
            otherwise: Otherwise::Required("\"gateway-2026-11\""),
            about: "tells upstreams which key it was; once among all of them, and never again for another key: \
                    receivers keep keys by it",
        },
        Key {
            name: "private_key",
            kind: Kind::Secret(""),
            otherwise: Otherwise::Required("{ file = \"gateway.key\" }"),
            about: "Ed25519: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it, or `base64:` and the 32 \
                    bytes of the seed",
        },
    ],
    either: &[],
};

/// `published = [{ kid, public_key }]` of the gateway.
pub(in crate::config) static PUBLISHED: Section = Section {
    name: "published of [gateway]",
    about: "A public key that is served and signs nothing here.",
    keys: &[
        Key {
            name: "kid",
            kind: Kind::Text(&forms::NAME),
            otherwise: Otherwise::Required("\"gateway-2026-12\""),
            about: "tells upstreams which key it was; once among all of them, and never again for another key: \
                    receivers keep keys by it",
        },
        Key {
            name: "public_key",
            kind: Kind::Text(&forms::PUBLIC_KEY),
            otherwise: Otherwise::Required("\"...\", the \"x\" of its JWK"),
            about: "Ed25519: the `x` of its JWK, as the gateway that has it serves it and `key new` prints it",
        },
    ],
    either: &[],
};

pub(in crate::config) static LIMITS: Section = Section {
    name: "[limits]",
    about: "What is too much.",
    keys: &[
        Key {
            name: "request_head",
            kind: Kind::Size(8 * KIB..=MIB),
            otherwise: Otherwise::Is("\"32KiB\""),
            about: "largest request line with header fields: what nginx takes",
        },
        Key {
            name: "request_fields",
            kind: Kind::Count(16..=10_000),
            otherwise: Otherwise::Is("100"),
            about: "most header fields of a request, as gunicorn; browsers send about 20",
        },
        Key {
            name: "request_body",
            kind: Kind::Or(&BODY),
            otherwise: Otherwise::Is("\"64MiB\""),
            about: "largest request body; more is a 413. No limit must be spelled out",
        },
        Key {
            name: "in_flight",
            kind: Kind::Count(1..=1_000_000),
            otherwise: Otherwise::Is("4096"),
            about: "most requests at the same time, up to the ends of their answers; more are a 503 at once, with \
                    `Retry-After`, instead of a queue without end. Tunnels do not count",
        },
        Key {
            name: "connections",
            kind: Kind::Count(1..=1_000_000),
            otherwise: Otherwise::Is("10000"),
            about: "most client connections at once; with as many no more are accepted, and new ones wait in the \
                    kernel. Each takes a file descriptor, and one more while its request is with an upstream: see \
                    `LimitNOFILE` of systemd, `ulimit -n`",
        },
        Key {
            name: "connections_per_address",
            kind: Kind::Count(0..=1_000_000),
            otherwise: Otherwise::Is("0"),
            about: "most connections of one client address (IPv6: of one network of 64 bits) at once; more are closed; \
                    `0` is no limit. Not for `trusted_proxies`, so name the load balancers there first",
        },
        Key {
            name: "h2_streams",
            kind: Kind::Count(1..=1000),
            otherwise: Otherwise::Is("100"),
            about: "most requests under way on one HTTP/2 connection, as RFC 9113 recommends",
        },
        Key {
            name: "session_data",
            kind: Kind::Size(KIB..=64 * MIB),
            otherwise: Otherwise::Is("\"256KiB\""),
            about: "largest `session_data` column that is read; a larger session is unreadable, not empty",
        },
        Key {
            name: "session_json",
            kind: Kind::Size(KIB..=64 * MIB),
            otherwise: Otherwise::Is("\"1MiB\""),
            about: "largest session after decompression: a row can be a bomb",
        },
        Key {
            name: "session_write",
            kind: Kind::Size(KIB..=64 * MIB),
            otherwise: Otherwise::Is("\"64KiB\""),
            about: "largest session, as JSON, that a change may leave behind. What may be written must also be \
                    readable under the two limits above",
        },
        Key {
            name: "session_queue",
            kind: Kind::Count(1..=100_000),
            otherwise: Otherwise::Is("128"),
            about: "most changes of one session that wait for each other; more are `session-busy`",
        },
        Key {
            name: "lookup_queue",
            kind: Kind::Count(1..=1_000_000),
            otherwise: Otherwise::Is("4096"),
            about: "most lookups that wait for a database connection; more are 503 at once instead of a queue without \
                    end",
        },
    ],
    either: &[],
};

pub(in crate::config) static TIMEOUTS: Section = Section {
    name: "[timeouts]",
    about: "What takes too long.",
    keys: &[
        Key {
            name: "tls_handshake",
            kind: TIMEOUT,
            otherwise: Otherwise::Is("\"10s\""),
            about: "a client's TLS handshake: it takes two round trips",
        },
        Key {
            name: "head",
            kind: TIMEOUT,
            otherwise: Otherwise::Is("\"10s\""),
            about: "a request head as a whole, from its first byte to its last, however slowly it comes; the first one \
                    of a connection from the connection's beginning. Also a PROXY protocol header, and in HTTP/2 any \
                    frame that is not part of a body. Heads are a packet or two",
        },
        Key {
            name: "idle",
            kind: TIMEOUT,
            otherwise: Otherwise::Is("\"75s\""),
            about: "a client connection between two requests. Above the 60 s of common load balancers, so that they \
                    and not the gateway end idle connections. An HTTP/2 client is told (GOAWAY)",
        },
        Key {
            name: "send",
            kind: TIMEOUT,
            otherwise: Otherwise::Is("\"60s\""),
            about: "a client that takes no byte of its answer, as nginx. In HTTP/2 also one that leaves no room for a \
                    single answer: that one is reset",
        },
        Key {
            name: "body_progress",
            kind: TIMEOUT,
            otherwise: Otherwise::Is("\"30s\""),
            about: "a request body without a byte",
        },
        CONNECT,
        RESPONSE_HEAD,
        RESPONSE_IDLE,
        TUNNEL_IDLE,
    ],
    either: &[],
};

/// `timeouts = { }` of an upstream or a route.
pub(in crate::config) static OWN_TIMEOUTS: Section = Section {
    name: "timeouts of [upstream.X]",
    about: "Go before those of `[timeouts]`.",
    keys: &[
        CONNECT.over("that of the upstream, or of `[timeouts]`"),
        RESPONSE_HEAD.over("that of the upstream, or of `[timeouts]`"),
        RESPONSE_IDLE.over("that of the upstream, or of `[timeouts]`"),
        TUNNEL_IDLE.over("that of the upstream, or of `[timeouts]`"),
    ],
    either: &[],
};

/// A size, or no limit.
pub(super) const BODY: [Kind; 2] = [Kind::Size(0..=1024 * GIB), Kind::Choice(&["unlimited"])];

const TIMEOUT: Kind = Kind::Duration(MILLISECOND..=DAY);

const CONNECT: Key = Key {
    name: "connect",
    kind: TIMEOUT,
    otherwise: Otherwise::Is("\"2s\""),
    about: "connecting to an upstream: in one network it takes milliseconds or fails",
};
const RESPONSE_HEAD: Key = Key {
    name: "response_head",
    kind: TIMEOUT,
    otherwise: Otherwise::Is("\"60s\""),
    about: "waiting for an upstream's response head, as nginx",
};
const RESPONSE_IDLE: Key = Key {
    name: "response_idle",
    kind: TIMEOUT,
    otherwise: Otherwise::Is("\"60s\""),
    about: "an upstream's response body without a byte",
};
const TUNNEL_IDLE: Key = Key {
    name: "tunnel_idle",
    kind: TIMEOUT,
    otherwise: Otherwise::Is("\"1h\""),
    about: "a [tunnel](upstreams.md#websockets) without a byte in either direction. Most WebSocket libraries \
                    send a ping within a minute, so what is silent for this long was forgotten; a side that has ended \
                    its half leaves the other 60 s of silence at most",
};
