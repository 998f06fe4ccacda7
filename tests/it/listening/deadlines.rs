//! Clients that are slow on purpose.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use http::Request;

use crate::{
    metrics::metrics,
    support::{
        Connection, Gateway, H2, PATIENCE, Served as _, Upstream, eventually, frames::PREFACE,
        gateway::Setup, reply,
    },
};

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// HEADERS of stream 1 without END_HEADERS.
const HALF_A_HEAD: &[u8] = b"\0\0\x03\x01\0\0\0\0\x01\x82\x86\x84";
/// An empty CONTINUATION without END_HEADERS.
const NO_END: &[u8] = b"\0\0\0\x09\0\0\0\0\x01";
/// A whole request on stream 1.
const REQUEST: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";

fn setup(app: &Upstream) -> Setup {
    Gateway::alone(app)
        .line("timeouts", "head = '500ms'")
        .line("timeouts", "idle = '20s'")
}

#[test]
fn edge_18_slow_heads_are_each_closed_in_time_and_others_are_served() {
    let app = Upstream::start();
    let gateway = setup(&app).start();
    let beginnings: [&[&[u8]]; 8] = [
        &[b""],
        &[b"G"],
        &[b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Slow: "],
        &[b"PRI * HT"],
        &[PREFACE],
        &[PREFACE, SETTINGS],
        &[PREFACE, SETTINGS, HALF_A_HEAD],
        &[PREFACE, SETTINGS, HALF_A_HEAD, NO_END],
    ];
    let begun = Instant::now();
    let mut slow: Vec<Connection> = (0..200)
        .map(|number| {
            let mut client = Connection::open(gateway.address());
            client
                .write(&beginnings[number % beginnings.len()].concat())
                .unwrap();
            client
        })
        .collect();
    // They dribble on: no byte makes the time begin anew.
    while begun.elapsed() < Duration::from_millis(400) {
        for (number, client) in slow.iter_mut().enumerate() {
            let _ = match number % beginnings.len() {
                2 => client.write(b"a"),
                7 => client.write(NO_END),
                _ => Ok(()),
            };
        }
        gateway.get("/").send().is_upstreams(200);
    }
    for client in &mut slow {
        let _ = client.rest();
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    // With the machine's own slowness; the idle limit is 20 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    gateway.get("/").send().is_upstreams(200);
    assert!(app.seen().iter().all(|seen| seen.field("x-slow").is_none()));
    // Those that never end their CONTINUATION may also be told off by the HTTP/2 library.
    eventually("they are counted", || {
        let counted = metrics(&gateway)["connections_overdue_total{deadline=\"head\"}"];
        (counted >= 175.0).then_some(())
    });
}

#[test]
fn edge_18_a_later_head_has_the_same_time_and_the_idle_limit_is_another() {
    let app = Upstream::start();
    let gateway = setup(&app).start();
    let mut client = Connection::open(gateway.address());
    client.write(&gateway.get("/").bytes()).unwrap();
    client.answer("GET").is_upstreams(200);
    // Longer than a head may take, far from the idle limit.
    std::thread::sleep(Duration::from_millis(800));
    client.write(&gateway.get("/").bytes()).unwrap();
    client.answer("GET").is_upstreams(200);
    let begun = Instant::now();
    client.write(b"GET / HTTP/1.1\r\nHost:").unwrap();
    assert!(client.is_closed());
    assert!(begun.elapsed() < Duration::from_secs(10));

    // In HTTP/2: a head that goes on in CONTINUATION after CONTINUATION (CVE-2024-27316).
    let mut client = Connection::open(gateway.address());
    client
        .write(&[PREFACE, SETTINGS, REQUEST].concat())
        .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    let mut half = HALF_A_HEAD.to_vec();
    half[8] = 3;
    let mut more = NO_END.to_vec();
    more[8] = 3;
    let begun = Instant::now();
    client.write(&half).unwrap();
    while begun.elapsed() < Duration::from_secs(10) {
        if client.write(&more).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it may go on for ever"
    );
    gateway.get("/").send().is_upstreams(200);
}

#[test]
fn edge_18_an_idle_connection_is_closed_and_http_2_says_so() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("timeouts", "idle = '400ms'")
        .start();
    let mut client = Connection::open(gateway.address());
    client.write(&gateway.get("/").bytes()).unwrap();
    client.answer("GET").is_upstreams(200);
    assert!(client.rest().unwrap().is_empty());
    let client = H2::open(gateway.address());
    assert_eq!(client.get("http://shop.test/").status, 200);
    // GOAWAY without an error, and an orderly end.
    client.ended().unwrap();
    eventually("both are counted", || {
        let counted = metrics(&gateway)["connections_overdue_total{deadline=\"idle\"}"];
        (counted == 2.0).then_some(())
    });
}

#[test]
fn an_answer_that_takes_long_is_not_idling() {
    let app = Upstream::with(|_| {
        std::thread::sleep(Duration::from_secs(4));
        reply(200).body("late")
    });
    let gateway = Gateway::alone(&app)
        .line("timeouts", "idle = '300ms'")
        .line("timeouts", "head = '3s'")
        .start();
    let mut begun = gateway.get("/").begin();
    let client = H2::open(gateway.address());
    assert_eq!(client.get("http://shop.test/").text(), "late");
    assert_eq!(begun.answer("GET").text(), "late");
}

#[test]
fn edge_18_a_client_that_does_not_read_its_answer_is_let_go() {
    const SIZE: usize = 64 * 1024 * 1024;
    let (tell, given_up) = std::sync::mpsc::channel();
    let app = Upstream::raw(move |mut stream| {
        crate::support::http::head_lines(&mut std::io::BufReader::new(stream.try_clone().unwrap()))
            .unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        if stream.write_all(&vec![b'x'; SIZE]).is_err() {
            let _ = tell.send(());
        }
    });
    let gateway = Gateway::alone(&app)
        .line("timeouts", "send = '500ms'")
        .start();
    let mut client = gateway.get("/").begin();
    assert_eq!(client.head().unwrap().status, 200);
    let overdue = "connections_overdue_total{deadline=\"send\"}";
    eventually("it is let go", || {
        (metrics(&gateway)[overdue] == 1.0).then_some(())
    });
    assert!(client.rest().map_or(true, |rest| rest.len() < SIZE));
    given_up.recv_timeout(PATIENCE).expect("it is given up");

    // In HTTP/2 one answer that has no room is reset; the connection stays.
    let client = H2::open(gateway.address());
    let request = Request::get("http://shop.test/").body(()).unwrap();
    let mut begun = client.begin(request, None).unwrap();
    // While nobody reads.
    given_up.recv_timeout(PATIENCE).expect("it is given up");
    let error = begun.read(&client).unwrap_err();
    assert!(error.is_reset(), "{error}");
    let again = Request::get("http://shop.test/").body(()).unwrap();
    assert_eq!(client.begin(again, None).unwrap().answer.status, 200);
}
