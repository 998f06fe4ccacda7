//! Header names that not everybody may use, in every spelling: those of the contract between gateway and upstream, and
//! those of proxies.

use http::HeaderName;

/// The request header with the signed session.
pub const X_SESSION: &str = "x-session";
/// The response header with the change.
pub const X_SESSION_SET: &str = "x-session-set";
/// The response header that marks the gateway's own answers.
pub const X_GATEWAY_ERROR: &str = "x-gateway-error";

/// With these a proxy tells who asks, and by what scheme. Whoever is trusted is believed them.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// See [`X_FORWARDED_FOR`].
pub const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// All names that begin so are a proxy's, in any spelling.
pub const FORWARDED_PREFIX: &str = "x-forwarded-";

/// More names with which a proxy tells a server who asks and for what; from anybody else they are lies. Some make
/// a framework serve another path than the one that was routed, take the request for an encrypted one, or believe
/// a user name.
pub const TOLD_BY_PROXIES: [&str; 18] = [
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "client-ip",
    "remote-addr",
    "remote-user",
    "x-remote-user",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "x-original-url",
    "x-original-host",
    "x-original-uri",
    "x-rewrite-url",
    "script-name",
];

/// Whether this is a field with which proxies tell who asks and for what.
pub fn is_told_by_proxies(name: &str) -> bool {
    let start = name.get(..FORWARDED_PREFIX.len());
    start.is_some_and(|start| folds_to(start, FORWARDED_PREFIX))
        || TOLD_BY_PROXIES.iter().any(|told| folds_to(name, told))
}

/// The names that only this gateway may set in a request: ours, and those of its plain headers.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// Letters, digits and hyphens, in lower case: as they are when they are folded.
    plain: Box<[HeaderName]>,
}

impl Reserved {
    /// Ours, and these of `plain_headers`: letters, digits and hyphens only.
    pub fn new(plain: Vec<HeaderName>) -> Self {
        Self {
            plain: plain.into(),
        }
    }

    /// Whether a field of a request is one that only the gateway may set, on whatever route.
    pub fn in_request(&self, name: &str) -> bool {
        in_request(name) || self.is_plain(name)
    }

    /// Whether a client's `Connection` may not name this field.
    pub fn is_nominated(&self, name: &str) -> bool {
        in_response(name) || self.is_plain(name)
    }

    /// Whether there are plain headers.
    pub fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    fn is_plain(&self, name: &str) -> bool {
        self.plain
            .iter()
            .any(|plain| folds_to(name, plain.as_str()))
    }
}

/// Whether a field of a request is one that only a gateway may set, plain headers aside.
fn in_request(name: &str) -> bool {
    // Folding keeps the length, so the length sorts out nearly all names.
    match name.len() {
        9 => folds_to(name, X_SESSION),
        13 => folds_to(name, X_SESSION_SET),
        _ => false,
    }
}

/// Whether a field of an upstream's response must not reach the client.
pub fn in_response(name: &str) -> bool {
    in_request(name) || (name.len() == 15 && folds_to(name, X_GATEWAY_ERROR))
}

/// Whether `name` is `reserved` to a server that folds names: CGI, WSGI and PHP map every byte outside of
/// letters and digits to one character, so that `X_Session` and `X.Session` are the same variable.
pub fn folds_to(name: &str, reserved: &str) -> bool {
    let fold = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte.to_ascii_lowercase()
        } else {
            b'-'
        }
    };
    name.len() == reserved.len()
        && name
            .bytes()
            .zip(reserved.bytes())
            .all(|(a, b)| fold(a) == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_plain_header_is_found() {
        let reserved = Reserved::new(vec![HeaderName::from_static("x-webauth-user")]);
        for name in [
            "x-webauth-user",
            "X_WebAuth_User",
            "x.webauth~user",
            "x-session",
        ] {
            assert!(
                reserved.in_request(name) && reserved.is_nominated(name),
                "{name}"
            );
        }
        for name in [
            "x-webauth-users",
            "xwebauth-user",
            "x-webauth",
            "x-session-id",
        ] {
            assert!(!reserved.in_request(name), "{name}");
        }
        assert!(!Reserved::default().in_request("x-webauth-user"));
        assert!(reserved.is_nominated("x-gateway-error"));
    }

    #[test]
    fn every_spelling_of_a_reserved_name_is_found() {
        for name in [
            "x-session",
            "X-SESSION",
            "x_session",
            "X.Session",
            "x-session_set",
            "X~Session|Set",
        ] {
            assert!(in_request(name), "{name}");
            assert!(in_response(name), "{name}");
        }
        assert!(in_response("X_Gateway-error"));
        for name in [
            "x-session-id",
            "xsession",
            "x-sessions",
            "session",
            "x-session-sets",
            "y-session",
        ] {
            assert!(!in_response(name), "{name}");
        }
    }
}
