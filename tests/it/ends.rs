//! How a gateway ends: nobody's request is lost, and what is cut is told.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Connection, Database, Gate, Gateway, Process, Served as _, Upstream, eventually,
    frames::{Frames, block, headers},
    gateway::Setup,
    reply,
    websocket::{WebSockets, closed, handshake, masked, next_frame, opened},
};

fn setup(app: &Upstream, drain_delay: &str, shutdown_grace: &str) -> Setup {
    Gateway::alone(app).top(&format!(
        "drain_delay = '{drain_delay}'\nshutdown_grace = '{shutdown_grace}'"
    ))
}

/// A connection that was used and is idle now.
fn idle(gateway: &Gateway) -> Connection {
    let mut connection = Connection::open(gateway.address());
    ask(&mut connection, gateway, None);
    connection
}

/// A request on a connection, and what its answer says of the connection.
#[track_caller]
fn ask(connection: &mut Connection, gateway: &Gateway, says: Option<&str>) {
    connection.write(&gateway.get("/").bytes()).unwrap();
    let answer = connection.answer("GET");
    answer.is_upstreams(200);
    assert_eq!(answer.field("connection"), says);
}

fn takes_no_connections(gateway: &Gateway) {
    eventually("no new connections are taken", || {
        TcpStream::connect(gateway.address()).err()
    });
}

#[test]
fn edge_30_sigterm_is_not_ready_at_once_and_connections_are_taken_for_drain_delay_each_for_one_answer()
 {
    let app = Upstream::start();
    let mut gateway = setup(&app, "10m", "10m").start();
    let mut kept = idle(&gateway);
    gateway.process.signal("TERM");
    let health = eventually("not ready", || {
        let health = gateway.health().get("/readyz").send();
        (health.status == 503).then_some(health)
    });
    assert_eq!(health.json()["draining"], json!(true));
    assert_eq!(gateway.health().get("/healthz").send().status, 200);
    ask(&mut kept, &gateway, Some("close"));
    assert!(kept.is_closed());
    let mut new = Connection::open(gateway.address());
    ask(&mut new, &gateway, Some("close"));
    assert!(new.is_closed());
    gateway.process.signal("TERM");
    assert_eq!(
        gateway.process.wait().code(),
        Some(0),
        "a second one: at once"
    );
}

#[test]
fn edge_30_an_idle_connection_is_served_once_more_after_the_gateway_has_stopped_accepting() {
    let app = Upstream::start();
    let mut gateway = setup(&app, "100ms", "10m").start();
    let mut kept = idle(&gateway);
    let begun = Instant::now();
    gateway.process.signal("TERM");
    takes_no_connections(&gateway);
    assert!(begun.elapsed() >= Duration::from_millis(100));
    ask(&mut kept, &gateway, Some("close"));
    assert!(kept.is_closed());
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn edge_30_idle_connections_are_closed_at_the_end_of_the_grace_and_that_is_no_loss() {
    let app = Upstream::start();
    let mut gateway = setup(&app, "0s", "300ms").start();
    let mut kept = idle(&gateway);
    // One that has not said anything yet.
    let mut silent = Connection::open(gateway.address());
    gateway.process.signal("TERM");
    assert!(kept.is_closed() && silent.is_closed());
    assert_eq!(gateway.process.wait().code(), Some(0));
    gateway.process.wait_for("idle connections were closed");
}

#[test]
fn edge_30_what_is_cut_at_the_end_of_the_grace_is_told() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |_| {
        held.pass();
        reply(200)
    });
    let mut gateway = setup(&app, "0s", "300ms").start();
    let clients = [gateway.get("/").begin(), gateway.get("/").begin()];
    gate.wait_for(2);
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.wait().code(), Some(0));
    gate.open();
    drop(clients);
    let cut = gateway.process.wait_for("shutdown_grace is over");
    assert!(cut.contains("requests=2 tunnels=0"), "{cut}");
}

