//! `engine = "cached_db"`, beside a Django that keeps its sessions in a cache before the table: what it writes is
//! read at once, and nothing is written to it.

use serde_json::json;

use crate::support::{Database, Django, Engine, Gateway, Release, Served as _, Upstream, reply};

#[test]
fn with_cached_db_each_change_of_django_is_read_at_the_next_request() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::MariaDb] {
        let database = Database::empty(engine);
        // The process's own memory: Django's default cache.
        let settings = json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"});
        let django = Django::start_with(Release::V52, &database, &settings);
        let app = Upstream::start();
        let gateway = Gateway::over(&database)
            .line("django", "release = '5.2'\nengine = 'cached_db'")
            .upstream("app", &app)
            .django("site", &django)
            .route("path = '/app/'\nupstream = 'app'")
            .route("path = '/'\nupstream = 'site'\nsession = 'pass'")
            .start();
        let claims = |key: &str| {
            gateway.get("/app/").session(key).send().is_upstreams(200);
            app.last().claims()
        };
        let is_nobody = |key: &str| claims(key).get("sid").is_none();

        let login = gateway.post("/login/?username=alice&password=alice").send();
        let key = login.new_session().expect("a session");
        assert_eq!(claims(&key)["sub"], "1");
        for count in 0..3 {
            let change = format!("/set/?count={count}");
            gateway.post(&change).session(&key).send().is_upstreams(200);
            assert_eq!(claims(&key)["session"], json!({"count": count}));
        }
        gateway.post("/del/?count").session(&key).send();
        assert_eq!(claims(&key)["session"], json!({}));
        gateway.post("/expiry/?seconds=120").session(&key).send();
        let left =
            claims(&key)["session_exp"].as_i64().unwrap() - claims(&key)["iat"].as_i64().unwrap();
        assert!((60..=121).contains(&left), "{left}");

        let cycled = gateway.post("/cycle/").session(&key).send();
        let (old, key) = (key, cycled.new_session().expect("a new key"));
        assert!(is_nobody(&old) && claims(&key)["sub"] == "1");
        let password = gateway.post("/password/?password=new").session(&key).send();
        let (old, key) = (key, password.new_session().expect("a new key"));
        assert!(is_nobody(&old) && claims(&key)["sub"] == "1");
        django
            .post("/user/active/?username=alice&active=false")
            .send();
        assert_eq!(claims(&key).get("sub"), None);
        django
            .post("/user/active/?username=alice&active=true")
            .send();
        gateway
            .post("/logout/")
            .session(&key)
            .send()
            .is_upstreams(200);
        assert!(is_nobody(&key));

        // Nothing is granted, so nothing is written.
        let key = database.session(&json!({"a": 1}));
        app.answers(reply(200).set(r#"{"set":{"a":2}}"#));
        gateway
            .get("/app/")
            .session(&key)
            .send()
            .is_error(502, "bad-session-set");
        assert_eq!(database.read(&key), Some(json!({"a": 1})));
    }
}

/// Why nothing may be written: not the gateway is shown here, but the Django behind it.
#[test]
fn with_cached_db_django_serves_a_login_whose_row_is_gone() {
    let database = Database::empty(Engine::Sqlite);
    let settings = json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"});
    let django = Django::start_with(Release::V52, &database, &settings);
    let login = django.post("/login/?username=alice&password=alice").send();
    let key = login.new_session().expect("a session");
    database.delete(&key);
    assert_eq!(
        django.user(&key).as_deref(),
        Some("1"),
        "a flush in the table alone is no logout"
    );
}
