//! Who may not have a stream any more loses it, and nobody else.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Scene, before_with};
use crate::{
    metrics::metrics,
    support::{
        Connection, Database, Gateway, Served as _, Upstream, eventually,
        websocket::{self, WebSockets, frame, handshake, opened},
    },
};

const SESSION_ENDED: (u16, &str) = (4401, "session ended");

/// Every route that needs a login is looked at five times a second.
fn scene(server: &WebSockets, route: &str) -> Scene {
    let route = format!("require = 'login'\nrecheck = '200ms'\n{route}");
    before_with(server, &route, "")
}

#[track_caller]
fn is_closed(connection: &mut Connection, (code, reason): (u16, &str)) {
    assert_eq!(
        websocket::closed(connection.reader()),
        (code, reason.to_owned())
    );
    assert!(connection.is_closed());
}

fn found(gateway: &Gateway, finding: &str) -> f64 {
    metrics(gateway)[&format!("rechecks_total{{result=\"{finding}\"}}")]
}

/// Waits until it was looked so often.
fn looked(gateway: &Gateway, finding: &str, times: f64) {
    let before = found(gateway, finding);
    eventually("it is looked again", || {
        (found(gateway, finding) >= before + times).then_some(())
    });
}

fn still_echoes(connection: &mut Connection) {
    let sent = websocket::masked(1, true, b"there?");
    connection.write(&sent).unwrap();
    assert_eq!(connection.read_exactly(sent.len()), sent);
}

#[test]
fn a_session_that_is_gone_or_another_ones_ends_the_websocket() {
    let server = WebSockets::echo();
    let scene = scene(&server, "");
    let mut other =
        opened(&handshake(scene.gateway.get("/")).session(&scene.database.login(json!({}))));

    let mut connection = opened(&scene.ask("/"));
    scene.database.delete(&scene.key);
    is_closed(&mut connection, SESSION_ENDED);

    // Expired.
    let key = scene.database.login(json!({}));
    let mut connection = opened(&handshake(scene.gateway.get("/")).session(&key));
    scene.database.execute(&format!(
        "UPDATE django_session SET expire_date = '2001-01-01 00:00:00' WHERE session_key = '{key}'"
    ));
    is_closed(&mut connection, SESSION_ENDED);

    // It serves, but another user.
    let key = scene.database.login(json!({}));
    let mut connection = opened(&handshake(scene.gateway.get("/")).session(&key));
    let logged_out = crate::support::rows::seal(crate::support::SECRET_KEY, b"{}");
    scene.database.execute(&format!(
        "UPDATE django_session SET session_data = '{logged_out}' WHERE session_key = '{key}'"
    ));
    is_closed(&mut connection, SESSION_ENDED);
    assert!(found(&scene.gateway, "other_user") >= 1.0);

    still_echoes(&mut other);
    // They are counted when their sides have closed.
    eventually("three were ended, and one is open", || {
        let counted = metrics(&scene.gateway);
        let ended = counted["streams_ended_total{reason=\"revoked\"}"];
        let open = counted["tunnels_open{protocol=\"websocket\"}"];
        ((ended, open) == (3.0, 1.0)).then_some(())
    });
}

#[test]
fn a_user_who_may_no_longer_do_it_loses_the_websocket() {
    let server = WebSockets::echo();
    let scene = scene(&server, "on_anonymous = '401'");
    let database = &scene.database;
    database.execute("UPDATE auth_user SET is_staff = true WHERE id = 1");
    let gateway = Gateway::over(database)
        .upstream("app", &server)
        .route("path = '/'\nupstream = 'app'\nrequire = 'staff'\nrecheck = '200ms'")
        .start();
    let mut connection = opened(&handshake(gateway.get("/")).session(&scene.key));
    looked(&gateway, "kept", 2.0);
    still_echoes(&mut connection);
    database.execute("UPDATE auth_user SET is_staff = false WHERE id = 1");
    is_closed(&mut connection, SESSION_ENDED);
    assert_eq!(found(&gateway, "not_allowed"), 1.0);
}

