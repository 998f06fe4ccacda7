//! `session show`: what is in a row, and what is not told of it.

use chrono::Duration;
use serde_json::json;

use super::{ENGINES, Printed, run, tells_no_secret};
use crate::support::{
    Database, Engine, Gateway, SECRET_KEY, Upstream, database::random_key, gateway::Setup, rows,
};

struct Scene {
    database: Database,
    app: Upstream,
}

impl Scene {
    fn over(engine: Engine) -> Self {
        Self {
            database: Database::with_tables(engine),
            app: Upstream::start(),
        }
    }

    fn setup(&self) -> Setup {
        Gateway::before(&self.database, &self.app)
    }

    #[track_caller]
    fn show(&self, key: &str) -> Printed {
        let shown = run(&self.setup(), &["session", "show", key], "");
        tells_no_secret(&shown, &self.database);
        shown.has_no(key);
        shown
    }
}

#[test]
fn a_session_is_shown_without_its_values_on_every_database() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let key = scene
            .database
            .login(json!({"cart": ["planted", 2], "visits": 12345, "note": "planted"}));
        let shown = scene.show(&key);
        shown.ends(0).has_no("12345").has_no("pbkdf2");
        assert_eq!(shown.talk, "", "nothing is said beside it");
        shown.has(&["ends", "in 13 days"]);
        shown.has(&["format", "modern", "signed with secret_key"]);
        shown.has(&["size", "6 members"]);
        shown.has(&[
            "login",
            "user \"1\"",
            "ModelBackend",
            "logged in",
            "hash ok, active",
        ]);
        shown.has(&["\"cart\"", "array", "13 bytes"]);
        shown.has(&["\"visits\"", "number", "5 bytes"]);
        shown.has(&["\"_auth_user_hash\"", "string", "66 bytes"]);
    }
}

#[test]
fn values_are_revealed_on_request_and_move_no_cursor() {
    let scene = Scene::over(Engine::Sqlite);
    let payload = "{\"a\u{7f}\": [1,\n 2],\"b\":\"caf\\u00e9\",\"c\":NaN}";
    let row = rows::seal(SECRET_KEY, payload.as_bytes());
    let key = scene.database.raw_session(&row, Duration::days(1));
    let shown = run(&scene.setup(), &["session", "show", &key, "--reveal"], "");
    shown.ends(0).has(&["\"a\\u007f\"", "[1,  2]"]);
    shown.has(&["\"b\"", "\"caf\\u00e9\""]);
    shown.has(&["\"c\"", "NaN"]);
    shown.has(&["login", "none"]);
    assert!(shown.out.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn a_key_need_not_stand_in_the_history() {
    let scene = Scene::over(Engine::Sqlite);
    let key = scene.database.login(json!({}));
    let piped = run(
        &scene.setup(),
        &["session", "show", "-"],
        &format!("{key}\n"),
    );
    piped.ends(0).has(&["user \"1\""]);
    let setup = scene.setup().env("THE_KEY", &key);
    run(&setup, &["session", "show", "env:THE_KEY"], "")
        .ends(0)
        .has(&["user \"1\""]);
    let missing = run(&scene.setup(), &["session", "show", "env:NO_KEY"], "");
    assert!(missing.ends(1).talk.contains("NO_KEY"), "{missing:?}");
}

#[test]
fn what_is_not_there_is_one_sentence_on_every_database() {
    for engine in ENGINES {
        let scene = Scene::over(engine);
        let payload = json!({"note": "planted"}).to_string();
        let good = rows::seal(SECRET_KEY, payload.as_bytes());
        let foreign = rows::seal("another key", payload.as_bytes());
        let pickle = rows::seal(SECRET_KEY, b"\x80\x04planted");
        let raw = |row: &str, days| scene.database.raw_session(row, Duration::days(days));
        for (key, words) in [
            (random_key(), "no such session in django_session"),
            (raw(&good, -1), "has expired"),
            (raw(&foreign, 1), "no configured key has signed it"),
            (raw(&pickle, 1), "pickle"),
            ("no key".to_owned(), "32 characters"),
        ] {
            let failed = run(&scene.setup(), &["session", "show", &key], "");
            tells_no_secret(&failed, &scene.database);
            assert!(failed.ends(1).talk.contains(words), "{words}: {failed:?}");
            assert_eq!(failed.talk.lines().count(), 1, "{failed:?}");
            assert_eq!(failed.out, "");
        }
        let nowhere = scene.setup().line("django", "table = 'nowhere'");
        let failed = run(&nowhere, &["session", "show", &random_key()], "");
        assert!(
            failed.ends(1).talk.contains("there is no table nowhere"),
            "{failed:?}"
        );
    }
}

#[test]
fn it_says_what_has_become_of_a_login() {
    let scene = Scene::over(Engine::Sqlite);
    let of = |session| scene.database.session(&session);
    let login = || rows::login("1", json!({}));
    let mut stale = login();
    stale["_auth_user_hash"] = json!("planted");
    let mut foreign = login();
    foreign["_auth_user_backend"] = json!("elsewhere.Backend");
    for (key, words) in [
        (of(stale), "the hash is not ok"),
        (of(foreign), "not in [django] backends"),
        (of(rows::login("7", json!({}))), "there is no such user"),
    ] {
        scene.show(&key).ends(0).has(&["login", "nobody", words]);
    }
    let key = of(login());
    scene
        .database
        .execute("UPDATE auth_user SET is_active = false");
    scene
        .show(&key)
        .ends(0)
        .has(&["login", "nobody", "hash ok, but not active"]);
    let unchecked = scene.setup().line("django", "verify = 'off'");
    run(&unchecked, &["session", "show", &key], "")
        .ends(0)
        .has(&["logged in", "not checked"]);
}

#[test]
fn the_signing_key_is_named_by_its_place() {
    let scene = Scene::over(Engine::Sqlite);
    let key = scene.database.login(json!({}));
    let rotated = scene
        .setup()
        .secret_key("the-key-after-a-rotation-0123456789")
        .env("OLD", SECRET_KEY)
        .env("OLDER", "the-key-before-that-0123456789")
        .line(
            "django",
            "secret_key_fallbacks = [{ env = 'OLDER' }, { env = 'OLD' }]",
        );
    let shown = run(&rotated, &["session", "show", &key], "");
    shown.ends(0).has(&["signed with secret_key_fallbacks[1]"]);
    shown.has(&["logged in", "hash ok, active"]);
}
