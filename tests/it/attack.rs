//! The attack table: requests as a hostile client would write them, byte for byte, through the gateway to
//! an upstream that keeps what it received. Each row says what the gateway answers and what the upstream
//! sees.

mod table;

use serde_json::json;

use self::table::table;
use crate::support::{Answer, Connection, Database, Gateway, Seen, Served as _, Upstream};

/// Names that some server folds into one of the gateway's own.
const ALIASES: [&str; 16] = [
    "X-Session",
    "x-session",
    "X-SESSION",
    "X_Session",
    "x_session",
    "X.Session",
    "X-session",
    "x~session",
    "X!Session",
    "X'SESSION",
    "X-Session-Set",
    "x_session_set",
    "X_Session-Set",
    "X.Session.Set",
    "X-SESSION_SET",
    "x|session^set",
];

#[test]
fn forged_headers_never_reach_the_upstream() {
    let scene = Scene::start();
    let cookie = format!("Cookie: sessionid={}", scene.key);
    for name in ALIASES {
        for (path, fields, user) in [
            ("/", vec![cookie.as_str()], Some("1")),
            ("/", vec![], None),
            ("/off/", vec![cookie.as_str()], None),
            ("/pass/", vec![cookie.as_str()], None),
        ] {
            let what = format!("{name} on {path}");
            let forged = format!("{name}: forged");
            let mut lines = vec![
                format!("GET {path} HTTP/1.1"),
                "Host: shop.test".to_owned(),
                forged.clone(),
            ];
            lines.extend(fields.iter().map(ToString::to_string));
            lines.extend([
                format!("{name}: forged, twice"),
                "X-Session-Id: the client's own".to_owned(),
            ]);
            let answer = scene.send(&wire(&lines, ""));
            assert_eq!(answer.status, 200, "{what}");
            let seen = scene.only_request(&what);
            assert!(!format!("{seen:?}").contains("forged"), "{what}: {seen:?}");
            assert_eq!(
                seen.field("x-session-id"),
                Some("the client's own"),
                "{what}"
            );
            match path {
                "/pass/" => assert_eq!(seen.all("x-session"), [""; 0], "{what}"),
                "/off/" => assert_eq!(seen.claims()["withheld"], "off", "{what}"),
                _ => assert_eq!(seen.user().as_deref(), user, "{what}"),
            }
        }
    }
}

