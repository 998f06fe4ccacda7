//! Which of the fields that the trip knows are in a message, from one walk over their names. Most of them are in few
//! messages, and to ask a map for each costs far more.

use http::HeaderMap;

use super::admit::forwarding::is_doubtful;

/// A field that the trip looks for, whether it is to be read or to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `Accept`.
    Accept,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// One that may be a reserved name, or what only proxies may say, in any spelling: see [`is_doubtful`].
    Doubtful,
    /// `Expect`.
    Expect,
    /// `HTTP2-Settings`.
    Http2Settings,
    /// `Keep-Alive`.
    KeepAlive,
    /// `Proxy-Authenticate`.
    ProxyAuthenticate,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// `Proxy-Connection`.
    ProxyConnection,
    /// `Set-Cookie`.
    SetCookie,
    /// `TE`.
    Te,
    /// `traceparent`.
    Traceparent,
    /// `tracestate`.
    Tracestate,
    /// `Trailer`.
    Trailer,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Request-Id`.
    XRequestId,
    /// `X-Session-Set`.
    XSessionSet,
}

/// The fields of a message that have one of these names. It knows nothing of what is put in or taken out later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// Walks over the names.
    pub fn of(headers: &HeaderMap) -> Self {
        let bits = headers.keys().map(|name| {
            let name = name.as_str();
            let doubtful = u32::from(is_doubtful(name)) << Name::Doubtful as u32;
            named(name).map_or(0, bit) | doubtful
        });
        Self(bits.fold(0, |seen, bits| seen | bits))
    }

    /// Whether there is a field of this name.
    pub fn has(self, name: Name) -> bool {
        self.0 & bit(name) != 0
    }
}

fn bit(name: Name) -> u32 {
    1 << name as u32
}

/// `name` is lower-case, as in a map of fields. The length sorts out nearly all of those that are not meant.
fn named(name: &str) -> Option<Name> {
    let found = match (name.len(), name) {
        (2, "te") => Name::Te,
        (6, "accept") => Name::Accept,
        (6, "expect") => Name::Expect,
        (7, "trailer") => Name::Trailer,
        (7, "upgrade") => Name::Upgrade,
        (10, "connection") => Name::Connection,
        (10, "keep-alive") => Name::KeepAlive,
        (10, "set-cookie") => Name::SetCookie,
        (10, "tracestate") => Name::Tracestate,
        (11, "traceparent") => Name::Traceparent,
        (12, "x-request-id") => Name::XRequestId,
        (13, "x-session-set") => Name::XSessionSet,
        (14, "content-length") => Name::ContentLength,
        (14, "http2-settings") => Name::Http2Settings,
        (15, "x-forwarded-for") => Name::XForwardedFor,
        (16, "proxy-connection") => Name::ProxyConnection,
        (16, "x-forwarded-host") => Name::XForwardedHost,
        (17, "transfer-encoding") => Name::TransferEncoding,
        (17, "x-forwarded-proto") => Name::XForwardedProto,
        (18, "proxy-authenticate") => Name::ProxyAuthenticate,
        (19, "proxy-authorization") => Name::ProxyAuthorization,
        _ => return None,
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const NAMES: [(&str, Name); 21] = [
        ("Accept", Name::Accept),
        ("Connection", Name::Connection),
        ("Content-Length", Name::ContentLength),
        ("Expect", Name::Expect),
        ("HTTP2-Settings", Name::Http2Settings),
        ("Keep-Alive", Name::KeepAlive),
        ("Proxy-Authenticate", Name::ProxyAuthenticate),
        ("Proxy-Authorization", Name::ProxyAuthorization),
        ("Proxy-Connection", Name::ProxyConnection),
        ("Set-Cookie", Name::SetCookie),
        ("TE", Name::Te),
        ("traceparent", Name::Traceparent),
        ("tracestate", Name::Tracestate),
        ("Trailer", Name::Trailer),
        ("Transfer-Encoding", Name::TransferEncoding),
        ("Upgrade", Name::Upgrade),
        ("X-Forwarded-For", Name::XForwardedFor),
        ("X-Forwarded-Host", Name::XForwardedHost),
        ("X-Forwarded-Proto", Name::XForwardedProto),
        ("X-Request-Id", Name::XRequestId),
        ("X-Session-Set", Name::XSessionSet),
    ];

    #[test]
    fn each_name_is_seen_as_itself_and_as_nothing_else() {
        for (spelt, name) in NAMES {
            let mut headers = HeaderMap::new();
            headers.append("x-other", HeaderValue::from_static("1"));
            assert_eq!(Seen::of(&headers), Seen::default());
            let spelt = HeaderName::from_bytes(spelt.as_bytes()).unwrap();
            headers.append(&spelt, HeaderValue::from_static("1"));
            let seen = Seen::of(&headers);
            let is_doubtful = is_doubtful(spelt.as_str());
            assert_eq!(seen.has(Name::Doubtful), is_doubtful, "{name:?}");
            for (_, other) in NAMES {
                assert_eq!(seen.has(other), other == name, "{name:?} {other:?}");
            }
        }
    }
}
