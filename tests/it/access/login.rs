//! `require`: who may not enter is sent to the login page, and back from there only to this host.

use chrono::Duration;
use serde_json::json;

use crate::{
    access::{varies, with},
    support::{Answer, Connection, Database, Gateway, Scene, Served as _, Upstream, rows},
};

/// What browsers send when they load a page.
const PAGE_LOADS: [(&str, &[&str]); 6] = [
    (
        "Chrome, a link",
        &[
            "Sec-Fetch-Site: none",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-User: ?1",
            "Sec-Fetch-Dest: document",
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
        ],
    ),
    (
        "Firefox, a link on another site",
        &[
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Sec-Fetch-Dest: document",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Site: cross-site",
        ],
    ),
    (
        "a frame",
        &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
    ),
    (
        "a download, which accepts anything",
        &["Sec-Fetch-Mode: navigate", "Accept: */*"],
    ),
    (
        "an old Safari",
        &["Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
    ),
    (
        "another spelling",
        &["Accept: application/xml, Text/HTML;q=0.9"],
    ),
];

/// What is no page load.
const OTHERS: [(&str, &[&str]); 9] = [
    ("curl", &["User-Agent: curl/8.5.0", "Accept: */*"]),
    ("a program without Accept", &[]),
    (
        "fetch",
        &[
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Mode: cors",
            "Sec-Fetch-Dest: empty",
            "Accept: */*",
        ],
    ),
    (
        "fetch of a fragment of a page",
        &["Sec-Fetch-Mode: cors", "Accept: text/html, */*;q=0.1"],
    ),
    (
        "fetch within the origin",
        &["Sec-Fetch-Mode: same-origin", "Accept: text/html"],
    ),
    (
        "a picture",
        &[
            "Sec-Fetch-Mode: no-cors",
            "Sec-Fetch-Dest: image",
            "Accept: image/*",
        ],
    ),
    ("JSON", &["Accept: application/json"]),
    (
        "jQuery in an old browser",
        &[
            "Accept: text/html, */*; q=0.01",
            "X-Requested-With: XMLHttpRequest",
        ],
    ),
    ("an event stream", &["Accept: text/event-stream"]),
];

#[test]
fn only_page_loads_are_sent_to_the_login_page() {
    let scene = Scene::start();
    for path in ["/members/", "/carts/"] {
        for method in ["GET", "HEAD"] {
            for (who, lines) in PAGE_LOADS {
                let what = format!("{method} {path} {who}");
                let answer = with(scene.gateway.ask(method, path), lines).send();
                is_sent_to(&answer, &format!("/accounts/login/?next={path}"), &what);
            }
            for (who, lines) in OTHERS {
                let answer = with(scene.gateway.ask(method, path), lines).send();
                is_401(&answer, &format!("{method} {path} {who}"));
            }
        }
        // A login page cannot give back what was posted. (Another site's page may not even ask.)
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            for (who, lines) in PAGE_LOADS.iter().chain(&OTHERS) {
                let own = lines.iter().filter(|line| !line.ends_with("cross-site"));
                let lines: Vec<_> = own.copied().collect();
                let answer = with(scene.gateway.ask(method, path), &lines)
                    .body("")
                    .send();
                is_401(&answer, &format!("{method} {path} {who}"));
            }
        }
    }
    for (who, lines) in PAGE_LOADS.iter().chain(&OTHERS) {
        let answer = with(scene.gateway.get("/strict/"), lines).send();
        is_401(&answer, &format!("on_anonymous = 401, {who}"));
    }
    assert!(scene.app.take().is_empty(), "the upstream is not called");
}