#[test]
fn the_attack_table() {
    let scene = Scene::start();
    let mut failures = Vec::new();
    let table = table(&scene);
    assert!(table.len() >= 60, "{}", table.len());
    for row in table {
        let answer = scene.send(&row.request);
        let seen = scene.app.take();
        let checked = std::panic::catch_unwind(|| row.check(&scene, &answer, &seen));
        if let Err(panic) = checked {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            let status = (answer.status, answer.code().map(ToOwned::to_owned));
            failures.push(format!(
                "{}: {why}\n    answered {status:?}, upstream saw {seen:?}",
                row.name
            ));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn an_absurd_head_or_chunk_extension_is_refused() {
    let scene = Scene::start();
    let long = format!("X-Long: {}", "x".repeat(64 * 1024));
    let answer = scene.send(&wire(&["GET / HTTP/1.1", "Host: shop.test", &long], ""));
    assert_eq!(answer.status, 431);

    let many: Vec<String> = (0..150).map(|number| format!("X-{number}: 1")).collect();
    let lines: Vec<String> = ["GET / HTTP/1.1", "Host: shop.test"]
        .map(str::to_owned)
        .into_iter()
        .chain(many)
        .collect();
    assert_eq!(scene.send(&wire(&lines, "")).status, 431);

    let body = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let lines = [
        "POST / HTTP/1.1",
        "Host: shop.test",
        "Transfer-Encoding: chunked",
    ];
    let answer = scene.send(&wire(&lines, &body));
    assert!(answer.status == 0 || answer.status == 400, "{answer:?}");
    assert!(
        scene.app.take().is_empty(),
        "no whole request has reached the upstream"
    );
}

#[test]
fn trailers_never_carry_reserved_names() {
    let scene = Scene::start();
    let lines = [
        "POST / HTTP/1.1",
        "Host: shop.test",
        "Transfer-Encoding: chunked",
        "Trailer: X-Session",
    ];
    let body = "5\r\nhello\r\n0\r\nX-Session: forged\r\nX_Session: forged\r\nX-Session-Set: forged\r\n\r\n";
    assert_eq!(scene.send(&wire(&lines, body)).status, 200);
    let seen = scene.only_request("trailers");
    assert_eq!(seen.body, b"hello");
    assert!(
        !format!("{:?}", seen.trailers).contains("forged"),
        "{:?}",
        seen.trailers
    );
    assert_eq!(
        seen.all("trailer"),
        [""; 0],
        "no trailer that will not come is announced"
    );
}

/// A gateway with a logged-in visitor and routes of each kind.
struct Scene {
    database: Database,
    app: Upstream,
    gateway: Gateway,
    key: String,
}

impl Scene {
    fn start() -> Self {
        let database = Database::sqlite();
        let key = database.login(json!({"cart": ["a"]}));
        let app = Upstream::start();
        let gateway = Gateway::before(&database, &app)
            .django("site", &app)
            .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
            .route("path = '/pass/'\nupstream = 'site'\nsession = 'pass'")
            .route("path = '/admin/'\nupstream = 'app'\nrequire = 'login'")
            .route("path = '/strip/'\nupstream = 'app'\nstrip_prefix = '/strip/'")
            .route("path = '/slashes/'\nupstream = 'app'\nencoded_slashes = 'keep'")
            .start();
        Self {
            database,
            app,
            gateway,
            key,
        }
    }

    /// The answer; status 0 where the gateway just closes.
    fn send(&self, request: &[u8]) -> Answer {
        let nothing = Answer {
            status: 0,
            fields: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
        };
        let mut connection = Connection::open(self.gateway.address());
        // The gateway may answer and close before it has read all of it.
        let _ = connection.write(request);
        connection.try_answer("GET").unwrap_or(nothing)
    }

    #[track_caller]
    fn only_request(&self, what: &str) -> Seen {
        let mut seen = self.app.take();
        assert_eq!(seen.len(), 1, "{what}: {seen:?}");
        seen.remove(0)
    }
}

/// One line of the table.
struct Row {
    name: String,
    request: Vec<u8>,
    expected: Expected,
}

enum Expected {
    /// This status and code; hyper's own answers have no code. The upstream sees nothing.
    Refused(u16, Option<&'static str>),
    /// One of these.
    RefusedAs(&'static [u16]),
    /// The upstream gets one clean request, and this holds for it.
    Forwarded(Box<dyn Fn(&Seen) + std::panic::RefUnwindSafe>),
    /// Refused with 400, or forwarded clean: both are right.
    Either(Box<dyn Fn(&Seen) + std::panic::RefUnwindSafe>),
}

impl Row {
    fn check(&self, scene: &Scene, answer: &Answer, seen: &[Seen]) {
        match &self.expected {
            Expected::Refused(status, code) => {
                assert_eq!((answer.status, answer.code()), (*status, *code));
                assert!(seen.is_empty(), "the upstream was called");
            }
            Expected::RefusedAs(statuses) => {
                assert!(
                    statuses.contains(&answer.status),
                    "expected one of {statuses:?}"
                );
                assert!(seen.is_empty(), "the upstream was called");
            }
            Expected::Either(_) if seen.is_empty() => {
                assert!([0, 400].contains(&answer.status), "neither")
            }
            Expected::Forwarded(check) | Expected::Either(check) => {
                assert_eq!(
                    (answer.status, answer.code()),
                    (200, None),
                    "expected the upstream's answer"
                );
                assert_eq!(seen.len(), 1, "expected one request");
                is_clean(&seen[0], &scene.key);
                check(&seen[0]);
            }
        }
        assert_eq!(answer.set_cookie(), None);
        assert_eq!(scene.database.keys(), [scene.key.as_str()]);
    }
}

/// What holds for every request that reaches an upstream.
fn is_clean(seen: &Seen, key: &str) {
    seen.claims();
    let target = &seen.target;
    let in_form = target.starts_with('/') || target == "*" && seen.method == "OPTIONS";
    assert!(in_form && !target.starts_with("//"), "target {target}");
    let path = target.split('?').next().unwrap_or_default();
    for part in ["//", "/../", "/./", "\\", "#"] {
        assert!(!path.contains(part), "target {target}");
    }
    let reserved = |name: &str| {
        let folded: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        folded == "x-session" || folded == "x-session-set"
    };
    assert_eq!(
        seen.fields
            .iter()
            .filter(|field| reserved(&field.0))
            .count(),
        1,
        "reserved names"
    );
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "trailer",
    ] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
    assert!(
        seen.all("te").iter().all(|value| *value == "trailers"),
        "te"
    );
    assert!(
        seen.all("transfer-encoding").len() + seen.all("content-length").len() <= 1,
        "one length"
    );
    assert_eq!(seen.all("host").len(), 1, "one Host");
    assert!(
        !seen.all("cookie").iter().any(|value| value.contains(key)),
        "the session cookie"
    );
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(
        seen.field("x-forwarded-host").unwrap_or("shop.test"),
        "shop.test"
    );
}

/// Lines as on the wire.
fn wire<T: AsRef<str>>(lines: &[T], body: &str) -> Vec<u8> {
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}
