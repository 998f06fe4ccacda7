//! `clients/django`: the session engines that merge, and the command that prints a configuration. Its own tests run
//! on each release and database; then a view and a service change one session at once.

use std::{net::SocketAddr, process::Command};

use serde_json::{Value, json};

use crate::support::{
    Database, Django, Engine, Gateway, ISSUER, Release, SECRET_KEY, Served, Upstream,
    gateway::program, reply, token,
};

const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::MariaDb];

#[test]
fn the_app_does_what_it_says_on_django_4_2_and_sqlite() {
    own_tests(Release::V42, Engine::Sqlite);
}

#[test]
fn the_app_does_what_it_says_on_django_4_2_and_postgresql() {
    own_tests(Release::V42, Engine::Postgres);
}

#[test]
fn the_app_does_what_it_says_on_django_4_2_and_mariadb() {
    own_tests(Release::V42, Engine::MariaDb);
}

#[test]
fn the_app_does_what_it_says_on_django_5_2_and_sqlite() {
    own_tests(Release::V52, Engine::Sqlite);
}

#[test]
fn the_app_does_what_it_says_on_django_5_2_and_postgresql() {
    own_tests(Release::V52, Engine::Postgres);
}

#[test]
fn the_app_does_what_it_says_on_django_5_2_and_mariadb() {
    own_tests(Release::V52, Engine::MariaDb);
}

#[test]
fn the_app_does_what_it_says_on_django_6_1_and_sqlite() {
    own_tests(Release::V61, Engine::Sqlite);
}

#[test]
fn the_app_does_what_it_says_on_django_6_1_and_postgresql() {
    own_tests(Release::V61, Engine::Postgres);
}

#[test]
fn the_app_does_what_it_says_on_django_6_1_and_mariadb() {
    own_tests(Release::V61, Engine::MariaDb);
}

