//! The first station: refuses what two servers could read in two ways, and removes what only the gateway may
//! say. It never looks at sessions.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts,
    uri::Authority,
};

use super::{
    fields::{is_chunked, scrub, strip_hop_by_hop},
    respond::Refusal,
    tunnel::Handshake,
};
use crate::{
    config::{Names, Trusted},
    error::Code,
    path::Canonical,
    reserved::{Reserved, folds_to},
    telemetry::metrics::{Counters, Scrubbed},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// All names that begin so are a proxy's, in any spelling.
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// More names with which a proxy tells a server who asks and for what; from anybody else they are lies. Some make
/// a framework serve another path than the one that was routed, take the request for an encrypted one, or believe
/// a user name.
const TOLD_BY_PROXIES: [&str; 18] = [
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

/// Who has opened the connection on which a request came.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, or the one that a PROXY protocol header tells; `None` is a Unix socket's.
    pub address: Option<IpAddr>,
    /// Whether TLS protects the connection up to this gateway, or up to the load balancer that says so by PROXY
    /// protocol.
    pub encrypted: bool,
    /// For whom the certificate is that this gateway showed; `None` where it showed none.
    pub certificate: Option<Arc<Names>>,
    /// The port with TLS that requests without it are sent to.
    pub redirect: Option<u16>,
}

/// What the request asks for, made unambiguous.
#[derive(Debug)]
pub struct Admitted {
    /// The host that routes are matched with: lower-case, without port and final dot.
    pub host: String,
    /// Host and port as the client sent them; `None` for an HTTP/1.0 client without.
    pub authority: Option<HeaderValue>,
    /// The path of the target.
    pub path: Canonical,
    /// The query, as it came.
    pub query: Option<String>,
    /// `OPTIONS *`.
    pub asterisk: bool,
    /// Whether it asks for another protocol, whatever it is (RFC 9110, section 7.8). The field itself ends here.
    pub upgrade: bool,
    /// What it asks for, where it does so in a way that can be passed on.
    pub handshake: Option<Handshake>,
    /// `https` or `http`, as far as it is known.
    pub scheme: &'static str,
    /// The client's address, from a trusted proxy's word where there is one; `None` is a Unix socket's.
    pub client: Option<IpAddr>,
}

/// Checks a request and makes its fields those that may go on.
///
/// # Errors
///
/// A refusal whose detail names the rule.
pub fn admit(
    parts: &mut Parts,
    peer: &Peer,
    trusted: &Trusted,
    most_fields: usize,
    reserved: &Reserved,
    scrubbed: &Counters<Scrubbed>,
) -> Result<Admitted, Refusal> {
    check_framing(&parts.headers, parts.version)?;
    let connect = Handshake::take_connect(parts).map_err(bad_request)?;
    check_method(&parts.method)?;
    let (authority, host) = host(parts)?;
    if parts.version >= Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    check_fields(&parts.headers, most_fields)?;
    let (path, asterisk) = path(&parts.method, &parts.uri)?;
    let query = parts.uri.query().map(str::to_owned);
    let trailers = accepts_trailers(&parts.headers);
    let upgrade = connect.is_some() || parts.headers.contains_key(header::UPGRADE);
    let handshake = connect.or_else(|| Handshake::read(parts));
    let stripped = strip_hop_by_hop(&mut parts.headers, |name| reserved.is_nominated(name));
    scrubbed.add(Scrubbed::Nominated, stripped.nominated);
    if stripped.nominates_reserved {
        return Err(bad_request(
            "its Connection field names a field that belongs to the gateway",
        ));
    }
    for name in scrub(&mut parts.headers, |name| reserved.in_request(name)) {
        scrubbed.count(spelling(&name));
    }
    parts.headers.remove(header::TRAILER);
    parts.headers.remove(header::EXPECT);
    if trailers {
        parts
            .headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let address = peer.address.map(|address| address.to_canonical());
    let trust = trusted.contains(address);
    if !trust {
        check_certificate(peer.certificate.as_deref(), &host)?;
    }
    for name in scrub_forwarding(&mut parts.headers, trust) {
        scrubbed.count(match spelling(&name) {
            Scrubbed::Reserved => Scrubbed::Forwarding,
            other => other,
        });
    }
    let client = if trust {
        client_of(&parts.headers, address, trusted)
    } else {
        address
    };
    let scheme = tell_forwarding(
        &mut parts.headers,
        address,
        peer.encrypted,
        authority.as_ref(),
    );
    Ok(Admitted {
        host,
        authority,
        path,
        query,
        asterisk,
        upgrade,
        handshake,
        scheme,
        client,
    })
}

fn bad_request(rule: &str) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("The request was refused: {rule}."),
    )
}

