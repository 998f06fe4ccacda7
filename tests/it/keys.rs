//! The public keys on the health address.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Served as _, Upstream, eventually};

const PATH: &str = "/.well-known/jwks.json";

#[test]
fn the_public_keys_are_served_for_five_minutes_and_the_private_one_never() {
    let app = Upstream::start();
    let published = "published = [{ kid = 'next', public_key = 'Ln67-A8TOKZ6-NmsY9jbFGICMYS6KO1iuzRzNtnrVLw' }]";
    let gateway = Gateway::alone(&app)
        .signing("now", [1; 32])
        .line("gateway", published)
        .eddsa_upstream("app", &app)
        .argument("--log-level")
        .argument("trace")
        .start();
    let answer = gateway.health().get(PATH).send();
    assert_eq!(answer.status, 200);
    assert_eq!(
        (answer.field("content-type"), answer.field("cache-control")),
        (Some("application/jwk-set+json"), Some("max-age=300"))
    );
    let key = |kid: &str, x: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "alg": "EdDSA", "x": x});
    let expected = json!({"keys": [
        key("now", "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"),
        key("next", "Ln67-A8TOKZ6-NmsY9jbFGICMYS6KO1iuzRzNtnrVLw"),
    ]});
    assert_eq!(answer.json(), expected);

    let head = gateway.health().ask("HEAD", PATH).send();
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    let length = answer.text().len().to_string();
    assert_eq!(head.field("content-length"), Some(length.as_str()));
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let refused = gateway.health().ask(method, PATH).send();
        assert_eq!(
            (refused.status, refused.field("allow")),
            (405, Some("GET, HEAD"))
        );
    }
    for other in [
        "/.well-known/jwks.json/",
        "/.well-known/",
        "/.well-known/JWKS.json",
    ] {
        assert_eq!(gateway.health().get(other).send().status, 404, "{other}");
    }
    assert_eq!(
        gateway.health().get(&format!("{PATH}?x=1")).send().status,
        200
    );

    // The clients' address knows nothing of it: it is an upstream's path like any other.
    let seen = |path: &str| {
        gateway.get(path).send().is_upstreams(200);
        app.last()
    };
    let token = seen(PATH).field("x-session").unwrap().to_owned();
    assert!(
        token
            .starts_with("eyJhbGciOiJFZERTQSIsImtpZCI6Im5vdyIsInR5cCI6Ingtc2Vzc2lvbi52MStqd3QifQ.")
    );
    eventually("the access line", || {
        gateway.log().contains("jwks.json").then_some(())
    });
    for secret in ["AQEBAQEB", "0101010101", "1, 1, 1, 1", token.as_str()] {
        assert!(!gateway.log().contains(secret), "{secret}");
    }
}

#[test]
fn without_a_signing_key_there_are_no_public_keys() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let missing = |answer: Answer| (answer.status, answer.json()["keys"].take());
    assert_eq!(
        missing(gateway.health().get(PATH).send()),
        (404, Value::Null)
    );

    let elsewhere = Gateway::alone(&app)
        .signing("now", [1; 32])
        .line("health", "jwks = '/keys'")
        .start();
    assert_eq!(elsewhere.health().get(PATH).send().status, 404);
    assert_eq!(
        elsewhere.health().get("/keys").send().json()["keys"][0]["kid"],
        "now"
    );
}
