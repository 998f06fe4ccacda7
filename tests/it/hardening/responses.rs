//! Answers that two readers could take for two things, and what of them the client gets.

use serde_json::json;

use crate::support::{Answer, Gateway, Reply, Scene, Served as _, Upstream, reply};

#[test]
fn what_an_answers_connection_field_nominates_ends_at_the_gateway() {
    let scene = Scene::start();
    let head = "HTTP/1.1 200 OK\r\nConnection: X-Session-Set, X-Secret\r\nConnection: keep-alive\r\n\
                X-Session-Set: {\"set\":{\"a\":1}}\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
                Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\nTE: gzip\r\n\
                X-Kept: 1\r\n";
    for framing in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        scene.app.answers(Reply::raw(format!("{head}{framing}")));
        let answer = scene.get();
        assert_eq!(answer.is_upstreams(200).text(), "hello", "{framing}");
        for name in [
            "connection",
            "x-session-set",
            "x-secret",
            "keep-alive",
            "upgrade",
            "proxy-authenticate",
            "proxy-connection",
            "te",
        ] {
            assert_eq!(answer.all(name), [""; 0], "{framing}");
        }
        assert_eq!(answer.field("x-kept"), Some("1"), "{framing}");
        assert_eq!(
            scene.read()["a"],
            1,
            "what it asks for is done all the same"
        );
    }
}

#[test]
fn an_answer_with_two_lengths_is_a_502() {
    let scene = Scene::start();
    let before = scene.read();
    for framing in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Connection: X-Secret, Content-Length\r\nX-Secret: 1\r\nContent-Length: 3\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Content-Length: 5, 5\r\n\r\nhello",
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: \r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        for path in ["/", "/off/", "/pass/"] {
            let change = if path == "/" {
                "X-Session-Set: {\"set\":{\"a\":1}}\r\n"
            } else {
                ""
            };
            let bytes = format!("HTTP/1.1 200 OK\r\n{change}{framing}");
            scene.app.answers(Reply::raw(bytes));
            let answer = scene.gateway.get(path).session(&scene.key).send();
            answer.is_error(502, "upstream-bad-response");
            assert_eq!(scene.read(), before, "{path} {framing}");
        }
    }
    scene.app.answers(reply(200));
    scene.get().is_upstreams(200);
}

#[test]
fn trailers_of_an_answer_pass_but_for_cookies_and_reserved_names() {
    let scene = Scene::start();
    for (announced, expected) in [
        ("X-Kept, Set-Cookie", &[("x-kept", "1")][..]),
        ("Set-Cookie", &[]),
        ("X-Session-Set, X_Session", &[]),
        ("X-Kept", &[("x-kept", "1")]),
    ] {
        scene.app.answers(Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {announced}\r\n\r\n5\r\nhello\r\n0\r\n\
             X-Kept: 1\r\nSet-Cookie: sessionid=planted\r\nX-Session-Set: {{\"set\":{{\"a\":1}}}}\r\n\
             X_Session: planted\r\nX-Gateway-Error: planted\r\n\r\n"
        )));
        for path in ["/", "/off/", "/pass/"] {
            let ask = scene
                .gateway
                .get(path)
                .session(&scene.key)
                .field("TE", "trailers");
            let answer = ask.send();
            assert_eq!(answer.is_upstreams(200).text(), "hello", "{announced}");
            let trailers: Vec<_> = answer
                .trailers
                .iter()
                .map(|(name, value)| (name.to_lowercase(), value.as_str()))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect();
            assert_eq!(trailers, expected, "{announced} on {path}");
        }
    }
    assert_eq!(scene.read().get("a"), None);
}

#[test]
fn what_cannot_be_read_of_a_caching_field_counts_as_the_strictest() {
    let app = Upstream::start();
    let database = crate::support::Database::sqlite();
    let key = database.login(json!({}));
    let gateway = Gateway::before(&database, &app).start();
    let has = |answer: &Answer, word: &str| {
        let joined = answer.all("cache-control").join(",");
        joined.split(',').any(|directive| directive.trim() == word)
    };
    for control in [
        &["no-store, e=\"\u{e9}\""][..],
        &["e=\"\u{e9}\", no-store"],
        &["e=\"\u{e9}\"", "no-store"],
        &["no-store", "\u{ff}"],
    ] {
        app.answers(control.iter().fold(reply(200), |answer, value| {
            answer.field("Cache-Control", value)
        }));
        let answer = gateway.get("/").session(&key).send();
        assert!(
            has(&answer, "no-store") && has(&answer, "private"),
            "{control:?}: {answer:?}"
        );
        let answer = gateway.get("/").send();
        assert!(has(&answer, "no-store"), "{control:?}: {answer:?}");
    }

    for vary in [
        &["Accept\u{e9}"][..],
        &["Accept, \u{e9}"],
        &["Accept", "\u{ff}"],
    ] {
        app.answers(
            vary.iter()
                .fold(reply(200), |answer, value| answer.field("Vary", value)),
        );
        for key in [Some(key.as_str()), None] {
            let answer = gateway.get("/").maybe_session(key).send();
            assert_eq!(answer.all("vary"), ["*"], "{vary:?}: {answer:?}");
        }
    }
}
