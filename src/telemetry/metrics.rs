//! What is counted, and how Prometheus reads it.
//!
//! Every metric is a field of [`Metrics`] and is listed once, in [`Metrics::default`]; docs/operations.md has the
//! same list, and a test compares them. Labels are enums or names of the configuration, so that no request can make
//! a new series. What counts is made beforehand: to count is an atomic addition, without a lock or a look-up by name.

mod kinds;
mod labels;
mod process;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use self::process::ProcessMetrics;
pub use self::{
    kinds::{Counters, Gauges, Held, Histogram, Named},
    labels::{
        Cached, Change, Class, Ended, Extension, Finding, Label, Lookup, Overstayed, Pool,
        Protocol, Refused, Reload, Scrubbed, TlsFailure, Tunnelled, Withheld,
    },
    process::Process,
};
use super::access;
use crate::error::Code;

/// The media type of [`Metrics::text`] (OpenMetrics 1.0, "Overall Structure").
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The value of the label `route` for requests that no route serves. Paths begin with a slash and no host stands
/// alone, so no route is called so.
pub const NO_ROUTE: &str = "none";

/// Upper bounds of the buckets of [`Metrics::batch_questions`]: up to the largest batch.
const BATCH_SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128];

/// The labels of what is counted of a server.
const UPSTREAM: &[&str] = &["upstream", "server"];

/// Upper bounds of the buckets of durations, in microseconds: from the gateway's own work to the longest timeout
/// that is usual.
const DURATIONS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Everything that a process counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Named<Counter>,
    request_duration: Named<Histogram>,
    /// What requests that no route serves are counted by.
    pub no_route: RouteMetrics,
    /// Requests whose answer has not ended.
    pub requests_in_flight: Gauge,
    /// Answers of the gateway itself, by code.
    pub gateway_errors: Counters<Code>,
    /// Header fields of clients that were removed.
    pub scrubbed_fields: Counters<Scrubbed>,
    /// Requests with more than one session cookie.
    pub duplicate_session_cookies: Counter,
    /// Tokens that do not tell the session.
    pub tokens_withheld: Counters<Withheld>,
    /// What was found out about session keys.
    pub session_lookups: Counters<Lookup>,
    /// How long that took.
    pub session_lookup_duration: Histogram,
    /// What became of session changes.
    pub session_changes: Counters<Change>,
    /// How long that took.
    pub session_change_duration: Histogram,
    /// What became of sessions that were to live on, with `save_every_request`.
    pub session_extensions: Counters<Extension>,
    /// Questions that went to the database in one statement.
    pub batch_questions: Histogram,
    /// The memo of what rows mean.
    pub memo: CacheMetrics,
    /// The bounded cache of session rows.
    pub session_cache: CacheMetrics,
    /// The bounded cache of users.
    pub user_cache: CacheMetrics,
    /// 1 while the database is known to be away, and nobody waits for it.
    pub database_away: Gauge,
    /// Open connections to the database.
    pub database_connections: Gauges<Pool>,
    /// Those of them that are at work.
    pub database_connections_busy: Gauges<Pool>,
    /// Lookups that wait for a connection.
    pub lookups_waiting: Gauge,
    /// Changes that wait for their session, for a connection, or for the database.
    pub changes_under_way: Gauge,
    upstream_up: Named<Gauge>,
    upstream_left_out: Named<Gauge>,
    upstream_turns: Named<Counter>,
    upstream_requests_in_flight: Named<Gauge>,
    upstream_connections: Named<Counter>,
    /// Open connections of clients.
    pub connections_open: Gauges<Protocol>,
    /// Connections that were closed at once.
    pub connections_refused: Counters<Refused>,
    /// Connections that were closed at a deadline.
    pub connections_overdue: Counters<Overstayed>,
    /// How often `limits.connections` was reached, so that nothing was accepted.
    pub accept_pauses: Counter,
    /// TLS handshakes that failed.
    pub tls_failures: Counters<TlsFailure>,
    /// Open tunnels.
    pub tunnels_open: Gauges<Tunnelled>,
    /// Looks at the sessions of open tunnels and streams, by what was found.
    pub rechecks: Counters<Finding>,
    /// Tunnels and streams that the gateway ended, by why.
    pub streams_ended: Counters<Ended>,
    /// Attempts to take a new configuration.
    pub reloads: Counters<Reload>,
    /// When the configuration was taken that is in force; Unix time, seconds.
    pub last_reload_success: Gauge,
    /// When certificates end, by the path of their file; Unix time, seconds.
    pub certificate_expiry: Named<Gauge>,
    log_lines_dropped: Counter,
    process: ProcessMetrics,
}

