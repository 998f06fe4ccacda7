//! What an upstream is told of a session: by whole names, byte for byte, or not at all.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Duration;
use serde_json::{Value, json};

use crate::support::{
    Database, Gateway, SECRET_KEY, Seen, Served as _, Upstream, gateway::Setup, reply, rows,
};

/// A name of each kind that `"*"` leaves out.
const PROTECTED: [&str; 12] = [
    "_anything",
    "_session_note",
    "hijack_history",
    "otp_device_id",
    "account_verified_email",
    "socialaccount_state",
    "mfa.webauthn.state",
    "google-oauth2_state",
    "oidc_login_next",
    "OIDC_nonce",
    "wizard_signup",
    "acl_roles",
];

fn setup(database: &Database, app: &Upstream) -> Setup {
    let listed: Vec<String> = PROTECTED.iter().map(|name| format!("'{name}'")).collect();
    Gateway::before(database, app)
        .line("django", "protected = ['acl_*']")
        .route("path = '/cart/'\nupstream = 'app'\nforward = ['cart']\nwritable = ['cart']")
        .route(&format!(
            "path = '/listed/'\nupstream = 'app'\nforward = ['_auth_user_id', {}]",
            listed.join(", ")
        ))
}

/// The request that the upstream gets.
#[track_caller]
fn seen(gateway: &Gateway, app: &Upstream, path: &str, key: &str) -> Seen {
    gateway.get(path).session(key).send().is_upstreams(200);
    app.take().remove(0)
}

