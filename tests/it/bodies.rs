//! Bodies, connections and time: streaming both ways with back-pressure, reuse, limits, deadlines.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Connection, Database, Gate, Gateway, PATIENCE, Reply, Served, Upstream, eventually,
    free_address, gateway::Setup, http, reply,
};

/// More than sockets and the gateway may hold on the way; less than a whole large body.
const HELD_BYTES: usize = 64 << 20;

#[test]
fn an_upload_reaches_the_upstream_while_it_is_sent() {
    let (send, received) = mpsc::channel();
    let app = Upstream::raw(move |stream| {
        let mut reader = BufReader::new(stream);
        http::head_lines(&mut reader).unwrap();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            send.send(std::mem::take(&mut line)).unwrap();
        }
    });
    let gateway = gateway(&app).start();
    let mut client = Connection::open(gateway.address());
    client
        .write(b"POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for word in ["first", "second"] {
        client
            .write(format!("{:x}\r\n{word}\n\r\n", word.len() + 1).as_bytes())
            .unwrap();
        let arrived = |line: String| line.trim_end() == word;
        eventually(word, || {
            received
                .recv_timeout(PATIENCE)
                .ok()
                .filter(|line| arrived(line.clone()))
        });
    }
}

#[test]
fn a_download_reaches_the_client_while_it_is_sent() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::raw(move |mut stream| {
        read_head(&stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            .unwrap();
        held.pass();
        stream.write_all(b"later").unwrap();
    });
    let gateway = gateway(&app).start();
    let mut client = gateway.get("/").begin();
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.read_exactly(5), b"first");
    gate.open();
    assert_eq!(client.read_exactly(5), b"later");
}

#[test]
fn an_upstream_that_does_not_read_slows_the_client_down() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::raw(move |stream| {
        read_head(&stream);
        held.pass();
    });
    let gateway = gateway(&app)
        .line("limits", "request_body = 'unlimited'")
        .start();
    let mut client = gateway
        .post("/")
        .field("Transfer-Encoding", "chunked")
        .begin();
    gate.wait_for(1);
    let sent = write_until_blocked(&mut client, |bytes| {
        [
            &format!("{:x}\r\n", bytes.len()).into_bytes(),
            bytes,
            b"\r\n",
        ]
        .concat()
    });
    assert!(sent < HELD_BYTES, "{sent} bytes are held somewhere");
    gate.open();
}

#[test]
fn a_client_that_does_not_read_slows_the_upstream_down() {
    let (send, sent) = mpsc::channel();
    let app = Upstream::raw(move |mut stream| {
        read_head(&stream);
        stream
            .write_all(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40).as_bytes(),
            )
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let (block, mut total) = (vec![b'x'; 1 << 16], 0);
        while let Ok(written) = stream.write(&block) {
            total += written;
            if total > HELD_BYTES {
                break;
            }
        }
        send.send(total).unwrap();
    });
    let gateway = gateway(&app).start();
    let mut client = gateway.get("/").begin();
    assert_eq!(client.head().unwrap().status, 200);
    let total = sent.recv_timeout(PATIENCE).unwrap();
    assert!(total < HELD_BYTES, "{total} bytes are held somewhere");
}

