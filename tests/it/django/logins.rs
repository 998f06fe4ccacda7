//! Who the visitor is: logins and logouts at Django, passwords, deactivation, deletion, keys.

use serde_json::json;

use super::{Site, claims, is_nobody};
use crate::support::{Django, SECRET_KEY, Served as _, eventually};

pub(super) fn a_login_at_django_is_known_to_the_upstream(site: &Site) {
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

pub(super) fn django_is_served_as_if_it_stood_alone(site: &Site) {
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

pub(super) fn passwords_and_deactivation_count_at_the_next_request(site: &Site) {
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

pub(super) fn a_deleted_user_is_nobody_at_the_next_request(site: &Site) {
    let created = site.django.post("/user/create/?username=carol").send();
    let id = created.json()["id"].take();
    let key = site.log_in("carol");
    site.patch(&key, r#"{"set":{"cart":["a"]}}"#);
    assert_eq!(site.claims(&key)["sub"], id);
    site.django.post("/user/delete/?username=carol").send();

    let after = site.claims(&key);
    assert!(
        after.get("sub").is_none() && after["sid"].is_string(),
        "{after}"
    );
    assert_eq!(after["session"], json!({"cart": ["a"]}));
    let members = site.gateway.get("/app/members/").session(&key).send();
    members.is_error(401, "login-required");
    // Django goes on with the session as nobody, and so does the gateway.
    assert_eq!(site.django.user(&key), None);
    site.patch(&key, r#"{"set":{"cart":[]}}"#);
    assert_eq!(site.django.session(&key)["cart"], json!([]));
}

pub(super) fn a_logout_is_never_undone(site: &Site) {
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

pub(super) fn a_wrong_secret_key_costs_nobody_a_login(site: &Site) {
    let wrong = site.setup().secret_key("another-secret-key").start();
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
    eventually("the log says it", || {
        wrong.log().lines().find(named).map(|_| ())
    });
    assert_eq!(
        wrong.log().lines().filter(named).count(),
        1,
        "the log says it once a minute:\n{}",
        wrong.log()
    );

    drop(wrong);
    let mended = site.setup().start();
    for (key, user) in [(&early, "1"), (&late, "2")] {
        assert_eq!(
            claims(&mended.get("/app/members/").session(key).send())["sub"],
            user
        );
    }
}

pub(super) fn a_rotation_of_the_secret_key_logs_nobody_out(site: &Site) {
    let (old, new) = (SECRET_KEY, "the-new-secret-key-of-the-site");
    let key = site.log_in("alice");
    let rotated = site
        .setup()
        .secret_key(new)
        .env("OLD_SECRET_KEY", old)
        .line(
            "django",
            "secret_key_fallbacks = [{ env = 'OLD_SECRET_KEY' }]",
        )
        .start();
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
