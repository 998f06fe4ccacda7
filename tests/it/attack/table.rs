//! The rows of the attack table.

use super::{Expected, Row, Scene, wire};
use crate::support::{Seen, database::random_key};

/// All of them.
pub fn table(scene: &Scene) -> Vec<Row> {
    let mut table = Table {
        key: scene.key.clone(),
        rows: Vec::new(),
    };
    connection_rows(&mut table);
    forwarded_rows(&mut table);
    host_rows(&mut table);
    framing_rows(&mut table);
    cookie_rows(&mut table);
    target_rows(&mut table);
    route_rows(&mut table);
    cross_site_rows(&mut table);
    table.rows
}

/// Writes the table.
struct Table {
    key: String,
    rows: Vec<Row>,
}

impl Table {
    fn row(&mut self, name: &str, request: Vec<u8>, expected: Expected) {
        self.rows.push(Row {
            name: name.to_owned(),
            request,
            expected,
        });
    }

    /// A GET of the logged-in visitor with one more line.
    fn with(&self, line: &str) -> Vec<u8> {
        let cookie = format!("Cookie: sessionid={}", self.key);
        wire(&["GET / HTTP/1.1", "Host: shop.test", &cookie, line], "")
    }

    /// A GET of the logged-in visitor for this target.
    fn target(&self, target: &str) -> Vec<u8> {
        let cookie = format!("Cookie: sessionid={}", self.key);
        wire(
            &[
                &format!("GET {target} HTTP/1.1"),
                "Host: shop.test",
                &cookie,
            ],
            "",
        )
    }

    /// A POST of nobody with these lines.
    fn post(&self, lines: &[&str], body: &str) -> Vec<u8> {
        wire(
            &[&["POST / HTTP/1.1", "Host: shop.test"], lines].concat(),
            body,
        )
    }
}

fn user(expected: Option<&'static str>) -> Expected {
    Expected::Forwarded(Box::new(move |seen| {
        assert_eq!(seen.user().as_deref(), expected, "user")
    }))
}

fn without(name: &'static str) -> Expected {
    Expected::Forwarded(Box::new(move |seen| {
        assert_eq!(seen.all(name), [""; 0], "{name}");
        assert_eq!(seen.user().as_deref(), Some("1"), "user");
    }))
}

fn at(target: &'static str) -> Expected {
    Expected::Forwarded(Box::new(move |seen| {
        assert_eq!(seen.target, target, "target")
    }))
}

fn with_body(body: &'static str) -> Expected {
    Expected::Either(Box::new(move |seen| {
        assert_eq!(String::from_utf8_lossy(&seen.body), body, "body")
    }))
}

fn refused() -> Expected {
    Expected::Refused(400, Some("bad-request"))
}

/// Hop-by-hop fields, and what `Connection` nominates.
fn connection_rows(table: &mut Table) {
    for value in [
        "X-Session",
        "close, X-Session",
        "x_session",
        "keep-alive,x-session-set",
        "X.Session",
    ] {
        let request = table.with(&format!("Connection: {value}"));
        table.row(&format!("Connection nominates {value}"), request, refused());
    }
    let request = table.with("Connection: keep-alive\r\nConnection: X-Session");
    table.row(
        "a second Connection line nominates X-Session",
        request,
        refused(),
    );
    let request = table.with("Connection: X-Custom\r\nX-Custom: 1");
    table.row(
        "what Connection nominates goes",
        request,
        without("x-custom"),
    );
    for field in ["Host", "Cookie", "X-Forwarded-For", "Content-Length"] {
        let request = table.with(&format!("Connection: {field}"));
        table.row(
            &format!("Connection nominates {field}"),
            request,
            Expected::Either(Box::new(|_| {})),
        );
    }
    for line in [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: gzip",
        "Upgrade: x",
        "Upgrade: h2c",
    ] {
        let name: &'static str = line.split(':').next().unwrap();
        let request = table.with(line);
        table.row(line, request, without(name));
    }
    let request = table
        .with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk");
    table.row("an h2c upgrade", request, without("http2-settings"));
    let request = table.with("Upgrade: websocket");
    table.row(
        "an Upgrade that Connection does not name",
        request,
        without("upgrade"),
    );
    let request = table.with("Connection: TE\r\nTE: gzip, trailers;q=0.5");
    table.row("TE is at most trailers", request, user(Some("1")));
}

