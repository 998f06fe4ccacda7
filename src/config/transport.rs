//! Where an upstream's servers are, and how they are chosen and spoken to.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use http::{HeaderValue, uri::PathAndQuery};

use super::{
    item::Value,
    listeners::LONGEST_PATH,
    tree::Table,
    value::{self, Parsed, Refused},
};

/// One of an upstream's `servers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As the file has it: how logs and metrics call it, and what `balance = "hash"` hashes.
    pub name: String,
    /// Where it is.
    pub address: ServerAddress,
    /// Its one of `weights`; 1 without.
    pub weight: u32,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name and port; each of its addresses is a server.
    Name {
        /// Lower-case.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Server {
    /// The server itself as a `Host`: `localhost` for a Unix socket, which has no name.
    pub fn host(&self) -> &str {
        match &self.address {
            ServerAddress::Unix(_) => "localhost",
            _ => &self.name,
        }
    }
}

/// `balance`: which server takes the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// `"round-robin"`: each in turn, by weight.
    RoundRobin,
    /// `"least-requests"`: the one with the fewest requests in flight, by weight.
    LeastRequests,
    /// `"hash"`: always the same one for a session; for a client's address where there is no session.
    Hash,
}

/// `protocol`: what is spoken to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by prior knowledge, with `tls` by ALPN.
    Http2,
}

/// `health`: how servers are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `path`, with a query if need be.
    pub path: PathAndQuery,
    /// `host`: the `Host` of the question; `None` is the server's own name.
    pub host: Option<HeaderValue>,
    /// `every`: from one question to the next.
    pub every: Duration,
    /// `timeout`: for an answer.
    pub timeout: Duration,
    /// `fall`: this many wrong answers in a row, and it is down.
    pub fall: u32,
    /// `rise`: this many right answers in a row, and it is up again.
    pub rise: u32,
    /// `status`: the right answers.
    pub status: RangeInclusive<u16>,
}

/// `servers` with `weights`.
pub(super) fn read_servers(table: &Table<'_>) -> Vec<Server> {
    let Some(value) = table.required("servers") else {
        return Vec::new();
    };
    let expected = "a list of host:port such as [\"127.0.0.1:3001\"]";
    if value.is_empty_list() {
        value.problem("an upstream has at least one server", None);
    }
    let folder = value.context.folder;
    let servers = value.list(expected, |text| match text.strip_prefix("unix:") {
        Some(path) => unix(text, folder.join(path)),
        None => tcp(text),
    });
    let mut servers = servers.unwrap_or_default();
    if let Some(weights) = table.value("weights") {
        read_weights(&weights, &value, &mut servers);
    }
    servers
}

fn tcp(text: &str) -> Parsed<Server> {
    let name = value::server(text)?;
    let address = match (name.parse(), name.rsplit_once(':')) {
        (Ok(address), _) => ServerAddress::Ip(address),
        // `value::server` has seen that there is one.
        (Err(_), parts) => {
            let (host, port) = parts.unwrap_or((&name, ""));
            ServerAddress::Name {
                host: host.to_owned(),
                port: port.parse().unwrap_or_default(),
            }
        }
    };
    Ok(Server {
        name,
        address,
        weight: 1,
    })
}

fn unix(text: &str, path: PathBuf) -> Parsed<Server> {
    let length = path.as_os_str().len();
    if text.ends_with(':') || text.ends_with('/') {
        return Err(Refused::new(format!(
            "{text:?} is not a socket's path, such as \"unix:/run/app.sock\""
        )));
    }
    if let Some(rest) = text.strip_prefix("unix://") {
        let why = format!("{text:?} is not unix: and a path");
        let path = rest.trim_start_matches('/');
        return Err(Refused::instead(why, &format!("unix:/{path}")));
    }
    if length > LONGEST_PATH {
        return Err(Refused::new(format!(
            "{} has {length} bytes, and a socket's path has at most {LONGEST_PATH}",
            path.display()
        )));
    }
    Ok(Server {
        name: text.to_owned(),
        address: ServerAddress::Unix(path),
        weight: 1,
    })
}

fn read_weights(value: &Value<'_>, servers_value: &Value<'_>, servers: &mut [Server]) {
    let Some(items) = value.items("a list of numbers such as [3, 1]") else {
        return;
    };
    let weights: Vec<usize> = items.iter().filter_map(|item| item.count()).collect();
    // What is wrong with a server or a weight was reported; the numbers would be an echo.
    let written = servers_value.items("").map_or(0, |items| items.len());
    if items.len() != written {
        let why = format!("{} weights for {written} of servers", items.len());
        let suggestion = "give each server one, in the order of servers".to_owned();
        value.problem(why, Some(suggestion));
        return;
    }
    for (server, weight) in servers.iter_mut().zip(weights) {
        server.weight = u32::try_from(weight).unwrap_or(1);
    }
}

/// `balance`.
pub(super) fn read_balance(table: &Table<'_>) -> Option<Balance> {
    let choices = [
        ("round-robin", Balance::RoundRobin),
        ("least-requests", Balance::LeastRequests),
        ("hash", Balance::Hash),
    ];
    table.choice("balance", &choices)
}

/// `protocol`.
pub(super) fn read_protocol(table: &Table<'_>) -> Option<Protocol> {
    let choices = [("http1", Protocol::Http1), ("h2", Protocol::Http2)];
    table.choice("protocol", &choices)
}

/// `health`.
pub(super) fn read_health(table: &Table<'_>) -> Option<Health> {
    table.value("health")?;
    let health = table.table("health");
    let path = health
        .required("path")
        .and_then(|value| value.parse("a path such as \"/healthz\"", path));
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    Some(Health {
        path,
        host: health
            .value("host")
            .and_then(|value| value.parse("text", host)),
        every: health.duration("every"),
        timeout: health.duration("timeout"),
        fall: count(&health, "fall"),
        rise: count(&health, "rise"),
        status: health.read("status", |value| {
            value.parse("a status such as \"200\" or \"200-399\"", status)
        })?,
    })
}

fn count(table: &Table<'_>, key: &'static str) -> u32 {
    u32::try_from(table.count(key)).unwrap_or(u32::MAX)
}

fn path(text: &str) -> Parsed<PathAndQuery> {
    let parsed = PathAndQuery::try_from(text).ok();
    let is_good = text.starts_with('/') && !text.contains('#') && text.is_ascii();
    parsed.filter(|_| is_good).ok_or_else(|| {
        let why = format!("{text:?} is not a path, such as \"/healthz\"");
        match text.starts_with('/') || text.contains("://") {
            true => Refused::new(why),
            false => Refused::instead(why, &format!("/{text}")),
        }
    })
}

fn host(text: &str) -> Parsed<HeaderValue> {
    let authority = http::uri::Authority::try_from(text).ok();
    let value = HeaderValue::from_str(text).ok();
    value
        .filter(|_| authority.is_some() && !text.contains('@'))
        .ok_or_else(|| Refused::new(format!("{text:?} is not a host, such as \"shop.example\"")))
}

fn status(text: &str) -> Parsed<RangeInclusive<u16>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let number = text.trim().parse::<u16>().ok();
        number.filter(|status| (100..=599).contains(status))
    };
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => Ok(from..=to),
        _ => Err(Refused::new(format!(
            "{text:?} is not a status such as \"200\" or \"200-399\""
        ))),
    }
}
