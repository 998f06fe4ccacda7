//! HTTP/2 with a client library, without TLS.

use http::Request;

use crate::support::{
    Connection, Gateway, H2, Scene, Served as _, Upstream,
    database::random_key,
    frames::{Frames, PREFACE, RST_STREAM, SETTINGS, frame, headers},
    reply,
};

fn request(method: &str, url: &str) -> http::request::Builder {
    Request::builder().method(method).uri(url)
}

#[test]
fn edge_28_one_listener_speaks_http_1_and_http_2_by_prior_knowledge() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let client = H2::open(gateway.address());
    let answer = client.get("http://shop.test/a?q=1");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let seen = app.last();
    seen.claims();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/a?q=1")
    );
    assert_eq!(seen.field("host"), Some("shop.test"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    gateway.get("/").send().is_upstreams(200);
    // Methods that begin as the preface does.
    for method in ["P", "PRI", "PROPFIND", "POST"] {
        let mut slow = Connection::open(gateway.address());
        for byte in gateway.ask(method, "/").bytes() {
            slow.write(&[byte]).unwrap();
        }
        slow.answer(method).is_upstreams(200);
        assert_eq!(app.last().method, method);
    }
    // Over HTTP/2 a body of unknown length arrives as one.
    let answer = client.ask(
        request("POST", "http://shop.test/").body(()).unwrap(),
        Some(b"hello"),
    );
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(app.last().body, b"hello");
}

#[test]
fn edge_10_cookie_crumbs_of_http_2_are_joined_before_they_are_read() {
    let scene = Scene::start();
    let client = H2::open(scene.gateway.address());
    let split = request("GET", "http://shop.test/")
        .header("cookie", "a=1")
        .header("cookie", format!("sessionid={}", scene.key))
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    assert_eq!(client.ask(split, None).unwrap().status, 200);
    let seen = scene.app.last();
    assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
    assert!(seen.claims()["sid"].is_string(), "{seen:?}");
    // Django takes the last one.
    let two = request("GET", "http://shop.test/")
        .header("cookie", format!("sessionid={}", scene.key))
        .header("cookie", format!("sessionid={}", random_key()))
        .body(())
        .unwrap();
    assert_eq!(client.ask(two, None).unwrap().status, 200);
    assert!(scene.app.last().claims()["sub"].is_null());
}

#[test]
fn edge_1_and_4_no_field_of_an_http_2_client_passes_for_the_gateways() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let client = H2::open(gateway.address());
    for name in [
        "x-session",
        "x_session",
        "x-session_set",
        "x-forwarded-for",
        "x-real-ip",
    ] {
        let request = request("GET", "http://shop.test/")
            .header(name, "planted")
            .header("te", "trailers")
            .body(())
            .unwrap();
        assert_eq!(client.ask(request, None).unwrap().status, 200);
        let seen = app.last();
        seen.claims();
        assert!(!format!("{seen:?}").contains("planted"), "{name}: {seen:?}");
    }
    // A field of HTTP/1.1's connections makes the request malformed (RFC 9113, section 8.2.2).
    app.take();
    for (name, value) in [
        ("connection", "x-session"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "1"),
        ("te", "gzip"),
    ] {
        let client = H2::open(gateway.address());
        let request = request("GET", "http://shop.test/")
            .header(name, value)
            .body(())
            .unwrap();
        let answer = client.ask(request, None);
        assert!(answer.is_err() || answer.unwrap().status == 400, "{name}");
        assert_eq!(app.take().len(), 0, "{name}");
    }
}

#[test]
fn edge_7_authority_and_host_of_http_2_must_be_there_and_agree() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let client = H2::open(gateway.address());
    let same = request("GET", "http://shop.test/")
        .header("host", "shop.test")
        .body(())
        .unwrap();
    assert_eq!(client.ask(same, None).unwrap().status, 200);
    assert_eq!(app.take()[0].all("host"), ["shop.test"]);
    for (url, host) in [
        ("http://shop.test/", Some("other.test")),
        ("http://shop.test/", Some("")),
        ("http://user@shop.test/", None),
        ("http://shop.test:x/", Some("shop.test")),
        ("ftp://shop.test/", None),
        ("http://shop.test/a%00", None),
    ] {
        let Ok(mut request) = request("GET", url).body(()) else {
            continue;
        };
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let answer = client.ask(request, None).unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (400, Some("bad-request")),
            "{url} {host:?}"
        );
    }
    assert_eq!(app.seen().len(), 0);
}

#[test]
fn edge_13_methods_that_are_not_served_are_refused_in_http_2_too() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    for method in ["TRACE", "TRACK", "CONNECT"] {
        let client = H2::open(gateway.address());
        let url = if method == "CONNECT" {
            "shop.test:80"
        } else {
            "http://shop.test/"
        };
        let answer = client
            .ask(request(method, url).body(()).unwrap(), None)
            .unwrap();
        let answer = (answer.status, answer.code().map(str::to_owned));
        let expected = match method {
            // An authority alone is no target here.
            "CONNECT" => [400, 405].contains(&answer.0),
            _ => answer == (405, Some("method-refused".to_owned())),
        };
        assert!(expected, "{method}: {answer:?}");
    }
    assert_eq!(app.seen().len(), 0);
}