/// What is counted of one route. Made when the route is; to count takes no look-up.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    /// Requests, by what became of them.
    pub requests: Counters<Class>,
    /// Until the head of the answer.
    pub duration: Histogram,
}

/// What is counted of one of an upstream's `servers`.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    /// Its addresses that requests go to.
    pub up: Gauge,
    /// Its addresses that no requests go to.
    pub left_out: Gauge,
    /// How often one was left out.
    pub turns_for_the_worse: Counter,
    /// Requests and tunnels that it is busy with.
    pub requests_in_flight: Gauge,
    /// Connections that were opened.
    pub connections: Counter,
}

/// What is counted of a cache.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Whether what was asked for was there, and young enough.
    pub lookups: Counters<Cached>,
    entries: Gauge,
    bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("session_gateway");
        let to = &mut registry;
        let requests = Named::new(
            to,
            "requests",
            "Requests, by route and what became of them",
            &["route", Class::NAME],
            Counter::default,
        );
        let request_duration = Named::seconds(
            to,
            "request_duration",
            "From the end of a request's head to the head of its answer",
            &["route"],
            || Histogram::of_durations(DURATIONS),
        );
        Self {
            no_route: RouteMetrics::new(&requests, &request_duration, NO_ROUTE),
            requests,
            request_duration,
            requests_in_flight: gauge(
                to,
                "requests_in_flight",
                "Requests whose answer has not ended",
            ),
            gateway_errors: Counters::new(
                to,
                "gateway_errors",
                "Answers of the gateway itself, by code",
            ),
            scrubbed_fields: Counters::new(
                to,
                "scrubbed_fields",
                "Header fields of clients that were removed because they are the gateway's or a proxy's",
            ),
            duplicate_session_cookies: counter(
                to,
                "duplicate_session_cookies",
                "Requests with more than one session cookie",
            ),
            tokens_withheld: Counters::new(
                to,
                "tokens_withheld",
                "Requests whose token does not tell the session, by reason",
            ),
            session_lookups: Counters::new(
                to,
                "session_lookups",
                "Session keys that requests came with, by what was found",
            ),
            session_lookup_duration: Histogram::seconds(
                to,
                "session_lookup_duration",
                "Until it was known whose session key it is",
                DURATIONS,
            ),
            session_changes: Counters::new(
                to,
                "session_changes",
                "Changes of sessions that were carried out or refused, by outcome",
            ),
            session_change_duration: Histogram::seconds(
                to,
                "session_change_duration",
                "Until a change was committed or refused",
                DURATIONS,
            ),
            session_extensions: Counters::new(
                to,
                "session_extensions",
                "Sessions whose end was due to be moved, with save_every_request",
            ),
            batch_questions: Histogram::new(
                to,
                "batch_questions",
                "Questions in one lookup of the database",
                BATCH_SIZES,
            ),
            memo: CacheMetrics::new(to, "memo", "memo of what session rows mean"),
            session_cache: CacheMetrics::new(to, "session_cache", "cache of session rows"),
            user_cache: CacheMetrics::new(to, "user_cache", "cache of users"),
            database_away: gauge(
                to,
                "database_away",
                "1 while the session database is known to be away",
            ),
            database_connections: Gauges::new(
                to,
                "database_connections",
                "Open connections to the session database",
            ),
            database_connections_busy: Gauges::new(
                to,
                "database_connections_busy",
                "Connections to the session database that are at work",
            ),
            lookups_waiting: gauge(
                to,
                "lookups_waiting",
                "Lookups that wait for a connection to the database",
            ),
            changes_under_way: gauge(
                to,
                "changes_under_way",
                "Changes of sessions that have begun and not ended",
            ),
            upstream_up: Named::new(
                to,
                "upstream_up",
                "Addresses of a server that requests go to",
                UPSTREAM,
                Gauge::default,
            ),
            upstream_left_out: Named::new(
                to,
                "upstream_left_out",
                "Addresses of a server that no requests go to, because it cannot be reached, answers badly or fails its checks",
                UPSTREAM,
                Gauge::default,
            ),
            upstream_turns: Named::new(
                to,
                "upstream_turns_for_the_worse",
                "How often an address of a server was left out",
                UPSTREAM,
                Counter::default,
            ),
            upstream_requests_in_flight: Named::new(
                to,
                "upstream_requests_in_flight",
                "Requests and tunnels that a server is busy with",
                UPSTREAM,
                Gauge::default,
            ),
            upstream_connections: Named::new(
                to,
                "upstream_connections",
                "Connections to a server that were opened",
                UPSTREAM,
                Counter::default,
            ),
            connections_open: Gauges::new(to, "connections_open", "Open connections of clients"),
            connections_refused: Counters::new(
                to,
                "connections_refused",
                "Connections of clients that were closed at once",
            ),
            connections_overdue: Counters::new(
                to,
                "connections_overdue",
                "Connections of clients that were closed at a deadline",
            ),
            accept_pauses: counter(
                to,
                "accept_pauses",
                "How often limits.connections was reached, and new connections had to wait",
            ),
            tls_failures: Counters::new(
                to,
                "tls_handshake_failures",
                "TLS handshakes with clients that failed",
            ),
            tunnels_open: Gauges::new(to, "tunnels_open", "Open tunnels"),
            rechecks: Counters::new(
                to,
                "rechecks",
                "Looks at the sessions of open tunnels and streams, by what was found",
            ),
            streams_ended: Counters::new(
                to,
                "streams_ended",
                "Tunnels and streams that the gateway ended, by why",
            ),
            reloads: Counters::new(to, "reloads", "Attempts to take a new configuration"),
            last_reload_success: gauge(
                to,
                "last_reload_success_timestamp_seconds",
                "When the configuration in force was taken",
            ),
            certificate_expiry: Named::new(
                to,
                "certificate_expiry_timestamp_seconds",
                "When a certificate ends",
                &["certificate"],
                Gauge::default,
            ),
            log_lines_dropped: counter(
                to,
                "access_log_dropped",
                "Lines of the access log that were left out because nobody took them in time",
            ),
            process: ProcessMetrics::new(to),
            registry,
        }
    }
}

