//! Which server takes a request.

use std::collections::BTreeSet;

use serde_json::json;

use super::{before, servers};
use crate::support::{Database, Gate, Gateway, Served as _, Upstream, eventually, reply, token};

#[test]
fn edge_24_servers_take_turns_by_weight() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let lines = servers(&[a.address(), b.address()]);
    let gateway = before(&format!("{lines}\nweights = [3, 1]")).start();
    for _ in 0..12 {
        gateway.get("/").send().is_upstreams(200);
    }
    assert_eq!((a.seen().len(), b.seen().len()), (9, 3));
}

#[test]
fn edge_24_the_server_with_the_fewest_requests_in_flight_is_next() {
    let gate = Gate::default();
    let slow = |gate: &Gate| {
        let gate = gate.clone();
        Upstream::with(move |seen| {
            if seen.target == "/slow" {
                gate.pass();
            }
            reply(200).body("ok")
        })
    };
    let (a, b) = (slow(&gate), slow(&gate));
    let lines = servers(&[a.address(), b.address()]);
    let gateway = before(&format!("{lines}\nbalance = 'least-requests'")).start();
    let mut held = gateway.get("/slow").begin();
    gate.wait_for(1);
    let (busy, free) = match a.seen().is_empty() {
        true => (&b, &a),
        false => (&a, &b),
    };
    for _ in 0..6 {
        gateway.get("/").send().is_upstreams(200);
    }
    assert_eq!((busy.seen().len(), free.seen().len()), (1, 6));
    gate.open();
    held.answer("GET").is_upstreams(200);
    // A request that has ended counts no more: the two take turns.
    eventually("the busy one is asked again", || {
        gateway.get("/").send().is_upstreams(200);
        (busy.seen().len() > 1).then_some(())
    });
}

#[test]
fn edge_24_a_session_stays_at_its_server() {
    let database = Database::sqlite();
    let all: Vec<Upstream> = (0..3).map(|_| Upstream::start()).collect();
    let addresses: Vec<_> = all.iter().map(|server| server.address()).collect();
    let gateway = Gateway::before(&database, &all[0])
        .replace(
            "upstream.app",
            &format!(
                "{}\nbalance = 'hash'\nkeys = [{{ kid = '{}', secret = {{ env = 'APP_KEY' }} }}]",
                servers(&addresses),
                token::kid("app")
            ),
        )
        .start();
    // Which server has seen requests since the last look; one and only one.
    let who = || {
        let seen: Vec<usize> = all.iter().map(|server| server.take().len()).collect();
        let of: Vec<usize> = (0..3).filter(|place| seen[*place] > 0).collect();
        assert_eq!(of.len(), 1, "{seen:?}");
        of[0]
    };
    let mut used = BTreeSet::new();
    for number in 0..12 {
        let key = database.login(json!({ "n": number }));
        for _ in 0..4 {
            gateway.get("/").session(&key).send().is_upstreams(200);
        }
        used.insert(who());
    }
    assert!(used.len() > 1, "{used:?}");
    // Without a session it goes by the client's address.
    for _ in 0..6 {
        gateway.get("/").send().is_upstreams(200);
    }
    who();
}

#[test]
fn edge_27_a_unix_socket_is_an_upstream_like_any_other() {
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let _relay = relay(&path, app.address());
    let database = Database::sqlite();
    let key = database.login(json!({}));
    let gateway = Gateway::before(&database, &app)
        .replace(
            "upstream.app",
            &format!(
                "servers = ['unix:{}']\nkeys = [{{ kid = '{}', secret = {{ env = 'APP_KEY' }} }}]",
                path.display(),
                token::kid("app")
            ),
        )
        .start();
    for _ in 0..3 {
        let answer = gateway.get("/").session(&key).send();
        assert_eq!(answer.is_upstreams(200).text(), "ok");
    }
    assert_eq!(app.connections(), 1);
    let answer = gateway.post("/a?b").session(&key).body("hello").send();
    assert_eq!(answer.is_upstreams(200).text(), "ok");
    let seen = app.last();
    assert_eq!(
        (seen.target.as_str(), seen.body.as_slice()),
        ("/a?b", &b"hello"[..])
    );
    assert!(seen.user().is_some());
    assert!(!gateway.log().contains("which is not private"));
    // Without a socket it is away like any other.
    std::fs::remove_file(&path).unwrap();
    drop(_relay);
    eventually("it cannot be reached", || {
        let answer = gateway.get("/").send();
        (answer.status == 503).then(|| answer.is_error(503, "no-server"));
        (answer.status == 503).then_some(())
    });
}

/// Hands on what comes to a Unix socket, until it is dropped.
fn relay(path: &std::path::Path, to: std::net::SocketAddr) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = {
        let _inside = runtime.enter();
        tokio::net::UnixListener::bind(path).unwrap()
    };
    runtime.spawn(async move {
        let mut both = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            both.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    runtime
}
