//! `trusted_proxies`: whose word counts on who the client is; `trusted_fields`: what else they may say.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use super::{
    Route,
    tree::Table,
    value::{self, Parsed, Refused},
};
use crate::reserved::{FORWARDED_PREFIX, is_told_by_proxies};

/// How the list names the peers of Unix sockets.
const UNIX: &str = "unix";

/// Peers whose word is taken. None by default; all addresses together are refused.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// Networks.
    pub networks: Vec<IpNet>,
    /// Whoever connects to a Unix socket.
    pub unix: bool,
    /// `trusted_fields`: what they tell services beyond client and scheme.
    pub fields: Vec<HeaderName>,
}

impl Trusted {
    /// Whether this peer is one of them; one without an address comes from a Unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|address| address.to_canonical()) {
            Some(address) => self.networks.iter().any(|net| net.contains(&address)),
            None => self.unix,
        }
    }
}

enum Entry {
    Network(IpNet),
    Unix,
}

/// Reads `[gateway] trusted_proxies`.
pub(super) fn read(table: &Table<'_>) -> Trusted {
    let expected = "a list of networks such as [\"10.0.0.0/8\"]";
    let entry = |text: &str| match text {
        UNIX => Ok(Entry::Unix),
        text => value::network(text).map(Entry::Network),
    };
    let fields = "a list of names such as [\"X-Real-IP\"]";
    let mut trusted = Trusted {
        fields: table.list("trusted_fields", fields, field),
        ..Trusted::default()
    };
    for entry in table.list("trusted_proxies", expected, entry) {
        match entry {
            Entry::Network(network) => trusted.networks.push(network),
            Entry::Unix => trusted.unix = true,
        }
    }
    if let Some(value) = table.value("trusted_proxies")
        && is_everyone(&trusted.networks)
    {
        let why = "this is every address: anybody could claim any client address and scheme";
        value.problem(why, Some("list the proxies before the gateway".to_owned()));
    }
    if let Some(value) = table.value("trusted_fields")
        && trusted.networks.is_empty()
        && !trusted.unix
        && !trusted.fields.is_empty()
    {
        let why = "nobody is trusted to say these";
        value.problem(
            why,
            Some("list the proxies in \"trusted_proxies\"".to_owned()),
        );
    }
    trusted
}

/// What the gateway says in a plain header nobody else does, on whatever route.
pub(super) fn check(table: &Table<'_>, trusted: &Trusted, routes: &[Route]) {
    let mut plain = routes.iter().flat_map(|route| &route.plain_headers);
    let taken = plain.find(|plain| trusted.fields.contains(&plain.name));
    if let (Some(plain), Some(value)) = (taken, table.value("trusted_fields")) {
        let why = format!(
            "the plain_headers of a route have {}: only the gateway sets it",
            plain.name
        );
        value.problem(why, None);
    }
}

/// One of `trusted_fields`.
fn field(text: &str) -> Parsed<HeaderName> {
    let name = HeaderName::try_from(text).ok();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let name = name
        .filter(|name| is_told_by_proxies(name.as_str()) && name.as_str().chars().all(is_plain))
        .filter(|name| name != FORWARDED_PREFIX);
    name.ok_or_else(|| {
        Refused::new(format!(
            "{text:?} is not a field that only proxies may set, such as \"X-Forwarded-Host\" or \"X-Real-IP\""
        ))
    })
}

/// Whether the networks are, together, all of IPv4 (also as IPv6) or all of IPv6.
fn is_everyone(networks: &Vec<IpNet>) -> bool {
    let mapped = |network: &IpNet| match network {
        IpNet::V6(v6) => {
            v6.prefix_len() <= 96 && v6.contains(&std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped())
        }
        IpNet::V4(_) => false,
    };
    let joined = IpNet::aggregate(networks);
    joined
        .iter()
        .any(|network| network.prefix_len() == 0 || mapped(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_trusted_only_by_name() {
        let mut trusted = Trusted {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            ..Trusted::default()
        };
        assert!(!trusted.contains(None));
        assert!(trusted.contains(Some("::ffff:127.0.0.1".parse().unwrap())));
        trusted.unix = true;
        assert!(trusted.contains(None));
        assert!(!trusted.contains(Some("192.0.2.1".parse().unwrap())));
    }
}
