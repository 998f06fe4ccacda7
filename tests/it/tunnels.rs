//! WebSockets and other upgrades: what becomes a tunnel, what it carries, and how it ends.

mod http2;
mod python;
mod revoked;

use std::{
    io::{BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    time::Duration,
};

use serde_json::json;

use crate::support::{
    Ask, Database, Gateway, Served as _, Upstream, reply,
    websocket::{self, WebSockets, handshake, masked, opened},
};

/// The gateway before a WebSocket server, with a logged-in visitor.
struct Scene {
    database: Database,
    key: String,
    gateway: Gateway,
}

fn before(server: &WebSockets) -> Scene {
    before_with(server, "", "")
}

/// With more lines for the route of everything and for `[timeouts]`.
fn before_with(server: &WebSockets, route: &str, timeouts: &str) -> Scene {
    let database = Database::sqlite();
    let key = database.login(json!({"cart": ["a"]}));
    let gateway = Gateway::over(&database)
        .upstream("app", server)
        .line("timeouts", timeouts)
        .route(&format!("path = '/'\nupstream = 'app'\n{route}"))
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'\nwritable = ['cart']")
        .start();
    Scene {
        database,
        key,
        gateway,
    }
}

impl Scene {
    fn ask(&self, path: &str) -> Ask {
        handshake(self.gateway.get(path)).session(&self.key)
    }
}

#[test]
fn a_websocket_is_tunnelled_both_ways_with_the_visitors_session() {
    let server = WebSockets::echo();
    let scene = before(&server);
    let ask = scene.ask("/members/chat?room=1");
    let mut connection = opened(&ask.field("Sec-WebSocket-Protocol", "chat, other"));
    let seen = server.last();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/members/chat?room=1")
    );
    assert_eq!(seen.user().as_deref(), Some("1"));
    assert_eq!(seen.claims()["session"]["cart"], json!(["a"]));
    assert_eq!(seen.all("connection"), ["upgrade"]);
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("sec-websocket-key"), [websocket::KEY]);
    assert_eq!(seen.all("sec-websocket-protocol"), ["chat, other"]);
    assert_eq!(seen.field("cookie"), None, "the session cookie is cut");

    // More than all buffers on the way hold, so both directions move at once.
    let payload: Vec<u8> = (0..4 * 1024 * 1024_u32)
        .map(|place| (place % 253) as u8)
        .collect();
    let sent = masked(2, true, &payload);
    let mut writer = connection.socket().try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    assert!(
        connection.read_exactly(sent.len()) == sent,
        "what comes back is what was sent"
    );
    writing.join().unwrap();
}

#[test]
fn what_is_no_handshake_of_a_websocket_goes_through_the_whole_chain_without_its_upgrade() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let key = database.login(json!({}));
    let gateway = Gateway::over(&database)
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'")
        .start();
    let websocket = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let without = |place: usize| -> Vec<&str> {
        let mut lines = websocket.to_vec();
        lines.remove(place);
        lines
    };
    let with = |place: usize, line: &'static str| -> Vec<&str> {
        let mut lines = websocket.to_vec();
        lines[place] = line;
        lines
    };
    for lines in [
        vec!["Connection: Upgrade", "Upgrade: x"],
        vec!["Upgrade: x"],
        vec![
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABk",
        ],
        without(0),
        without(2),
        without(3),
        with(0, "Connection: close"),
        with(1, "Upgrade: websocket, h2c"),
        with(1, "Upgrade: websocket/13"),
        with(2, "Sec-WebSocket-Version: 12"),
        with(3, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
    ] {
        let ask = || {
            lines.iter().fold(gateway.get("/chat"), |ask, line| {
                let (name, value) = line.split_once(": ").unwrap();
                ask.field(name, value)
            })
        };
        ask().send().is_error(401, "login-required");
        assert!(app.take().is_empty(), "{lines:?}");
        ask().session(&key).send().is_upstreams(200);
        let seen = app.last();
        assert_eq!(seen.user().as_deref(), Some("1"), "{lines:?}");
        for field in ["connection", "upgrade", "http2-settings"] {
            assert_eq!(seen.field(field), None, "{lines:?}");
        }
        app.take();
    }
    // With a body it is none either.
    let ask = handshake(gateway.post("/chat")).session(&key).body("x");
    ask.send().is_upstreams(200);
    assert_eq!(app.last().field("upgrade"), None);
}