fn own_tests(release: Release, engine: Engine) {
    if !release.is_installed() {
        return;
    }
    let database = Database::empty(engine);
    let mut command = Command::new(release.python());
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/django"))
        .args(["-W", "error::DeprecationWarning", "-m", "unittest"])
        .env("PYTHONPATH", "src:.")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SITE_DATABASE", database.url())
        .env("SESSION_GATEWAY", program().get_program());
    if engine != Engine::Sqlite {
        // What the command prints depends on settings only.
        command.args([
            "tests.test_merging",
            "tests.test_races",
            "tests.test_engines",
        ]);
    }
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let count = said
        .split("Ran ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(count > 80, "{said}");
}

#[test]
fn a_view_and_a_service_that_change_one_session_at_once_are_both_kept() {
    for release in [Release::V42, Release::V52] {
        for engine in ENGINES {
            let after = at_once(release, engine, "session_gateway_django.db");
            assert_eq!(after, both(), "{release:?} {engine:?}");
        }
    }
}

#[test]
fn so_they_are_where_django_reads_sessions_from_a_cache() {
    let after = at_once(
        Release::V52,
        Engine::Postgres,
        "session_gateway_django.cached_db",
    );
    assert_eq!(after, both());
}

/// What both have made of the session.
fn both() -> Value {
    json!({"cart": [1, 2], "language": "de", "view": true})
}

/// What the engines are for.
#[test]
fn djangos_own_engine_overwrites_what_a_service_has_stored_meanwhile() {
    for engine in ENGINES {
        let after = at_once(Release::V52, engine, "django.contrib.sessions.backends.db");
        let lost = json!({"cart": [1], "language": "en", "view": true});
        assert_eq!(after, lost, "{engine:?}");
    }
}

/// A view loads the session, a service changes it, the view saves: the session after that.
fn at_once(release: Release, engine: Engine, sessions: &str) -> Value {
    let database = Database::empty(engine);
    let settings = json!({"SESSION_ENGINE": sessions});
    let django = Django::start_with(release, &database, &settings);
    let app = Upstream::start();
    let gateway = Gateway::over(&database)
        .line("django", &format!("release = '{}'", release.name()))
        .upstream("app", &app)
        .django("site", &django)
        .route("path = '/app/'\nupstream = 'app'\nwritable = '*'")
        .route("path = '/'\nupstream = 'site'\nsession = 'pass'")
        .start();
    let key = database.session(&json!({"cart": [1], "language": "en", "old": true}));
    std::thread::scope(|scope| {
        let view = scope.spawn(|| {
            let change = gateway.post("/set/later/?view=true").session(&key);
            change.send().is_upstreams(200);
        });
        gateway.get("/set/later/loaded/").send().is_upstreams(200);
        app.answers(reply(200).set(r#"{"set":{"cart":[1,2],"language":"de"},"del":["old"]}"#));
        gateway.post("/app/").session(&key).send().is_upstreams(200);
        gateway.post("/set/later/go-on/").send().is_upstreams(200);
        view.join().unwrap();
    });
    let mut after = database.read(&key).expect("the session");
    // With Django's own engine what was deleted is back.
    if sessions.starts_with("django.") {
        assert_eq!(
            after.as_object_mut().unwrap().remove("old"),
            Some(json!(true))
        );
    }
    app.answers(reply(200));
    gateway.get("/app/").session(&key).send().is_upstreams(200);
    after
}

#[test]
fn a_session_that_a_service_ends_while_a_view_runs_stays_ended() {
    for sessions in ["db", "cached_db"] {
        let database = Database::empty(Engine::Postgres);
        let settings = json!({"SESSION_ENGINE": format!("session_gateway_django.{sessions}")});
        let django = Django::start_with(Release::V52, &database, &settings);
        let app = Upstream::start();
        let gateway = Gateway::over(&database)
            .line("django", "release = '5.2'")
            .upstream("app", &app)
            .django("site", &django)
            .route("path = '/app/'\nupstream = 'app'\nmay = ['flush']")
            .route("path = '/'\nupstream = 'site'\nsession = 'pass'")
            .start();
        let login = gateway.post("/login/?username=alice&password=alice").send();
        let key = login.new_session().expect("a session");
        std::thread::scope(|scope| {
            let view = scope.spawn(|| {
                let change = gateway.post("/set/later/?view=true").session(&key);
                let answer = change.send();
                assert_eq!(answer.status, 400, "{}", answer.text());
            });
            gateway.get("/set/later/loaded/").send().is_upstreams(200);
            app.answers(reply(200).set(r#"{"flush":true}"#));
            gateway.post("/app/").session(&key).send().is_upstreams(200);
            gateway.post("/set/later/go-on/").send().is_upstreams(200);
            view.join().unwrap();
        });
        assert_eq!(database.read(&key), None);
        // The cache does not know better.
        assert_eq!(django.user(&key), None);
    }
}

#[test]
fn the_printed_configuration_runs_as_it_is() {
    printed(Release::V42, Engine::Sqlite);
    printed(Release::V52, Engine::Postgres);
    printed(Release::V52, Engine::MariaDb);
}

fn printed(release: Release, engine: Engine) {
    let database = Database::empty(engine);
    let settings = json!({
        "SESSION_ENGINE": "session_gateway_django.db",
        "SESSION_COOKIE_NAME": "shop",
        "INSTALLED_APPS": [
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "session_gateway_django",
            "shop",
        ],
    });
    let django = Django::start_with(release, &database, &settings);
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let at = |served: &dyn Served| -> SocketAddr { served.address() };
    let arguments = [
        "session_gateway_config",
        &format!("--upstream=app={}", at(&app)),
        &format!("--django={}", at(&django)),
        &format!("--issuer={ISSUER}"),
        "--listen=127.0.0.1:0",
        &format!("--output={}", file.display()),
    ];
    let printed = Django::manage(release, &database, &settings, &arguments);
    let said = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{said}");

    // The address as it was said, with the password in its place.
    let password = database.url().split(['@', ':']).nth(2).unwrap_or_default();
    let mut text = std::fs::read_to_string(&file).unwrap();
    for secret in [SECRET_KEY, password] {
        assert!(
            secret.is_empty() || !format!("{said}{text}").contains(secret),
            "{said}{text}"
        );
    }
    let address = said.split("DATABASE_URL = ").nth(1);
    let address = address.and_then(|rest| rest.lines().next()).unwrap_or("-");
    assert_eq!(address == "-", engine == Engine::Sqlite, "{said}");
    let environment = [
        ("DATABASE_URL", address.replace("PASSWORD", password)),
        ("DJANGO_SECRET_KEY", SECRET_KEY.to_owned()),
    ];
    assert!(said.contains("--out secrets/app_key\n"), "{said}");
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("app_key"), token::secret("app")).unwrap();
    let doctor = program()
        .args(["doctor", "--config"])
        .arg(&file)
        .envs(environment.clone())
        .output()
        .unwrap();
    assert!(
        doctor.status.success(),
        "{}",
        String::from_utf8_lossy(&doctor.stdout)
    );

    // For the tests' own look at it.
    text.push_str("\n[health]\naddress = '127.0.0.1:0'\n");
    std::fs::write(&file, text).unwrap();
    let mut command = program();
    command.arg("run").envs(environment);
    let gateway = Gateway::start_with(folder, command);
    let login = gateway.post("/login/?username=alice&password=alice").send();
    let cookie = login
        .is_upstreams(200)
        .field("set-cookie")
        .expect("a cookie")
        .to_owned();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("shop="), "{cookie}");
    gateway
        .get("/app/")
        .field("Cookie", &cookie)
        .send()
        .is_upstreams(200);
    assert_eq!(app.last().claims()["sub"], "1");
}