#[test]
fn a_new_key_that_the_101_itself_made_is_the_one_that_counts() {
    let server = WebSockets::with("X-Session-Set: {\"cycle\":true}\r\n", |mut stream| {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let _ = stream.get_mut().write_all(&bytes[..count]);
        }
    });
    let scene = scene(&server, "may = ['cycle']");
    let (head, mut connection) = websocket::open(&scene.ask("/"));
    let new = head.new_session().expect("a new key");
    assert!(new != scene.key && scene.database.read(&scene.key).is_none());
    looked(&scene.gateway, "kept", 2.0);
    still_echoes(&mut connection);
    // A key that somebody else has cycled is gone.
    scene.database.delete(&new);
    is_closed(&mut connection, SESSION_ENDED);
}

#[test]
fn the_database_away_is_no_logout_and_ends_websockets_after_the_grace_only() {
    let server = WebSockets::echo();
    let scene = scene(&server, "recheck_grace = '5s'");
    let mut connection = opened(&scene.ask("/"));
    looked(&scene.gateway, "kept", 1.0);
    let file = scene.database.file();
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    looked(&scene.gateway, "unknown", 2.0);
    still_echoes(&mut connection);
    // It comes back within the grace, and all is as before.
    std::fs::rename(&aside, &file).unwrap();
    looked(&scene.gateway, "kept", 2.0);
    still_echoes(&mut connection);
    let since = Instant::now();
    std::fs::rename(&file, &aside).unwrap();
    is_closed(&mut connection, (1013, "try again later"));
    assert!(
        since.elapsed() >= Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn the_close_frame_stands_between_two_frames_however_they_come() {
    let close = frame(
        8,
        true,
        &[4401_u16.to_be_bytes().as_slice(), b"session ended"].concat(),
    );
    for seed in 0..6 {
        let sent = Arc::new(Mutex::new((Vec::new(), vec![0])));
        let keep = Arc::clone(&sent);
        let server = WebSockets::with("", move |mut stream| {
            send_frames(seed, stream.get_mut(), &keep);
        });
        let scene = scene(&server, "");
        let mut connection = opened(&scene.ask("/"));
        let mut got = connection.read_exactly(100_000);
        scene.database.delete(&scene.key);
        got.extend(connection.rest().unwrap());
        let place = got.len() - close.len();
        assert!(
            got.ends_with(&close),
            "seed {seed}: no close frame at the end"
        );
        let sent = sent.lock().unwrap();
        assert!(
            sent.0.starts_with(&got[..place]),
            "seed {seed}: what stands before it is unchanged"
        );
        assert!(
            sent.1.contains(&place),
            "seed {seed}: {place} is no end of a frame"
        );
    }
}

/// Sends frames of all sizes, many of them fragments, in pieces of all sizes, without end. Keeps what is sent, and where
/// frames end.
fn send_frames(seed: u32, stream: &mut TcpStream, keep: &Mutex<(Vec<u8>, Vec<usize>)>) {
    let mut state = seed;
    let mut random = |most: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % most
    };
    loop {
        let most = [5, 200, 3000, 70_000][random(4) as usize];
        let kinds = [(1, false), (0, false), (0, true), (2, true), (9, true)];
        let (opcode, is_final) = kinds[random(5) as usize];
        let most = if opcode == 9 { 100 } else { most };
        let payload = vec![random(256) as u8; random(most) as usize];
        let bytes = frame(opcode, is_final, &payload);
        {
            let mut kept = keep.lock().unwrap();
            kept.0.extend_from_slice(&bytes);
            let end = kept.0.len();
            kept.1.push(end);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + random(9000) as usize));
            if stream.write_all(now).is_err() {
                return;
            }
            rest = later;
        }
    }
}