#[test]
fn sigint_closes_idle_connections_at_once_and_waits_for_requests() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        if seen.target == "/slow" {
            held.pass();
        }
        reply(200)
    });
    let mut gateway = setup(&app, "10m", "10m").start();
    let mut kept = idle(&gateway);
    let mut slow = gateway.get("/slow").begin();
    gate.wait_for(1);
    gateway.process.signal("INT");
    assert!(kept.is_closed());
    gate.open();
    slow.answer("GET").is_upstreams(200);
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn edge_30_a_session_write_under_way_at_sigterm_is_stored_though_its_client_has_left() {
    let app = Upstream::start();
    app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    let database = Database::sqlite();
    let key = database.login(json!({}));
    let mut gateway = Gateway::before(&database, &app)
        .top("drain_delay = '0s'")
        .line("django", "deadline = '30s'")
        .start();
    database.while_locked(&key, || {
        let client = gateway.get("/").session(&key).begin();
        eventually("the write is under way", || {
            let metrics = gateway.health().get("/metrics").send().text();
            let line = "session_gateway_changes_under_way 1";
            metrics.lines().any(|told| told == line).then_some(())
        });
        drop(client);
        gateway.process.signal("TERM");
        takes_no_connections(&gateway);
    });
    assert_eq!(gateway.process.wait().code(), Some(0));
    assert_eq!(database.read(&key).unwrap()["a"], 1);
}

#[test]
fn edge_30_connections_that_wait_to_be_accepted_are_served_before_the_socket_closes() {
    let app = Upstream::start();
    let mut gateway = setup(&app, "0s", "10m")
        .line("limits", "connections = 1")
        .start();
    let first = idle(&gateway);
    // The kernel has taken it; the gateway may not.
    let mut waiting = Connection::open(gateway.address());
    let request = gateway.get("/").bytes();
    waiting.socket().write_all(&request).unwrap();
    drop(first);
    waiting.answer("GET").is_upstreams(200);
    gateway.process.signal("TERM");
    takes_no_connections(&gateway);
    ask(&mut waiting, &gateway, Some("close"));
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn edge_30_a_tunnel_is_part_of_the_drain_and_gets_its_close_frame_within_the_grace() {
    let server = WebSockets::echo();
    // Half of it is for what tunnels still carry, the other half for their goodbyes.
    for (signal, grace) in [("TERM", "8s"), ("INT", "10m")] {
        let mut gateway = Gateway::alone(&server)
            .top(&format!("drain_delay = '0s'\nshutdown_grace = '{grace}'"))
            .start();
        let mut socket = opened(&handshake(gateway.get("/")));
        gateway.process.signal(signal);
        takes_no_connections(&gateway);
        if signal == "TERM" {
            socket.write(&masked(1, true, b"still here")).unwrap();
            let (opcode, payload) = next_frame(socket.reader()).unwrap();
            assert_eq!((opcode, &*payload), (1, &b"still here"[..]));
        }
        assert_eq!(
            closed(socket.reader()),
            (1012, "service restart".to_owned())
        );
        drop(socket);
        assert_eq!(gateway.process.wait().code(), Some(0));
        assert!(!gateway.log().contains("cut off"), "{}", gateway.log());
    }
}

#[test]
fn edge_30_http_2_clients_are_told_to_go_and_what_they_have_asked_is_answered() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |_| {
        held.pass();
        reply(200).body("ok")
    });
    let mut gateway = setup(&app, "100ms", "10m").start();
    let mut client = Frames::open(gateway.address());
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "shop.test"),
        (":path", "/"),
    ];
    client.write(&headers(1, true, &block(&fields)));
    gate.wait_for(1);
    gateway.process.signal("TERM");
    assert!(client.until(|client| client.goaway == Some(0)));
    gate.open();
    assert!(client.until(|client| client.is_done(1)));
    let answer = &client.streams[&1];
    assert_eq!((answer.status, &*answer.body), (Some(200), &b"ok"[..]));
    assert!(client.until(|client| client.closed));
    assert_eq!(gateway.process.wait().code(), Some(0));
}

/// Also as the first process of a container, which only signals end that it waits for.
#[test]
fn who_is_asked_to_end_while_the_database_is_waited_for_ends_in_order() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://shop@{}/shop", silent.local_addr().unwrap());
    silent.set_nonblocking(true).unwrap();
    let setup = Setup::new(&url)
        .upstream("app", &Upstream::start())
        .route("path = '/'\nupstream = 'app'");
    let folder = tempfile::tempdir().unwrap();
    let mut command = setup.command("run");
    command.arg("--config").arg(setup.write(folder.path()));
    let mut process = Process::start(&mut command);
    let _question = eventually("it asks the database", || silent.accept().ok());
    process.signal("TERM");
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "{status}: {}", process.output());
    process.wait_for("ending before it has begun");
}
