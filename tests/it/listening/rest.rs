//! Connections that nobody uses for a quarter of a second: what HTTP needs of memory goes, the connection stays.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::{
    Certificate, Connection, Gateway, Served as _, Upstream, eventually, gateway::Setup, tls::Tls,
};

const SET_ASIDE: &str = "an idle connection was set aside";

fn setup(app: &Upstream) -> Setup {
    Gateway::alone(app).argument("--log-level=info,session_gateway=debug")
}

/// Waits until so many were set aside, one again and again included.
fn set_aside(gateway: &Gateway, count: usize) {
    eventually("it is set aside", || {
        (gateway.log().matches(SET_ASIDE).count() >= count).then_some(())
    });
}

fn ask(client: &mut Connection, gateway: &Gateway) {
    client.write(&gateway.get("/").bytes()).unwrap();
    client.answer("GET").is_upstreams(200);
}

fn ask_secretly(client: &mut Tls) {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_connection_that_was_set_aside_is_served_again() {
    let app = Upstream::start();
    let gateway = setup(&app).start();
    let mut client = Connection::open(gateway.address());
    for times in 1..=2 {
        ask(&mut client, &gateway);
        set_aside(&gateway, times);
    }
    ask(&mut client, &gateway);

    // Who has left is noticed.
    let connections = || gateway.health().get("/metrics").send().text();
    let open = "session_gateway_connections_open{protocol=\"http1\"} ";
    set_aside(&gateway, 3);
    assert!(
        connections().contains(&format!("{open}1\n")),
        "{}",
        connections()
    );
    drop(client);
    eventually("it is closed", || {
        connections().contains(&format!("{open}0\n")).then_some(())
    });
}

#[test]
fn a_connection_with_tls_that_was_set_aside_is_served_again() {
    let app = Upstream::with(|_| crate::support::reply(200).body("ok"));
    let certificate = Certificate::new(&["shop.test"]);
    let gateway = setup(&app)
        .listener(&format!("tls = [{}]", certificate.entry()))
        .start();
    for (number, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let mut client = certificate
            .connect(gateway.address(), "shop.test", version)
            .unwrap();
        ask_secretly(&mut client);
        set_aside(&gateway, number + 1);
        ask_secretly(&mut client);
    }
}

#[test]
fn half_a_head_that_came_with_a_request_is_not_lost_and_has_its_deadline() {
    let app = Upstream::start();
    let gateway = setup(&app).line("timeouts", "head = '3s'").start();
    let whole = gateway.get("/").bytes();
    let (begin, end) = whole.split_at(whole.len() / 2);
    let mut client = Connection::open(gateway.address());
    client.write(&[&whole, begin].concat()).unwrap();
    client.answer("GET").is_upstreams(200);
    set_aside(&gateway, 1);
    client.write(end).unwrap();
    client.answer("GET").is_upstreams(200);

    let begun = Instant::now();
    client.write(&[&whole, begin].concat()).unwrap();
    client.answer("GET").is_upstreams(200);
    assert!(client.is_closed());
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "the idle limit is 75 s"
    );
}

#[test]
fn what_is_left_of_a_body_is_never_read_as_a_request() {
    let app = Upstream::start();
    let gateway = setup(&app).start();
    let mut client = Connection::open(gateway.address());
    let evil = b"GET /evil HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    // The gateway's own answer does not wait for the body.
    let head = format!(
        "POST /a%00b HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n",
        evil.len()
    );
    client.write(head.as_bytes()).unwrap();
    assert_eq!(client.answer("POST").status, 400);
    std::thread::sleep(Duration::from_secs(1));
    let _ = client.write(evil);
    let _ = client.write(evil);
    let _ = client.rest();
    // The first is the body, whatever became of the connection.
    let seen = app.seen();
    let requests = seen.iter().filter(|seen| seen.target == "/evil");
    assert!(requests.count() <= 1);
}

#[test]
fn a_connection_that_was_set_aside_ends_at_its_deadline_and_with_the_server() {
    let app = Upstream::start();
    let gateway = setup(&app).line("timeouts", "idle = '4s'").start();
    let mut client = Connection::open(gateway.address());
    let begun = Instant::now();
    ask(&mut client, &gateway);
    set_aside(&gateway, 1);
    assert!(client.is_closed());
    assert!(begun.elapsed() > Duration::from_secs(3));

    let mut gateway = setup(&app)
        .top("drain_delay = '0s'\nshutdown_grace = '6s'")
        .start();
    let mut once_more = Connection::open(gateway.address());
    let mut silent = Connection::open(gateway.address());
    ask(&mut once_more, &gateway);
    ask(&mut silent, &gateway);
    set_aside(&gateway, 2);
    gateway.process.signal("TERM");
    gateway.process.wait_for("no new connections");
    once_more.write(&gateway.get("/").bytes()).unwrap();
    let answer = once_more.answer("GET");
    assert_eq!(answer.is_upstreams(200).field("connection"), Some("close"));
    assert!(once_more.is_closed() && silent.is_closed());
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn a_connection_that_once_asked_for_another_protocol_is_not_closed_for_being_idle() {
    let app = Upstream::start();
    let gateway = setup(&app).start();
    let mut client = Connection::open(gateway.address());
    let asks = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    client.write(asks).unwrap();
    client.answer("GET").is_upstreams(200);
    // hyper remembers the wish whatever follows.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(1));
        ask(&mut client, &gateway);
    }
    assert!(!gateway.log().contains(SET_ASIDE));
}

#[test]
fn an_empty_line_after_a_request_begins_no_head() {
    let app = Upstream::start();
    let gateway = setup(&app).line("timeouts", "head = '1s'").start();
    let mut client = Connection::open(gateway.address());
    let whole = gateway.get("/").bytes();
    client.write(&[&whole[..], b"\r\n"].concat()).unwrap();
    client.answer("GET").is_upstreams(200);
    set_aside(&gateway, 1);
    // Longer than a head may take.
    std::thread::sleep(Duration::from_secs(2));
    ask(&mut client, &gateway);
}