#[test]
fn who_may_enter_is_asked_of_the_session_as_it_is_now() {
    let scene = Scene::start();
    let database = &scene.database;
    database.execute(&format!(
        "INSERT INTO auth_user (id, password, is_superuser, username, last_name, email, is_staff, is_active,
            date_joined, first_name)
         SELECT 2, '{}', false, 'bob', '', '', false, false, date_joined, '' FROM auth_user WHERE id = 1",
        rows::PASSWORD
    ));
    let cart = database.session(&json!({"cart": 1}));
    let inactive = database.session(&rows::login("2", json!({})));
    let deleted = database.session(&rows::login("3", json!({})));
    let mut stale = rows::login("1", json!({}));
    stale["_auth_user_hash"] = json!("0".repeat(64));
    let stale = database.session(&stale);
    let row = rows::seal(
        crate::support::SECRET_KEY,
        rows::ascii(&rows::login("1", json!({}))).as_bytes(),
    );
    let expired = database.raw_session(&row, Duration::seconds(-1));
    let unknown = crate::support::database::random_key();
    for (who, key, session, login) in [
        ("logged in", &scene.key, true, true),
        ("a session without a login", &cart, true, false),
        ("an inactive user", &inactive, true, false),
        ("a deleted user", &deleted, true, false),
        (
            "a login from before the password changed",
            &stale,
            false,
            false,
        ),
        ("an expired session", &expired, false, false),
        ("an unknown session", &unknown, false, false),
    ] {
        for (path, allowed) in [("/carts/x?y", session), ("/members/x?y", login)] {
            for (load, lines) in PAGE_LOADS {
                let what = format!("{who}, {path}, {load}");
                let answer = with(scene.gateway.get(path).session(key), lines).send();
                let seen = scene.app.take();
                if allowed {
                    answer.is_upstreams(200);
                    assert_eq!(seen.len(), 1, "{what}");
                    assert!(seen[0].claims()["sid"].is_string(), "{what}");
                    varies(&answer, &what);
                } else {
                    let path = path.split('?').next().unwrap();
                    let login = format!("/accounts/login/?next={path}%3Fy");
                    is_sent_to(&answer, &login, &what);
                    assert!(seen.is_empty(), "{what}");
                }
            }
            let answer = scene.gateway.post(path).session(key).body("").send();
            let what = format!("{who}, POST {path}");
            if allowed {
                answer.is_upstreams(200);
            } else {
                is_401(&answer, &what);
            }
            assert_eq!(scene.app.take().len(), usize::from(allowed), "{what}");
        }
    }
}

