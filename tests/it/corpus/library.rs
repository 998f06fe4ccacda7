//! HTTP/2 with a client library: what it lets a hostile program send.

use http::Request;

use super::recorder::Recorder;
use crate::support::{
    Answer, Connection, Gate, Gateway, H2, Served as _, Upstream, eventually,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, block, frame},
    reply,
};

/// What is sent, what comes back (a status with the gateway's code, or the reason of a reset), and what the upstream
/// saw.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
    &'static str,
    &'static [&'static str],
);

const TABLE: [Row; 24] = [
    (
        "GET",
        "http://shop.test/a?b",
        &[],
        None,
        "200",
        &["GET /a?b"],
    ),
    ("GET", "http://shop.test", &[], None, "200", &["GET /"]),
    (
        "GET",
        "http://shop.test/a",
        &[("host", "shop.test")],
        None,
        "200",
        &["GET /a"],
    ),
    (
        "GET",
        "http://shop.test/a",
        &[("host", "evil.test")],
        None,
        "400 bad-request",
        &[],
    ),
    (
        "GET",
        "http://shop.test:80/a",
        &[("host", "shop.test")],
        None,
        "400 bad-request",
        &[],
    ),
    (
        "GET",
        "http://a@shop.test/a",
        &[],
        None,
        "400 bad-request",
        &[],
    ),
    (
        "GET",
        "ftp://shop.test/a",
        &[],
        None,
        "400 bad-request",
        &[],
    ),
    (
        "GET",
        "http://shop.test/a%2fb",
        &[],
        None,
        "400 bad-request",
        &[],
    ),
    (
        "GET",
        "http://shop.test/x/..%2e/a",
        &[],
        None,
        "200",
        &["GET /x/..%2e/a"],
    ),
    (
        "GET",
        "http://shop.test//evil/../a",
        &[],
        None,
        "200",
        &["GET /a"],
    ),
    (
        "GET",
        "http://shop.test/members/",
        &[],
        None,
        "401 login-required",
        &[],
    ),
    (
        "GET",
        "http://shop.test/%6dembers;x",
        &[],
        None,
        "401 login-required",
        &[],
    ),
    (
        "TRACE",
        "http://shop.test/",
        &[],
        None,
        "405 method-refused",
        &[],
    ),
    (
        "track",
        "http://shop.test/",
        &[],
        None,
        "405 method-refused",
        &[],
    ),
    (
        "CONNECT",
        "shop.test:443",
        &[],
        None,
        "405 method-refused",
        &[],
    ),
    (
        "GET",
        "http://shop.test/",
        &[("x_session", "forged")],
        None,
        "200",
        &["GET /"],
    ),
    (
        "GET",
        "http://shop.test/",
        &[
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x", "y"),
            ("cookie", "c=3"),
        ],
        None,
        "200",
        &["GET / cookie: a=1; b=2; c=3; x: y;"],
    ),
    (
        "POST",
        "http://shop.test/",
        &[],
        Some("hello"),
        "200",
        &["POST / transfer-encoding: chunked; \"hello\""],
    ),
    (
        "POST",
        "http://shop.test/",
        &[("content-length", "5")],
        Some("hello"),
        "200",
        &["POST / content-length: 5; \"hello\""],
    ),
    (
        "POST",
        "http://shop.test/",
        &[("content-length", "0")],
        Some("GET /smuggled HTTP/1.1\r\n\r\n"),
        "PROTOCOL_ERROR",
        &[],
    ),
    (
        "POST",
        "http://shop.test/",
        &[("content-length", "50")],
        Some("hello"),
        "PROTOCOL_ERROR",
        &[],
    ),
    (
        "POST",
        "http://shop.test/",
        &[("content-length", "05")],
        Some("hello"),
        "400 bad-request",
        &[],
    ),
    (
        "POST",
        "http://shop.test/",
        &[("content-length", "5"), ("content-length", "5")],
        Some("hello"),
        "400 bad-request",
        &[],
    ),
    (
        "GET",
        "http://shop.test/",
        &[("te", "trailers")],
        None,
        "200",
        &["GET / te: trailers;"],
    ),
];