/// What a client says of itself decides nothing.
fn forwarded_rows(table: &mut Table) {
    for line in [
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2, 10.0.0.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.test",
        "X-FORWARDED-HOST: evil.test\r\nx-forwarded-proto: https",
    ] {
        let request = table.with(line);
        table.row(line, request, user(Some("1")));
    }
    for line in [
        "X-Original-URL: /admin/",
        "X-Rewrite-URL: /admin/",
        "X-HTTP-Method-Override: DELETE",
    ] {
        let expected = Expected::Forwarded(Box::new(|seen| {
            assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/"));
        }));
        let request = table.with(line);
        table.row(line, request, expected);
    }
}

fn host_rows(table: &mut Table) {
    for (name, lines) in [
        ("no Host", vec!["GET / HTTP/1.1"]),
        (
            "two Hosts",
            vec!["GET / HTTP/1.1", "Host: shop.test", "Host: evil.test"],
        ),
        (
            "the same Host twice",
            vec!["GET / HTTP/1.1", "Host: shop.test", "host: shop.test"],
        ),
        (
            "an absolute form at odds with Host",
            vec!["GET http://evil.test/ HTTP/1.1", "Host: shop.test"],
        ),
        (
            "an absolute form without Host",
            vec!["GET http://shop.test/ HTTP/1.1"],
        ),
        (
            "userinfo in the absolute form",
            vec![
                "GET http://shop.test@evil.test/ HTTP/1.1",
                "Host: shop.test",
            ],
        ),
        (
            "userinfo in Host",
            vec!["GET / HTTP/1.1", "Host: shop.test@evil.test"],
        ),
        (
            "a path in Host",
            vec!["GET / HTTP/1.1", "Host: shop.test/evil"],
        ),
        (
            "a blank in Host",
            vec!["GET / HTTP/1.1", "Host: shop.test evil.test"],
        ),
        (
            "a comma in Host",
            vec!["GET / HTTP/1.1", "Host: shop.test, evil.test"],
        ),
        (
            "a port that is none",
            vec!["GET / HTTP/1.1", "Host: shop.test:http"],
        ),
        ("an empty Host", vec!["GET / HTTP/1.1", "Host:"]),
        (
            "bytes over 127 in Host",
            vec!["GET / HTTP/1.1", "Host: sh\u{f6}p.test"],
        ),
    ] {
        table.row(name, wire(&lines, ""), refused());
    }
    let lines = ["GET http://shop.test/a?b HTTP/1.1", "Host: shop.test"];
    table.row("an absolute form", wire(&lines, ""), at("/a?b"));
    let lines = ["GET http://SHOP.test HTTP/1.1", "Host: shop.test"];
    table.row("an absolute form without a path", wire(&lines, ""), at("/"));
    table.row(
        "HTTP/1.0 without Host",
        wire(&["GET / HTTP/1.0"], ""),
        Expected::Either(Box::new(|_| {})),
    );
}