#[test]
fn an_event_stream_ends_cleanly_and_any_other_body_breaks_off() {
    let app = Upstream::raw(|stream| {
        let mut stream = std::io::BufReader::new(stream);
        let Ok(lines) = crate::support::http::head_lines(&mut stream) else {
            return;
        };
        let kind = match lines[0].contains("events") {
            true => "Text/Event-Stream; charset=utf-8",
            false => "application/octet-stream",
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:1\n\r\n"
        );
        let _ = stream.get_mut().write_all(head.as_bytes());
        let _ = stream.read(&mut [0]);
    });
    let database = Database::sqlite();
    let key = database.login(json!({}));
    let gateway = Gateway::over(&database)
        .upstream("app", &app)
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'\nrecheck = '200ms'")
        .route("path = '/anyone/'\nupstream = 'app'\nrecheck = '200ms'")
        .start();
    let begin = |path: &str, key: &str| {
        let mut connection = gateway.get(path).session(key).begin();
        assert_eq!(connection.head().unwrap().status, 200);
        connection
    };
    let mut events = begin("/members/events", &key);
    let mut download = begin("/members/file", &key);
    let mut anyone = begin("/anyone/events", &key);
    let mut stranger = gateway.get("/anyone/events").begin();
    assert_eq!(stranger.head().unwrap().status, 200);
    stranger.read_exactly(12);
    looked(&gateway, "kept", 3.0);
    database.delete(&key);
    // With the last chunk; the connection goes on.
    let whole = b"7\r\ndata:1\n\r\n0\r\n\r\n";
    assert_eq!(events.read_exactly(whole.len()), whole);
    assert_eq!(anyone.read_exactly(whole.len()), whole);
    let rest = download.rest().unwrap_or_default();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    // Who was nobody from the start has nothing to lose.
    stranger.socket().set_nonblocking(true).unwrap();
    let more = stranger.socket().peek(&mut [0]);
    assert_eq!(more.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn without_a_word_of_the_route_only_streams_that_need_a_login_are_looked_at() {
    let server = WebSockets::echo();
    let scene = before_with(&server, "", "");
    let mut open: Vec<_> = (0..3).map(|_| opened(&scene.ask("/"))).collect();
    scene.database.delete(&scene.key);
    for connection in &mut open {
        still_echoes(connection);
    }
    let found: f64 = metrics(&scene.gateway)
        .iter()
        .filter(|(name, _)| name.starts_with("rechecks_total"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(found, 0.0);
}

#[test]
fn a_thousand_websockets_cost_a_handful_of_queries() {
    const COUNT: usize = 1000;
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    let server = WebSockets::with("", move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0]);
    });
    let database = Database::sqlite();
    let gateway = Gateway::over(&database)
        .upstream("app", &server)
        .route("path = '/'\nupstream = 'app'\nrequire = 'login'\nrecheck = '1s'")
        .start();
    let keys: Vec<String> = (0..COUNT).map(|_| database.login(json!({}))).collect();
    let connections: Vec<_> = keys
        .iter()
        .map(|key| opened(&handshake(gateway.get("/")).session(key)))
        .collect();
    eventually("all are open", || {
        (open.load(Ordering::SeqCst) == COUNT).then_some(())
    });
    looked(&gateway, "kept", 1.0);
    let before = metrics(&gateway);
    looked(&gateway, "kept", 3.0 * COUNT as f64);
    let after = metrics(&gateway);
    let grown = |name: &str| after[name] - before[name];
    let (looks, queries) = (
        grown("rechecks_total{result=\"kept\"}"),
        grown("batch_questions_count"),
    );
    println!("{looks} looks took {queries} queries");
    assert!(
        queries * 10.0 < looks,
        "{looks} looks took {queries} queries"
    );
    drop(connections);
}

#[test]
fn the_end_of_the_process_closes_websockets_and_event_streams() {
    let (told, hears) = mpsc::channel();
    let server = WebSockets::with("", move |mut stream| {
        let _ = told.send(websocket::closed(&mut stream));
    });
    let database = Database::sqlite();
    let mut gateway = Gateway::over(&database)
        .top("drain_delay = '0s'\nshutdown_grace = '500ms'")
        .upstream("app", &server)
        .route("path = '/'\nupstream = 'app'")
        .start();
    let mut connection = opened(&handshake(gateway.get("/")));
    gateway.process.signal("TERM");
    is_closed(&mut connection, (1012, "service restart"));
    assert_eq!(hears.recv().unwrap(), (1012, "service restart".to_owned()));
    assert!(gateway.process.wait().success());
}