#[test]
fn edge_22_answers_to_http_2_have_neither_connection_fields_nor_bodies_that_do_not_belong() {
    let app = Upstream::with(|seen| match seen.target.as_str() {
        "/none" => reply(204),
        "/same" => reply(304).field("ETag", "\"x\""),
        _ => reply(200)
            .field("X-Own", "kept")
            .field("Keep-Alive", "timeout=5")
            .body("hello"),
    });
    let gateway = Gateway::alone(&app).start();
    let client = H2::open(gateway.address());
    let answer = client.get("http://shop.test/");
    assert_eq!(
        (answer.text().as_str(), answer.field("x-own")),
        ("hello", Some("kept"))
    );
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        assert_eq!(answer.field(name), None);
    }
    let head = request("HEAD", "http://shop.test/").body(()).unwrap();
    let head = client.ask(head, None).unwrap();
    assert_eq!(
        (head.status, head.body.len(), head.field("content-length")),
        (200, 0, Some("5"))
    );
    for (path, status) in [("/none", 204), ("/same", 304)] {
        let answer = client.get(&format!("http://shop.test{path}"));
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    // What ends a connection in HTTP/1.1 does not end this one.
    let post = request("POST", "http://shop.test/").header("content-length", "99999999999");
    let refused = client.begin(post.body(()).unwrap(), Some(b""));
    assert!(refused.is_err() || refused.unwrap().answer.status >= 400);
    assert_eq!(client.get("http://shop.test/").status, 200);
}

#[test]
fn edge_17_a_body_over_the_limit_is_a_413_in_http_2_too() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("limits", "request_body = '100KiB'")
        .start();
    let client = H2::open(gateway.address());
    for declared in [true, false] {
        let mut post = request("POST", "http://shop.test/");
        if declared {
            post = post.header("content-length", "102401");
        }
        let answer = client
            .begin(post.body(()).unwrap(), Some(&[b'x'; 102_401]))
            .unwrap()
            .answer;
        assert_eq!(
            (answer.status, answer.code()),
            (413, Some("body-too-large")),
            "{declared}"
        );
    }
    let fits = client.ask(
        request("POST", "http://shop.test/").body(()).unwrap(),
        Some(&[b'x'; 102_400]),
    );
    assert_eq!(fits.unwrap().status, 200);
    assert_eq!(app.last().body.len(), 102_400);
}

#[test]
fn edge_19_a_head_over_its_limits_is_a_431_in_http_2_too() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("limits", "request_head = '16KiB'")
        .line("limits", "request_fields = 30")
        .start();
    let client = H2::open(gateway.address());
    let mut many = request("GET", "http://shop.test/");
    for number in 0..31 {
        many = many.header(format!("x-{number}"), "1");
    }
    let answer = client.ask(many.body(()).unwrap(), None).unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (431, Some("too-many-fields"))
    );
    let large = request("GET", "http://shop.test/").header("x-large", "a".repeat(17_000));
    let answer = client.ask(large.body(()).unwrap(), None);
    assert!(answer.is_err() || answer.unwrap().status == 431);
    assert_eq!(client.get("http://shop.test/").status, 200);
    assert_eq!(app.seen().len(), 1);
}

#[test]
fn a_client_that_resets_what_it_asks_for_is_let_go() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let mut client = Connection::open(gateway.address());
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    client.write(&begin).unwrap();
    for number in 0..20_000 {
        if client.write(&asked_and_reset(number).concat()).is_err() {
            break;
        }
    }
    // How many could be sent says nothing: the sockets hold them all.
    let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!client.rest().is_err_and(waits), "it is not let go");
    gateway.get("/").send().is_upstreams(200);

    // Nor does it help to wait for each answer first.
    let mut client = Frames::open(gateway.address());
    let taken = (0..1000).take_while(|number| {
        let [head, reset] = asked_and_reset(*number);
        let ended = |client: &Frames| {
            let stream = client.streams.get(&stream(*number));
            stream.is_some_and(|stream| stream.ended)
        };
        client.write(&head) && client.until(ended) && client.write(&reset)
    });
    assert!(taken.count() < 1000, "all were taken");
    assert!(client.until(|client| client.closed), "it is not let go");
    gateway.get("/").send().is_upstreams(200);
}

/// A client's streams in their order (RFC 9113, section 5.1.1).
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

/// HEADERS with :method GET, :scheme http, :path /, :authority a (RFC 7541, appendix A), and RST_STREAM (CANCEL).
fn asked_and_reset(number: u32) -> [Vec<u8>; 2] {
    let block = b"\x82\x86\x84\x41\x01a";
    [
        headers(stream(number), true, block),
        frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes()),
    ]
}