/// Requests whose end two servers could see in two places.
fn framing_rows(table: &mut Table) {
    let smuggled = "5\r\nhello\r\n0\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked";
    let request = table.post(&["Content-Length: 5", chunked], smuggled);
    table.row(
        "Content-Length, then Transfer-Encoding",
        request,
        with_body("hello"),
    );
    let request = table.post(&[chunked, "Content-Length: 5"], smuggled);
    table.row(
        "Transfer-Encoding, then Content-Length",
        request,
        with_body("hello"),
    );
    let request = table.post(&["Content-Length: 5", "Content-Length: 5"], "hello");
    table.row("the same Content-Length twice", request, with_body("hello"));
    for value in [
        "5\r\nContent-Length: 6",
        "+5",
        "-5",
        "0x5",
        "5, 6",
        "5 6",
        "five",
        "",
    ] {
        let request = table.post(&[&format!("Content-Length: {value}")], "hello!");
        table.row(
            &format!("Content-Length: {value:?}"),
            request,
            Expected::RefusedAs(&[400]),
        );
    }
    for value in [
        "gzip, chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "identity",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "",
    ] {
        let request = table.post(&[&format!("Transfer-Encoding: {value}")], smuggled);
        table.row(
            &format!("Transfer-Encoding: {value:?}"),
            request,
            Expected::RefusedAs(&[400, 501]),
        );
    }
    let request = table.post(&["Transfer-Encoding: gzip, chunked"], smuggled);
    table.row(
        "a coding besides chunked",
        request,
        Expected::Refused(501, Some("transfer-encoding")),
    );
    let request = table.post(&["Transfer-Encoding: CHUNKED"], smuggled);
    table.row("chunked in capitals", request, with_body("hello"));
    let lines = ["POST / HTTP/1.0", "Host: shop.test", chunked];
    table.row(
        "Transfer-Encoding on HTTP/1.0",
        wire(&lines, smuggled),
        Expected::RefusedAs(&[400, 501]),
    );
    for (name, line) in [
        ("a blank before the colon", "X-Session : forged"),
        ("a tab before the colon", "Content-Length\t: 5"),
        ("a folded line", "X-Folded: a\r\n X-Session: forged"),
        ("a line without a colon", "X-Session"),
        ("an empty name", ": forged"),
        ("NUL in a value", "X-Nul: a\0b"),
        ("CR in a value", "X-Cr: a\rX-Session: forged"),
        ("a control byte in a name", "X\u{1}Session: forged"),
        (
            "Content-Length behind a vertical tab",
            "Transfer-Encoding: \u{b}chunked",
        ),
    ] {
        let request = table.with(line);
        table.row(name, request, Expected::RefusedAs(&[400]));
    }
    let request = table.post(&[chunked], "zz\r\nhello\r\n0\r\n\r\n");
    table.row(
        "a chunk size that is none",
        request,
        Expected::RefusedAs(&[0, 400, 502]),
    );
    let request = table.post(&[chunked], "fffffffffffffffff\r\nhello\r\n0\r\n\r\n");
    table.row(
        "a chunk size over 64 bits",
        request,
        Expected::RefusedAs(&[0, 400, 502]),
    );
    let request = b"GET / HTTP/1.1\nHost: shop.test\n\n".to_vec();
    table.row("bare LF", request, Expected::Either(Box::new(|_| {})));
    for method in ["TRACE", "TRACK"] {
        let lines = [format!("{method} / HTTP/1.1"), "Host: shop.test".to_owned()];
        table.row(
            method,
            wire(&lines, ""),
            Expected::Refused(405, Some("method-refused")),
        );
    }
    let lines = ["CONNECT shop.test:443 HTTP/1.1", "Host: shop.test:443"];
    table.row(
        "CONNECT",
        wire(&lines, ""),
        Expected::Refused(405, Some("method-refused")),
    );
    for version in ["HTTP/1.2", "HTTP/3.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 x"] {
        let lines = [format!("GET / {version}"), "Host: shop.test".to_owned()];
        table.row(
            version,
            wire(&lines, ""),
            Expected::RefusedAs(&[0, 400, 505]),
        );
    }
}