impl Metrics {
    /// Everything, as OpenMetrics text: see [`MEDIA_TYPE`].
    pub fn text(&self) -> String {
        self.process.measure();
        let dropped = self.log_lines_dropped.inner();
        dropped.store(access::dropped(), Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// What the operating system says of this process, now.
    pub fn process(&self) -> Process {
        self.process.measure();
        self.process.told()
    }

    /// What is counted of a route with this name; the same for the same name, so that a reload goes on counting.
    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics::new(&self.requests, &self.request_duration, name)
    }
}

impl Metrics {
    /// What is counted of a server of an upstream, as the file names both; the same for the same names.
    pub fn server(&self, upstream: &str, server: &str) -> ServerMetrics {
        let names = &[upstream, server];
        ServerMetrics {
            up: self.upstream_up.of(names),
            left_out: self.upstream_left_out.of(names),
            turns_for_the_worse: self.upstream_turns.of(names),
            requests_in_flight: self.upstream_requests_in_flight.of(names),
            connections: self.upstream_connections.of(names),
        }
    }
}

impl RouteMetrics {
    fn new(requests: &Named<Counter>, duration: &Named<Histogram>, name: &str) -> Self {
        Self {
            requests: requests.each(&[name]),
            duration: duration.of(&[name]),
        }
    }
}

impl CacheMetrics {
    fn new(registry: &mut Registry, name: &str, what: &str) -> Self {
        let lookups = Counters::new(
            registry,
            &format!("{name}_lookups"),
            &format!("Looks into the {what}"),
        );
        let entries = gauge(
            registry,
            &format!("{name}_entries"),
            &format!("Entries of the {what}"),
        );
        let bytes = Gauge::default();
        registry.register_with_unit(
            name,
            format!("What the {what} takes of its limit"),
            Unit::Bytes,
            bytes.clone(),
        );
        Self {
            lookups,
            entries,
            bytes,
        }
    }

    /// Tells how large the cache is.
    pub fn measure(&self, entries: usize, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Registers one counter. To the name `_total` is added.
fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Registers one gauge.
fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}
