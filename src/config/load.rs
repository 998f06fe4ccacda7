//! Reading the file as a whole: its sections, and what holds across them.

use super::{
    Address, Algorithm, Config, Gateway, Limits, Listener, Timeouts,
    item::Value,
    keys, listeners, log, pages, routes, signing, site,
    tree::{self, Table},
    trusted, upstreams, value,
};

impl Default for Limits {
    fn default() -> Self {
        tree::absent(&keys::LIMITS, read_limits)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        tree::absent(&keys::TIMEOUTS, read_timeouts)
    }
}

/// Reads the whole file. `None` only if a problem was reported.
pub(super) fn read(top: &Table<'_>) -> Option<Config> {
    let writes = top.choice("writes", &[("on", true), ("off", false)]);
    let watch = top.flag("watch");
    let shutdown_grace = top.duration("shutdown_grace");
    let drain_delay = top.duration("drain_delay");
    let health_table = top.table("health");
    let health = health_table
        .value("address")
        .and_then(|value| value.address());
    let listeners = listeners::read(top, health.as_ref());
    let admin = read_admin(&top.table("admin"), health.as_ref(), &listeners);
    let gateway_table = top.table("gateway");
    let (signing, mut own_keys) = signing::read(&gateway_table);
    let jwks = signing::read_jwks(&health_table, own_keys.can_sign);
    let gateway = read_gateway(&gateway_table, signing);
    let limits = read_limits(&top.table("limits"));
    let timeouts = read_timeouts(&top.table("timeouts"));
    let django_table = top.table("django");
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
    if let Some(gateway) = &gateway {
        trusted::check(&gateway_table, &gateway.trusted_proxies, &routes);
    }
    top.context.remark_on_env();

    Some(Config {
        digest: String::new(),
        watch,
        writes: writes?,
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
    let issuer = table.required("issuer");
    let origins = "a list of origins such as [\"https://shop.example\"]";
    let trusted_origins = table.list("trusted_origins", origins, value::origin);
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
    let limits = Limits {
        request_head: table.size("request_head"),
        request_fields: table.count("request_fields"),
        request_body: table
            .read("request_body", read_body_limit)
            .unwrap_or(Some(0)),
        in_flight: table.count("in_flight"),
        connections: table.count("connections"),
        connections_per_address: Some(table.count("connections_per_address"))
            .filter(|most| *most > 0),
        h2_streams: u32::try_from(table.count("h2_streams")).unwrap_or(u32::MAX),
        session_data: table.size("session_data"),
        session_json: table.size("session_json"),
        session_write: table.size("session_write"),
        session_queue: table.count("session_queue"),
        lookup_queue: table.count("lookup_queue"),
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
    value.size().map(Some)
}

fn read_timeouts(table: &Table<'_>) -> Timeouts {
    Timeouts {
        tls_handshake: table.duration("tls_handshake"),
        head: table.duration("head"),
        idle: table.duration("idle"),
        send: table.duration("send"),
        body_progress: table.duration("body_progress"),
        connect: table.duration("connect"),
        response_head: table.duration("response_head"),
        response_idle: table.duration("response_idle"),
        tunnel_idle: table.duration("tunnel_idle"),
    }
}

/// `timeouts = { }` of an upstream or a route, over the ones that hold there otherwise.
pub(super) fn read_own_timeouts(table: &Table<'_>, outer: &Timeouts) -> Timeouts {
    let own = table.table("timeouts");
    let read = |key, outer| own.read(key, |value| value.duration()).unwrap_or(outer);
    Timeouts {
        connect: read("connect", outer.connect),
        response_head: read("response_head", outer.response_head),
        response_idle: read("response_idle", outer.response_idle),
        tunnel_idle: read("tunnel_idle", outer.tunnel_idle),
        ..outer.clone()
    }
}