/// What is believed of cookies, and what the upstream gets of them.
fn cookie_rows(table: &mut Table) {
    let key = table.key.clone();
    let other = random_key();
    let cookies = |lines: &[String]| {
        let lines: Vec<String> = lines.iter().map(|line| format!("Cookie: {line}")).collect();
        wire(
            &[
                &["GET / HTTP/1.1".to_owned(), "Host: shop.test".to_owned()],
                &lines[..],
            ]
            .concat(),
            "",
        )
    };
    let seen = |user: Option<&'static str>, left: Option<&'static str>| {
        Expected::Forwarded(Box::new(move |seen: &Seen| {
            assert_eq!(seen.user().as_deref(), user, "user");
            assert_eq!(seen.field("cookie"), left, "what is left of the cookies");
        }))
    };
    for (name, lines, expected) in [
        (
            "one cookie",
            vec![format!("sessionid={key}")],
            seen(Some("1"), None),
        ),
        (
            "neighbours",
            vec![format!("a=1; sessionid={key}; b=2")],
            seen(Some("1"), Some("a=1; b=2")),
        ),
        (
            "neighbours keep their spelling",
            vec![format!("a=\"x y\";  c ; sessionid={key}; b=%3D=")],
            seen(Some("1"), Some("a=\"x y\";  c ; b=%3D=")),
        ),
        (
            "several lines",
            vec![
                "a=1".to_owned(),
                format!("sessionid={key}"),
                "b=2".to_owned(),
            ],
            seen(Some("1"), Some("a=1; b=2")),
        ),
        (
            "the last of two is Django's",
            vec![format!("sessionid={other}; sessionid={key}")],
            seen(Some("1"), None),
        ),
        (
            "the first of two is not",
            vec![format!("sessionid={key}; sessionid={other}")],
            seen(None, None),
        ),
        (
            "the last line wins",
            vec![format!("sessionid={key}"), "sessionid=".to_owned()],
            seen(None, None),
        ),
        (
            "blanks around",
            vec![format!("  sessionid \t= {key} ; a=1")],
            seen(Some("1"), Some("a=1")),
        ),
        (
            "a quoted value",
            vec![format!("sessionid=\"{key}\"")],
            seen(Some("1"), None),
        ),
        (
            "an escaped value",
            vec![format!("sessionid=\"\\{}\"", octal(&key))],
            seen(Some("1"), None),
        ),
        (
            "NUL in a quoted value",
            vec![format!("sessionid=\"{key}\\000\"")],
            seen(None, None),
        ),
        (
            "a short NUL",
            vec!["sessionid=\"abcdefgh\\000\"".to_owned()],
            seen(None, None),
        ),
        (
            "41 characters",
            vec![format!("sessionid={key}123456789")],
            seen(None, None),
        ),
        (
            "31 characters",
            vec![format!("sessionid={}", &key[..31])],
            seen(None, None),
        ),
        (
            "capitals",
            vec![format!("sessionid={}", key.to_uppercase())],
            seen(None, None),
        ),
        (
            "trailing blanks inside quotes",
            vec![format!("sessionid=\"{key}  \"")],
            seen(None, None),
        ),
        (
            "a percent-encoded key",
            vec![format!("sessionid=%{:02x}{}", key.as_bytes()[0], &key[1..])],
            seen(None, None),
        ),
        (
            "SQL",
            vec!["sessionid=' OR '1'='1".to_owned()],
            seen(None, None),
        ),
        (
            "a wildcard",
            vec![format!("sessionid={}%", &key[..8])],
            seen(None, None),
        ),
        (
            "an empty value",
            vec!["sessionid=".to_owned()],
            seen(None, None),
        ),
        ("an empty field", vec![String::new()], seen(None, Some(""))),
        (
            "a comma is no separator",
            vec![format!("sessionid={key}, a=1")],
            seen(None, None),
        ),
        (
            "another case is another name",
            vec!["SessionID=x; a=1".to_owned()],
            seen(None, Some("SessionID=x; a=1")),
        ),
        (
            "a longer name is another name",
            vec!["xsessionid=x".to_owned()],
            seen(None, Some("xsessionid=x")),
        ),
        (
            "U+00A0 before the name",
            vec![format!("\u{a0}sessionid={key}; a=1")],
            seen(None, Some("a=1")),
        ),
        (
            "U+2000 after the name",
            vec![format!("sessionid\u{2000}={key}; a=1")],
            seen(None, Some("a=1")),
        ),
        (
            "U+3000 on both sides",
            vec![format!("a=1; \u{3000}sessionid\u{3000}={key}")],
            seen(None, Some("a=1")),
        ),
        (
            "a look-alike after the real one",
            vec![format!("sessionid={key}; \u{a0}sessionid={other}")],
            seen(Some("1"), None),
        ),
    ] {
        table.row(&format!("cookie: {name}"), cookies(&lines), expected);
    }
    for byte in ["\u{1c}", "\u{b}"] {
        let request = cookies(&[format!("sessionid{byte}={key}")]);
        table.row(
            "cookie: a control byte after the name",
            request,
            Expected::RefusedAs(&[400]),
        );
    }
    // U+0085 and U+00A0 as the single bytes of latin-1.
    for byte in [0x85, 0xa0] {
        let mut request = cookies(&[format!("sessionid?={key}; a=1")]);
        let at = request.iter().position(|found| *found == b'?').unwrap();
        request[at] = byte;
        table.row(
            &format!("cookie: byte {byte:#x} after the name"),
            request,
            seen(None, Some("a=1")),
        );
    }
}

/// A key with its first character as an octal escape, without the backslash.
fn octal(key: &str) -> String {
    format!("{:03o}{}", key.as_bytes()[0], &key[1..])
}

