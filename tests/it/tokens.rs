//! What the gateway signs, the libraries of others accept: PyJWT and jose.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Database, Gateway, ISSUER, Release, SECRET_KEY, Served as _, Upstream, from_tests_run, rows,
    token,
};

#[test]
fn pyjwt_accepts_what_the_gateway_signs() {
    accepts(&mut pyjwt(), Algorithm::Hs256);
}

#[test]
fn pyjwt_accepts_what_the_gateway_signs_by_its_published_keys() {
    accepts(&mut pyjwt(), Algorithm::EdDsa);
}

#[test]
fn jose_accepts_what_the_gateway_signs() {
    accepts(&mut jose(), Algorithm::Hs256);
}

#[test]
fn jose_accepts_what_the_gateway_signs_by_its_published_keys() {
    accepts(&mut jose(), Algorithm::EdDsa);
}

#[derive(Clone, Copy, PartialEq)]
enum Algorithm {
    Hs256,
    EdDsa,
}

fn pyjwt() -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokens/check.py");
    let mut command = Command::new(Release::V52.python());
    command.arg(script);
    command
}

fn jose() -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokens/check.mjs");
    let mut command = Command::new("node");
    command
        .arg(script)
        .current_dir(from_tests_run("SG_TEST_NODE_FOLDER"));
    command
}

/// One token of each kind goes to the checker; it answers with the claims that it read.
fn accepts(checker: &mut Command, algorithm: Algorithm) {
    let database = Database::sqlite();
    let app = Upstream::start();
    let gateway = match algorithm {
        Algorithm::Hs256 => Gateway::before(&database, &app),
        Algorithm::EdDsa => Gateway::before(&database, &app)
            .signing("gateway-1", [1; 32])
            .eddsa_upstream("app", &app),
    };
    let gateway = gateway
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .route("path = '/told/'\nupstream = 'app'\nuser = ['username', 'is_staff', 'last_login']")
        .start();
    let (tokens, expected) = signed(&database, &app, &gateway, algorithm);
    let mut asked = json!({"audience": "app", "issuer": ISSUER, "tokens": tokens});
    if algorithm == Algorithm::EdDsa {
        let health = gateway.health().address();
        asked["kid"] = json!("gateway-1");
        asked["jwks"] = json!(format!("http://{health}/.well-known/jwks.json"));
    } else {
        asked["kid"] = json!(token::kid("app"));
        asked["secret"] = json!(token::secret("app"));
    }
    let mut checker = checker
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    checker
        .stdin
        .take()
        .unwrap()
        .write_all(asked.to_string().as_bytes())
        .unwrap();
    let output = checker.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let claims: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(claims.len(), expected.len());
    for (claims, expected) in claims.iter().zip(&expected) {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(
                claims.get(name).unwrap_or(&json!("absent")),
                value,
                "{name} of {claims}"
            );
        }
        let times = [&claims["iat"], &claims["exp"]].map(|time| time.as_i64().unwrap());
        assert_eq!(times[1] - times[0], 60);
    }
}

/// Tokens in all states, and what must be in them.
fn signed(
    database: &Database,
    app: &Upstream,
    gateway: &Gateway,
    algorithm: Algorithm,
) -> (Vec<String>, Vec<Value>) {
    let odd = json!({
        "text": "é日本\u{1F600}\"\\/\u{7f}\u{1}\n", "empty": {}, "list": [[], [null, true]], "": "",
        "float": 1.5, "nested": {"a": {"b": {"c": 1}}}, "big": 9_007_199_254_740_991_i64, "minus": -0.5,
    });
    let row = |payload: &str| database.raw_session(payload, chrono::Duration::days(1));
    let logged_in = database.login(odd.clone());
    let cart = database.session(&json!({"cart": []}));
    let large = database.login(json!({"large": "x".repeat(5000)}));
    let not_json = row(&rows::seal(SECRET_KEY, br#"{"a":NaN}"#));
    let unreadable = row(&rows::seal("another key", b"{}"));

    database.execute("UPDATE auth_user SET username = '\"é日本\u{1F600}\\\u{1}'");

    let absent = "absent";
    let mut tokens = Vec::new();
    let mut expected = Vec::new();
    for (path, key, claims) in [
        (
            "/",
            Some(&logged_in),
            json!({"sub": "1", "session": odd, "withheld": absent}),
        ),
        (
            "/",
            Some(&cart),
            json!({"sub": absent, "session": {"cart": []}}),
        ),
        (
            "/",
            None,
            json!({"sub": absent, "sid": absent, "session": {}, "rev": absent}),
        ),
        (
            "/",
            Some(&large),
            json!({"sub": "1", "session": absent, "withheld": "too_large"}),
        ),
        (
            "/",
            Some(&not_json),
            json!({"sub": absent, "session": absent, "withheld": "not_json"}),
        ),
        (
            "/",
            Some(&unreadable),
            json!({"sid": absent, "session": absent, "withheld": "unreadable"}),
        ),
        (
            "/told/",
            Some(&logged_in),
            json!({"sub": "1", "user": {"username": "\"é日本\u{1F600}\\\u{1}", "is_staff": false}}),
        ),
        (
            "/told/",
            Some(&cart),
            json!({"sub": absent, "user": absent}),
        ),
        (
            "/off/",
            Some(&logged_in),
            json!({"sub": absent, "sid": absent, "session": absent, "withheld": "off"}),
        ),
    ] {
        gateway
            .get(path)
            .maybe_session(key.map(String::as_str))
            .send()
            .is_upstreams(200);
        let seen = app.last();
        if algorithm == Algorithm::Hs256 {
            seen.claims();
        }
        tokens.push(seen.field("x-session").unwrap().to_owned());
        expected.push(claims);
    }
    (tokens, expected)
}
