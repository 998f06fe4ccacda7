//! Who asks, for what and by which scheme, as Django and a service are told through a front; and what comes back.

use std::{
    io::{BufReader, Read as _, Write as _},
    sync::{Mutex, mpsc},
    time::Duration,
};

use tokio_rustls::rustls::version::TLS13;

use super::{PAGE, Scene, server};
use crate::{
    fronts::Kind,
    support::{
        Answer, Ask, PATIENCE, Upstream,
        docs::{block, put},
        eventually,
        http::{all, head_lines},
        websocket::{WebSockets, accept, closed, handshake, masked, next_frame},
    },
};

/// What a client may say, and nobody is to believe.
const FORGED: [&str; 13] = [
    "X-Forwarded-For: 198.51.100.9",
    "X-Forwarded-Proto: forged",
    "X-Forwarded-Host: forged.example",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /forged",
    "X_Forwarded_Host: forged.example",
    "X-Real-IP: 198.51.100.9",
    "Remote-User: forged",
    "X-Original-URL: /forged",
    "X-Rewrite-URL: /forged",
    "X-Request-Id: forged",
    "Forwarded: for=198.51.100.9;host=forged.example",
    "X-Session: forged",
];

fn forged() -> Vec<&'static str> {
    FORGED.iter().flat_map(|field| ["-H", field]).collect()
}

#[test]
fn client_scheme_and_host_are_told_through_nginx() {
    are_told(Kind::Nginx, "127.0.0.2, 127.0.0.1");
}

#[test]
fn client_scheme_and_host_are_told_through_haproxy() {
    are_told(Kind::HaProxy, "127.0.0.2, 127.0.0.1");
}

#[test]
fn client_scheme_and_host_are_told_through_haproxy_by_proxy_protocol() {
    are_told(Kind::Passing, "127.0.0.2");
}

fn are_told(kind: Kind, chain: &str) {
    let scene = Scene::start(kind);
    let host = scene.front.host();
    for version in ["--http1.1", "--http2"] {
        let arguments = [&[version][..], &forged()].concat();
        // Django would send away whom it takes for a visitor without TLS, and not know another host.
        let page = scene.alice("/session/", &arguments);
        let page = page.is_upstreams(200).json();
        assert_eq!(page["user"], "1", "{page}");
        let received = &page["received"];
        for (name, value) in [
            ("X-Forwarded-For", chain),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", &host),
            ("Host", &host),
        ] {
            assert_eq!(received[name], value, "{version}: {page}");
        }

        scene.alice("/app/", &arguments).is_upstreams(200);
        let seen = scene.app.last();
        assert_eq!(seen.field("x-forwarded-for"), Some(chain));
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.field("x-forwarded-host"), Some(host.as_str()));
        assert_eq!(seen.field("host"), Some(host.as_str()));
        assert_eq!(seen.user().as_deref(), Some("1"));
        for text in [page.to_string(), format!("{seen:?}")] {
            assert!(
                !text.contains("forged") && !text.contains("198.51.100.9"),
                "{text}"
            );
        }
        let id = seen.field("x-request-id").unwrap();
        let line = eventually("its line in the log", || {
            let log = scene.gateway.log();
            let mut lines = log.lines();
            lines.find(|line| line.contains(id)).map(ToOwned::to_owned)
        });
        assert!(line.contains("client=127.0.0.2 "), "{line}");
    }
}

#[test]
fn what_comes_back_passes_nginx() {
    comes_back(Kind::Nginx);
    sends_to_tls(Kind::Nginx);
}

#[test]
fn what_comes_back_passes_haproxy() {
    comes_back(Kind::HaProxy);
    sends_to_tls(Kind::HaProxy);
}

#[test]
fn what_comes_back_passes_haproxy_with_proxy_protocol() {
    comes_back(Kind::Passing);
}

fn comes_back(kind: Kind) {
    let scene = Scene::start(kind);
    let is_secure = |answer: &Answer| answer.set_cookie().unwrap().contains("; Secure");
    // Django's own cookie, and the gateway's.
    let login = scene.curl("/login/?username=bob&password=bob", &["-X", "POST"]);
    assert!(is_secure(login.is_upstreams(200)));
    let counted = scene.alice("/app/count", &[]);
    assert!(is_secure(counted.is_upstreams(200)), "{:?}", counted.fields);
    let page = scene.alice("/session/", &[]).json();
    assert_eq!(page["session"]["count"], 1, "{page}");

    // The guard compares Origin with Host, port included.
    let own = format!("Origin: {}", scene.origin());
    let body = ["-X", "POST", "--data-binary", "hello", "-H"];
    let post = |origin: &str| scene.alice("/app/", &[&body[..], &[origin]].concat());
    assert_eq!(post(&own).is_upstreams(200).text(), "hello");
    for other in [
        "Origin: https://shop.example",
        "Origin: https://forged.example",
    ] {
        post(other).is_error(403, "cross-site-request");
    }

    let page = scene.curl("/members/?a=b", &["-H", "Accept: text/html"]);
    let location = page.field("location");
    assert_eq!(
        (page.status, location),
        (302, Some("/accounts/login/?next=/members/%3Fa%3Db"))
    );

    let large = vec![b'x'; 3 << 20];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &large).unwrap();
    let data = format!("@{}", file.path().display());
    let arguments = ["--data-binary", &data, "-H", &own];
    let answer = scene.alice("/app/large", &arguments);
    assert!(answer.is_upstreams(200).body == large);
}

