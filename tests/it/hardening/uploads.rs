//! Uploads that nobody reads to their end.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
};

use super::{read_head, sockets, soon};
use crate::support::{
    Connection, Gate, Gateway, Served as _, Upstream, eventually, gateway::Setup,
};

/// More than the sockets on the way hold.
const UPLOAD: usize = 10_000_000;

/// Uploads at the same time.
const AT_ONCE: usize = 4;

#[test]
fn an_upload_that_an_upstream_does_not_read_leaves_nothing_open() {
    let gate = Gate::default();
    let app = stalled(&gate, |_| Ok(()));
    // All are under way at the same time before the first is refused.
    let gateway = gateway(&app)
        .line("timeouts", "response_head = '5s'")
        .start();
    let before = sockets(&gateway);
    for round in 1..=2 {
        let mut clients: Vec<_> = (0..AT_ONCE).map(|_| upload(&gateway)).collect();
        gate.wait_for(round * AT_ONCE);
        assert!(sockets(&gateway) >= before + 2 * AT_ONCE);
        for client in &mut clients {
            client.answer("POST").is_error(504, "upstream-timeout");
            assert!(soon(|| client.is_closed()));
        }
        eventually("all sockets are closed", || {
            (sockets(&gateway) == before).then_some(())
        });
    }
    gate.open();
}

#[test]
fn a_client_that_leaves_its_upload_leaves_nothing_open() {
    let gate = Gate::default();
    let app = stalled(&gate, |_| Ok(()));
    let gateway = gateway(&app)
        .line("timeouts", "response_head = '1s'")
        .start();
    let before = sockets(&gateway);
    for round in 1..=2 {
        let clients: Vec<_> = (0..AT_ONCE).map(|_| upload(&gateway)).collect();
        gate.wait_for(round * AT_ONCE);
        for client in &clients {
            client.socket().shutdown(Shutdown::Both).unwrap();
        }
        eventually("all sockets are closed", || {
            (sockets(&gateway) == before).then_some(())
        });
    }
    gate.open();
}

#[test]
fn an_answer_that_does_not_wait_for_the_upload_ends_it() {
    let gate = Gate::default();
    let app = stalled(&gate, |mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nearly")
    });
    let mut gateway = gateway(&app)
        .top("shutdown_grace = '10m'\ndrain_delay = '0s'")
        .start();
    let before = sockets(&gateway);
    let mut clients: Vec<_> = (0..AT_ONCE).map(|_| upload(&gateway)).collect();
    for client in &mut clients {
        assert_eq!(client.answer("POST").is_upstreams(400).text(), "early");
        assert!(soon(|| client.is_closed()));
    }
    // The upstream's connections too, of which the upstream itself closes none.
    eventually("all sockets are closed", || {
        (sockets(&gateway) == before).then_some(())
    });

    let mut clients: Vec<_> = (0..AT_ONCE).map(|_| upload(&gateway)).collect();
    for client in &mut clients {
        assert_eq!(client.head().unwrap().status, 400);
    }
    gateway.process.signal("TERM");
    let ended = soon(|| gateway.process.wait());
    assert_eq!(ended.code(), Some(0));
    gate.open();
}

/// A gateway that lets nobody go for silence, so that something else has to.
fn gateway(app: &Upstream) -> Setup {
    Gateway::alone(app)
        .line("timeouts", "body_progress = '10m'")
        .line("timeouts", "idle = '10m'")
        .line("timeouts", "response_idle = '10m'")
}

/// An upstream that reads a head, does what `answer` says, and then nothing until the gate is open.
fn stalled(
    gate: &Gate,
    answer: impl Fn(&TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Upstream {
    let gate = gate.clone();
    Upstream::raw(move |stream| {
        if read_head(&stream).and_then(|_| answer(&stream)).is_ok() {
            gate.pass();
        }
    })
}

/// Sends as much of an upload as is taken. Its answer is left to the caller.
fn upload(gateway: &Gateway) -> Connection {
    let ask = gateway
        .post("/")
        .field("Content-Length", &UPLOAD.to_string());
    let client = ask.begin();
    let mut body = client.socket().try_clone().unwrap();
    std::thread::spawn(move || body.write_all(&vec![b'x'; UPLOAD]));
    client
}