fn target_rows(table: &mut Table) {
    for (target, forwarded) in [
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%2e%2e/%2e%2e/x", "/x"),
        ("/a/./b", "/a/b"),
        ("/a/%2e/b/", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("//evil.test/x", "/evil.test/x"),
        ("///evil//x", "/evil/x"),
        ("/a//", "/a/"),
        ("/a;b=c/d;e", "/a;b=c/d;e"),
        ("/%61%2Db", "/%61%2Db"),
        ("/%C3%BC", "/%C3%BC"),
        (
            "/a?x=%2f..//&y=%00&z=\\#".trim_end_matches('#'),
            "/a?x=%2f..//&y=%00&z=\\",
        ),
        ("/a?", "/a?"),
        ("/a?//b/../c", "/a?//b/../c"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip/a/..//b", "/b"),
        ("/strip//evil.test", "/evil.test"),
        ("/strip/%2e%2e/strip/x", "/x"),
        ("/stripe", "/stripe"),
        ("/slashes/a%2Fb", "/slashes/a%2Fb"),
    ] {
        let request = table.target(target);
        table.row(&format!("target {target}"), request, at(forwarded));
    }
    for target in [
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%5Cb",
        "/a%00b",
        "/%252e%252e/b",
        "/%252E/",
        "/a%252fb",
        "/a%255cb",
        "/a%2500",
        "/a\\b",
        "/..\\admin",
        "/%zz",
        "/%",
        "/%2",
        "/a%0d%0aX-Session:x",
        "/a%0a",
        "/a%7f",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/..%3b/b",
        "/slashes/a%5cb",
        "foo",
        "*",
        "a:80",
        "?x",
        "/\u{fc}",
    ] {
        let request = table.target(target);
        table.row(
            &format!("target {target}"),
            request,
            Expected::RefusedAs(&[400]),
        );
    }
    let request = table.target("/a#b");
    table.row(
        "target with a fragment",
        request,
        Expected::Either(Box::new(|seen| assert_eq!(seen.target, "/a"))),
    );
    let request = wire(&["OPTIONS * HTTP/1.1", "Host: shop.test"], "");
    table.row("OPTIONS *", request, at("*"));
}

/// Ways round a rule for `/admin/`.
fn route_rows(table: &mut Table) {
    let refused = || Expected::Refused(401, Some("login-required"));
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin/",
        "/admi%6E",
        "//admin/",
        "/x/../admin/",
        "/./admin/",
        "/admin;x/",
        "/admin;/x",
        "/admin%3bx/",
        "/%2e/admin/",
        "/x/%2e%2e/admin/",
        "/strip/../admin/",
        "/admin?x",
        "/;/admin/",
    ] {
        let request = wire(&[&format!("GET {target} HTTP/1.1"), "Host: shop.test"], "");
        table.row(&format!("nobody at {target}"), request, refused());
        let allowed = table.target(target);
        table.row(
            &format!("the visitor at {target}"),
            allowed,
            user(Some("1")),
        );
    }
    for target in ["/administrator", "/admin.", "/x/admin/", "/ADMIN/"] {
        let request = wire(&[&format!("GET {target} HTTP/1.1"), "Host: shop.test"], "");
        table.row(&format!("{target} is another path"), request, user(None));
    }
}

fn cross_site_rows(table: &mut Table) {
    let cookie = format!("Cookie: sessionid={}", table.key);
    let post = |lines: &[&str]| {
        wire(
            &[&["POST / HTTP/1.1", "Host: shop.test", &cookie], lines].concat(),
            "",
        )
    };
    let refused = || Expected::Refused(403, Some("cross-site-request"));
    for lines in [
        &["Origin: https://evil.test"][..],
        &["Origin: null"],
        &["Origin: http://shop.test.evil.test"],
        &["Origin: http://shop.test:81"],
        &["Origin: shop.test"],
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
        &["Sec-Fetch-Site: cross-site", "Origin: http://shop.test"],
        &["Sec-Fetch-Site: nonsense"],
    ] {
        table.row(&format!("cross-site {lines:?}"), post(lines), refused());
    }
    for lines in [
        &[][..],
        &["Origin: http://shop.test"],
        &["Origin: https://shop.test"],
        &["Sec-Fetch-Site: same-origin"],
        &["Sec-Fetch-Site: none"],
    ] {
        table.row(
            &format!("same site {lines:?}"),
            post(lines),
            user(Some("1")),
        );
    }
    let request = table.with("Origin: https://evil.test");
    table.row("a cross-site GET", request, user(Some("1")));
    let lines = [
        "POST / HTTP/1.1",
        "Host: shop.test",
        "Origin: https://evil.test",
    ];
    table.row(
        "a cross-site POST without a cookie",
        wire(&lines, ""),
        refused(),
    );
}
