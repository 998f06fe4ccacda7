//! What the sessions hold and under which key: what one side writes, the other reads.

use serde_json::{Value, json};

use super::{Site, claims, is_nobody};
use crate::support::{Served as _, database::random_key};

pub(super) fn what_the_upstream_writes_django_reads(site: &Site) {
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

pub(super) fn what_django_writes_the_upstream_reads(site: &Site) {
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

pub(super) fn a_first_write_makes_a_session_that_django_logs_in(site: &Site) {
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

pub(super) fn an_offered_key_is_never_adopted(site: &Site) {
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

pub(super) fn a_new_key_ends_the_old_one(site: &Site) {
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

pub(super) fn forgetting_everything_is_a_logout(site: &Site) {
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