#[test]
fn a_handshake_needs_what_the_route_needs() {
    let server = WebSockets::echo();
    let scene = before(&server);
    handshake(scene.gateway.get("/members/"))
        .send()
        .is_error(401, "login-required");
    let ask = scene.ask("/members/").field("Origin", "https://evil.test");
    ask.send().is_error(403, "cross-site-request");
    let ask = scene.ask("/members/").field("Connection", "X-Session");
    ask.send().is_error(400, "bad-request");
    let ask = scene
        .ask("/members/")
        .field("X_Session", "forged")
        .field("x.session.set", "forged");
    let _open = opened(&ask);
    assert_eq!(server.seen().len(), 1);
    let seen = server.last();
    assert_eq!(seen.user().as_deref(), Some("1"));
    assert!(!seen.fields.iter().any(|(_, value)| value == "forged"));
}

#[test]
fn only_a_101_that_was_asked_for_is_passed_on() {
    fn heads(wrong: &str) -> String {
        let accept = websocket::accept(websocket::KEY);
        match wrong {
            "accept" => format!(
                "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}x\r\n"
            ),
            "no accept" => "Connection: upgrade\r\nUpgrade: websocket\r\n".to_owned(),
            "protocol" => {
                format!("Connection: upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: {accept}\r\n")
            }
            "connection" => format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n"),
            _ => format!(
                "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n"
            ),
        }
    }
    let (closed, was_closed) = mpsc::channel();
    let server = WebSockets::answering(
        |seen| {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\n{}\r\n",
                heads(seen.field("x-wrong").unwrap_or_default())
            )
        },
        move |mut stream| {
            let _ = closed.send(stream.read(&mut [0]).is_ok_and(|count| count == 0));
        },
    );
    let scene = before(&server);
    for wrong in ["accept", "no accept", "protocol", "connection"] {
        let ask = scene.ask("/").field("X-Wrong", wrong);
        ask.send().is_error(502, "upstream-bad-response");
        assert!(
            was_closed.recv().unwrap(),
            "{wrong}: the upstream's connection is closed"
        );
    }
    // Nobody asked.
    scene
        .gateway
        .get("/")
        .send()
        .is_error(502, "upstream-bad-response");
    assert!(was_closed.recv().unwrap());
    // It is this very handshake that is right.
    opened(&scene.ask("/"));
}

#[test]
fn a_handshake_that_the_upstream_refuses_is_an_ordinary_answer() {
    let app = Upstream::start();
    app.answers(reply(403).field("X-Why", "full").body("no room"));
    let gateway = Gateway::alone(&app).start();
    let mut connection = handshake(gateway.get("/")).begin();
    let answer = connection.answer("GET");
    answer.is_upstreams(403);
    assert_eq!(
        (answer.field("x-why"), answer.text().as_str()),
        (Some("full"), "no room")
    );
    assert_eq!(app.last().field("upgrade"), Some("websocket"));
    // The connection goes on.
    connection.write(&gateway.get("/again").bytes()).unwrap();
    connection.answer("GET").is_upstreams(403);
    assert_eq!(app.last().target, "/again");
    assert_eq!(app.last().field("upgrade"), None);
}

#[test]
fn what_a_101_stores_is_stored_before_it_goes_out_and_the_cookie_rides_on_it() {
    let server = WebSockets::with(
        "X-Session-Set: {\"set\":{\"cart\":[\"b\"]}}\r\nX_Session: forged\r\nX-Gateway-Error: forged\r\n\
         Set-Cookie: sessionid=forged\r\nSet-Cookie: other=1\r\nContent-Length: 0\r\n",
        |mut stream| {
            let _ = stream.read(&mut [0]);
        },
    );
    let scene = before(&server);
    let (head, _connection) = websocket::open(&scene.ask("/members/"));
    assert_eq!(head.status, 101);
    assert_eq!(
        scene.database.read(&scene.key).unwrap()["cart"],
        json!(["b"])
    );
    assert_eq!(head.new_session().as_deref(), Some(scene.key.as_str()));
    assert_eq!(head.all("set-cookie").len(), 2, "ours, and the other one");
    for gone in [
        "x-session-set",
        "x_session",
        "x-gateway-error",
        "content-length",
    ] {
        assert_eq!(head.field(gone), None);
    }
    assert_eq!(head.field("connection"), Some("upgrade"));
    assert_eq!(head.field("cache-control"), Some("private, no-store"));
}

#[test]
fn a_101_whose_change_fails_is_an_error_and_the_upstream_is_closed() {
    let (closed, was_closed) = mpsc::channel();
    let server = WebSockets::with(
        "X-Session-Set: {\"set\":{\"secret\":1}}\r\n",
        move |mut stream| {
            let _ = closed.send(stream.read(&mut [0]).is_ok_and(|count| count == 0));
        },
    );
    let scene = before(&server);
    let answer = scene.ask("/members/").send();
    answer.is_error(502, "bad-session-set");
    assert_eq!(answer.json()["upstream_status"], 101);
    assert!(was_closed.recv().unwrap());
}

