//! HTTP/2 to servers: how requests look, and how they share connections.

use std::sync::{Arc, Mutex};

use http::Version;
use serde_json::json;

use super::{
    before,
    peer::{Authority, Peer, Speech, answer},
};
use crate::support::{Database, Gateway, Served as _, eventually, token};

const CLEAR: Speech = Speech {
    http2: true,
    tls: None,
    streams: None,
};

fn h2(peer: &Peer) -> String {
    format!("servers = ['{}']\nprotocol = 'h2'", peer.address())
}

#[test]
fn edge_25_requests_go_over_http2_by_prior_knowledge_and_by_alpn() {
    let authority = Authority::new();
    let ca = format!("tls = {{ ca = '{}' }}", authority.path().display());
    let clear = Peer::start(CLEAR);
    let encrypted = Peer::start(authority.server(&["localhost"], true));
    let by_alpn = format!(
        "servers = ['localhost:{}']\nprotocol = 'h2'\n{ca}",
        encrypted.address().port()
    );
    for (peer, lines, scheme) in [(&clear, h2(&clear), "http"), (&encrypted, by_alpn, "https")] {
        let database = Database::sqlite();
        let key = database.login(json!({}));
        let kid = token::kid("app");
        let keys = format!("keys = [{{ kid = '{kid}', secret = {{ env = 'APP_KEY' }} }}]");
        let gateway = Gateway::before(&database, peer)
            .replace("upstream.app", &format!("{lines}\n{keys}"))
            .start();
        let answer = gateway
            .post("/a%20b/?c=d")
            .session(&key)
            .field("TE", "trailers")
            .field("Connection", "TE")
            .field("Transfer-Encoding", "chunked")
            .body("")
            .bytes();
        // `body` has added a length; this one is chunked.
        let text = String::from_utf8(answer)
            .unwrap()
            .replace("Content-Length: 0\r\n", "");
        let mut connection = crate::support::Connection::open(gateway.address());
        connection
            .write(format!("{text}5\r\nhello\r\n0\r\n\r\n").as_bytes())
            .unwrap();
        connection.answer("POST").is_upstreams(200);
        let head = peer.seen().pop().unwrap();
        assert_eq!(head.version, Version::HTTP_2);
        assert_eq!(
            head.uri.to_string(),
            format!("{scheme}://shop.test/a%20b/?c=d")
        );
        assert_eq!(head.headers["te"], "trailers");
        for field in ["host", "transfer-encoding", "connection"] {
            assert!(!head.headers.contains_key(field), "{field}");
        }
        let claims = token::claims(head.headers["x-session"].to_str().unwrap(), "app");
        assert_eq!(
            claims["req"],
            token::req("POST", "shop.test", "/a%20b/?c=d")
        );
        assert!(claims["sub"].is_string());
        // A change of the session is stored, whatever the protocol.
        gateway.ask("OPTIONS", "*").send().is_upstreams(200);
        assert_eq!(peer.seen().pop().unwrap().uri.path(), "*");
    }
}

#[test]
fn many_requests_share_a_connection_as_far_as_the_server_allows() {
    for (streams, connections) in [(None, 1), (Some(4), 3)] {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let arrived = Arc::new(Mutex::new(0));
        let (pass, count) = (gate.clone(), arrived.clone());
        let peer = Peer::with(Speech { streams, ..CLEAR }, move |_, _| {
            let pass = pass.clone();
            *count.lock().unwrap() += 1;
            async move {
                let _ = pass.acquire().await;
                answer("ok")
            }
        });
        let gateway = before(&h2(&peer)).start();
        // Meets the server's settings first.
        gate.add_permits(1);
        gateway.get("/").send().is_upstreams(200);
        let gate = &gate;
        gate.forget_permits(10);
        let held: Vec<_> = (0..12).map(|_| gateway.get("/").begin()).collect();
        eventually("all have arrived", || {
            (*arrived.lock().unwrap() == 13).then_some(())
        });
        assert_eq!(peer.connections(), connections, "{streams:?}");
        gate.add_permits(100);
        for mut connection in held {
            connection.answer("GET").is_upstreams(200);
        }
    }
}

#[test]
fn a_burst_opens_one_connection() {
    let peer = Peer::start(CLEAR);
    let gateway = before(&h2(&peer)).start();
    let all: Vec<_> = (0..20).map(|_| gateway.get("/").begin()).collect();
    for mut connection in all {
        connection.answer("GET").is_upstreams(200);
    }
    assert_eq!(peer.connections(), 1);
}
