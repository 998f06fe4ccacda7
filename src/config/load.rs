//! Reading the file as a whole: its sections, and what holds across them.

use std::time::Duration;

use super::{
    Address, Algorithm, Config, Gateway, Limits, Listener, Timeouts,
    item::Value,
    keys, listeners, log, pages, routes, signing, site,
    tree::Table,
    trusted, upstreams, value,
    value::{GIB, KIB, MIB},
};

/// More than a day is a slip of the unit.
const DAY: Duration = Duration::from_secs(86_400);
const MILLISECOND: Duration = Duration::from_millis(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            // As much as nginx takes by default (large_client_header_buffers 4 8k).
            request_head: 32 * 1024,
            // As gunicorn; a browser sends about 20.
            request_fields: 100,
            request_body: Some(64 * MIB),
            // At 100 ms each that is 40,000 requests a second; beyond it they would only wait for each other.
            in_flight: 4096,
            connections: 10_000,
            connections_per_address: None,
            // As recommended (RFC 9113, 6.5.2); nginx has 128.
            h2_streams: 100,
            // A session is a few KiB; a row of megabytes would be read at every request.
            session_data: 256 * 1024,
            session_json: 1024 * 1024,
            session_write: 64 * 1024,
            // A visitor with this many changes waiting for one row is a program.
            session_queue: 128,
            lookup_queue: 4096,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // A handshake takes two round trips.
            tls_handshake: Duration::from_secs(10),
            // A head is one packet or two; slow networks repeat them within seconds.
            head: Duration::from_secs(10),
            // Above the 60 s after which common load balancers let go of a connection.
            idle: Duration::from_secs(75),
            // As nginx's send_timeout.
            send: Duration::from_secs(60),
            body_progress: Duration::from_secs(30),
            // A server in the same network answers in milliseconds or not at all.
            connect: Duration::from_secs(2),
            // As nginx's proxy_read_timeout.
            response_head: Duration::from_secs(60),
            response_idle: Duration::from_secs(60),
            // Most WebSocket libraries send a ping within a minute; what is silent for this long was forgotten.
            tunnel_idle: Duration::from_secs(3600),
        }
    }
}

/// Reads the whole file. `None` only if a problem was reported.
pub(super) fn read(top: &Table<'_>) -> Option<Config> {
    let writes = top.choice("writes", true, &[("on", true), ("off", false)]);
    let watch = top.flag("watch", false);
    // Kubernetes kills 30 s after SIGTERM by default.
    let shutdown_grace = top.duration(
        "shutdown_grace",
        Duration::from_secs(20),
        Duration::ZERO..=DAY,
    );
    // Probes come every few seconds, and load balancers hear of what they found a moment later.
    let drain_delay = top.duration("drain_delay", Duration::from_secs(5), Duration::ZERO..=DAY);
    let health_table = top.table("health", &keys::HEALTH);
    let health = health_table
        .value("address")
        .and_then(|value| value.address());
    let listeners = listeners::read(top, health.as_ref());
    let admin = read_admin(
        &top.table("admin", &keys::ADMIN),
        health.as_ref(),
        &listeners,
    );
    let gateway_table = top.table("gateway", &keys::GATEWAY);
    let (signing, mut own_keys) = signing::read(&gateway_table);
    let jwks = signing::read_jwks(&health_table, own_keys.can_sign);
    let gateway = read_gateway(&gateway_table, signing);
    let limits = read_limits(&top.table("limits", &keys::LIMITS));
    let timeouts = read_timeouts(&top.table("timeouts", &keys::TIMEOUTS));
    let django_table = top.table("django", &keys::DJANGO);
    let (django, secret_keys) = site::read(&django_table);
    own_keys.add(
        secret_keys,
        "this is Django's SECRET_KEY: the upstream could forge every session",
    );
    let upstreams = upstreams::read(top, &timeouts, &own_keys);
    signing::remark(
        &gateway_table,
        upstreams
            .iter()
            .any(|entry| entry.upstream.algorithm == Algorithm::EdDsa),
        jwks.is_some(),
    );
    let cookie_is_spelled_out = django_table.value("cookie").is_some();
    let routes = routes::read(
        top,
        &upstreams,
        (&timeouts, &limits),
        django.as_ref(),
        cookie_is_spelled_out,
    );
    top.context.remark_on_env();

    Some(Config {
        digest: String::new(),
        watch,
        writes,
        shutdown_grace,
        drain_delay,
        listeners,
        health,
        admin,
        jwks,
        gateway: gateway?,
        limits,
        timeouts,
        log: log::read(top),
        error_pages: pages::read(top),
        django: django?,
        upstreams: upstreams.into_iter().map(|entry| entry.upstream).collect(),
        routes,
    })
}