#[test]
fn large_bodies_arrive_whole() {
    let app = Upstream::with(|seen| reply(200).body(seen.body.clone()));
    let gateway = gateway(&app).start();
    let body: Vec<u8> = (0..20_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let answer = gateway.post("/").body(body.clone()).send();
    assert!(answer.is_upstreams(200).body == body);
    assert_eq!(app.last().field("content-length"), Some("20000000"));
}

#[test]
fn upstream_connections_are_reused() {
    let app = Upstream::start();
    let gateway = gateway(&app).start();
    let mut client = Connection::open(gateway.address());
    for _ in 0..20 {
        client.write(&gateway.get("/").bytes()).unwrap();
        client.answer("GET").is_upstreams(200);
    }
    assert_eq!((app.seen().len(), app.connections()), (20, 1));
    for _ in 0..20 {
        gateway.get("/").send().is_upstreams(200);
    }
    assert!(app.connections() <= 2, "{}", app.connections());
}

#[test]
fn a_pooled_connection_that_was_closed_costs_no_request() {
    let app = Upstream::with(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let gateway = gateway(&app).start();
    for _ in 0..30 {
        assert_eq!(gateway.get("/").send().is_upstreams(200).text(), "ok");
    }
}

#[test]
fn a_request_is_never_sent_twice_after_it_may_have_happened() {
    let app = Upstream::with(|_| Reply::raw(""));
    let gateway = gateway(&app).start();
    for method in ["POST", "PUT", "GET"] {
        let answer = gateway.ask(method, "/").body("x").send();
        answer.is_error(502, "upstream-bad-response");
        assert_eq!(app.take().len(), 1, "{method}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let app = Upstream::with(|seen| reply(200).body(seen.target.clone()));
    let gateway = gateway(&app).start();
    let mut client = Connection::open(gateway.address());
    let requests: Vec<u8> = ["/a", "/b", "/c"]
        .iter()
        .flat_map(|target| gateway.get(target).bytes())
        .collect();
    client.write(&requests).unwrap();
    for target in ["/a", "/b", "/c"] {
        assert_eq!(client.answer("GET").is_upstreams(200).text(), target);
    }
}

#[test]
fn a_client_that_expects_continue_gets_it() {
    let app = Upstream::with(|seen| reply(200).body(seen.body.clone()));
    let gateway = gateway(&app).start();
    let mut client = Connection::open(gateway.address());
    client
        .write(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    assert_eq!(client.any_head().unwrap().status, 100);
    client.write(b"hello").unwrap();
    assert_eq!(client.answer("POST").is_upstreams(200).text(), "hello");
}

#[test]
fn head_204_and_304_have_no_body() {
    let app = Upstream::with(|seen| match seen.target.as_str() {
        "/" => reply(200).body("hello"),
        target => reply(target[1..].parse().unwrap()).field("ETag", "\"1\""),
    });
    let gateway = gateway(&app).start();
    let mut client = Connection::open(gateway.address());
    for (method, target, status) in [
        ("HEAD", "/", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/204", 204),
        ("GET", "/", 200),
    ] {
        client.write(&gateway.ask(method, target).bytes()).unwrap();
        let answer = client.answer(method);
        answer.is_upstreams(status);
        if target == "/" {
            assert_eq!(answer.field("content-length"), Some("5"), "{method}");
        }
    }
}

#[test]
fn an_http_1_0_client_is_served() {
    let app = Upstream::with(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    });
    let gateway = gateway(&app).start();
    let mut client = Connection::open(gateway.address());
    client
        .write(b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n")
        .unwrap();
    let answer = client.answer("GET");
    assert_eq!(
        (
            answer.is_upstreams(200).text().as_str(),
            answer.field("transfer-encoding")
        ),
        ("hello", None)
    );
    assert!(client.is_closed());
}

#[test]
fn a_body_over_the_limit_is_a_413() {
    let app = Upstream::start();
    let gateway = gateway(&app)
        .line("limits", "request_body = '1KiB'")
        .start();
    gateway
        .post("/")
        .body(vec![b'x'; 1024])
        .send()
        .is_upstreams(200);
    app.take();

    // Only the head is sent: the gateway does not wait for the rest.
    let mut client = gateway.post("/").field("Content-Length", "1025").begin();
    client.answer("POST").is_error(413, "body-too-large");
    let mut client = gateway
        .post("/")
        .field("Content-Length", "99999999999999999999")
        .begin();
    assert!([400, 413].contains(&client.answer("POST").status));

    let mut client = gateway
        .post("/")
        .field("Transfer-Encoding", "chunked")
        .begin();
    for _ in 0..5 {
        let _ = client.write(format!("100\r\n{}\r\n", "x".repeat(256)).as_bytes());
    }
    client.answer("POST").is_error(413, "body-too-large");
    assert!(
        app.take().is_empty(),
        "no whole request has reached the upstream"
    );
}

#[test]
fn an_upstream_that_cannot_be_reached_is_a_502() {
    let closed = free_address();
    let database = Database::sqlite();
    let gateway = Gateway::over(&database)
        .upstream_at("app", closed)
        .route("path = '/'\nupstream = 'app'")
        .start();
    let answer = gateway.get("/").send();
    answer.is_error(502, "upstream-unreachable");
    assert_eq!(answer.field("retry-after"), None);
}

#[test]
fn an_upstream_that_does_not_speak_http_is_a_502() {
    let app = Upstream::start();
    let gateway = gateway(&app).start();
    for bytes in [
        "",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ] {
        app.answers(Reply::raw(bytes));
        gateway
            .get("/")
            .send()
            .is_error(502, "upstream-bad-response");
    }
}

#[test]
fn an_upstream_that_is_too_slow_is_a_504() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |_| {
        held.pass();
        reply(200)
    });
    let gateway = gateway(&app)
        .line("timeouts", "response_head = '300ms'")
        .start();
    let began = Instant::now();
    let answer = gateway.get("/").send();
    answer.is_error(504, "upstream-timeout");
    assert_eq!(answer.field("retry-after"), None);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    gate.open();
}

#[test]
fn a_timeout_of_a_route_counts_there_alone() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        match seen.target.as_str() {
            "/slow/" => held.pass(),
            // For longer than the other route allows.
            _ => std::thread::sleep(Duration::from_millis(600)),
        }
        reply(200)
    });
    let gateway = gateway(&app)
        .route("path = '/slow/'\nupstream = 'app'\ntimeouts = { response_head = '100ms' }")
        .start();
    gateway
        .get("/slow/")
        .send()
        .is_error(504, "upstream-timeout");
    gate.open();
    gateway.get("/").send().is_upstreams(200);
}

#[test]
fn a_body_that_stalls_never_looks_whole() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::raw(move |mut stream| {
        read_head(&stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .unwrap();
        held.pass();
    });
    let gateway = gateway(&app)
        .line("timeouts", "response_idle = '300ms'")
        .start();
    let broken = gateway.get("/").try_send();
    assert!(broken.is_err(), "{broken:?}");
    gate.open();

    let app = Upstream::with(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    });
    let gateway = self::gateway(&app).start();
    let broken = gateway.get("/").try_send();
    assert!(broken.is_err(), "{broken:?}");
}