#[test]
fn next_is_always_a_path_on_this_host() {
    let app = Upstream::start();
    let gateway = Gateway::over(&Database::sqlite())
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nrequire = 'login'")
        .route("path = '/keep/'\nupstream = 'app'\nrequire = 'login'\nencoded_slashes = 'keep'")
        .route("path = '/a/'\nupstream = 'app'\nrequire = 'login'\nstrip_prefix = '/a/'")
        .start();
    // The target, and the `next` that Django reads.
    for (target, next) in [
        ("/", "/"),
        ("/orders/7", "/orders/7"),
        ("/orders/?page=2&sort=a", "/orders/?page=2&sort=a"),
        ("/orders?", "/orders?"),
        ("/caf%C3%A9%20au%26lait", "/caf%C3%A9%20au%26lait"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a+b/~c'(d)*", "/a+b/~c'(d)*"),
        // As the visitor asked for it, not as the upstream gets it.
        ("/a/b", "/a/b"),
        // What some browser takes for another host.
        ("//evil.test", "/evil.test"),
        ("///evil.test/x", "/evil.test/x"),
        ("/.//evil.test", "/evil.test"),
        ("/x/..//evil.test", "/evil.test"),
        ("/%2e%2e//evil.test", "/evil.test"),
        ("/a//evil.test", "/a/evil.test"),
        ("//user@evil.test:80/", "/user@evil.test:80/"),
        ("http://shop.test//evil.test", "/evil.test"),
        ("/https://evil.test", "/https:/evil.test"),
        ("/javascript:alert(1)", "/javascript:alert(1)"),
        ("/keep/%2f%2fevil.test", "/keep/%2f%2fevil.test"),
        ("/keep/../%2f", ""),
        ("/x?next=//evil.test", "/x?next=//evil.test"),
        ("/x?\\\\evil.test", "/x?\\\\evil.test"),
        ("/?//evil.test", "/?//evil.test"),
        ("/x?a=%0d%0aSet-Cookie:%20a", "/x?a=%0d%0aSet-Cookie:%20a"),
        (
            "/x?a=1&next=https%3A%2F%2Fevil.test",
            "/x?a=1&next=https%3A%2F%2Fevil.test",
        ),
        // What is no path that all servers read the same way is no `next` either.
        ("/\\evil.test", ""),
        ("/\\/evil.test", ""),
        ("/%5cevil.test", ""),
        ("/%2fevil.test", ""),
        ("/%2f%2fevil.test", ""),
        ("/%2F/evil.test", ""),
        ("/%252f%252fevil.test", ""),
        ("/%09/evil.test", ""),
        ("/%0d%0aLocation:%20//evil.test", ""),
        ("/keep/%5c%5cevil.test", ""),
    ] {
        let ask = gateway.get(target).field("Sec-Fetch-Mode", "navigate");
        let answer = ask.send();
        if next.is_empty() {
            assert_eq!(
                (answer.status, answer.code()),
                (400, Some("bad-request")),
                "{target}"
            );
            assert_eq!(answer.field("location"), None, "{target}");
            continue;
        }
        let location = answer.field("location").unwrap_or_default().to_owned();
        is_sent_to(&answer, &location, target);
        let value = location.strip_prefix("/accounts/login/?next=");
        let value = value.unwrap_or_else(|| panic!("{target}: {location}"));
        assert_eq!(decoded(value), next, "{target}: {location}");
        let is_one_value = |c: char| c.is_ascii_alphanumeric() || "-._~/%".contains(c);
        assert!(value.chars().all(is_one_value), "{target}: {location}");
        assert!(!value.starts_with("//"), "{target}: {location}");
    }
    assert!(app.take().is_empty(), "the upstream is not called");
}

#[test]
fn a_login_page_on_another_host_gets_the_whole_address() {
    let app = Upstream::start();
    let route =
        "path = '/'\nupstream = 'app'\nrequire = 'login'\nlogin_url = 'https://id.test/login'";
    let proxied = [
        "Accept: text/html",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.test",
    ];
    for (trusted, scheme) in [("[]", "http"), ("['127.0.0.1']", "https")] {
        let gateway = Gateway::over(&Database::sqlite())
            .line("gateway", &format!("trusted_proxies = {trusted}"))
            .upstream("app", &app)
            .route(route)
            .start();
        for (host, target, next) in [
            (
                "shop.test",
                "/x?y=1&z=//evil.test",
                "shop.test/x?y=1&z=//evil.test",
            ),
            ("Shop.test:8080", "//evil.test", "Shop.test:8080/evil.test"),
            ("[::1]:8080", "/", "[::1]:8080/"),
        ] {
            let answer = with(gateway.get(target).host(host), &proxied).send();
            let location = answer.field("location").unwrap_or_default().to_owned();
            is_sent_to(&answer, &location, target);
            let value = location.strip_prefix("https://id.test/login?next=");
            let value = value.unwrap_or_else(|| panic!("{target}: {location}"));
            assert_eq!(decoded(value), format!("{scheme}://{next}"), "{location}");
            assert!(!value.contains(['?', '&', ':', '#']), "{location}");
        }
        is_401(&gateway.get("/").send(), "curl");
        // HTTP/1.0 without Host: there is no address to come back to.
        let mut connection = Connection::open(gateway.address());
        connection
            .write(b"GET / HTTP/1.0\r\nAccept: text/html\r\n\r\n")
            .unwrap();
        is_401(&connection.answer("GET"), "without Host");
    }
    assert!(app.take().is_empty(), "the upstream is not called");
}

#[test]
fn a_row_that_cannot_be_read_is_never_sent_to_the_login_page() {
    let scene = Scene::start();
    let data = rows::seal("another key", b"{}");
    let key = scene.database.raw_session(&data, Duration::days(1));
    for path in ["/members/", "/carts/", "/strict/"] {
        for (who, lines) in PAGE_LOADS.iter().chain(&OTHERS) {
            let what = format!("{path} {who}");
            let answer = with(scene.gateway.get(path).session(&key), lines).send();
            assert_eq!(
                (answer.status, answer.code()),
                (500, Some("session-unreadable")),
                "{what}"
            );
            assert_eq!(answer.field("location"), None, "{what}");
            assert_eq!(answer.field("www-authenticate"), None, "{what}");
            assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
            assert_eq!(answer.set_cookie(), None, "{what}");
            varies(&answer, &what);
        }
        let post = scene.gateway.post(path).session(&key).body("").send();
        post.is_error(500, "session-unreadable");
        varies(&post, path);
    }
    assert!(scene.app.take().is_empty(), "the upstream is not called");
    assert_eq!(
        scene.database.data(&key),
        Some(data),
        "the row is as it was"
    );
}

#[track_caller]
fn is_sent_to(answer: &Answer, location: &str, what: &str) {
    assert_eq!(answer.status, 302, "{what}: {answer:?}");
    assert_eq!(answer.field("location"), Some(location), "{what}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
    assert_eq!(answer.set_cookie(), None, "{what}");
    varies(answer, what);
}

#[track_caller]
fn is_401(answer: &Answer, what: &str) {
    let code = (answer.status, answer.code());
    assert_eq!(code, (401, Some("login-required")), "{what}: {answer:?}");
    let challenge = "Session realm=\"https://gateway.test\"";
    assert_eq!(answer.field("www-authenticate"), Some(challenge), "{what}");
    assert_eq!(answer.field("location"), None, "{what}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
    assert_eq!(answer.set_cookie(), None, "{what}");
    varies(answer, what);
}

/// A value of a query, percent-decoded once, as Django does it.
fn decoded(value: &str) -> String {
    let mut rest = value.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: String = rest.by_ref().take(2).map(char::from).collect();
        bytes.push(u8::from_str_radix(&digits, 16).unwrap());
    }
    String::from_utf8(bytes).unwrap()
}
