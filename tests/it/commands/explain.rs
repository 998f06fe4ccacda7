//! `explain` says what the gateway does, request by request, and calls no service.

use chrono::Duration;
use serde_json::{Value, json};

use super::{ENGINES, Printed, run, tells_no_secret};
use crate::support::{
    Answer, Ask, Database, Engine, Gateway, Seen, Served as _, Upstream, database::random_key,
    gateway::Setup, rows,
};

/// Routes of each kind.
const ROUTES: [&str; 10] = [
    "path = '/off/'\nupstream = 'app'\nsession = 'off'",
    "path = '/pass/'\nupstream = 'site'\nsession = 'pass'",
    "path = '/members/'\nupstream = 'app'\nrequire = 'login'",
    "path = '/members/api/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'",
    "path = '/carts/'\nupstream = 'app'\nrequire = 'session'\nforward = ['cart']\nwritable = ['cart']",
    "path = '/staff/'\nupstream = 'app'\nrequire = 'staff'",
    "path = '/user/'\nupstream = 'app'\nuser = ['username', 'groups']\nforward = []",
    "path = '/short/'\nupstream = 'app'\nstrip_prefix = '/short/'",
    "path = '/open/'\nupstream = 'app'\ncross_site = 'allow'\nencoded_slashes = 'keep'",
    "host = 'Admin.test'\npath = '/'\nupstream = 'app'\nrequire = 'superuser'",
];

struct Scene {
    database: Database,
    app: Upstream,
}

impl Scene {
    fn over(engine: Engine) -> Self {
        let database = Database::with_tables(engine);
        database.execute(
            "CREATE TABLE auth_group (id integer NOT NULL PRIMARY KEY, name varchar(150) NOT NULL);
             CREATE TABLE auth_user_groups (id integer NOT NULL PRIMARY KEY, user_id integer NOT NULL,
                group_id integer NOT NULL);
             INSERT INTO auth_group VALUES (1, 'planted-group');
             INSERT INTO auth_user_groups VALUES (1, 1, 1)",
        );
        Self {
            database,
            app: Upstream::start(),
        }
    }

    fn setup(&self) -> Setup {
        let setup = Gateway::before(&self.database, &self.app).django("site", &self.app);
        ROUTES.iter().fold(setup, |setup, route| setup.route(route))
    }

    #[track_caller]
    fn explain(&self, arguments: &[&str]) -> Printed {
        self.explain_of(&self.setup(), arguments, "")
    }

    #[track_caller]
    fn explain_of(&self, setup: &Setup, arguments: &[&str], input: &str) -> Printed {
        let command = [&["explain"], arguments].concat();
        let explained = run(setup, &command, input);
        if !arguments.contains(&"--reveal") {
            tells_no_secret(&explained, &self.database);
        }
        assert_eq!(self.app.connections(), 0, "the service is not called");
        explained
    }
}

#[test]
fn a_request_is_explained_on_every_database() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let key = scene
            .database
            .login(json!({"cart": ["planted"], "_hidden": 1}));
        let url = "http://shop.test/a/../carts/7?page=planted-not";
        let url = url.replace("planted-not", "2");
        let told = scene.explain(&["GET", &url, "--session", &key]);
        told.ends(0).has_no(&key);
        assert_eq!(told.talk, "", "nothing is logged");
        told.has(&[
            "request",
            "GET /a/../carts/7?page=2 to shop.test, from 127.0.0.1",
        ]);
        told.has(&["admit", "ok", "host shop.test, path /carts/7, scheme http"]);
        told.has(&[
            "route",
            "gateway.toml:",
            "serves it",
            "path /carts",
            "require session",
        ]);
        told.has(&["does not", "it is for the host admin.test"]);
        told.has(&["does not", "it is for paths under /members"]);
        told.has(&["does not", "its path / matches too"]);
        told.has(&["resolve", "a session: sid "]);
        told.has(&["logged in: sub \"1\""]);
        told.has(&["forwarded (by the route's list): \"cart\""]);
        told.has(&["not forwarded: ", "\"_auth_user_hash\"", "\"_hidden\""]);
        told.has(&["authorize", "ok"]);
        told.has(&["send", "GET /carts/7?page=2 to app", "it was not called"]);
        told.has(&["host: shop.test"]);
        told.has(&["x-session: signed"]);
        told.has(&["session: {\"cart\":(redacted)}"]);
        told.has(&["sub: \"1\""]);
        told.has(&["may change", "cart"]);
    }
}