#[test]
fn a_client_that_stalls_is_let_go() {
    let app = Upstream::start();
    let gateway = gateway(&app)
        .line("timeouts", "head = '300ms'\nidle = '300ms'")
        .line("timeouts", "body_progress = '300ms'")
        .start();
    // In the middle of a body.
    let mut client = gateway.post("/").field("Content-Length", "10").begin();
    client.write(b"hello").unwrap();
    let answer = client.try_answer("POST");
    assert!(
        answer.as_ref().is_ok_and(|answer| answer.status >= 400) || answer.is_err(),
        "{answer:?}"
    );
    assert!(client.is_closed());
    // Between two requests; the first one has its time.
    let patient = self::gateway(&app)
        .line("timeouts", "idle = '300ms'")
        .start();
    let mut client = patient.get("/").begin();
    client.answer("GET").is_upstreams(200);
    assert!(client.is_closed());
    // In the middle of a head, before the first byte.
    for start in ["GET / HTTP/1.1\r\nHost: shop.test\r\n", "G", ""] {
        let mut client = Connection::open(gateway.address());
        client.write(start.as_bytes()).unwrap();
        let began = Instant::now();
        let _ = client.rest();
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{start:?}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_client_that_leaves_ends_the_request_at_the_upstream() {
    let (send, ended) = mpsc::channel();
    let app = Upstream::raw(move |mut stream| {
        read_head(&stream);
        send.send(()).unwrap();
        // The end of the stream is the gateway closing it.
        let end = stream.read(&mut [0]);
        send.send(()).unwrap();
        drop(end);
    });
    let gateway = gateway(&app).start();
    let client = gateway.get("/").begin();
    ended.recv_timeout(PATIENCE).unwrap();
    drop(client);
    ended
        .recv_timeout(PATIENCE)
        .expect("the upstream's connection is closed");
}

#[test]
fn a_slow_database_holds_up_only_those_who_need_it() {
    let database = Database::postgres();
    let key = database.login(json!({}));
    let app = Upstream::with(|seen| match seen.target.as_str() {
        "/write" => reply(200).set(r#"{"set":{"a":1}}"#),
        _ => reply(200),
    });
    let gateway = Gateway::before(&database, &app)
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .line("django", "deadline = '20s'")
        .start();
    let mut writers = Vec::new();
    database.while_locked(&key, || {
        // More writers of one session than there are connections.
        writers.extend((0..16).map(|_| gateway.get("/write").session(&key).begin()));
        eventually("the writers are at work", || {
            (app.seen().len() == 16).then_some(())
        });
        let began = Instant::now();
        gateway.get("/").session(&key).send().is_upstreams(200);
        gateway.get("/off/").send().is_upstreams(200);
        let other = Database::same(&database).login(json!({}));
        gateway
            .get("/write")
            .session(&other)
            .send()
            .is_upstreams(200);
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    });
    for mut writer in writers {
        writer.answer("GET").is_upstreams(200);
    }
}

#[test]
fn sigterm_lets_requests_under_way_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |_| {
        held.pass();
        reply(200).set(r#"{"set":{"a":1}}"#)
    });
    let database = Database::sqlite();
    let key = database.login(json!({}));
    let mut gateway = Gateway::before(&database, &app)
        .top("drain_delay = '0s'")
        .start();
    let mut client = gateway.get("/").session(&key).begin();
    gate.wait_for(1);
    gateway.process.signal("TERM");
    eventually("no new connections are taken", || {
        TcpStream::connect(gateway.address()).err()
    });
    gate.open();
    client.answer("GET").is_upstreams(200);
    assert_eq!(database.read(&key).unwrap()["a"], 1);
    assert_eq!(gateway.process.wait().code(), Some(0));
}

/// Most tests here need no rows, but a gateway needs a database.
fn gateway(app: &impl Served) -> Setup {
    Gateway::alone(app)
}

/// Reads a request's head; its body is left.
fn read_head(stream: &TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    http::head_lines(&mut reader).unwrap();
}

/// Writes until nothing is taken for a second, or far too much is.
fn write_until_blocked(client: &mut Connection, frame: impl Fn(&[u8]) -> Vec<u8>) -> usize {
    client
        .socket()
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let (block, mut total) = (frame(&[b'x'; 1 << 16]), 0);
    loop {
        match client.write(&block) {
            Ok(()) if total < HELD_BYTES => total += block.len(),
            Ok(()) => return total,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "{error}"
                );
                return total;
            }
        }
    }
}
