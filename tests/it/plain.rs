//! Plain headers: they say who is asking or nothing at all, and nobody but the gateway can set them.

use serde_json::{Value, json};

use crate::support::{
    Answer, Connection, Database, Gateway, Seen, Served as _, Upstream, eventually, rows,
};

const HEADERS: [&str; 7] = [
    "x-webauth-user",
    "remote-email",
    "x-user-id",
    "x-visitor",
    "x-lang",
    "x-is-staff",
    "x-limit",
];

/// Names that some server folds into one of them.
const ALIASES: [&str; 12] = [
    "X-WEBAUTH-USER",
    "x-webauth-user",
    "X_WEBAUTH_USER",
    "X_WebAuth-User",
    "X.Webauth.User",
    "x~webauth!user",
    "X-Webauth_User",
    "REMOTE_EMAIL",
    "Remote.Email",
    "X-Lang",
    "x_lang",
    "X|User'Id",
];

struct Scene {
    database: Database,
    app: Upstream,
    gateway: Gateway,
    key: String,
}

impl Scene {
    fn start() -> Self {
        let database = Database::sqlite();
        let key = database.login(json!({"lang": "fr", "limit": 2.50}));
        let app = Upstream::start();
        let gateway = Gateway::before(&database, &app)
            .django("site", &app)
            .line("gateway", "trusted_proxies = ['127.0.0.1']")
            .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
            .route("path = '/pass/'\nupstream = 'site'\nsession = 'pass'")
            .route(
                "path = '/grafana/'\nupstream = 'app'\nplain_headers = { X-WEBAUTH-USER = 'user.username', \
                 Remote-Email = 'user.email', X-User-Id = 'sub', X-Visitor = 'sid', X-Lang = 'session.lang', \
                 X-Is-Staff = 'user.is_staff', X-Limit = 'session.limit' }",
            )
            .argument("--log-level")
            .argument("trace")
            .start();
        Self {
            database,
            app,
            gateway,
            key,
        }
    }

    fn send(&self, lines: &[String]) -> Answer {
        let request = format!("{}\r\n\r\n", lines.join("\r\n"));
        let mut connection = Connection::open(self.gateway.address());
        connection.write(request.as_bytes()).unwrap();
        connection.answer("GET")
    }

    #[track_caller]
    fn grafana(&self, key: Option<&str>) -> Seen {
        let ask = self.gateway.get("/grafana/").maybe_session(key);
        ask.send().is_upstreams(200);
        self.app.take().remove(0)
    }

    fn set_user(&self, columns: &str) {
        self.database
            .execute(&format!("UPDATE auth_user SET {columns} WHERE id = 1"));
    }
}

/// The plain headers that an upstream got.
fn told(seen: &Seen) -> Vec<(&'static str, String)> {
    let value = |name: &&'static str| Some((*name, seen.field(name)?.to_owned()));
    HEADERS.iter().filter_map(value).collect()
}

#[test]
fn plain_headers_say_who_is_asking_or_nothing() {
    let scene = Scene::start();
    let seen = scene.grafana(Some(&scene.key));
    let claims = seen.claims();
    let of = |name: &'static str, value: &str| (name, value.to_owned());
    let sid = claims["sid"].as_str().unwrap();
    // An empty email is none.
    assert_eq!(
        told(&seen),
        [
            of("x-webauth-user", "alice"),
            of("x-user-id", "1"),
            of("x-visitor", sid),
            of("x-lang", "fr"),
            of("x-is-staff", "false"),
            of("x-limit", "2.5"),
        ]
    );
    assert!(
        claims.get("user").is_none(),
        "only the header was asked for"
    );

    scene.set_user("username = 'alice b.', email = 'a@shop.test'");
    let seen = scene.grafana(Some(&scene.key));
    assert_eq!(
        told(&seen)[..2],
        [
            of("x-webauth-user", "alice b."),
            of("remote-email", "a@shop.test")
        ]
    );

    // A session without a login, nobody, and a login that does not count any more.
    let cart = scene.database.session(&json!({"lang": "de"}));
    let names = |seen: &Seen| told(seen).iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!(names(&scene.grafana(Some(&cart))), ["x-visitor", "x-lang"]);
    assert_eq!(names(&scene.grafana(None)), [""; 0]);
    scene.set_user("is_active = false");
    assert_eq!(
        names(&scene.grafana(Some(&scene.key))),
        ["x-visitor", "x-lang", "x-limit"]
    );
    scene.set_user("is_active = true, password = 'another'");
    assert_eq!(names(&scene.grafana(Some(&scene.key))), [""; 0]);

    // Other routes know nothing of them.
    scene
        .gateway
        .get("/")
        .session(&scene.key)
        .send()
        .is_upstreams(200);
    assert_eq!(names(&scene.app.take()[0]), [""; 0]);
}

