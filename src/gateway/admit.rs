//! The first station: refuses what two servers could read in two ways, and removes what only the gateway may
//! say. It never looks at sessions.

pub mod forwarding;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request::Parts, uri::Authority};

use self::forwarding::{client_of, scrub_forwarding, spelling, spelt, tell_forwarding};
use super::{
    alarm::Alarm,
    fields::{scrub, strip_hop_by_hop},
    respond::Refusal,
    seen::{Name, Seen},
    tunnel::Handshake,
};
use crate::{
    body::is_chunked,
    config::{Names, Trusted},
    error::Code,
    path::Canonical,
    reserved::{Reserved, is_told_by_proxies},
    telemetry::metrics::{Counters, Scrubbed},
};

/// Who has opened the connection on which a request came.
#[derive(Debug)]
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
    /// The address as `X-Forwarded-For` has it.
    spelt: Option<HeaderValue>,
    /// What its requests wait with.
    pub(super) alarm: Alarm,
}

impl Peer {
    /// Somebody without TLS.
    pub fn new(address: Option<IpAddr>, redirect: Option<u16>) -> Self {
        Self {
            address,
            encrypted: false,
            certificate: None,
            redirect,
            spelt: address.and_then(spelt),
            alarm: Alarm::default(),
        }
    }

    /// The address as text.
    pub fn spelt(&self) -> Option<&HeaderValue> {
        self.spelt.as_ref()
    }
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
    /// The length that the body says it has.
    pub length: Option<u64>,
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
    let seen = Seen::of(&parts.headers);
    let length = check_framing(&parts.headers, seen, parts.version)?;
    let connect = Handshake::take_connect(parts).map_err(bad_request)?;
    check_method(&parts.method)?;
    let (authority, host) = host(parts)?;
    if parts.version >= Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    check_fields(&parts.headers, most_fields)?;
    let (path, asterisk) = path(&parts.method, &parts.uri)?;
    let query = parts.uri.query().map(str::to_owned);
    let trailers = seen.has(Name::Te) && accepts_trailers(&parts.headers);
    let upgrade = connect.is_some() || seen.has(Name::Upgrade);
    let handshake = match connect {
        None if upgrade => Handshake::read(parts),
        connect => connect,
    };
    let address = peer.address.map(|address| address.to_canonical());
    let trust = trusted.contains(address);
    // A proxy may pass on its client's Connection, which must not take away what the proxy itself says.
    let stripped = strip_hop_by_hop(&mut parts.headers, seen, |name| {
        reserved.is_nominated(name) || (trust && is_told_by_proxies(name))
    });
    if stripped.nominated > 0 {
        scrubbed.add(Scrubbed::Nominated, stripped.nominated);
    }
    if stripped.nominates_reserved {
        return Err(bad_request(
            "its Connection field names a field that belongs to the gateway or to a proxy before it",
        ));
    }
    if seen.has(Name::Doubtful) || reserved.has_plain() {
        for name in scrub(&mut parts.headers, |name| reserved.in_request(name)) {
            scrubbed.count(spelling(&name));
        }
    }
    if seen.has(Name::Trailer) {
        parts.headers.remove(header::TRAILER);
    }
    if seen.has(Name::Expect) {
        parts.headers.remove(header::EXPECT);
    }
    if trailers {
        parts
            .headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if !trust {
        check_certificate(peer.certificate.as_deref(), &host)?;
    }
    if seen.has(Name::Doubtful) {
        for name in scrub_forwarding(&mut parts.headers, trust.then_some(trusted)) {
            match spelling(&name) {
                // A front says more than services are to hear.
                Scrubbed::Reserved if trust => {}
                Scrubbed::Reserved => scrubbed.count(Scrubbed::Forwarding),
                other => scrubbed.count(other),
            }
        }
    }
    let client = if trust {
        client_of(&parts.headers, address, trusted)
    } else {
        address
    };
    let scheme = tell_forwarding(&mut parts.headers, seen, peer, authority.as_ref());
    Ok(Admitted {
        host,
        authority,
        path,
        query,
        length,
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

/// RFC 9112, section 6.3. hyper has resolved what it could; what it lets through undecided is refused here. Gives
/// Content-Length.
fn check_framing(
    headers: &HeaderMap,
    seen: Seen,
    version: Version,
) -> Result<Option<u64>, Refusal> {
    if !seen.has(Name::TransferEncoding) && !seen.has(Name::ContentLength) {
        return Ok(None);
    }
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
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(bad_request("it has more than one Content-Length").closing());
    }
    match number(length) {
        None => Err(bad_request("its Content-Length is not a number").closing()),
        length => Ok(length),
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
pub fn check_length(length: Option<u64>, limit: Option<u64>) -> Result<(), Refusal> {
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
    let name = method.as_str();
    if refused
        .iter()
        .any(|refused| name.eq_ignore_ascii_case(refused))
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
    let host = host_of(&field).ok_or_else(wrong)?;
    if let Some(target) = parts.uri.authority()
        && !target
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(field.as_bytes())
    {
        return Err(bad_request("its target names another host than its Host field").closing());
    }
    Ok((Some(field), host))
}

/// The host of a Host field as routes have it: lower-case, without the final dot.
fn host_of(field: &HeaderValue) -> Option<String> {
    let routed = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let text = field.to_str().ok()?;
    let end = text.bytes().position(|byte| byte == b':');
    let name = &text[..end.unwrap_or(text.len())];
    if is_host(name) && is_port(&text[name.len()..]) {
        return Some(routed(name));
    }
    let authority = Authority::try_from(text).ok()?;
    let host = authority.host();
    let port = &authority.as_str()[host.len()..];
    (is_host(host) && is_port(port)).then(|| routed(host))
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
    let mut previous = b'.';
    let is_right = |byte| {
        let after_dot = previous == b'.';
        previous = byte;
        match byte {
            b'.' => !after_dot,
            _ => byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_',
        }
    };
    name.bytes().all(is_right) && previous != b'.'
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

#[cfg(test)]
mod tests;