/// RFC 9112, section 6.3. hyper has resolved what it could; what it lets through undecided is refused here.
fn check_framing(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if version < Version::HTTP_11 {
            return Err(bad_request("HTTP/1.0 has no Transfer-Encoding").closing());
        }
        if !is_chunked(coding) || codings.next().is_some() {
            let detail = "The only Transfer-Encoding that is understood is chunked, once.";
            return Err(Refusal::new(Code::TransferEncoding, detail).closing());
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(bad_request("it has both Transfer-Encoding and Content-Length").closing());
        }
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    if lengths.next().is_some() {
        return Err(bad_request("it has more than one Content-Length").closing());
    }
    match number(length) {
        None => Err(bad_request("its Content-Length is not a number").closing()),
        Some(_) => Ok(()),
    }
}

/// A leading zero makes an octal number of it for some.
fn number(length: &HeaderValue) -> Option<u64> {
    let digits = length.to_str().ok()?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
}

/// Refuses a body that says itself that it is too large. Others are cut while they stream.
pub fn check_length(headers: &HeaderMap, limit: Option<u64>) -> Result<(), Refusal> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(number);
    match (length, limit) {
        (Some(length), Some(limit)) if length > limit => Err(too_large(limit)),
        _ => Ok(()),
    }
}

/// The answer to a body over `limits.request_body`. The rest of it is not read.
pub fn too_large(limit: u64) -> Refusal {
    let detail =
        format!("The request body is larger than the {limit} bytes that are accepted here.");
    Refusal::new(Code::BodyTooLarge, detail).closing()
}

/// Methods are case-sensitive (RFC 9110, section 9.1), but Django and others make capitals of them.
fn check_method(method: &Method) -> Result<(), Refusal> {
    let refused = ["CONNECT", "TRACE", "TRACK"];
    if refused
        .iter()
        .any(|name| method.as_str().eq_ignore_ascii_case(name))
    {
        let detail = format!("The method {method} is not served here.");
        return Err(Refusal::new(Code::MethodRefused, detail).closing());
    }
    Ok(())
}

/// The one Host (RFC 9112, section 3.2), which an absolute-form target must agree with.
fn host(parts: &Parts) -> Result<(Option<HeaderValue>, String), Refusal> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let (field, more) = (fields.next(), fields.next());
    if more.is_some() {
        return Err(bad_request("it has more than one Host field").closing());
    }
    let wrong = || bad_request("its Host field is not a host with an optional port");
    let field = match (field, parts.uri.authority()) {
        (Some(field), _) => field.clone(),
        // In HTTP/2 `:authority` stands for it (RFC 9113, section 8.3.1); HTTP/1.1 always has one.
        (None, Some(target)) if parts.version >= Version::HTTP_2 => {
            HeaderValue::from_str(target.as_str()).map_err(|_| wrong())?
        }
        (None, None) if parts.version < Version::HTTP_11 => return Ok((None, String::new())),
        (None, _) => return Err(bad_request("it has no Host field").closing()),
    };
    let authority = Authority::try_from(field.as_bytes()).map_err(|_| wrong())?;
    let host = authority.host();
    let port = &authority.as_str()[host.len()..];
    if !is_host(host) || !is_port(port) {
        return Err(wrong());
    }
    if let Some(target) = parts.uri.authority()
        && !target.as_str().eq_ignore_ascii_case(authority.as_str())
    {
        return Err(bad_request("its target names another host than its Host field").closing());
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    Ok((Some(field), host))
}

/// An HTTP/2 client may send its cookies one by one, to compress them better (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Made of values, it is one.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// hyper counts them in HTTP/1.1, with an answer of its own.
fn check_fields(headers: &HeaderMap, most: usize) -> Result<(), Refusal> {
    if headers.len() <= most {
        return Ok(());
    }
    let detail = format!("The request has more than the {most} header fields that are accepted.");
    Err(Refusal::new(Code::TooManyFields, detail))
}

/// A request for an https resource is taken only over a connection whose certificate is valid for its host (RFC 9110,
/// section 7.4); a trusted proxy may have checked that itself.
fn check_certificate(certificate: Option<&Names>, host: &str) -> Result<(), Refusal> {
    match certificate {
        Some(names) if !host.is_empty() && !names.cover(host) => {
            let detail = "The certificate of this connection is not for this host.";
            Err(Refusal::new(Code::MisdirectedRequest, detail))
        }
        _ => Ok(()),
    }
}