#[test]
fn edge_9_and_10_what_a_client_library_sends_reaches_the_upstream_as_it_was_seen() {
    let app = Recorder::start();
    let gateway = super::h1::gateway(&app);
    let client = H2::open(gateway.address());
    for (method, url, fields, body, expected, seen) in TABLE {
        app.forget();
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let answer = client.ask(request, body.map(str::as_bytes));
        let told = answer.map_or_else(
            |error| {
                error
                    .reason()
                    .map_or("?".to_owned(), |reason| format!("{reason:?}"))
            },
            |answer| told(&answer),
        );
        let what = format!("{method} {url} {fields:?}");
        assert_eq!(told, expected, "{what}");
        let whole = app.seen().into_iter().filter(|told| told.whole);
        let whole: Vec<String> = whole.map(|told| told.line).collect();
        assert_eq!(whole, seen, "{what}");
        assert!(!app.seen().iter().any(|told| told.is_malformed()), "{what}");
    }
}

fn told(answer: &Answer) -> String {
    match answer.code() {
        Some(code) => format!("{} {code}", answer.status),
        None => answer.status.to_string(),
    }
}

#[test]
fn edge_19_streams_over_the_limit_are_refused_and_the_others_go_on() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        if seen.target == "/held" {
            held.pass();
        }
        reply(200)
    });
    let gateway = Gateway::alone(&app)
        .line("limits", "h2_streams = 20")
        .start();
    let mut client = Frames::open(gateway.address());
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "shop.test"),
        (":path", "/held"),
    ];
    for number in 0..30 {
        let flags = END_HEADERS | 1;
        client.write(&frame(HEADERS, flags, number * 2 + 1, &block(&fields)));
    }
    // REFUSED_STREAM: the client may send them again.
    let refused = |client: &Frames| {
        let streams = client.streams.values();
        streams.filter(|stream| stream.reset == Some(7)).count()
    };
    assert!(
        client.until(|client| refused(client) == 10),
        "{:?}",
        client.streams
    );
    gate.wait_for(20);
    gate.open();
    assert!(client.until(|client| (0..20).all(|number| client.is_done(number * 2 + 1))));
    let served = client
        .streams
        .values()
        .filter(|stream| stream.status == Some(200));
    assert_eq!(served.count(), 20);
    assert_eq!(app.seen().len(), 20);
}

#[test]
fn edge_18_a_client_without_a_window_is_let_go_and_holds_nobody_else() {
    let app = Upstream::with(|_| reply(200).body(vec![b'x'; 100_000]));
    let gateway = Gateway::alone(&app)
        .line("timeouts", "send = '500ms'")
        .start();
    for window in [0, 1] {
        let mut client = Frames::open(gateway.address());
        // SETTINGS_INITIAL_WINDOW_SIZE
        client.write(&frame(4, 0, 0, &[0, 4, 0, 0, 0, window]));
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "shop.test"),
            (":path", "/"),
        ];
        client.write(&frame(HEADERS, END_HEADERS | 1, 1, &block(&fields)));
        assert!(client.until(|client| client.is_done(1) || client.closed));
        let stream = client.streams.get(&1).cloned().unwrap_or_default();
        assert!(!stream.ended, "the whole answer had no room");
        gateway.get("/").send().is_upstreams(200);
    }
}

#[test]
fn edge_22_an_answer_may_come_before_its_request_has_ended() {
    let app = Upstream::raw(|stream| {
        let mut stream = std::io::BufReader::new(stream);
        if crate::support::http::head_lines(&mut stream).is_ok() {
            let answer =
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
            let _ = std::io::Write::write_all(stream.get_mut(), answer);
            // Held until the test has its answer.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let gateway = Gateway::alone(&app).start();
    let mut client = Connection::open(gateway.address());
    let head = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000\r\n\r\nbegin";
    client.write(head).unwrap();
    let answer = client.answer("POST");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    // What is left of the body is not taken for a request.
    let _ = client.write(b"GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("the connection is over", || {
        client.is_closed().then_some(())
    });
}

/// Python's httpx sends the end of a body as a frame of its own, and loses an answer whose stream is reset before.
#[test]
fn edge_22_an_answer_to_a_whole_body_does_not_reset_its_stream() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let mut client = Frames::open(gateway.address());
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "shop.test"),
        (":path", "/"),
        ("content-length", "5"),
    ];
    client.write(&frame(HEADERS, END_HEADERS, 1, &block(&fields)));
    client.write(&frame(DATA, 0, 1, b"hello"));
    assert!(client.until(|client| client.is_done(1)));
    client.write(&frame(DATA, END_STREAM, 1, b""));
    client.write(&frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        3,
        &block(&fields[..4]),
    ));
    assert!(client.until(|client| client.is_done(3)));
    assert_eq!(client.resets, 0);
    assert_eq!(app.seen().len(), 2);
}