/// The status page is for people on this machine: no password keeps others from it.
fn read_admin(
    table: &Table<'_>,
    health: Option<&Address>,
    listeners: &[Listener],
) -> Option<Address> {
    let value = table.value("address")?;
    let address = value.address()?;
    if let Address::Tcp(tcp) = &address
        && !tcp.ip().is_loopback()
    {
        let why = format!(
            "{tcp} is not on this machine's loopback, and the page asks nobody who they are"
        );
        let suggestion = "such as \"127.0.0.1:9901\", or \"unix:/run/session-gateway/admin.sock\"";
        value.problem(why, Some(suggestion.to_owned()));
    }
    let is_any_port = matches!(&address, Address::Tcp(tcp) if tcp.port() == 0);
    let mut others = listeners
        .iter()
        .map(|listener| &listener.address)
        .chain(health);
    if !is_any_port && others.any(|other| *other == address) {
        value.problem(format!("{address} is given twice"), None);
    }
    Some(address)
}

fn read_gateway(table: &Table<'_>, signing: signing::Keys) -> Option<Gateway> {
    let issuer = table.required("issuer", "issuer = \"https://shop.example\"");
    let origins = "a list of origins such as [\"https://shop.example\"]";
    let trusted_origins = table.list("trusted_origins", Vec::new(), origins, value::origin);
    Some(Gateway {
        issuer: issuer?.parse("text", value::issuer)?,
        trusted_proxies: trusted::read(table),
        trusted_origins,
        signing: signing.signing,
        published: signing.published,
        sid_key: signing.sid_key,
    })
}

fn read_limits(table: &Table<'_>) -> Limits {
    let defaults = Limits::default();
    let limits = Limits {
        // 8 KiB is the smallest buffer that hyper reads a head into.
        request_head: table.size("request_head", defaults.request_head, 8 * KIB..=MIB),
        request_fields: table.count("request_fields", defaults.request_fields, 16..=10_000),
        request_body: table.read("request_body", defaults.request_body, read_body_limit),
        in_flight: table.count("in_flight", defaults.in_flight, 1..=1_000_000),
        connections: table.count("connections", defaults.connections, 1..=1_000_000),
        connections_per_address: Some(table.count("connections_per_address", 0, 0..=1_000_000))
            .filter(|most| *most > 0),
        h2_streams: table.read("h2_streams", defaults.h2_streams, |value| {
            u32::try_from(value.count(1..=1000)?).ok()
        }),
        session_data: table.size("session_data", defaults.session_data, KIB..=64 * MIB),
        session_json: table.size("session_json", defaults.session_json, KIB..=64 * MIB),
        session_write: table.size("session_write", defaults.session_write, KIB..=64 * MIB),
        session_queue: table.count("session_queue", defaults.session_queue, 1..=100_000),
        lookup_queue: table.count("lookup_queue", defaults.lookup_queue, 1..=1_000_000),
    };
    // Stored, JSON is at worst base64 and a signature.
    let stored = limits.session_write / 3 * 4 + 256;
    if stored > limits.session_data || limits.session_write > limits.session_json {
        let why = "allows sessions that \"session_data\" or \"session_json\" refuses to read back";
        let keys = ["session_write", "session_data", "session_json"];
        let written = keys.iter().find_map(|key| table.value(key));
        let at = written.map_or(table.at, |value| value.at);
        let sentence = format!("\"session_write\" in [limits] {why}");
        table.context.report.problem(at, sentence, None);
    }
    limits
}

pub(super) fn read_body_limit(value: &Value<'_>) -> Option<Option<u64>> {
    if value.as_text() == Some("unlimited") {
        return Some(None);
    }
    value.size(0..=1024 * GIB).map(Some)
}

fn read_timeouts(table: &Table<'_>) -> Timeouts {
    let defaults = Timeouts::default();
    Timeouts {
        tls_handshake: table.duration("tls_handshake", defaults.tls_handshake, MILLISECOND..=DAY),
        head: table.duration("head", defaults.head, MILLISECOND..=DAY),
        send: table.duration("send", defaults.send, MILLISECOND..=DAY),
        idle: table.duration("idle", defaults.idle, MILLISECOND..=DAY),
        body_progress: table.duration("body_progress", defaults.body_progress, MILLISECOND..=DAY),
        connect: table.duration("connect", defaults.connect, MILLISECOND..=DAY),
        response_head: table.duration("response_head", defaults.response_head, MILLISECOND..=DAY),
        response_idle: table.duration("response_idle", defaults.response_idle, MILLISECOND..=DAY),
        tunnel_idle: table.duration("tunnel_idle", defaults.tunnel_idle, MILLISECOND..=DAY),
    }
}

/// `timeouts = { }` of an upstream or a route, over the ones that hold there otherwise.
pub(super) fn read_own_timeouts(table: &Table<'_>, outer: &Timeouts) -> Timeouts {
    let own = table.table("timeouts", &keys::OWN_TIMEOUTS);
    Timeouts {
        connect: own.duration("connect", outer.connect, MILLISECOND..=DAY),
        response_head: own.duration("response_head", outer.response_head, MILLISECOND..=DAY),
        response_idle: own.duration("response_idle", outer.response_idle, MILLISECOND..=DAY),
        tunnel_idle: own.duration("tunnel_idle", outer.tunnel_idle, MILLISECOND..=DAY),
        ..outer.clone()
    }
}