/// A name without empty labels (but a final dot), or an IPv6 address in brackets. What RFC 3986 allows beyond
/// that is no host anywhere, and is read in different ways.
fn is_host(host: &str) -> bool {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    name.split('.').all(|label| {
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.bytes().all(is_right)
    })
}

/// Nothing, or a colon and a number.
fn is_port(port: &str) -> bool {
    port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

fn path(method: &Method, uri: &Uri) -> Result<(Canonical, bool), Refusal> {
    if let Some(scheme) = uri.scheme_str()
        && !scheme.eq_ignore_ascii_case("http")
        && !scheme.eq_ignore_ascii_case("https")
    {
        return Err(bad_request("its target is not an http or https URL"));
    }
    if !uri.query().unwrap_or_default().is_ascii() {
        return Err(bad_request(
            "its query has bytes outside of ASCII; they must be percent-encoded",
        ));
    }
    let (path, asterisk) = match uri.path() {
        "*" if *method == Method::OPTIONS => ("/", true),
        // The absolute form of the root (RFC 9112, section 3.2.2).
        "" if uri.scheme().is_some() => ("/", false),
        path => (path, false),
    };
    let path = Canonical::parse(path).map_err(|error| bad_request(&error.to_string()))?;
    Ok((path, asterisk))
}

/// `TE: trailers` is all of TE that can be kept (RFC 9110, section 10.1.4).
fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        })
}

/// A reserved name in its own spelling has letters, digits and hyphens only.
fn spelling(name: &HeaderName) -> Scrubbed {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    if name.as_str().chars().all(is_plain) {
        Scrubbed::Reserved
    } else {
        Scrubbed::Alias
    }
}

