//! What a request for another protocol asks, and whether an answer agrees.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use hyper::ext::Protocol;
use sha1::{Digest as _, Sha1};

use super::super::fields::is_listed;

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The version of RFC 6455, which is the only one.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// A request that asks for another protocol in the one way that can be passed on.
#[derive(Debug)]
pub struct Handshake {
    /// As the client spelt it.
    protocol: HeaderValue,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// With the `Sec-WebSocket-Key` that the server answers to.
    WebSocket { key: HeaderValue, http2: bool },
    /// Something that the gateway does not know.
    Other,
}

impl Handshake {
    /// Reads it from a request whose fields are still as they came. A request that only looks like a handshake,
    /// or has a body, asks for nothing: it is served as if the field were not there.
    pub fn read(parts: &Parts) -> Option<Self> {
        if parts.version != Version::HTTP_11 {
            return None;
        }
        let protocol = single(&parts.headers, header::UPGRADE)?;
        if !is_listed(&parts.headers, header::CONNECTION, "upgrade") || has_body(&parts.headers) {
            return None;
        }
        if !is_websocket(protocol) {
            return is_protocol(protocol.as_bytes()).then(|| Self {
                protocol: protocol.clone(),
                kind: Kind::Other,
            });
        }
        let key = single(&parts.headers, header::SEC_WEBSOCKET_KEY)?;
        let version = single(&parts.headers, header::SEC_WEBSOCKET_VERSION)?;
        let nonce = BASE64_STANDARD.decode(key.as_bytes()).ok()?;
        if parts.method != Method::GET || nonce.len() != 16 || *version != VERSION {
            return None;
        }
        let key = key.clone();
        Some(Self {
            protocol: protocol.clone(),
            kind: Kind::WebSocket { key, http2: false },
        })
    }

    /// Reads an extended CONNECT (RFC 8441), and makes of it the GET that it stands for.
    ///
    /// # Errors
    ///
    /// What is wrong with it: it cannot be served as anything else.
    pub fn take_connect(parts: &mut Parts) -> Result<Option<Self>, &'static str> {
        if parts.method != Method::CONNECT || parts.version != Version::HTTP_2 {
            return Ok(None);
        }
        let Some(protocol) = parts.extensions.remove::<Protocol>() else {
            return Ok(None);
        };
        if protocol.as_str() != "websocket" {
            return Err("the only protocol of an extended CONNECT is websocket");
        }
        if single(&parts.headers, header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
            return Err("the only Sec-WebSocket-Version is 13");
        }
        if has_body(&parts.headers) {
            return Err("a handshake has no Content-Length");
        }
        // Sixteen bytes are always a field value in base64.
        let key = HeaderValue::try_from(BASE64_STANDARD.encode(rand::random::<[u8; 16]>()));
        let key = key.map_err(|_| "no key can be made for it")?;
        parts.method = Method::GET;
        Ok(Some(Self {
            protocol: WEBSOCKET,
            kind: Kind::WebSocket { key, http2: true },
        }))
    }

    /// Whether frames of RFC 6455 will flow.
    pub fn is_websocket(&self) -> bool {
        matches!(self.kind, Kind::WebSocket { .. })
    }

    /// Whether it came as an extended CONNECT (RFC 8441), which is answered with 200 and cannot be served as
    /// anything else.
    pub fn is_http2(&self) -> bool {
        matches!(self.kind, Kind::WebSocket { http2: true, .. })
    }

    /// Whether it is for one of these protocols, which are lower-case.
    pub fn is_one_of(&self, protocols: &[String]) -> bool {
        let own = self.protocol.as_bytes();
        protocols
            .iter()
            .any(|protocol| own.eq_ignore_ascii_case(protocol.as_bytes()))
    }

    /// Puts into a request whose hop-by-hop fields are gone what asks the next hop for the protocol.
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
        if let Kind::WebSocket { key, .. } = &self.kind {
            headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
            headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        }
    }

    /// Whether this answer begins the protocol that was asked for (RFC 9110, section 7.8; RFC 6455, section 4.1).
    pub fn is_agreed<B>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        let is_named = single(headers, header::UPGRADE).is_some_and(|protocol| {
            protocol
                .as_bytes()
                .eq_ignore_ascii_case(self.protocol.as_bytes())
        });
        let is_accepted = match &self.kind {
            Kind::Other => true,
            Kind::WebSocket { key, .. } => {
                let accept = single(headers, header::SEC_WEBSOCKET_ACCEPT);
                accept.is_some_and(|accept| accept.as_bytes() == accept_of(key).as_bytes())
            }
        };
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && is_named
            && is_listed(headers, header::CONNECTION, "upgrade")
            && is_accepted
    }

    /// Whether this answer, which is no agreement, can be passed on: to an extended CONNECT any success would be
    /// one.
    pub fn can_be_refused_with(&self, status: StatusCode) -> bool {
        let would_agree = self.is_http2() && status.is_success();
        !(status.is_informational() || would_agree)
    }

    /// Makes of the upstream's agreement, whose hop-by-hop fields are gone, the one for the client.
    pub fn answer<B>(&self, response: &mut Response<B>) {
        if self.is_http2() {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
            return;
        }
        let headers = response.headers_mut();
        // RFC 9110, section 8.6: there is none in a 1xx answer.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }
}

/// RFC 6455, section 4.2.2, item 5.4.
fn accept_of(key: &HeaderValue) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    BASE64_STANDARD.encode(hash.finalize())
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol
        .as_bytes()
        .eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}

/// One protocol (RFC 9110, section 7.8), not a list of them.
fn is_protocol(value: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    !value.is_empty() && value.iter().all(is_token)
}