/// The token's payload, as it was signed.
fn payload(seen: &Seen) -> String {
    let token = seen.field("x-session").unwrap();
    let payload = token.split('.').nth(1).unwrap();
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn protected_names_are_told_only_where_they_are_listed() {
    let (database, app) = (Database::sqlite(), Upstream::start());
    let gateway = setup(&database, &app).start();
    let protected: Value = PROTECTED
        .iter()
        .map(|name| ((*name).to_owned(), json!("p")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut session = protected.clone();
    for name in ["cart", "account", "mfa", "acl", "my_otp_device_id"] {
        session[name] = json!("o");
    }
    session["_csrftoken"] = json!("never");
    session["_password_reset_token"] = json!("never");
    let key = database.login(session);

    let told = seen(&gateway, &app, "/", &key).claims();
    let ordinary =
        json!({"cart": "o", "account": "o", "mfa": "o", "acl": "o", "my_otp_device_id": "o"});
    assert_eq!((&told["session"], &told["sub"]), (&ordinary, &json!("1")));

    let listed = seen(&gateway, &app, "/listed/", &key);
    let mut expected = protected;
    expected["_auth_user_id"] = json!("1");
    assert_eq!(listed.claims()["session"], expected);
    assert!(!payload(&listed).contains("never") && !payload(&listed).contains("_auth_user_hash"));

    let told = seen(&gateway, &app, "/cart/", &key).claims();
    assert_eq!(told["session"], json!({"cart": "o"}));
}

#[test]
fn values_are_told_byte_for_byte() {
    let (database, app) = (Database::sqlite(), Upstream::start());
    let gateway = setup(&database, &app).start();
    let row = |text: &str| {
        database.raw_session(&rows::seal(SECRET_KEY, text.as_bytes()), Duration::days(1))
    };
    let members = r#""b":1.50,"a" : [1E5,-0.0,10000000000000000000000000000001],"\u0063art":"\u00e9\/\"\ud83d\ude00","":{"x":{}}"#;
    let told = payload(&seen(&gateway, &app, "/", &row(&format!("{{{members}}}"))));
    let expected = members.replace("\"a\" : ", "\"a\":");
    assert!(
        told.contains(&format!("\"session\":{{{expected}}}")),
        "{told}"
    );
    let told = payload(&seen(
        &gateway,
        &app,
        "/cart/",
        &row(&format!("{{{members}}}")),
    ));
    assert!(
        told.contains(r#""session":{"\u0063art":"\u00e9\/\"\ud83d\ude00"}"#),
        "{told}"
    );
    // Of a name that stands twice, as Python reads it: the first place, the last value.
    let twice = row(r#"{"a":1,"cart":[],"\u0061":2}"#);
    let told = payload(&seen(&gateway, &app, "/", &twice));
    assert!(
        told.contains(r#":2,"cart":[]}"#) && !told.contains(":1,\"cart\""),
        "{told}"
    );
}

#[test]
fn what_strict_json_cannot_hold_is_withheld_only_where_it_is_forwarded() {
    let (database, app) = (Database::sqlite(), Upstream::start());
    let gateway = setup(&database, &app).start();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let (too_deep, as_deep) = (deep(61), deep(60));
    for value in [
        "NaN",
        "-Infinity",
        "[1,Infinity]",
        r#""\ud800""#,
        r#"{"\udfff":1}"#,
        "1e400",
        "[-1e999]",
        r#"[{"1":0,"1":1}]"#,
        too_deep.as_str(),
    ] {
        let text = format!("{{\"cart\":[\"a\"],\"odd\":{value}}}");
        let sealed = rows::seal(SECRET_KEY, text.as_bytes());
        let key = database.raw_session(&sealed, Duration::days(1));
        let told = seen(&gateway, &app, "/", &key).claims();
        assert_eq!(told["withheld"], "not_json", "{value}: {told}");
        assert!(
            told["sid"].is_string() && told["session_exp"].is_i64(),
            "{told}"
        );
        for absent in ["session", "rev", "sub"] {
            assert!(told.get(absent).is_none(), "{absent} of {told}");
        }
        let told = seen(&gateway, &app, "/cart/", &key).claims();
        assert_eq!(told["session"], json!({"cart": ["a"]}), "{value}");
        assert!(told["rev"].is_string() && told.get("withheld").is_none());

        // It can be changed, though not conditionally where it is not told.
        app.answers(reply(200).set(r#"{"if":"a-guess","set":{"cart":[]}}"#));
        let answer = gateway.get("/").session(&key).send();
        answer.is_error(409, "session-changed");
        let change = json!({"if": told["rev"], "set": {"cart": ["b"]}});
        app.answers(reply(200).set(&change.to_string()));
        gateway.get("/cart/").session(&key).send().is_upstreams(200);
        app.answers(reply(200).set(r#"{"set":{"cart":["c"]}}"#));
        gateway.get("/").session(&key).send().is_upstreams(200);
        app.answers(reply(200));
        app.take();
        let told = seen(&gateway, &app, "/cart/", &key).claims();
        assert_eq!(told["session"], json!({"cart": ["c"]}), "{value}");
    }
    for value in [
        as_deep.as_str(),
        "1.7976931348623157e308",
        r#""\ud83d\ude00""#,
        "5e-324",
    ] {
        let text = format!("{{\"odd\":{value}}}");
        let sealed = rows::seal(SECRET_KEY, text.as_bytes());
        let key = database.raw_session(&sealed, Duration::days(1));
        let told = payload(&seen(&gateway, &app, "/", &key));
        assert!(told.contains(&format!("\"session\":{text}")), "{told}");
    }
}

#[test]
fn what_is_too_large_is_left_out_whole_first_the_session_then_the_user() {
    let (database, app) = (Database::sqlite(), Upstream::start());
    let gateway = setup(&database, &app)
        .line("upstream.app", "max_header_bytes = 1024")
        .route("path = '/user/'\nupstream = 'app'\nuser = ['email']\nwritable = ['cart']")
        .start();
    let state = |cart: usize, email: usize| {
        database.execute(&format!(
            "UPDATE auth_user SET email = '{}' WHERE id = 1",
            "e".repeat(email)
        ));
        let key = database.login(json!({"cart": "x".repeat(cart)}));
        let seen = seen(&gateway, &app, "/user/", &key);
        assert!(seen.field("x-session").unwrap().len() <= 1024);
        let told = seen.claims();
        assert_eq!(told["sub"], "1");
        assert!(told["sid"].is_string() && told["rev"].is_string());
        let is_there = |name| told.get(name).is_some();
        let withheld = told["withheld"].as_str().map(str::to_owned);
        (is_there("session"), is_there("user"), withheld)
    };
    let too_large = Some("too_large".to_owned());
    assert_eq!(state(10, 10), (true, true, None));
    assert_eq!(state(600, 10), (false, true, too_large.clone()));
    assert_eq!(state(600, 600), (false, false, too_large.clone()));
    assert_eq!(state(10, 600), (false, false, too_large));
}