#[test]
fn values_are_revealed_on_request() {
    let scene = Scene::over(Engine::Sqlite);
    let key = scene.database.login(json!({"cart": ["planted"]}));
    let arguments = ["GET", "http://shop.test/carts/", "--session", &key];
    let more = ["--header", "Authorization: Basic planted"];
    scene
        .explain(&[&arguments[..], &more].concat())
        .ends(0)
        .has(&["authorization: (redacted)"]);
    let revealed = scene.explain(&[&arguments[..], &more, &["--reveal"]].concat());
    revealed.ends(0).has(&["session: {\"cart\":[\"planted\"]}"]);
    revealed.has(&["authorization: Basic planted"]);
    revealed.has_no(&key).has_no("eyJhbGciOi");
    let user = ["GET", "http://shop.test/user/", "--user", "1"];
    scene
        .explain(&user)
        .ends(0)
        .has(&["user: {\"username\":(redacted),\"groups\":(redacted)}"]);
    let revealed = scene.explain(&[&user[..], &["--reveal"]].concat());
    revealed.has(&["{\"username\":\"alice\",\"groups\":[\"planted-group\"]}"]);
}

#[test]
fn values_in_plain_headers_are_values_of_the_session() {
    let scene = Scene::over(Engine::Sqlite);
    let key = scene.database.login(json!({"lang": "planted"}));
    let setup = scene.setup().signing("gateway-1", [7; 32]);
    let setup = setup.eddsa_upstream("app", &scene.app).route(
        "path = '/plain/'\nupstream = 'app'\nforward = ['lang']\n\
         plain_headers = { X-Lang = 'session.lang', X-User-Id = 'sub' }",
    );
    let arguments = ["GET", "http://shop.test/plain/", "--session", &key];
    let told = scene.explain_of(&setup, &arguments, "");
    told.ends(0).has(&["x-lang: (redacted)"]);
    told.has(&["x-user-id: (redacted)"]);
    told.has(&["host: shop.test"]);
    // Signed with the gateway's own key here, and decoded all the same.
    told.has(&["aud: \"app\""]);
    let forged = [&arguments[..], &["--header", "x_lang: forged", "--reveal"]].concat();
    let revealed = scene.explain_of(&setup, &forged, "");
    revealed.ends(0).has(&["x-lang: planted"]);
    revealed.has(&["x-user-id: 1"]);
    revealed.has_no("forged");
}

#[test]
fn a_key_need_not_stand_in_the_history() {
    let scene = Scene::over(Engine::Sqlite);
    let key = scene.database.login(json!({}));
    let setup = scene.setup().env("THE_KEY", &key);
    for (argument, input) in [("-", format!("{key}\n")), ("env:THE_KEY", String::new())] {
        let arguments = ["GET", "http://shop.test/", "--session", argument];
        let told = scene.explain_of(&setup, &arguments, &input);
        told.ends(0).has(&["sub \"1\""]);
    }
}

#[test]
fn as_a_user_without_a_session_of_theirs_on_every_database() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let before = scene.database.keys();
        for verify in ["user", "active-only", "off"] {
            let setup = Gateway::before(&scene.database, &scene.app)
                .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'")
                .line("django", &format!("verify = '{verify}'"));
            let as_user = |id: &str| {
                let arguments = ["GET", "http://shop.test/members/", "--user", id];
                scene.explain_of(&setup, &arguments, "")
            };
            let told = as_user("1");
            told.ends(0).has(&["send", "to app"]);
            told.has(&["logged in: sub \"1\""]);
            if verify == "off" {
                continue;
            }
            for (id, why) in [("7", "there is no such user"), ("abc", "no such user")] {
                let told = as_user(id);
                told.ends(0).has(&["nobody", why]);
                told.has(&["answer", "401 login-required"]);
            }
            let execute = |active: &str| {
                let sql = format!("UPDATE auth_user SET is_active = {active}");
                scene.database.execute(&sql);
            };
            execute("false");
            as_user("1").ends(0).has(&["nobody", "not active"]);
            execute("true");
        }
        assert_eq!(scene.database.keys(), before, "no session is made");
    }
}

#[test]
fn where_the_request_comes_from_counts() {
    let scene = Scene::over(Engine::Sqlite);
    let setup = scene
        .setup()
        .line("gateway", "trusted_proxies = ['10.0.0.0/8']");
    let from = |from: &str| {
        let arguments = [
            "GET",
            "https://shop.test/members/",
            "--header",
            "X-Forwarded-For: 203.0.113.9",
            "--header",
            "Cookie: a=b",
            "--user",
            "1",
            "--reveal",
            "--from",
            from,
        ];
        scene.explain_of(&setup, &arguments, "")
    };
    let proxied = from("10.0.0.7");
    proxied
        .ends(0)
        .has(&["as if user \"1\" had just logged in"]);
    proxied.has(&["admit", "scheme https, client 203.0.113.9"]);
    proxied.has(&["x-forwarded-for: 203.0.113.9, 10.0.0.7"]);
    proxied.has(&["cookie: a=b"]);
    let direct = from("203.0.113.1");
    direct
        .ends(0)
        .has(&["admit", "scheme http, client 203.0.113.1"]);
    direct.has(&["trusted_proxies"]);
}

