//! What proxies say of who asks and for what: removed where anybody says it, and told on.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    super::{
        fields::scrub,
        seen::{Name, Seen},
    },
    Peer,
};
use crate::{
    config::Trusted,
    reserved::{self, FORWARDED_PREFIX, TOLD_BY_PROXIES, folds_to, is_told_by_proxies},
    telemetry::metrics::Scrubbed,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static(reserved::X_FORWARDED_FOR);
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static(reserved::X_FORWARDED_PROTO);

/// Names that pass in their own spelling only: a server that folds names would take another spelling for them.
/// `Proxy` becomes the variable HTTP_PROXY there (CVE-2016-5385), and `Forwarded` is not kept up by this gateway.
const NEVER_FOLDED: [&str; 5] = [
    "content-length",
    "transfer-encoding",
    "host",
    "cookie",
    "x-request-id",
];
const NEVER_PASSED: [&str; 2] = ["proxy", "forwarded"];

/// A reserved name in its own spelling has letters, digits and hyphens only.
pub fn spelling(name: &HeaderName) -> Scrubbed {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    if name.as_str().chars().all(is_plain) {
        Scrubbed::Reserved
    } else {
        Scrubbed::Alias
    }
}

/// For each first letter the lengths of the names above, and of the gateway's own, that have it, as bits.
const LENGTHS: [u64; 26] = {
    let mut lengths = [0; 26];
    note(&mut lengths, &TOLD_BY_PROXIES);
    note(&mut lengths, &NEVER_FOLDED);
    note(&mut lengths, &NEVER_PASSED);
    note(
        &mut lengths,
        &[
            reserved::X_SESSION,
            reserved::X_SESSION_SET,
            reserved::X_GATEWAY_ERROR,
        ],
    );
    lengths
};

const fn note(lengths: &mut [u64; 26], names: &[&str]) {
    let mut place = 0;
    while place < names.len() {
        let name = names[place].as_bytes();
        lengths[(name[0] - b'a') as usize] |= 1 << name.len();
        place += 1;
    }
}

/// Whether it takes a closer look to know that a lower-case name is none of those above, nor one that is the gateway's,
/// in any spelling: folding changes neither letters nor the length.
pub fn is_doubtful(name: &str) -> bool {
    let first = name.as_bytes().first();
    let lengths = first.and_then(|first| LENGTHS.get(usize::from(first.wrapping_sub(b'a'))));
    let is_listed = lengths.is_some_and(|lengths| {
        name.len() < 64 && lengths & (1 << name.len()) != 0 && !NEVER_FOLDED.contains(&name)
    });
    is_listed
        || matches!(name.as_bytes(), [b'x', _, b'f', b'o', ..] if name.len() >= FORWARDED_PREFIX.len())
}

/// Removes what only proxies may say, and every other spelling of it. What a proxy that is `trusted` says of client and
/// scheme stays, and what it is trusted with beyond: it may pass on what its own client has written elsewhere. Gives the
/// names.
pub fn scrub_forwarding(headers: &mut HeaderMap, trusted: Option<&Trusted>) -> Vec<HeaderName> {
    scrub(headers, |name| {
        if is_told_by_proxies(name) {
            let is_believed = |trusted: &Trusted| {
                [reserved::X_FORWARDED_FOR, reserved::X_FORWARDED_PROTO].contains(&name)
                    || trusted.fields.iter().any(|field| field == name)
            };
            return !trusted.is_some_and(is_believed);
        }
        NEVER_PASSED.iter().any(|told| folds_to(name, told))
            || NEVER_FOLDED
                .iter()
                .any(|own| name != *own && folds_to(name, own))
    })
}

/// The entries of a list, from the left; `None` is one that is not text. A client can have written any of them but the
/// last, so one that cannot be read must not hide the others.
fn entries(value: &HeaderValue) -> impl DoubleEndedIterator<Item = Option<&str>> {
    let entries = value.as_bytes().split(|byte| *byte == b',');
    entries.map(|entry| {
        std::str::from_utf8(entry)
            .ok()
            .filter(|entry| entry.is_ascii())
            .map(str::trim)
    })
}

/// The client by the word of trusted proxies: from the right, the first address that is not one of them.
pub fn client_of(headers: &HeaderMap, peer: Option<IpAddr>, trusted: &Trusted) -> Option<IpAddr> {
    let mut client = peer;
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for entry in fields.flat_map(|value| entries(value).rev()) {
        let Some(Ok(address)) = entry.map(str::parse::<IpAddr>) else {
            break;
        };
        client = Some(address.to_canonical());
        if !trusted.contains(client) {
            break;
        }
    }
    client
}

/// An address as `X-Forwarded-For` has it.
pub fn spelt(address: IpAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(address.to_canonical().to_string()).ok()
}

/// What `X-Forwarded-For` is to say where it has said something; `None` for nothing.
fn chain(headers: &HeaderMap, peer: &Peer) -> Option<HeaderValue> {
    let mut chain = String::new();
    for entry in headers.get_all(X_FORWARDED_FOR).iter().flat_map(entries) {
        // As RFC 7239, section 6.3, calls it.
        chain.push_str(entry.unwrap_or("unknown"));
        chain.push_str(", ");
    }
    match peer.spelt.as_ref().and_then(|spelt| spelt.to_str().ok()) {
        Some(spelt) => chain.push_str(spelt),
        None => chain.truncate(chain.len().saturating_sub(2)),
    }
    // ASCII without controls by construction: addresses, and what was in a field's value.
    let chain = HeaderValue::try_from(chain).ok();
    chain.filter(|chain| !chain.is_empty())
}

/// Appends to what a trusted proxy has said (the others' words are gone), and gives the scheme. A Unix socket's peer
/// has no address, and adds none. `seen` is of the fields before any were removed.
pub fn tell_forwarding(
    headers: &mut HeaderMap,
    seen: Seen,
    peer: &Peer,
    authority: Option<&HeaderValue>,
) -> &'static str {
    let chain = match seen.has(Name::XForwardedFor) {
        true => chain(headers, peer),
        false => peer.spelt.clone(),
    };
    match chain {
        Some(chain) => drop(headers.insert(X_FORWARDED_FOR, chain)),
        None => drop(headers.remove(X_FORWARDED_FOR)),
    }
    let scheme = match seen.has(Name::XForwardedProto) {
        true => told_scheme(headers, peer),
        false if peer.encrypted => "https",
        false => "http",
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    let is_told =
        seen.has(Name::XForwardedHost) && headers.get_all(X_FORWARDED_HOST).iter().count() == 1;
    if let (Some(authority), false) = (authority, is_told) {
        headers.insert(X_FORWARDED_HOST, authority.clone());
    }
    scheme
}

/// The scheme where the field for it came, and may be gone by now.
fn told_scheme(headers: &HeaderMap, peer: &Peer) -> &'static str {
    let mut protocols = headers.get_all(X_FORWARDED_PROTO).iter();
    let told = protocols.next().filter(|_| protocols.next().is_none());
    match told {
        Some(told) if told.as_bytes().eq_ignore_ascii_case(b"https") => "https",
        None if peer.encrypted => "https",
        _ => "http",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_name_escapes_the_first_look() {
        let own = [
            reserved::X_SESSION,
            reserved::X_SESSION_SET,
            reserved::X_GATEWAY_ERROR,
            FORWARDED_PREFIX,
            "x-forwarded-prefix",
        ];
        let names = TOLD_BY_PROXIES.iter().chain(&NEVER_PASSED).chain(&own);
        for name in names {
            for spelling in [
                name.to_string(),
                name.replace('-', "_"),
                name.replace('-', "."),
            ] {
                assert!(is_doubtful(&spelling), "{spelling}");
            }
        }
        for name in NEVER_FOLDED {
            assert!(!is_doubtful(name), "{name}");
            let other = name.replace('-', "_");
            assert!(other == name || is_doubtful(&other), "{other}");
        }
        for other in [
            "",
            "-",
            "_",
            "accept",
            "user-agent",
            "é",
            "x-frame",
            "x-scheme-x",
        ] {
            assert!(!is_doubtful(other), "{other}");
        }
        assert!(!is_doubtful(&"c".repeat(64)));
    }
}
