//! Chromium: a page over HTTP/2 and TLS does what pages do, and tells how it went.

use std::{process::Command, sync::mpsc, time::Duration};

use super::Scene;
use crate::support::{Process, Upstream, from_tests_run, reply, websocket::WebSockets};

/// Asks, listens and talks, then sends a form.
const PAGE: &str = r#"<!doctype html><title>page</title>
<form method="post" action="/form"><input name="told"><input name="name" value="v&#252;"></form>
<script>
const told = {};
async function all() {
  told.protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  told.get = await (await fetch("/fetched")).text();
  told.post = await (await fetch("/echo", { method: "POST", body: "x".repeat(300000) })).text().then(t => t.length);
  told.refused = (await fetch("/%2f")).status;
  told.many = (await Promise.all(Array.from({ length: 100 }, (_, n) => fetch("/n?" + n).then(r => r.text())))).length;
  told.events = await new Promise((done, fail) => {
    const events = [], source = new EventSource("/events");
    source.onmessage = (event) => {
      events.push(event.data);
      if (events.length === 2) { source.close(); done(events); }
    };
  });
  told.socket = await new Promise((done, fail) => {
    const socket = new WebSocket("/socket");
    socket.onopen = () => socket.send("over the wire");
    socket.onmessage = (event) => { socket.close(1000); done(event.data); };
    socket.onerror = () => done("failed");
  });
}
all().catch((error) => { told.error = String(error); }).then(() => {
  document.forms[0].told.value = JSON.stringify(told);
  document.forms[0].submit();
});
</script>"#;

#[test]
fn chromium_shows_a_page_asks_listens_talks_and_keeps_its_session() {
    let (tell, told) = mpsc::channel();
    let html = "text/html; charset=utf-8";
    let app = Upstream::with(move |seen| {
        let path = seen.target.split('?').next().unwrap_or_default();
        match (seen.method.as_str(), path) {
            ("GET", "/") => reply(200).field("Content-Type", html).body(PAGE),
            ("GET", "/fetched") => reply(200).body("fetched"),
            ("GET", "/n") => reply(200).body("n"),
            ("POST", "/echo") => reply(200).body(seen.body.clone()),
            ("GET", "/events") => reply(200)
                .field("Content-Type", "text/event-stream")
                .body("data: one\n\ndata: two\n\n"),
            ("POST", "/form") => {
                let _ = tell.send(String::from_utf8_lossy(&seen.body).into_owned());
                reply(303)
                    .field("Location", "/done")
                    .set(r#"{"set":{"form":"sent"}}"#)
            }
            ("GET", "/done") => {
                let _ = tell.send(seen.claims()["session"].to_string());
                reply(200).field("Content-Type", html).body("<p>done</p>")
            }
            _ => reply(404),
        }
    });
    let sockets = WebSockets::answering(
        |seen| {
            let key = seen.field("sec-websocket-key").unwrap_or_default();
            let accept = crate::support::websocket::accept(key);
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
        },
        |mut stream| {
            use crate::support::websocket::{frame, next_frame};
            while let Ok((opcode, payload)) = next_frame(&mut stream) {
                let bytes = frame(opcode, true, &payload);
                if std::io::Write::write_all(stream.get_mut(), &bytes).is_err() || opcode == 8 {
                    return;
                }
            }
        },
    );
    let scene = Scene::with(true, app, |setup| {
        setup
            .upstream("sockets", &sockets)
            .route("path = '/socket'\nupstream = 'sockets'")
    });
    let profile = tempfile::tempdir().unwrap();
    let _chromium = Process::start(
        Command::new(from_tests_run("SG_TEST_CHROMIUM"))
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
            ])
            .args([
                "--disable-background-networking",
                "--remote-debugging-port=0",
            ])
            .arg("--ignore-certificate-errors")
            .arg("--host-resolver-rules=MAP shop.test 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("https://shop.test:{}/", scene.port())),
    );
    let next = || {
        told.recv_timeout(Duration::from_secs(60))
            .expect("the page tells")
    };
    let form = next();
    let sent: Vec<_> = url_decoded(&form);
    let page: serde_json::Value = serde_json::from_str(&sent[0].1).unwrap();
    assert_eq!(
        page,
        serde_json::json!({
            "protocol": "h2",
            "get": "fetched",
            "post": 300_000,
            "refused": 400,
            "many": 100,
            "events": ["one", "two"],
            "socket": "over the wire",
        })
    );
    assert_eq!(sent[1].1, "vü");
    assert_eq!(next(), r#"{"form":"sent"}"#);
}

/// Names and values of a form.
fn url_decoded(form: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}