#[test]
fn arguments_that_make_no_request() {
    let scene = Scene::over(Engine::Sqlite);
    for (arguments, words) in [
        (&["G T", "http://shop.test/"][..], "no method"),
        (&["GET", "http://shop.test/ x"], "no URL"),
        (&["GET", "carts"], "no URL"),
        (&["GET", "/carts/"], "no host"),
        (
            &["GET", "http://shop.test/", "--header", "nonsense"],
            "--header",
        ),
        (&["GET", "http://shop.test/", "--session", "a\nb"], "cookie"),
    ] {
        let failed = scene.explain(arguments);
        assert!(failed.ends(2).talk.contains(words), "{failed:?}");
        assert_eq!(failed.out, "");
    }
    scene
        .explain(&["GET", "/carts/", "--header", "Host: shop.test"])
        .ends(0)
        .has(&["route", "path /carts"]);
}

#[test]
fn a_database_that_is_away_is_the_answer() {
    let scene = Scene::over(Engine::Sqlite);
    let setup = Gateway::before(&scene.database, &scene.app)
        .env("DATABASE_URL", "postgres://app:planted@127.0.0.1:1/site")
        .route("path = '/soft/'\nupstream = 'app'\non_store_error = 'forward'");
    let key = random_key();
    let at = |path: &str| {
        let url = format!("http://shop.test{path}");
        scene.explain_of(&setup, &["GET", &url, "--session", &key], "")
    };
    let told = at("/");
    told.ends(0)
        .has(&["answer", "503 session-store-unavailable"]);
    told.has(&["the cause", "127.0.0.1:1"]);
    let told = at("/soft/");
    told.ends(0).has(&["withheld: \"unavailable\""]);
    told.has(&["the cause", "127.0.0.1:1"]);
}

/// A request: method, target, host, fields and whose session it bears.
type Request<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], Who);

#[derive(Clone, Copy, Debug)]
enum Who {
    Nobody,
    Unknown,
    Visitor,
    User,
    LoggedOut,
    Unreadable,
}

const REQUESTS: [Request<'static>; 33] = [
    ("GET", "/", "shop.test", &[], Who::Nobody),
    ("GET", "/", "shop.test", &[], Who::Unknown),
    ("GET", "/", "shop.test", &[], Who::Visitor),
    ("GET", "/", "shop.test", &[], Who::User),
    ("GET", "/", "shop.test", &[], Who::LoggedOut),
    ("GET", "/", "shop.test", &[], Who::Unreadable),
    ("GET", "/off/x", "shop.test", &[], Who::User),
    ("GET", "/pass/x", "shop.test", &["Cookie: a=b"], Who::User),
    ("GET", "/carts/", "shop.test", &[], Who::Nobody),
    ("GET", "/carts/", "shop.test", &[], Who::Visitor),
    ("GET", "/user/", "shop.test", &[], Who::User),
    ("GET", "/short/a/b?c=d", "shop.test", &[], Who::User),
    (
        "GET",
        "/members/?a=b",
        "shop.test",
        &["Accept: text/html"],
        Who::Nobody,
    ),
    (
        "GET",
        "/members/",
        "shop.test",
        &["Accept: text/html"],
        Who::Visitor,
    ),
    (
        "GET",
        "/members/",
        "shop.test",
        &["Sec-Fetch-Mode: cors"],
        Who::LoggedOut,
    ),
    ("GET", "/members/", "shop.test", &[], Who::Unreadable),
    (
        "GET",
        "/members/api/x",
        "shop.test",
        &["Accept: text/html"],
        Who::Nobody,
    ),
    ("GET", "/members/api/x", "shop.test", &[], Who::User),
    ("GET", "/staff/", "shop.test", &[], Who::User),
    (
        "GET",
        "/staff/",
        "shop.test",
        &["Accept: text/html"],
        Who::Nobody,
    ),
    (
        "POST",
        "/",
        "shop.test",
        &["Origin: https://evil.test"],
        Who::User,
    ),
    (
        "POST",
        "/open/",
        "shop.test",
        &["Origin: https://evil.test"],
        Who::User,
    ),
    (
        "POST",
        "/",
        "shop.test",
        &["Sec-Fetch-Site: same-origin"],
        Who::User,
    ),
    (
        "OPTIONS",
        "/members/",
        "shop.test",
        &[
            "Origin: http://shop.test",
            "Access-Control-Request-Method: POST",
        ],
        Who::Nobody,
    ),
    ("GET", "/x", "admin.test:8080", &[], Who::User),
    ("GET", "/a%2fb", "shop.test", &[], Who::User),
    ("GET", "/open/a%2fb", "shop.test", &[], Who::User),
    ("GET", "/%6dembers/;a/../x", "shop.test", &[], Who::Nobody),
    ("GET", "/x%00", "shop.test", &[], Who::User),
    ("TRACE", "/", "shop.test", &[], Who::User),
    (
        "GET",
        "/",
        "shop.test",
        &["Connection: close, X_Session"],
        Who::User,
    ),
    (
        "GET",
        "/",
        "shop.test",
        &[
            "X-Session: forged",
            "x_session: forged",
            "X-Forwarded-For: 1.2.3.4",
            "X-Forwarded-Proto: https",
            "Accept-Language: fr",
            "TE: trailers",
        ],
        Who::User,
    ),
    (
        "GET",
        "/",
        "shop.test",
        &["Upgrade: websocket", "Connection: upgrade"],
        Who::User,
    ),
];

