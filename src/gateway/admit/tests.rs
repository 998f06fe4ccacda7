//! What is admitted, and as what.

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
    let peer = Peer::new(peer.parse().ok(), None);
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
        ..Trusted::default()
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
    let (long, _) = admitted(get("/").header("content-length", "101"));
    let long = long.unwrap().length;
    assert_eq!(
        check_length(long, Some(100)).unwrap_err().code,
        Code::BodyTooLarge
    );
    check_length(long, Some(101)).unwrap();
    check_length(long, None).unwrap();
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
    let mut peer = Peer::new("203.0.113.9".parse().ok(), None);
    peer.encrypted = true;
    peer.certificate = Some(Arc::new(names));
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
    let gone = [
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x_forwarded_for",
    ];
    let none_of = |headers: &HeaderMap, names: &[&str]| {
        for name in names {
            assert!(!headers.contains_key(*name), "{name}");
        }
    };
    let (stranger, headers) = admitted(request());
    let stranger = stranger.unwrap();
    assert_eq!(stranger.client.unwrap().to_string(), "203.0.113.9");
    assert_eq!(stranger.scheme, "http");
    assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
    assert_eq!(headers["x-forwarded-host"], "Shop.Example.:8080");
    none_of(&headers, &gone);
    let (proxied, headers) = admitted_from("::ffff:10.0.0.2", &["10.0.0.0/8"], request());
    let proxied = proxied.unwrap();
    assert_eq!(proxied.client.unwrap().to_string(), "198.51.100.1");
    assert_eq!(proxied.scheme, "https");
    assert_eq!(
        headers["x-forwarded-for"],
        "198.51.100.1, 10.0.0.3, 10.0.0.2"
    );
    // What else it says may be its own client's word.
    assert_eq!(headers["x-forwarded-host"], "Shop.Example.:8080");
    none_of(&headers, &gone);
}

#[test]
fn a_client_behind_a_trusted_proxy_cannot_hide_what_the_proxy_says() {
    // As nginx appends to what its client has sent.
    let mut forged = get("/");
    for value in [&b"6.6.6.6"[..], b"\xff, 198.51.100.1"] {
        forged = forged.header("x-forwarded-for", HeaderValue::from_bytes(value).unwrap());
    }
    let (proxied, headers) = admitted_from("10.0.0.2", &["10.0.0.0/8"], forged);
    assert_eq!(proxied.unwrap().client.unwrap().to_string(), "198.51.100.1");
    assert_eq!(
        headers["x-forwarded-for"],
        "6.6.6.6, unknown, 198.51.100.1, 10.0.0.2"
    );
    for name in ["X-Forwarded-For", "close, x-forwarded-proto", "X_Real-IP"] {
        let nominated = || {
            let request = get("/").header("connection", name);
            request.header("x-forwarded-for", "198.51.100.1")
        };
        let (proxied, _) = admitted_from("10.0.0.2", &["10.0.0.0/8"], nominated());
        assert_eq!(proxied.unwrap_err().code, Code::BadRequest, "{name}");
        // Of others these fields go anyway.
        let (stranger, headers) = admitted_from("192.0.2.1", &["10.0.0.0/8"], nominated());
        assert_eq!(stranger.unwrap().client.unwrap().to_string(), "192.0.2.1");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
    }
}