fn sends_to_tls(kind: Kind) {
    let scene = Scene::start(kind);
    let url = format!("http://shop.example:{}/a/b?c=d", scene.front.plain.port());
    let answer = server::curl(&url, scene.front.plain, &["-H", "Host: shop.example"]);
    let location = answer.field("location");
    assert_eq!(
        (answer.status, location),
        (308, Some("https://shop.example/a/b?c=d"))
    );
}

#[test]
fn a_websocket_through_nginx_ends_with_the_logout() {
    websocket(Kind::Nginx);
}

#[test]
fn a_websocket_through_haproxy_ends_with_the_logout() {
    websocket(Kind::HaProxy);
}

fn websocket(kind: Kind) {
    let echo = WebSockets::echo();
    let scene = Scene::with(kind, &[], |setup| {
        setup
            .upstream("echo", &echo)
            .route("path = '/echo/'\nupstream = 'echo'\nrequire = 'login'\nrecheck = '100ms'")
    });
    let ask = |origin: &str| {
        let ask = Ask::new(scene.front.tls, "GET", "/echo/");
        let ask = ask.host(&scene.front.host()).session(&scene.alice);
        handshake(ask).field("Origin", origin)
    };
    let open = |origin: &str| {
        let stream = scene
            .certificate
            .connect(scene.front.tls, "shop.example", &TLS13);
        let mut stream = BufReader::new(stream.unwrap());
        stream.get_mut().write_all(&ask(origin).bytes()).unwrap();
        let mut bytes = Vec::new();
        // The head, byte by byte: frames may follow at once.
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        (String::from_utf8(bytes).unwrap(), stream)
    };
    let (head, _) = open("https://forged.example");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");

    let (head, mut stream) = open(&scene.origin());
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.contains(&accept(crate::support::websocket::KEY)),
        "{head}"
    );
    for text in ["hello", "again"] {
        let frame = masked(1, true, text.as_bytes());
        stream.get_mut().write_all(&frame).unwrap();
        assert_eq!(
            next_frame(&mut stream).unwrap(),
            (1, text.as_bytes().to_vec())
        );
    }
    scene.alice("/logout/", &["-X", "POST"]).is_upstreams(200);
    assert_eq!(closed(&mut stream), (4401, "session ended".to_owned()));
}

#[test]
fn events_come_through_the_fronts_as_they_are_sent() {
    for kind in [Kind::Nginx, Kind::HaProxy] {
        let (go_on, may) = mpsc::channel::<()>();
        let may = Mutex::new(may);
        let events = Upstream::raw(move |mut stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while head_lines(&mut reader).is_ok() {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = write!(stream, "{head}b\r\ndata: one\n\n\r\n");
                let _ = may.lock().unwrap().recv_timeout(PATIENCE);
                let _ = write!(stream, "b\r\ndata: two\n\n\r\n0\r\n\r\n");
            }
        });
        let scene = Scene::with(kind, &[], |setup| {
            setup
                .upstream("events", &events)
                .route("path = '/events/'\nupstream = 'events'")
        });
        let ask = Ask::new(scene.front.open, "GET", "/events/").host("shop.example");
        let mut connection = ask.begin();
        connection
            .socket()
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let head = connection.head().unwrap();
        assert_eq!(
            (head.status, all(&head.fields, "content-type")),
            (200, vec!["text/event-stream"])
        );
        let mut seen = String::new();
        while !seen.contains("one\n\n") {
            seen.push(char::from(connection.read_exactly(1)[0]));
        }
        go_on.send(()).unwrap();
        while !seen.contains("two\n\n") {
            seen.push(char::from(connection.read_exactly(1)[0]));
        }
    }
}

#[test]
fn error_pages_pass_nginx_and_its_own_is_for_when_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    for (name, page) in [
        ("away.html", "<p>Back soon</p>"),
        ("other.html", "<p>{{code}}</p>"),
    ] {
        std::fs::write(folder.path().join(name), page).unwrap();
    }
    let here = folder.path().to_str().unwrap();
    let lines = put(&block(PAGE, "Error pages", "nginx"), "/srv/pages", here);
    let place = "    client_max_body_size 64m;\n";
    let words = [(place, &*format!("{place}{lines}"))];
    let pages = put(
        &block(PAGE, "Error pages", "toml"),
        "errors/",
        &format!("{here}/"),
    );
    let scene = Scene::with(Kind::Nginx, &words, |setup| {
        setup
            .line("error_pages", pages.trim_start_matches("[error_pages]\n"))
            .route("path = '/strict/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'")
    });
    let get = |path: &str, accept: &str| {
        let answer = scene.curl(path, &["-H", &format!("Accept: {accept}")]);
        (answer.status, answer.text())
    };
    // The service's own, and the gateway's for browsers and programs.
    let own = (503, "the service's own".to_owned());
    assert_eq!(get("/app/broken", "text/html"), own);
    let page = (401, "<p>login-required</p>".to_owned());
    assert_eq!(get("/strict/", "text/html"), page);
    let refused = scene.curl("/strict/", &["-H", "Accept: application/json"]);
    refused.is_error(401, "login-required");

    scene.gateway.process.signal("KILL");
    eventually("the gateway is away", || {
        (get("/app/", "text/html") == (502, "<p>Back soon</p>".to_owned())).then_some(())
    });
}