#[test]
fn what_is_explained_is_what_happens() {
    let scene = Scene::over(Engine::Sqlite);
    let setup = scene.setup();
    let mut stale = rows::login("1", json!({}));
    stale["_auth_user_hash"] = json!("planted");
    let foreign = rows::seal("another key", b"{}");
    let keys = [
        random_key(),
        scene
            .database
            .session(&json!({"cart": [1], "note": "planted"})),
        scene
            .database
            .login(json!({"cart": [2], "note": "planted"})),
        scene.database.session(&stale),
        scene.database.raw_session(&foreign, Duration::days(1)),
    ];
    let key_of = |who: Who| match who {
        Who::Nobody => None,
        Who::Unknown => Some(&keys[0]),
        Who::Visitor => Some(&keys[1]),
        Who::User => Some(&keys[2]),
        Who::LoggedOut => Some(&keys[3]),
        Who::Unreadable => Some(&keys[4]),
    };
    let explained: Vec<Printed> = REQUESTS
        .iter()
        .map(|(method, target, host, fields, who)| {
            let url = format!("http://{host}{target}");
            let mut arguments = vec![*method, url.as_str(), "--reveal"];
            for field in *fields {
                arguments.extend(["--header", field]);
            }
            if let Some(key) = key_of(*who) {
                arguments.extend(["--session", key]);
            }
            scene.explain(&arguments)
        })
        .collect();

    let gateway = setup.start();
    for (request, explained) in REQUESTS.iter().zip(&explained) {
        let (method, target, host, fields, who) = request;
        explained.ends(0);
        scene.app.take();
        let ask = fields.iter().fold(
            Ask::new(gateway.address(), method, target).host(host),
            |ask, line| {
                let (name, value) = line.split_once(": ").unwrap();
                ask.field(name, value)
            },
        );
        let answer = ask.maybe_session(key_of(*who).map(String::as_str)).send();
        match scene.app.take().pop() {
            Some(seen) => sent_as_explained(explained, &seen),
            None => answered_as_explained(explained, &answer, request),
        }
    }
}

#[track_caller]
fn answered_as_explained(explained: &Printed, answer: &Answer, request: &Request<'_>) {
    assert!(
        !explained.out.contains("\nsend "),
        "{request:?}: {explained:?}"
    );
    match answer.code() {
        Some(code) => explained.has(&["answer", &format!("{} {code}", answer.status)]),
        None => {
            assert_eq!(answer.status, 302, "{request:?}: {answer:?}");
            explained.has(&["answer", "302 to", answer.field("location").unwrap()])
        }
    };
}

#[track_caller]
fn sent_as_explained(explained: &Printed, seen: &Seen) {
    explained.has(&["send", &format!("{} {} to ", seen.method, seen.target)]);
    for (name, value) in &seen.fields {
        let name = name.to_lowercase();
        match name.as_str() {
            "x-session" => {}
            // Each request has another one.
            "x-request-id" => {
                explained.has(&[" x-request-id: "]);
            }
            // The gateway's address is another than the command's.
            _ => {
                explained.has(&[&format!(" {name}: {value}")]);
            }
        }
    }
    let fields = explained
        .out
        .lines()
        .skip_while(|line| !line.starts_with("send "));
    let fields = fields
        .skip(1)
        .take_while(|line| line.starts_with("           ") && !line.contains("x-session"));
    let count = seen
        .fields
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("x-session"));
    assert_eq!(fields.count(), count.count(), "{explained:?}\n{seen:?}");
    let Some(_) = seen.field("x-session") else {
        explained.has(&["no x-session"]);
        return;
    };
    let claims = seen.claims();
    for (name, value) in claims.as_object().unwrap() {
        match name.as_str() {
            "iat" | "exp" | "jti" => explained.has(&[&format!("  {name}: ")]),
            _ => {
                let line = explained.has(&[&format!("  {name}: ")]);
                let told = line.split_once(": ").unwrap().1;
                assert_eq!(
                    serde_json::from_str::<Value>(told).unwrap(),
                    *value,
                    "{line}"
                );
                line
            }
        };
    }
}
