//! The walk with a real Django: releases 4.2 and 5.2, on SQLite, PostgreSQL and MariaDB, with Django itself
//! behind the same gateway.

use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Database, Django, Engine, Gateway, PythonUpstream, Release, SECRET_KEY,
    Served as _, database::random_key,
};

#[test]
fn django_4_2_on_sqlite() {
    walk(&Site::start(Release::V42, Engine::Sqlite));
}

#[test]
fn django_4_2_on_postgresql() {
    walk(&Site::start(Release::V42, Engine::Postgres));
}

#[test]
fn django_5_2_on_sqlite() {
    walk(&Site::start(Release::V52, Engine::Sqlite));
}

#[test]
fn django_5_2_on_postgresql() {
    walk(&Site::start(Release::V52, Engine::Postgres));
}

#[test]
fn django_4_2_on_mariadb() {
    walk(&Site::start(Release::V42, Engine::MariaDb));
}

#[test]
fn django_5_2_on_mariadb() {
    walk(&Site::start(Release::V52, Engine::MariaDb));
}

fn walk(site: &Site) {
    a_login_at_django_is_known_to_the_upstream(site);
    django_is_served_as_if_it_stood_alone(site);
    what_the_upstream_writes_django_reads(site);
    what_django_writes_the_upstream_reads(site);
    a_first_write_makes_a_session_that_django_logs_in(site);
    an_offered_key_is_never_adopted(site);
    a_new_key_ends_the_old_one(site);
    forgetting_everything_is_a_logout(site);
    an_expiry_is_the_same_on_both_sides(site);
    passwords_and_deactivation_count_at_the_next_request(site);
    a_logout_is_never_undone(site);
    a_wrong_secret_key_costs_nobody_a_login(site);
    a_rotation_of_the_secret_key_logs_nobody_out(site);
}

/// A Django site, an upstream that checks tokens with PyJWT, and the gateway before both.
struct Site {
    release: Release,
    database: Database,
    django: Django,
    app: PythonUpstream,
    gateway: Gateway,
}

impl Site {
    fn start(release: Release, engine: Engine) -> Self {
        let database = Database::empty(engine);
        let django = Django::start(release, &database);
        let app = PythonUpstream::start();
        let gateway = gateway(release, &database, &app, &django, SECRET_KEY, "[]");
        Self {
            release,
            database,
            django,
            app,
            gateway,
        }
    }

    /// A request of the upstream.
    fn app(&self, key: &str) -> Ask {
        self.gateway.get("/app/cart?page=2").session(key)
    }

    /// The claims that the upstream gets.
    fn claims(&self, key: &str) -> Value {
        claims(&self.app(key).send())
    }

    /// Logs in through the gateway.
    fn log_in(&self, name: &str) -> String {
        let answer = self
            .gateway
            .post(&format!("/login/?username={name}&password={name}"))
            .send();
        answer
            .is_upstreams(200)
            .new_session()
            .expect("Django's cookie")
    }
}

fn gateway(
    release: Release,
    database: &Database,
    app: &PythonUpstream,
    django: &Django,
    secret_key: &str,
    fallbacks: &str,
) -> Gateway {
    Gateway::over(database)
        .line("django", &format!("release = '{}'", release.name()))
        .line("django", &format!("secret_key_fallbacks = {fallbacks}"))
        .env("OLD_SECRET_KEY", SECRET_KEY)
        .secret_key(secret_key)
        .upstream("app", app)
        .django("site", django)
        .route(
            "path = '/app/'
             upstream = 'app'
             writable = '*'
             may = ['cycle', 'flush', 'expiry']",
        )
        .route(
            "path = '/app/members/'
             upstream = 'app'
             require = 'login'",
        )
        .route(
            "path = '/'
             upstream = 'site'
             session = 'pass'",
        )
        .start()
}

#[track_caller]
fn claims(answer: &Answer) -> Value {
    answer.is_upstreams(200).json()["claims"].take()
}

#[track_caller]
fn is_nobody(claims: &Value) {
    assert_eq!(claims["session"], json!({}), "{claims}");
    for name in ["sub", "sid", "session_exp", "withheld"] {
        assert!(claims.get(name).is_none(), "{claims}");
    }
}