#[test]
fn forged_plain_headers_never_reach_an_upstream() {
    let scene = Scene::start();
    for name in ALIASES {
        for path in ["/grafana/", "/", "/off/", "/pass/"] {
            for key in [Some(&scene.key), None] {
                let mut lines = vec![
                    format!("GET {path} HTTP/1.1"),
                    "Host: shop.test".to_owned(),
                    format!("{name}: forged"),
                ];
                lines.extend(key.map(|key| format!("Cookie: sessionid={key}")));
                lines.push(format!("{}: forged", name.to_uppercase()));
                lines.push("X-Webauth-Users: the client's own".to_owned());
                assert_eq!(scene.send(&lines).status, 200, "{name} on {path}");
                let seen = scene.app.take();
                assert!(
                    !format!("{seen:?}").contains("forged"),
                    "{name} on {path}: {seen:?}"
                );
                assert_eq!(seen[0].field("x-webauth-users"), Some("the client's own"));
                let is_told = path == "/grafana/" && key.is_some();
                assert_eq!(
                    seen[0].field("x-webauth-user"),
                    is_told.then_some("alice"),
                    "{name} on {path}"
                );
            }
        }
    }
}

#[test]
fn a_plain_header_can_be_neither_nominated_nor_sent_as_a_trailer() {
    let scene = Scene::start();
    for nominated in [
        "X-WEBAUTH-USER",
        "close, x_webauth_user",
        "X.LANG",
        "keep-alive,Remote-Email",
    ] {
        for path in ["/grafana/", "/", "/pass/"] {
            let lines = [
                format!("GET {path} HTTP/1.1"),
                "Host: shop.test".to_owned(),
                format!("Cookie: sessionid={}", scene.key),
                format!("Connection: {nominated}"),
            ];
            scene.send(&lines).is_error(400, "bad-request");
            assert!(scene.app.take().is_empty(), "{nominated}");
        }
    }
    let request = format!(
        "POST /grafana/ HTTP/1.1\r\nHost: shop.test\r\nCookie: sessionid={}\r\nSec-Fetch-Site: same-origin\r\n\
         Trailer: X-WEBAUTH-USER\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
         X-WEBAUTH-USER: forged\r\nX_Lang: forged\r\n\r\n",
        scene.key
    );
    let mut connection = Connection::open(scene.gateway.address());
    connection.write(request.as_bytes()).unwrap();
    assert_eq!(connection.answer("POST").status, 200);
    let seen = scene.app.take().remove(0);
    assert_eq!(seen.field("x-webauth-user"), Some("alice"));
    assert!(
        !format!("{seen:?}").contains("forged") && seen.all("trailer").is_empty(),
        "{seen:?}"
    );
}

#[test]
fn what_cannot_stand_in_a_header_is_refused_and_never_mangled() {
    let scene = Scene::start();
    let refused = |key: &str, header: &str| {
        let answer = scene.gateway.get("/grafana/").session(key).send();
        answer.is_error(502, "bad-plain-header");
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(header), "{detail}");
        assert!(problem.get("upstream_status").is_none() && !answer.text().contains("planted"));
        assert_eq!(answer.field("vary"), Some("Cookie"));
        assert!(scene.app.take().is_empty(), "the upstream was called");
    };
    for name in [
        "plantedé",
        "planted\u{65e5}",
        " planted",
        "planted ",
        "planted\nX-Admin: 1",
        "planted\t1",
        "planted\u{7f}",
    ] {
        scene.set_user(&format!("username = '{name}'"));
        refused(&scene.key, "x-webauth-user");
    }
    scene.set_user("username = 'alice'");
    let long = "planted".repeat(200);
    for lang in [
        json!("planted\r\nX: 1"),
        json!(["planted"]),
        json!({"planted": 1}),
        json!(long),
    ] {
        refused(&scene.database.login(json!({"lang": lang})), "x-lang");
    }
    let nan = rows::seal(crate::support::SECRET_KEY, br#"{"lang":NaN}"#);
    refused(
        &scene.database.raw_session(&nan, chrono::Duration::days(1)),
        "x-lang",
    );
    // Elsewhere they are nobody's business.
    let key = scene.database.login(json!({"lang": ["planted"]}));
    scene
        .gateway
        .get("/")
        .session(&key)
        .send()
        .is_upstreams(200);

    scene.app.take();
    scene.set_user("username = 'planted-name'");
    let seen = scene.grafana(Some(&scene.key));
    assert_eq!(seen.field("x-webauth-user"), Some("planted-name"));

    let log = eventually("the log line", || {
        let log = scene.gateway.log();
        log.contains("cannot stand in its plain header")
            .then_some(log)
    });
    let line = log
        .lines()
        .find(|line| line.contains("cannot stand in"))
        .unwrap();
    assert!(
        line.contains("header=\"x-webauth-user\"") && line.contains("route="),
        "{line}"
    );
    assert!(!log.contains("planted"), "values are never logged");
}

#[test]
fn not_knowing_is_never_an_absent_plain_header() {
    let scene = Scene::start();
    let foreign = rows::seal("another key", b"{}");
    let unreadable = scene
        .database
        .raw_session(&foreign, chrono::Duration::days(1));
    let answer = scene.gateway.get("/grafana/").session(&unreadable).send();
    answer.is_error(500, "session-unreadable");
    let elsewhere = scene.gateway.get("/").session(&unreadable).send();
    elsewhere.is_upstreams(200);
    assert_eq!(
        scene.app.take()[0].claims()["withheld"],
        Value::from("unreadable")
    );

    scene
        .database
        .execute("ALTER TABLE django_session RENAME TO gone");
    let answer = scene.gateway.get("/grafana/").session(&scene.key).send();
    answer.is_error(503, "session-store-unavailable");
    assert!(scene.app.take().is_empty());
}