fn scrub_forwarding(headers: &mut HeaderMap, trust: bool) -> Vec<HeaderName> {
    scrub(headers, |name| {
        if let Some(start) = name.get(..FORWARDED_PREFIX.len())
            && folds_to(start, FORWARDED_PREFIX)
        {
            return !trust
                || name.contains(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        }
        if let Some(told) = TOLD_BY_PROXIES.iter().find(|told| folds_to(name, told)) {
            return !trust || name != *told;
        }
        NEVER_PASSED.iter().any(|told| folds_to(name, told))
            || NEVER_FOLDED
                .iter()
                .any(|own| name != *own && folds_to(name, own))
    })
}

/// The client by the word of trusted proxies: from the right, the first address that is not one of them.
fn client_of(headers: &HeaderMap, peer: Option<IpAddr>, trusted: &Trusted) -> Option<IpAddr> {
    let mut client = peer;
    let fields = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .filter_map(|value| value.to_str().ok());
    for entry in fields.flat_map(|value| value.rsplit(',')) {
        let Ok(address) = entry.trim().parse::<IpAddr>() else {
            break;
        };
        client = Some(address.to_canonical());
        if !trusted.contains(client) {
            break;
        }
    }
    client
}

/// Appends to what a trusted proxy has said (the others' words are gone), and gives the scheme. A Unix socket's peer
/// has no address, and adds none.
fn tell_forwarding(
    headers: &mut HeaderMap,
    peer: Option<IpAddr>,
    encrypted: bool,
    authority: Option<&HeaderValue>,
) -> &'static str {
    let mut chain = String::new();
    for value in headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        chain.push_str(value);
        chain.push_str(", ");
    }
    match peer {
        // Writing to a String cannot fail.
        Some(peer) => drop(write!(chain, "{peer}")),
        None => chain.truncate(chain.len().saturating_sub(2)),
    }
    headers.remove(X_FORWARDED_FOR);
    // Visible ASCII by construction: an address, and what `to_str` let through.
    if let (false, Ok(chain)) = (chain.is_empty(), HeaderValue::try_from(chain)) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    let mut protocols = headers.get_all(X_FORWARDED_PROTO).iter();
    let told = protocols.next().filter(|_| protocols.next().is_none());
    let scheme = match told {
        Some(told) if told.as_bytes().eq_ignore_ascii_case(b"https") => "https",
        None if encrypted => "https",
        _ => "http",
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    let hosts = headers.get_all(X_FORWARDED_HOST).iter().count();
    if let (Some(authority), true) = (authority, hosts != 1) {
        headers.insert(X_FORWARDED_HOST, authority.clone());
    }
    scheme
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn admitted(request: http::request::Builder) -> (Result<Admitted, Refusal>, HeaderMap) {
        admitted_from("203.0.113.9", &["10.0.0.0/8"], request)
    }

    fn admitted_from(
        peer: &str,
        trusted: &[&str],
        request: http::request::Builder,
    ) -> (Result<Admitted, Refusal>, HeaderMap) {
        let peer = Peer {
            address: peer.parse().ok(),
            encrypted: false,
            certificate: None,
            redirect: None,
        };
        admitted_of(&peer, trusted, request)
    }

    fn admitted_of(
        peer: &Peer,
        trusted: &[&str],
        request: http::request::Builder,
    ) -> (Result<Admitted, Refusal>, HeaderMap) {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let trusted = Trusted {
            networks: trusted.iter().filter_map(|net| net.parse().ok()).collect(),
            unix: trusted.contains(&"unix"),
        };
        let admitted = admit(
            &mut parts,
            peer,
            &trusted,
            20,
            &Reserved::default(),
            &Metrics::default().scrubbed_fields,
        );
        (admitted, parts.headers)
    }

    fn get(target: &str) -> http::request::Builder {
        Request::get(target).header("host", "Shop.Example.:8080")
    }

    #[test]
    fn a_plain_request_goes_on_with_its_host_and_path() {
        let (admitted, headers) = admitted(get("/a/../cart/?q=1").header("accept", "*/*"));
        let admitted = admitted.unwrap();
        assert_eq!(admitted.host, "shop.example");
        assert_eq!(admitted.authority.unwrap(), "Shop.Example.:8080");
        assert_eq!(admitted.path.forwarded(), "/cart/");
        assert_eq!(admitted.query.as_deref(), Some("q=1"));
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "Shop.Example.:8080");
    }

    #[test]
    fn every_spelling_of_a_reserved_field_is_removed() {
        let request = get("/")
            .header("x-session", "1")
            .header("X_Session", "2")
            .header("x.session", "3")
            .header("x-session_set", "4")
            .header("x-session-id", "mine");
        let (admitted, headers) = admitted(request);
        admitted.unwrap();
        assert!(
            !headers
                .keys()
                .any(|name| Reserved::default().in_request(name.as_str()))
        );
        assert_eq!(headers["x-session-id"], "mine");
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways_is_refused() {
        let table = [
            (Request::get("/"), "no host"),
            (get("/").header("host", "other"), "two hosts"),
            (Request::get("/").header("host", "a@b"), "userinfo"),
            (Request::get("/").header("host", "a:b"), "port"),
            (Request::get("/").header("host", "a:"), "empty port"),
            (Request::get("/").header("host", ""), "empty host"),
            (Request::get("/").header("host", "a b"), "blank"),
            (
                Request::get("http://other/").header("host", "shop.example"),
                "absolute form",
            ),
            (get("*"), "asterisk"),
            (
                get("/")
                    .header("content-length", "1")
                    .header("transfer-encoding", "chunked"),
                "both",
            ),
            (
                get("/")
                    .header("content-length", "1")
                    .header("content-length", "2"),
                "two lengths",
            ),
            (get("/").header("content-length", "+1 "), "length"),
            (get("/").header("connection", "x-session"), "nomination"),
            (get("/%00"), "nul"),
            (get("/a/%5c"), "backslash"),
        ];
        for (request, what) in table {
            let (admitted, _) = admitted(request);
            assert_eq!(admitted.expect_err(what).code, Code::BadRequest, "{what}");
        }
        let odd = get("/").header("transfer-encoding", "gzip, chunked");
        assert_eq!(admitted(odd).0.unwrap_err().code, Code::TransferEncoding);
        let (_, long) = admitted(get("/").header("content-length", "101"));
        assert_eq!(
            check_length(&long, Some(100)).unwrap_err().code,
            Code::BodyTooLarge
        );
        check_length(&long, Some(101)).unwrap();
        check_length(&long, None).unwrap();
        for method in ["CONNECT", "TRACE", "TRACK"] {
            let request = get("/").method(method);
            assert_eq!(
                admitted(request).0.unwrap_err().code,
                Code::MethodRefused,
                "{method}"
            );
        }
    }

    fn h2(target: &str) -> http::request::Builder {
        Request::get(target).version(Version::HTTP_2)
    }

    #[test]
    fn in_http2_the_authority_stands_for_host_and_both_must_agree() {
        let (found, _) = admitted(h2("https://Shop.Example:8443/a"));
        let found = found.unwrap();
        assert_eq!(found.host, "shop.example");
        assert_eq!(found.authority.unwrap(), "Shop.Example:8443");
        let both = h2("https://shop.example/").header("host", "SHOP.example");
        assert!(admitted(both).0.is_ok());
        let field = h2("/").header("host", "shop.example");
        assert_eq!(admitted(field).0.unwrap().host, "shop.example");
        for (request, what) in [
            (h2("/"), "neither"),
            (
                h2("https://other/").header("host", "shop.example"),
                "unlike",
            ),
            (h2("https://shop.example/").header("host", ""), "empty"),
            (h2("https://a@shop.example/"), "userinfo"),
            (h2("https://:1@shop.example/"), "userinfo"),
            (h2("ftp://shop.example/"), "scheme"),
            (
                h2("https://shop.example/")
                    .header("host", "a")
                    .header("host", "a"),
                "two",
            ),
        ] {
            let (found, _) = admitted(request);
            assert_eq!(found.expect_err(what).code, Code::BadRequest, "{what}");
        }
    }

    #[test]
    fn cookie_crumbs_of_http2_are_joined_and_the_fields_counted_after_that() {
        let mut request = h2("https://shop.example/");
        for number in 0..30 {
            request = request.header("cookie", format!("c{number}={number}"));
        }
        let (found, headers) = admitted(request);
        found.unwrap();
        let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(cookies.len(), 1);
        assert!(
            cookies[0]
                .to_str()
                .unwrap()
                .starts_with("c0=0; c1=1; c2=2; ")
        );
        let mut request = h2("https://shop.example/");
        for number in 0..21 {
            request = request.header("x-many", number);
        }
        let refused = admitted(request).0.unwrap_err();
        assert_eq!(refused.code, Code::TooManyFields);
    }

    #[test]
    fn a_request_for_a_host_that_the_certificate_is_not_for_is_misdirected() {
        let names: Names = ["shop.example", "*.shop.example"].into_iter().collect();
        let peer = Peer {
            address: "203.0.113.9".parse().ok(),
            encrypted: true,
            certificate: Some(Arc::new(names)),
            redirect: None,
        };
        // What browsers do where one certificate is for both.
        for host in ["shop.example", "a.shop.example:8443"] {
            let request = Request::get("/").header("host", host);
            let (admitted, headers) = admitted_of(&peer, &[], request);
            assert_eq!(admitted.unwrap().scheme, "https");
            assert_eq!(headers["x-forwarded-proto"], "https");
        }
        let other = || Request::get("/").header("host", "other.example");
        let (refused, _) = admitted_of(&peer, &[], other());
        assert_eq!(refused.unwrap_err().code, Code::MisdirectedRequest);
        assert!(admitted_of(&peer, &["203.0.113.0/24"], other()).0.is_ok());
    }

    #[test]
    fn a_unix_sockets_peer_has_no_address_and_is_trusted_by_name_only() {
        let request = || get("/").header("x-forwarded-for", "198.51.100.1");
        let (stranger, headers) = admitted_from("unix", &["127.0.0.1"], request());
        assert_eq!(stranger.unwrap().client, None);
        assert!(!headers.contains_key("x-forwarded-for"));
        let (proxied, headers) = admitted_from("unix", &["unix"], request());
        let client = proxied.unwrap().client.unwrap();
        assert_eq!(client.to_string(), "198.51.100.1");
        assert_eq!(headers["x-forwarded-for"], "198.51.100.1");
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        let request = || {
            get("/")
                .header("x-forwarded-for", "198.51.100.1, 10.0.0.3")
                .header("x-forwarded-proto", "https")
                .header("x-forwarded-host", "front.example")
                .header("X_Forwarded_For", "6.6.6.6")
                .header("forwarded", "for=6.6.6.6")
                .header("x-real-ip", "6.6.6.6")
                .header("x-original-url", "/admin/")
        };
        let (stranger, headers) = admitted(request());
        let stranger = stranger.unwrap();
        assert_eq!(stranger.client.unwrap().to_string(), "203.0.113.9");
        assert_eq!(stranger.scheme, "http");
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-host"], "Shop.Example.:8080");
        for gone in [
            "forwarded",
            "x-real-ip",
            "x-original-url",
            "x_forwarded_for",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        let (proxied, headers) = admitted_from("::ffff:10.0.0.2", &["10.0.0.0/8"], request());
        let proxied = proxied.unwrap();
        assert_eq!(proxied.client.unwrap().to_string(), "198.51.100.1");
        assert_eq!(proxied.scheme, "https");
        assert_eq!(
            headers["x-forwarded-for"],
            "198.51.100.1, 10.0.0.3, 10.0.0.2"
        );
        assert_eq!(headers["x-forwarded-host"], "front.example");
        assert!(!headers.contains_key("x_forwarded_for"));
    }
}
