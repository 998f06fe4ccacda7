//! Header fields that end at this hop, in both directions (RFC 9110, section 7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::seen::{Name, Seen};
use crate::{config::FieldChange, reserved};

/// Fields that never pass a hop, whether or not `Connection` names them.
const HOP_BY_HOP: [(Name, HeaderName); 9] = [
    (Name::Connection, header::CONNECTION),
    (
        Name::Http2Settings,
        HeaderName::from_static("http2-settings"),
    ),
    (Name::KeepAlive, HeaderName::from_static("keep-alive")),
    (Name::ProxyAuthenticate, header::PROXY_AUTHENTICATE),
    (Name::ProxyAuthorization, header::PROXY_AUTHORIZATION),
    (
        Name::ProxyConnection,
        HeaderName::from_static("proxy-connection"),
    ),
    (Name::Te, header::TE),
    (Name::TransferEncoding, header::TRANSFER_ENCODING),
    (Name::Upgrade, header::UPGRADE),
];

/// What was found in the fields that end at this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripped {
    /// Whether `Connection` nominates a reserved name: an attempt to have that removed on the way.
    pub nominates_reserved: bool,
    /// Fields that were removed because `Connection` nominates them.
    pub nominated: u64,
}

/// Removes what ends here: the usual fields and everything that `Connection` nominates. A `reserved` name is one
/// that only the gateway may set. `seen` is of these fields.
pub fn strip_hop_by_hop(
    headers: &mut HeaderMap,
    seen: Seen,
    reserved: impl Fn(&str) -> bool,
) -> Stripped {
    let mut nominates_reserved = false;
    let mut nominated: Vec<HeaderName> = Vec::new();
    let connection = seen.has(Name::Connection);
    let connection = connection.then(|| headers.get_all(header::CONNECTION));
    for value in connection.into_iter().flatten() {
        for name in value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
        {
            nominates_reserved |= std::str::from_utf8(name).is_ok_and(&reserved);
            // What nearly all say is the name of a field that goes anyway.
            if !name.eq_ignore_ascii_case(b"keep-alive") {
                nominated.extend(HeaderName::from_bytes(name));
            }
        }
    }
    for (_, name) in HOP_BY_HOP.iter().filter(|(name, _)| seen.has(*name)) {
        headers.remove(name);
    }
    let nominated = nominated
        .iter()
        .filter(|name| headers.remove(*name).is_some());
    Stripped {
        nominates_reserved,
        nominated: nominated.count() as u64,
    }
}

/// Sets and removes what the configuration of a route says.
pub fn change(headers: &mut HeaderMap, changes: &[FieldChange]) {
    for FieldChange { name, value } in changes {
        match value {
            Some(value) => drop(headers.insert(name, value.clone())),
            None => drop(headers.remove(name)),
        }
    }
}

/// Sets what the configuration of a route says in an answer of the gateway's own, which keeps what it says itself.
pub fn add(headers: &mut HeaderMap, changes: &[FieldChange]) {
    for FieldChange { name, value } in changes {
        if let (Some(value), false) = (value, headers.contains_key(name)) {
            headers.insert(name, value.clone());
        }
    }
}

/// Whether a field that is a list of names has this one, in any case.
pub fn is_listed(headers: &HeaderMap, field: HeaderName, name: &str) -> bool {
    let mut values = headers.get_all(field).iter();
    values.any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// Whether an answer is a stream of server-sent events (HTML standard, section 9.2), which has no end of its own.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let mut parts = value.as_bytes().split(|byte| *byte == b';');
        let kind = parts.next().unwrap_or_default().trim_ascii();
        kind.eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// Removes every field whose name is `reserved`, and gives their names.
pub fn scrub(headers: &mut HeaderMap, reserved: impl Fn(&str) -> bool) -> Vec<HeaderName> {
    let found: Vec<_> = headers
        .keys()
        .filter(|name| reserved(name.as_str()))
        .cloned()
        .collect();
    for name in &found {
        headers.remove(name);
    }
    found
}

/// Removes reserved names from `Trailer`, which the trailers themselves will not have. The others stay: hyper sends
/// only what is announced (RFC 9110, section 6.6.2).
pub fn scrub_trailer(headers: &mut HeaderMap) {
    let is_reserved = |name: &&str| reserved::in_response(name);
    let announced = |value: &HeaderValue| {
        let names = value.to_str().unwrap_or_default().split(',').map(str::trim);
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let names: Vec<String> = headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(announced)
        .collect();
    if !names.iter().any(|name| is_reserved(&name.as_str())) {
        return;
    }
    headers.remove(header::TRAILER);
    let kept: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !is_reserved(name))
        .collect();
    if let (false, Ok(kept)) = (kept.is_empty(), HeaderValue::try_from(kept.join(", "))) {
        headers.insert(header::TRAILER, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn strip(headers: &mut HeaderMap) -> Stripped {
        let seen = Seen::of(headers);
        strip_hop_by_hop(headers, seen, reserved::in_response)
    }

    #[test]
    fn what_connection_nominates_does_not_pass() {
        let mut headers = map(&[
            ("connection", "close, X-Secret ,, Keep-Alive"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        let stripped = strip(&mut headers);
        assert_eq!(
            (stripped.nominates_reserved, stripped.nominated),
            (false, 2)
        );
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("accept"));
    }

    #[test]
    fn a_nominated_reserved_name_is_told_and_everything_is_removed_all_the_same() {
        for value in ["x-session", "close, X_Session-Set", "X.SESSION"] {
            let mut headers = map(&[
                ("connection", value),
                ("upgrade", "h2c"),
                ("x-session", "1"),
            ]);
            assert!(strip(&mut headers).nominates_reserved, "{value}");
            assert!(
                !headers.contains_key("connection") && !headers.contains_key("upgrade"),
                "{value}"
            );
        }
    }

    #[test]
    fn only_reserved_names_leave_the_announcement_of_trailers() {
        let mut headers = map(&[
            ("trailer", "X-Kept, X_Session-Set"),
            ("trailer", "X-Session"),
        ]);
        scrub_trailer(&mut headers);
        assert_eq!(headers["trailer"], "X-Kept");
        let mut headers = map(&[("trailer", "X-Session")]);
        scrub_trailer(&mut headers);
        assert!(headers.is_empty());
    }
}