fn a_login_at_django_is_known_to_the_upstream(site: &Site) {
    is_nobody(&claims(&site.gateway.get("/app/").send()));

    let key = site.log_in("alice");
    let answer = site.app(&key).field("Cookie", "theme=dark").send();
    let claims = claims(&answer);
    assert_eq!(
        (&claims["sub"], &claims["session"]),
        (&json!("1"), &json!({}))
    );
    assert!(
        claims["sid"].is_string() && claims["rev"].is_string(),
        "{claims}"
    );
    let fortnight = claims["session_exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1_209_540..=1_209_601).contains(&fortnight), "{claims}");

    let seen = answer.json();
    assert_eq!(seen["target"], "/app/cart?page=2");
    assert!(
        !seen["fields"].to_string().contains(&key),
        "the cookie stays here: {seen}"
    );
    assert!(
        seen["fields"].to_string().contains("theme=dark"),
        "its neighbours do not: {seen}"
    );
    assert_eq!(answer.set_cookie(), None, "reading changes nothing");
}

fn django_is_served_as_if_it_stood_alone(site: &Site) {
    let key = site.log_in("bob");
    let answer = site
        .gateway
        .get("/session/")
        .session(&key)
        .field("X_Session", "forged")
        .send();
    let seen = answer.is_upstreams(200).json();
    assert_eq!((&seen["user"], &seen["key"]), (&json!("2"), &json!(key)));
    assert_eq!(seen["received"]["Cookie"], format!("sessionid={key}"));
    assert!(seen["received"].get("X-Session").is_none(), "{seen}");
    assert_eq!(answer.field("vary"), Some("Cookie"));
}

fn what_the_upstream_writes_django_reads(site: &Site) {
    let key = site.log_in("alice");
    site.django
        .post(r#"/set/?lang="fr"&big=10000000000000000000000000000000000000000&nan=NaN"#)
        .session(&key)
        .send();

    let change = r#"{"set":{"cart":["a",{"n":1.50}],"name":"Jos\u00e9","coupon":null},"del":["lang","nan"]}"#;
    let answer = site.app(&key).field("X-Test-Set", change).send();
    assert_eq!(
        answer.is_upstreams(200).new_session().as_ref(),
        Some(&key),
        "the cookie is renewed"
    );
    let cookie = answer.set_cookie().unwrap();
    for attribute in [
        "; HttpOnly",
        "; Max-Age=1209600",
        "; Path=/",
        "; SameSite=Lax",
        "; expires=",
    ] {
        assert!(cookie.contains(attribute), "{cookie}");
    }

    let text = site.django.get("/session/").session(&key).send().text();
    assert!(
        text.contains(r#""big": 10000000000000000000000000000000000000000"#),
        "{text}"
    );
    let session = site.django.session(&key);
    assert_eq!(session["cart"], json!(["a", {"n": 1.5}]));
    assert_eq!(
        (&session["name"], &session["coupon"]),
        (&json!("José"), &Value::Null)
    );
    assert!(
        session.get("coupon").is_some()
            && session.get("lang").is_none()
            && session.get("nan").is_none()
    );
    assert_eq!(
        site.django.user(&key).as_deref(),
        Some("1"),
        "still logged in"
    );
}

fn what_django_writes_the_upstream_reads(site: &Site) {
    let key = site.log_in("alice");
    for count in 0..3 {
        site.django
            .post(&format!(r#"/set/?count={count}&text="\u65e5\u672c""#))
            .session(&key)
            .send();
        assert_eq!(
            site.claims(&key)["session"],
            json!({"count": count, "text": "日本"})
        );
    }
    site.django.post("/del/?count").session(&key).send();
    assert_eq!(site.claims(&key)["session"], json!({"text": "日本"}));

    // NaN is no JSON that a token may hold; the rest is known all the same, and can be changed.
    site.django.post("/set/?ratio=NaN").session(&key).send();
    let withheld = site.claims(&key);
    assert_eq!(
        (&withheld["withheld"], &withheld["sub"]),
        (&json!("not_json"), &json!("1"))
    );
    assert!(withheld.get("session").is_none());
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"set":{"text":"new"}}"#)
        .send();
    answer.is_upstreams(200);
    let text = site.django.get("/session/").session(&key).send().text();
    assert!(
        text.contains(r#""ratio": NaN"#) && text.contains(r#""text": "new""#),
        "{text}"
    );
}

fn a_first_write_makes_a_session_that_django_logs_in(site: &Site) {
    let rows = site.database.keys().len();
    let answer = site
        .gateway
        .get("/app/")
        .field("X-Test-Set", r#"{"set":{"cart":["a"]}}"#)
        .send();
    let key = answer
        .is_upstreams(200)
        .new_session()
        .expect("a new session");
    assert_eq!(key.len(), 32);
    assert!(
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
        "{key}"
    );
    assert_eq!(answer.field("cache-control"), Some("private, no-store"));
    assert_eq!(site.django.session(&key), json!({"cart": ["a"]}));
    assert_eq!(
        (site.django.user(&key), site.database.keys().len()),
        (None, rows + 1)
    );

    let claims = site.claims(&key);
    assert!(
        claims["sid"].is_string() && claims.get("sub").is_none(),
        "{claims}"
    );

    let login = site
        .gateway
        .post("/login/?username=alice&password=alice")
        .session(&key)
        .send();
    let after = login
        .is_upstreams(200)
        .new_session()
        .expect("a new key at login");
    assert_ne!(after, key);
    let claims = site.claims(&after);
    assert_eq!(
        (&claims["sub"], &claims["session"]),
        (&json!("1"), &json!({"cart": ["a"]}))
    );
    is_nobody(&site.claims(&key));
}

fn an_offered_key_is_never_adopted(site: &Site) {
    let offered = random_key();
    let rows = site.database.keys().len();
    let answer = site.app(&offered).send();
    is_nobody(&claims(&answer));
    assert_eq!(answer.set_cookie(), None, "the cookie is left alone");

    for nothing in [
        "{}",
        r#"{"cycle":true}"#,
        r#"{"flush":true}"#,
        r#"{"del":["a"]}"#,
        r#"{"expiry":60}"#,
    ] {
        let answer = site.app(&offered).field("X-Test-Set", nothing).send();
        assert_eq!(
            answer
                .is_upstreams(200)
                .new_session()
                .filter(|key| key.len() == 32),
            None,
            "{nothing}"
        );
    }
    assert_eq!(
        site.database.keys().len(),
        rows,
        "none of these makes a session"
    );

    let answer = site
        .app(&offered)
        .field("X-Test-Set", r#"{"set":{"a":1}}"#)
        .send();
    let key = answer
        .is_upstreams(200)
        .new_session()
        .expect("a session of our own");
    assert_ne!(key, offered);
    assert_eq!(site.database.data(&offered), None);
    assert_eq!(site.django.session(&key), json!({"a": 1}));
}

fn a_new_key_ends_the_old_one(site: &Site) {
    let old = site.log_in("alice");
    let answer = site
        .app(&old)
        .field("X-Test-Set", r#"{"cycle":true,"set":{"paid":true}}"#)
        .send();
    let new = answer.is_upstreams(200).new_session().expect("a new key");
    assert_ne!(new, old);
    assert_eq!(
        (site.django.user(&old), site.django.user(&new).as_deref()),
        (None, Some("1"))
    );
    assert_eq!(site.django.session(&new)["paid"], true);
    is_nobody(&site.claims(&old));
    assert_ne!(site.claims(&new)["sid"], claims(&answer)["sid"]);

    let answer = site.gateway.post("/cycle/").session(&new).send();
    let newer = answer.new_session().expect("Django's new key");
    is_nobody(&site.claims(&new));
    assert_eq!(site.claims(&newer)["session"], json!({"paid": true}));
}

fn forgetting_everything_is_a_logout(site: &Site) {
    let key = site.log_in("alice");
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"flush":true}"#)
        .send();
    assert_eq!(
        answer.is_upstreams(200).set_cookie(),
        Some(
            r#"sessionid=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax"#
        )
    );
    assert_eq!(
        (site.database.data(&key), site.django.user(&key)),
        (None, None)
    );

    let key = site.log_in("alice");
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"flush":true,"set":{"bye":1}}"#)
        .send();
    let fresh = answer
        .is_upstreams(200)
        .new_session()
        .expect("a fresh session");
    assert_ne!(fresh, key);
    assert_eq!(
        (site.database.data(&key), site.django.user(&fresh)),
        (None, None)
    );
    assert_eq!(site.django.session(&fresh), json!({"bye": 1}));
}

fn an_expiry_is_the_same_on_both_sides(site: &Site) {
    let key = site.log_in("alice");
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"expiry":3600}"#)
        .send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("; Max-Age=3600;")
    );
    let claims = site.claims(&key);
    let left = claims["session_exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((3540..=3601).contains(&left), "{claims}");
    let by_django = site.django.post("/set/?a=1").session(&key).send();
    assert!(
        by_django.set_cookie().unwrap().contains("; Max-Age=3600;"),
        "{:?}",
        by_django.set_cookie()
    );

    let answer = site.app(&key).field("X-Test-Set", r#"{"expiry":0}"#).send();
    let cookie = answer.is_upstreams(200).set_cookie().unwrap().to_owned();
    assert!(
        !cookie.contains("Max-Age") && !cookie.contains("expires"),
        "until the browser closes: {cookie}"
    );
    let by_django = site.django.post("/set/?a=2").session(&key).send();
    assert!(!by_django.set_cookie().unwrap().contains("Max-Age"));

    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"expiry":null}"#)
        .send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("; Max-Age=1209600;")
    );

    site.django
        .post("/expiry/?seconds=120")
        .session(&key)
        .send();
    let claims = site.claims(&key);
    let left = claims["session_exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((60..=121).contains(&left), "{claims}");
    let answer = site
        .app(&key)
        .field("X-Test-Set", r#"{"set":{"a":3}}"#)
        .send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("; Max-Age=120;")
    );
}

fn passwords_and_deactivation_count_at_the_next_request(site: &Site) {
    let (here, there) = (site.log_in("bob"), site.log_in("bob"));
    site.django.post("/set/?note=1").session(&there).send();

    // The visitor's own change keeps the session that made it, under a new key.
    let answer = site
        .gateway
        .post("/password/?password=new")
        .session(&here)
        .send();
    let here = answer.is_upstreams(200).new_session().expect("a new key");
    assert_eq!(site.claims(&here)["sub"], "2");
    is_nobody(&site.claims(&there));
    let members = site.gateway.get("/app/members/").session(&there).send();
    members.is_error(401, "login-required");

    site.django
        .post("/user/password/?username=bob&password=bob")
        .send();
    is_nobody(&site.claims(&here));

    // A write by who is no longer logged in starts afresh, as Django's flush does.
    let answer = site
        .app(&here)
        .field("X-Test-Set", r#"{"set":{"a":1}}"#)
        .send();
    let fresh = answer
        .is_upstreams(200)
        .new_session()
        .expect("a fresh session");
    assert_ne!(fresh, here);
    assert_eq!(
        (site.database.data(&here), site.django.session(&fresh)),
        (None, json!({"a": 1}))
    );

    let key = site.log_in("bob");
    site.django.post("/set/?note=2").session(&key).send();
    site.django
        .post("/user/active/?username=bob&active=false")
        .send();
    let claims = site.claims(&key);
    assert!(
        claims.get("sub").is_none() && claims["sid"].is_string(),
        "{claims}"
    );
    assert_eq!(claims["session"], json!({"note": 2}));
    site.gateway
        .get("/app/members/")
        .session(&key)
        .send()
        .is_error(401, "login-required");
    site.django
        .post("/user/active/?username=bob&active=true")
        .send();
    assert_eq!(site.claims(&key)["sub"], "2");
    site.gateway
        .get("/app/members/")
        .session(&key)
        .send()
        .is_upstreams(200);
}

fn a_logout_is_never_undone(site: &Site) {
    let key = site.log_in("alice");
    let late = site
        .app(&key)
        .field("X-Test-Set", r#"{"set":{"late":true}}"#)
        .field("X-Test-Wait-For", "the-logout")
        .begin();
    site.app.wait_for("the-logout");
    site.gateway
        .post("/logout/")
        .session(&key)
        .send()
        .is_upstreams(200);
    is_nobody(&site.claims(&key));
    let rows = site.database.keys();
    site.app.release("the-logout");

    let mut late = late;
    let answer = late.answer("GET");
    answer.is_error(409, "session-gone");
    assert_eq!(
        (answer.set_cookie(), answer.field("retry-after")),
        (None, None)
    );
    assert_eq!(answer.json()["upstream_status"], 200);
    assert_eq!(site.database.keys(), rows, "no row has come back");
    is_nobody(&site.claims(&key));
}

fn a_wrong_secret_key_costs_nobody_a_login(site: &Site) {
    let wrong = gateway(
        site.release,
        &site.database,
        &site.app,
        &site.django,
        "another-secret-key",
        "[]",
    );
    let early = site.log_in("alice");
    let late = wrong
        .post("/login/?username=bob&password=bob")
        .send()
        .new_session()
        .expect("Django's cookie");

    for (key, user) in [(&early, "1"), (&late, "2")] {
        let before = site.database.data(key);
        let answer = wrong.get("/app/").session(key).send();
        let claims = claims(&answer);
        assert_eq!(claims["withheld"], "unreadable");
        for name in ["sub", "sid", "session"] {
            assert!(claims.get(name).is_none(), "{claims}");
        }
        assert_eq!(answer.set_cookie(), None);

        for change in [
            r#"{"set":{"a":1}}"#,
            r#"{"cycle":true}"#,
            r#"{"flush":true}"#,
            "{}",
        ] {
            let answer = wrong
                .get("/app/")
                .session(key)
                .field("X-Test-Set", change)
                .send();
            answer.is_error(500, "session-unreadable");
            assert_eq!(answer.set_cookie(), None, "{change}");
        }
        let members = wrong
            .get("/app/members/")
            .session(key)
            .field("Accept", "text/html")
            .send();
        assert_eq!(
            (members.status, members.code()),
            (500, Some("session-unreadable")),
            "never the login page"
        );
        assert_eq!(site.database.data(key), before, "the row is as it was");
        assert_eq!(
            site.django.user(key).as_deref(),
            Some(user),
            "Django still knows the visitor"
        );
    }
    let named = |line: &&str| line.contains("ERROR") && line.contains("SECRET_KEY");
    assert_eq!(
        wrong.log().lines().filter(named).count(),
        1,
        "the log says it once a minute:\n{}",
        wrong.log()
    );

    drop(wrong);
    let mended = gateway(
        site.release,
        &site.database,
        &site.app,
        &site.django,
        SECRET_KEY,
        "[]",
    );
    for (key, user) in [(&early, "1"), (&late, "2")] {
        assert_eq!(
            claims(&mended.get("/app/members/").session(key).send())["sub"],
            user
        );
    }
}

fn a_rotation_of_the_secret_key_logs_nobody_out(site: &Site) {
    let (old, new) = (SECRET_KEY, "the-new-secret-key-of-the-site");
    let key = site.log_in("alice");
    let fallbacks = "[{ env = 'OLD_SECRET_KEY' }]";
    let rotated = gateway(
        site.release,
        &site.database,
        &site.app,
        &site.django,
        new,
        fallbacks,
    );
    assert_eq!(
        claims(&rotated.get("/app/").session(&key).send())["sub"],
        "1"
    );

    // What is written now bears the new key, and Django under the new key reads it. It then moves the login
    // over too.
    let answer = rotated
        .get("/app/")
        .session(&key)
        .field("X-Test-Set", r#"{"set":{"a":1}}"#)
        .send();
    answer.is_upstreams(200);
    let settings = json!({"SECRET_KEY_FALLBACKS": [old]});
    let django = Django::serve(site.release, &site.database, new, &settings);
    let read = django.get("/session/").session(&key).send();
    assert_eq!(
        (&read.json()["user"], &read.json()["session"]["a"]),
        (&json!("1"), &json!(1))
    );
    let moved = read
        .new_session()
        .expect("Django rewrites the hash under a new key");
    assert_eq!(
        claims(&rotated.get("/app/").session(&moved).send())["sub"],
        "1"
    );
}