#[test]
fn a_side_that_ends_still_gets_what_the_other_one_sends() {
    let server = WebSockets::with("", |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream
            .get_mut()
            .write_all(&[&b"got "[..], &request].concat())
            .unwrap();
    });
    let scene = before(&server);
    let mut connection = opened(&scene.ask("/"));
    connection.write(b"all of it").unwrap();
    connection.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(connection.rest().unwrap(), b"got all of it");

    // And the other way round.
    let (told, hears) = mpsc::channel();
    let server = WebSockets::with("", move |mut stream| {
        stream.get_mut().write_all(b"bye").unwrap();
        stream.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let _ = told.send(rest);
    });
    let scene = before(&server);
    let mut connection = opened(&scene.ask("/"));
    assert_eq!(connection.rest().unwrap(), b"bye");
    connection.write(b"and you").unwrap();
    drop(connection);
    assert_eq!(hears.recv().unwrap(), b"and you");
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    let (told, hears) = mpsc::channel();
    const ALL: usize = 256 * 1024 * 1024;
    let server = WebSockets::with("", move |mut stream| {
        let stream: &mut TcpStream = stream.get_mut();
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let piece = vec![7; 64 * 1024];
        let mut written = 0;
        while written < ALL {
            match stream.write(&piece) {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        let _ = told.send(written);
    });
    let scene = before(&server);
    let mut connection = opened(&scene.ask("/"));
    let written = hears.recv().unwrap();
    assert!(
        written < ALL / 4,
        "{written} bytes were taken for a client that read none"
    );
    assert_eq!(connection.rest().unwrap().len(), written);
}

#[test]
fn a_silent_tunnel_is_closed() {
    let (told, hears) = mpsc::channel();
    let server = WebSockets::with("", move |mut stream| {
        let _ = told.send((websocket::closed(&mut stream), ended(&mut stream)));
    });
    let scene = before_with(&server, "", "tunnel_idle = '300ms'");
    let mut connection = opened(&scene.ask("/"));
    assert_eq!(
        websocket::closed(connection.reader()),
        (1001, "idle".to_owned())
    );
    assert!(connection.is_closed());
    assert_eq!(hears.recv().unwrap(), ((1001, "idle".to_owned()), true));
}

fn ended(stream: &mut BufReader<TcpStream>) -> bool {
    stream.read(&mut [0]).is_ok_and(|count| count == 0)
}

#[test]
fn a_route_says_which_protocols_it_lets_through() {
    let server = WebSockets::answering(
        |seen| {
            let protocol = seen.field("upgrade").unwrap_or("none");
            match protocol {
                "none" => {
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                protocol => format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n"
                ),
            }
        },
        |mut stream| {
            let mut bytes = [0; 5];
            if stream.read_exact(&mut bytes).is_ok() {
                let _ = stream.get_mut().write_all(&bytes);
            }
        },
    );
    let ask = |scene: &Scene, protocol: &str| {
        let ask = scene.gateway.ask("POST", "/").session(&scene.key);
        ask.field("Connection", "Upgrade")
            .field("Upgrade", protocol)
    };
    let upgrades = "upgrades = ['Echo/1']";
    let scene = before_with(&server, upgrades, "");
    let (head, mut connection) = websocket::open(&ask(&scene, "echo/1"));
    assert_eq!((head.status, head.field("upgrade")), (101, Some("echo/1")));
    connection.write(b"hello").unwrap();
    assert_eq!(connection.read_exactly(5), b"hello");
    assert_eq!(connection.rest().unwrap(), b"");
    let (head, _) = websocket::open(&ask(&scene, "echo/2"));
    assert_eq!(head.status, 200);
    let (head, _) = websocket::open(&scene.ask("/"));
    assert_eq!(
        head.status, 200,
        "websocket is not in the list: {:?}",
        head.fields
    );
    // No frames of ours in a protocol that the gateway does not know.
    let scene = before_with(&server, upgrades, "tunnel_idle = '300ms'");
    let (head, mut connection) = websocket::open(&ask(&scene, "echo/1"));
    assert_eq!(head.status, 101);
    assert_eq!(connection.rest().unwrap(), b"");
}

#[test]
fn the_access_log_has_a_tunnel_at_its_end_with_what_it_carried() {
    let server = WebSockets::echo();
    let scene = before(&server);
    let mut connection = opened(&scene.ask("/members/"));
    connection.write(b"twelve bytes").unwrap();
    connection.read_exactly(12);
    assert!(
        !scene.gateway.log().contains("/members/"),
        "the line comes at the end"
    );
    drop(connection);
    let line = scene.gateway.process.wait_for("/members/");
    assert!(line.contains("101") && line.contains("12"), "{line}");
}
