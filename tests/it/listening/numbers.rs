//! How many connections there may be.

use std::{net::TcpStream, time::Duration};

use crate::{
    metrics::metrics,
    support::{Connection, Gateway, Served as _, Upstream, eventually},
};

#[test]
fn edge_19_with_as_many_connections_as_allowed_the_next_ones_wait() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("limits", "connections = 3")
        .start();
    let mut open: Vec<Connection> = (0..3)
        .map(|_| {
            let mut client = gateway.get("/").begin();
            client.answer("GET").is_upstreams(200);
            client
        })
        .collect();
    let mut fourth = gateway.get("/fourth").begin();
    let short = Some(Duration::from_millis(300));
    fourth.socket().set_read_timeout(short).unwrap();
    assert!(fourth.head().is_err(), "it waits");
    // Those who are in go on.
    open[0].write(&gateway.get("/").bytes()).unwrap();
    open[0].answer("GET").is_upstreams(200);
    open.pop();
    fourth
        .socket()
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    fourth.answer("GET").is_upstreams(200);
    assert_eq!(app.last().target, "/fourth");
    let counted = metrics(&gateway);
    assert!(counted["accept_pauses_total"] >= 1.0);
    assert_eq!(counted["connections_open{protocol=\"http1\"}"], 3.0);
}

#[test]
fn edge_19_an_address_has_so_many_connections_and_a_trusted_proxy_has_no_limit() {
    let app = Upstream::start();
    for (trusted, served) in [("[]", 2), ("['127.0.0.1']", 5)] {
        let gateway = Gateway::alone(&app)
            .line("limits", "connections_per_address = 2")
            .line("gateway", &format!("trusted_proxies = {trusted}"))
            .start();
        let mut clients: Vec<Connection> = (0..5).map(|_| gateway.get("/").begin()).collect();
        let answered = clients
            .iter_mut()
            .filter_map(|client| client.try_answer("GET").ok());
        assert_eq!(answered.count(), served, "{trusted}");
        let counted = metrics(&gateway);
        let refused = counted["connections_refused_total{reason=\"address\"}"];
        assert_eq!(refused, (5 - served) as f64);
        drop(clients);
        eventually("a place is free again", || gateway.get("/").try_send().ok());
    }
}

#[test]
fn edge_22_a_client_that_closes_its_half_has_left() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    // Together with its request it still gets the answer or nothing; the gateway goes on in any case.
    for _ in 0..20 {
        let client = gateway.get("/").begin();
        client.socket().shutdown(std::net::Shutdown::Write).unwrap();
        let mut client = client;
        if let Ok(answer) = client.try_answer("GET") {
            answer.is_upstreams(200);
        }
    }
    // A port scanner.
    for _ in 0..20 {
        drop(TcpStream::connect(gateway.address()).unwrap());
    }
    gateway.get("/").send().is_upstreams(200);
    eventually("nothing stays open", || {
        let open = metrics(&gateway)["connections_open{protocol=\"http1\"}"];
        (open == 0.0).then_some(())
    });
}

#[test]
fn edge_22_a_client_that_is_still_sending_gets_the_answer_that_refuses_it() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("limits", "request_body = '1KiB'")
        .start();
    for _ in 0..5 {
        let mut client = gateway.post("/").field("Content-Length", "4194304").begin();
        // Clients that send everything before they read: the most of it when the answer is there already.
        client.write(&[b'x'; 65_536]).expect("it is taken");
        client.socket().peek(&mut [0]).expect("the answer comes");
        for _ in 1..64 {
            client.write(&[b'x'; 65_536]).expect("it is taken");
        }
        client.answer("POST").is_error(413, "body-too-large");
        assert!(client.is_closed());
    }
    assert_eq!(app.seen().len(), 0);
}