fn has_body(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    headers.contains_key(header::TRANSFER_ENCODING) || lengths.any(|length| length != "0")
}

fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const HANDSHAKE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    fn read(method: &str, version: Version, fields: &[(&str, &str)]) -> Option<Handshake> {
        let mut request = Request::builder().method(method).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Handshake::read(&request.body(()).unwrap().into_parts().0)
    }

    fn with(name: &'static str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
        let others = HANDSHAKE.into_iter().filter(|field| field.0 != name);
        others.chain(value.map(|value| (name, value))).collect()
    }

    #[test]
    fn a_whole_websocket_handshake_is_one_and_nothing_less() {
        let handshake = read("GET", Version::HTTP_11, &HANDSHAKE).unwrap();
        assert!(handshake.is_websocket() && handshake.is_one_of(&["websocket".to_owned()]));
        assert!(!handshake.is_one_of(&["x".to_owned()]) && !handshake.is_one_of(&[]));
        for (method, version) in [
            ("POST", Version::HTTP_11),
            ("HEAD", Version::HTTP_11),
            ("GET", Version::HTTP_10),
            ("GET", Version::HTTP_2),
        ] {
            assert!(
                read(method, version, &HANDSHAKE).is_none(),
                "{method} {version:?}"
            );
        }
        for (name, value) in [
            ("connection", None),
            ("connection", Some("keep-alive")),
            ("connection", Some("upgraded")),
            ("upgrade", None),
            ("upgrade", Some("")),
            ("upgrade", Some("h2c, websocket")),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("short")),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ")),
            ("sec-websocket-version", None),
            ("sec-websocket-version", Some("8")),
            ("content-length", Some("1")),
            ("transfer-encoding", Some("chunked")),
        ] {
            let fields = with(name, value);
            assert!(
                read("GET", Version::HTTP_11, &fields).is_none(),
                "{name}: {value:?}"
            );
        }
        for (name, value) in HANDSHAKE {
            let fields: Vec<_> = HANDSHAKE.into_iter().chain([(name, value)]).collect();
            // Only Connection is a list.
            let is_one = read("GET", Version::HTTP_11, &fields).is_some();
            assert_eq!(is_one, name == "connection", "{name} twice");
        }
    }

    #[test]
    fn an_extended_connect_stands_for_a_get_with_a_key_of_its_own() {
        let connect = |protocol: Option<&'static str>, fields: &[(&str, &str)]| {
            let mut request = Request::connect("https://shop.test/chat").version(Version::HTTP_2);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let mut request = request.body(()).unwrap();
            let extension = protocol.map(Protocol::from_static);
            extension.map(|protocol| request.extensions_mut().insert(protocol));
            request.into_parts().0
        };
        let version = ("sec-websocket-version", "13");
        let mut parts = connect(
            Some("websocket"),
            &[version, ("sec-websocket-key", "theirs")],
        );
        let handshake = Handshake::take_connect(&mut parts).unwrap().unwrap();
        assert_eq!(parts.method, Method::GET);
        assert!(handshake.is_websocket() && handshake.is_http2());
        handshake.ask(&mut parts.headers);
        let key = single(&parts.headers, header::SEC_WEBSOCKET_KEY).unwrap();
        assert_eq!(BASE64_STANDARD.decode(key).unwrap().len(), 16);
        // Any success would begin the tunnel, so only what is none can be passed on.
        assert!(handshake.can_be_refused_with(StatusCode::FORBIDDEN));
        assert!(!handshake.can_be_refused_with(StatusCode::OK));

        for mut wrong in [
            connect(Some("connect-udp"), &[version]),
            connect(Some("websocket"), &[]),
            connect(Some("websocket"), &[version, ("content-length", "1")]),
        ] {
            assert!(Handshake::take_connect(&mut wrong).is_err());
        }
        let mut plain = connect(None, &[version]);
        assert!(Handshake::take_connect(&mut plain).unwrap().is_none());
        assert_eq!(plain.method, Method::CONNECT);
    }

    #[test]
    fn another_protocol_is_one_token() {
        let other = |upgrade| {
            let fields = [("connection", "upgrade"), ("upgrade", upgrade)];
            read("POST", Version::HTTP_11, &fields)
        };
        let spdy = other("SPDY/3.1").unwrap();
        assert!(!spdy.is_websocket() && spdy.is_one_of(&["spdy/3.1".to_owned()]));
        assert!(!spdy.is_one_of(&["websocket".to_owned()]));
        for wrong in ["", "a, b", "a b", "a\"b"] {
            assert!(other(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_an_answer_to_this_very_handshake_agrees() {
        let handshake = read("GET", Version::HTTP_11, &HANDSHAKE).unwrap();
        let agrees = |status: u16, fields: &[(&str, &str)]| {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            handshake.is_agreed(&response.body(()).unwrap())
        };
        let connection = ("connection", "Upgrade");
        let upgrade = ("upgrade", "websocket");
        // The example of RFC 6455, section 1.3.
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(agrees(101, &[connection, upgrade, accept]));
        assert!(!agrees(200, &[connection, upgrade, accept]));
        assert!(!agrees(101, &[upgrade, accept]));
        assert!(!agrees(101, &[connection, accept]));
        assert!(!agrees(101, &[connection, upgrade]));
        assert!(!agrees(101, &[connection, ("upgrade", "h2c"), accept]));
        assert!(!agrees(101, &[connection, upgrade, upgrade, accept]));
        assert!(!agrees(
            101,
            &[
                connection,
                upgrade,
                ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")
            ]
        ));
    }
}
