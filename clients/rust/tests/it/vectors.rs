//! The tokens of tests/vectors/contract.json, and others that are not good.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use http::{Method, Request, StatusCode};
use serde_json::Value;
use session_gateway_upstream::{Builder, CheckRequest, SessionLayer};

use crate::{
    layer::{answer, status},
    log::Log,
    support::{builder, sign, token},
};

fn vectors() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/contract.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn tokens(kind: &str) -> Vec<(String, String)> {
    let vectors = vectors();
    let tokens = vectors[kind].as_object().unwrap().iter();
    tokens
        .map(|(name, token)| (name.clone(), token.as_str().unwrap().to_owned()))
        .collect()
}

fn get(token: &str) -> Request<()> {
    let request = Request::get("/").header("X-Session", token);
    request.body(()).unwrap()
}

/// The code of the 401, or "" for a request that is let through.
fn code(builder: Builder, request: Request<()>) -> String {
    let response = answer(builder, request, |_| {});
    if response.status() == StatusCode::OK {
        return String::new();
    }
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let problem: Value = serde_json::from_str(response.body()).unwrap();
    let code = problem["code"].as_str().unwrap();
    code.strip_prefix("x-session-").unwrap().to_owned()
}

/// base64url(SHA-256(METHOD SP host SP target)).
pub fn req(method: &str, host: &str, target: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("{method} {host} {target}"));
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}

/// A token for this request.
fn token_for(method: &str, host: &str, target: &str) -> String {
    sign(
        HEADER,
        &format!(
            r#"{{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"A","req":"{}","session":{{}}}}"#,
            req(method, host, target)
        ),
    )
}

#[test]
fn good_vectors_are_taken() {
    for (name, token) in tokens("good") {
        assert_eq!(code(builder(), get(&token)), "", "{name}");
        let vectors = vectors();
        let request = Request::get(vectors["req"]["target"].as_str().unwrap())
            .header("Host", vectors["req"]["host"].as_str().unwrap())
            .header("X-Session", token)
            .body(())
            .unwrap();
        let always = builder().check_request(CheckRequest::Always);
        assert_eq!(code(always, request), "", "{name}");
    }
}

#[test]
fn bad_vectors_are_refused_for_their_reason() {
    let reasons = [
        ("payload changed", "signature"),
        ("alg none", "algorithm"),
        ("signature empty", "signature"),
        ("other typ, right key", "algorithm"),
        ("unknown kid", "unknown-kid"),
        ("wrong key", "signature"),
        ("other audience", "audience"),
        ("expired", "expired"),
        ("from the future", "not-yet-valid"),
        ("two headers joined", "malformed"),
        ("empty", "malformed"),
    ];
    for (name, token) in tokens("bad") {
        let reason = reasons.iter().find(|(bad, _)| *bad == name).unwrap().1;
        assert_eq!(code(builder(), get(&token)), reason, "{name}");
    }
}

#[cfg(feature = "eddsa")]
#[test]
fn a_public_key_verifies_and_is_for_eddsa_only() {
    let vectors = vectors();
    let token = vectors["eddsa"]["token"].as_str().unwrap();
    let key = &vectors["eddsa"]["jwks"]["keys"][0];
    let (kid, x) = (
        key["kid"].as_str().unwrap(),
        key["x"].as_str().unwrap().to_owned(),
    );
    assert_eq!(code(builder(), get(token)), "unknown-kid");
    assert_eq!(code(builder().public_key(kid, &x), get(token)), "");
    let given = x.clone();
    let by_kid = builder().public_keys_by(move |kid| (kid == "gw-2025-11").then(|| given.clone()));
    assert_eq!(code(by_kid, get(token)), "");

    let mut changed = token.to_owned();
    changed.replace_range(token.len() - 10..token.len() - 9, "_");
    assert_eq!(
        code(builder().public_key(kid, &x), get(&changed)),
        "signature"
    );
    let header = format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"x-session.v1+jwt"}}"#);
    let confused = sign(&header, "{}");
    assert_eq!(
        code(builder().public_key(kid, &x), get(&confused)),
        "algorithm"
    );
    let header = r#"{"alg":"EdDSA","kid":"orders-2025-11","typ":"x-session.v1+jwt"}"#;
    assert_eq!(code(builder(), get(&sign(header, "{}"))), "algorithm");
    for x in ["AAAA", "", &format!("{x}=")] {
        assert!(builder().public_key("other", x).build().is_err(), "{x}");
    }
}

#[test]
fn every_other_letter_of_a_token_is_refused() {
    let token = &tokens("good")[0].1;
    for at in (0..token.len()).step_by(7) {
        for other in ["", "A", "_", "=", "."] {
            let mut changed = token.clone();
            changed.replace_range(at..=at, other);
            assert!(
                changed == *token || !code(builder(), get(&changed)).is_empty(),
                "{at} {other}"
            );
        }
    }
    assert_eq!(code(builder(), get(&format!("{token}="))), "malformed");
    // 43 letters of six bits hold 256 bits and two more.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = token.split_at(token.len() - 1);
    let next = alphabet.find(last).unwrap() + 1;
    let trailing_bits = format!("{rest}{}", &alphabet[next..=next]);
    assert_eq!(code(builder(), get(&trailing_bits)), "malformed");
}

const HEADER: &str = r#"{"alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}"#;

#[test]
fn malformed_claims_are_refused() {
    let good = |with: &str| {
        format!(
            r#"{{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"A","req":"r",{with}}}"#
        )
    };
    let but = |from: &str, to: &str| good(r#""session":{}"#).replacen(from, to, 1);
    assert_eq!(
        code(builder(), get(&sign(HEADER, &good(r#""session":{}"#)))),
        ""
    );
    for payload in [
        "[]".to_owned(),
        "null".to_owned(),
        String::new(),
        "{}".to_owned(),
        good(r#""session":{}"#) + "x",
        good(r#""session":{},"session":{}"#),
        good(r#""session":{},"sub":"1","s\u0075b":"2""#),
        good(r#""session":{"a":1,"a":2}"#),
        good(r#""session":{"a":{"b":1,"b":2}}"#),
        good(r#""session":{"a":"\ud800"}"#),
        good(r#""session":[]"#),
        good(r#""session":null"#),
        good(r#""session":{},"withheld":"off""#),
        good(r#""sid":"s""#),
        good(r#""withheld":"""#),
        good(r#""withheld":null"#),
        good(r#""session":{},"sub":null"#),
        good(r#""session":{},"sub":1"#),
        good(r#""session":{},"sub":"""#),
        good(r#""session":{},"rev":1"#),
        good(r#""session":{},"user":[]"#),
        good(r#""session":{},"session_exp":"1""#),
        but(r#""aud":"orders""#, r#""aud":["orders"]"#),
        but(r#""aud""#, r#""Aud""#),
        but(r#""jti":"A","#, ""),
        but("1764000000", "1764000000.0"),
        but("1764000060", "\"1764000060\""),
        but("1764000060", "null"),
        but("1764000060", "1e300"),
        but("1764000060", "9223372036854775807"),
        good(&format!(
            r#""session":{{"a":{}{}}}"#,
            "[".repeat(70),
            "]".repeat(70)
        )),
        good(&format!(r#""session":{{"a":"{}"}}"#, "x".repeat(70_000))),
    ] {
        assert_eq!(
            code(builder(), get(&sign(HEADER, &payload))),
            "malformed",
            "{payload:.150}"
        );
    }
    let foreign = but("gw.shop.example", "gw.other.example");
    assert_eq!(code(builder(), get(&sign(HEADER, &foreign))), "issuer");
}

#[test]
fn other_headers_are_refused() {
    let good = r#"{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"A","req":"r","session":{}}"#;
    assert_eq!(code(builder(), get(&sign(HEADER, good))), "");
    for (header, reason) in [
        (r#"{"alg":"HS256","kid":"orders-2025-11"}"#, "malformed"),
        (
            r#"{"alg":"HS256","alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}"#,
            "malformed",
        ),
        (
            r#"{"alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt","b64":false}"#,
            "malformed",
        ),
        (
            r#"{"alg":"HS256","kid":1,"typ":"x-session.v1+jwt"}"#,
            "malformed",
        ),
        (
            r#"{"alg":"hs256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}"#,
            "algorithm",
        ),
        (
            r#"{"alg":"EdDSA","kid":"orders-2025-11","typ":"x-session.v1+jwt"}"#,
            "algorithm",
        ),
        (
            r#"{"alg":"HS256","kid":"orders-2025-11","typ":"JWT"}"#,
            "algorithm",
        ),
    ] {
        assert_eq!(
            code(builder(), get(&sign(header, good))),
            reason,
            "{header}"
        );
    }
}

#[test]
fn the_leeway_is_exact() {
    for (leeway, now, reason) in [
        (None, 1_764_000_090, ""),
        (None, 1_764_000_091, "expired"),
        (None, 1_763_999_970, ""),
        (None, 1_763_999_969, "not-yet-valid"),
        (Some(0), 1_764_000_060, ""),
        (Some(0), 1_764_000_061, "expired"),
        (Some(0), 1_763_999_999, "not-yet-valid"),
        (Some(60), 1_764_000_120, ""),
        (Some(60), 1_764_000_121, "expired"),
    ] {
        let mut builder = builder().clock(move || UNIX_EPOCH + Duration::from_secs(now));
        if let Some(leeway) = leeway {
            builder = builder.leeway(Duration::from_secs(leeway));
        }
        assert_eq!(
            code(builder, get(&token(r#""session":{}"#))),
            reason,
            "{leeway:?} {now}"
        );
    }
    let before_1970 = builder().clock(|| UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(
        code(before_1970, get(&token(r#""session":{}"#))),
        "not-yet-valid"
    );
}

#[test]
fn a_refusal_is_one_warning_without_the_token() {
    let good = token(r#""session":{}"#);
    let missing = Request::get("/").body(()).unwrap();
    let twice = Request::get("/")
        .header("X-Session", &good)
        .header("X-Session", &good);
    let expired = tokens("bad")
        .into_iter()
        .find(|(name, _)| name == "expired")
        .unwrap()
        .1;
    let hostile = sign(
        r#"{"alg":"HS256","kid":"k","typ":"a\nERROR b\u2028"}"#,
        "{}",
    );
    for (reason, request) in [
        ("missing", missing),
        ("twice", twice.body(()).unwrap()),
        ("expired", get(&expired)),
        ("algorithm", get(&hostile)),
    ] {
        let field = request.headers().get("X-Session").cloned();
        let log = Log::of(|| assert_eq!(code(builder(), request), reason));
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(
            log.contains("WARN") && log.contains(reason) && !log.contains('\u{2028}'),
            "{log}"
        );
        for part in field
            .iter()
            .flat_map(|field| field.to_str().unwrap().split('.'))
        {
            assert!(part.is_empty() || !log.contains(part), "{log}");
        }
    }
}

#[test]
fn req_is_compared_as_the_settings_say() {
    assert_eq!(vectors()["req"]["target"], "/cart?page=2");
    use CheckRequest::{Always, Never, Unsafe};
    for (when, method, host, target, ok) in [
        (Unsafe, "POST", "shop.example", "/a%2fb?c=%64", true),
        (Unsafe, "POST", "shop.example", "/a/b?c=%64", false),
        (Unsafe, "POST", "shop.example", "/a%2fb?c=d", false),
        (Unsafe, "POST", "SHOP.example", "/a%2fb?c=%64", false),
        (Unsafe, "PUT", "shop.example", "/a%2fb?c=%64", false),
        (Unsafe, "get", "shop.example", "/", false),
        (Unsafe, "GET", "shop.example", "/", true),
        (Unsafe, "HEAD", "shop.example", "/", true),
        (Unsafe, "OPTIONS", "shop.example", "/", true),
        (Unsafe, "TRACE", "shop.example", "/", true),
        (Always, "GET", "shop.example", "/", false),
        (Always, "POST", "shop.example", "/a%2fb?c=%64", true),
        (Never, "POST", "shop.example", "/", true),
    ] {
        let token = token_for("POST", "shop.example", "/a%2fb?c=%64");
        let http1 = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(target)
            .header("Host", host)
            .header("X-Session", &token);
        let http2 = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("http://{host}{target}"))
            .header("X-Session", &token);
        let code = |request: http::request::Builder| {
            code(builder().check_request(when), request.body(()).unwrap())
        };
        let wanted = if ok { "" } else { "other-request" };
        assert_eq!(code(http1), wanted, "{method} {host} {target}");
        assert_eq!(code(http2), wanted, "{method} {host} {target} of HTTP/2");
        let no_host = Request::post("/a%2fb?c=%64").header("X-Session", &token);
        let two_hosts = Request::post("/a%2fb?c=%64")
            .header("X-Session", &token)
            .header("Host", "shop.example")
            .header("Host", "shop.example");
        let wanted = if when == Never { "" } else { "other-request" };
        assert_eq!(code(no_host), wanted);
        assert_eq!(code(two_hosts), wanted);
    }
}

#[test]
fn functions_are_asked_for_keys_by_kid() {
    let by_kid = |secret: Option<&'static str>| {
        SessionLayer::builder("orders", "gw.shop.example")
            .clock(|| UNIX_EPOCH + Duration::from_secs(1_764_000_005))
            .secrets_by(move |kid| {
                assert_eq!(kid, "orders-2025-11");
                secret.map(|secret| secret.as_bytes().to_vec())
            })
    };
    let token = token(r#""session":{}"#);
    assert_eq!(code(by_kid(Some(crate::support::SECRET)), get(&token)), "");
    assert_eq!(code(by_kid(None), get(&token)), "unknown-kid");
    assert_eq!(code(by_kid(Some("short")), get(&token)), "unknown-kid");
}

#[test]
fn a_kid_is_looked_at_before_a_function_is_asked() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let builder = || {
        let asked = Arc::clone(&asked);
        SessionLayer::builder("orders", "gw.shop.example").secrets_by(move |kid| {
            asked.lock().unwrap().push(kid.to_owned());
            None
        })
    };
    let of = |kid: &str| {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"x-session.v1+jwt"}}"#);
        get(&sign(&header, "{}"))
    };
    let long = "a".repeat(65);
    for kid in [
        "",
        "../../etc/passwd",
        "a b",
        r"a\nERROR b",
        "\u{e9}",
        r"a\u0000",
        r"\u2028",
        &long,
        "a,b",
        "%0a",
    ] {
        let log = Log::of(|| assert_eq!(code(builder(), of(kid)), "unknown-kid", "{kid}"));
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(kid.is_empty() || !log.contains(kid), "{log}");
    }
    assert!(asked.lock().unwrap().is_empty());
    let longest = format!("AZaz09._-{}", "k".repeat(55));
    assert_eq!(code(builder(), of(&longest)), "unknown-kid");
    assert_eq!(*asked.lock().unwrap(), [longest]);
}

#[test]
fn req_of_a_handshake_is_compared_though_it_is_a_get() {
    use CheckRequest::{Never, Unsafe};
    for (target, upgrade, when, wanted) in [
        ("/", Some("websocket"), Unsafe, ""),
        ("/other", Some("websocket"), Unsafe, "other-request"),
        ("/other", Some("spdy/3.1"), Unsafe, "other-request"),
        ("/other", Some(""), Unsafe, "other-request"),
        ("/other", None, Unsafe, ""),
        ("/other", Some("websocket"), Never, ""),
    ] {
        let mut request = Request::get(target)
            .header("Host", "shop.example")
            .header("X-Session", token_for("GET", "shop.example", "/"));
        if let Some(upgrade) = upgrade {
            request = request.header("Upgrade", upgrade);
        }
        let got = code(builder().check_request(when), request.body(()).unwrap());
        assert_eq!(got, wanted, "{target} {upgrade:?}");
    }
}

#[test]
fn a_target_of_another_host_than_host_is_refused() {
    let token = token_for("POST", "shop.example", "/set/x");
    for (uri, host, wanted) in [
        // Absolute form, and :authority beside a Host.
        (
            "http://evil.example/set/x",
            Some("shop.example"),
            "other-request",
        ),
        (
            "http://shop.example/set/x",
            Some("evil.example"),
            "other-request",
        ),
        (
            "http://shop.example:80/set/x",
            Some("shop.example"),
            "other-request",
        ),
        (
            "http://a@shop.example/set/x",
            Some("shop.example"),
            "other-request",
        ),
        ("http://shop.example/set/x", Some("shop.example"), ""),
        ("http://shop.example/set/x", None, ""),
        ("/set/x", Some("shop.example"), ""),
    ] {
        let mut request = Request::post(uri).header("X-Session", &token);
        if let Some(host) = host {
            request = request.header("Host", host);
        }
        let got = code(builder(), request.body(()).unwrap());
        assert_eq!(got, wanted, "{uri} {host:?}");
    }
}

#[test]
fn mistakes_are_a_sentence_at_the_start() {
    let secret = "0123456789012345678901234567890";
    for (builder, says) in [
        (
            SessionLayer::builder("", "i").secret("k", crate::support::SECRET),
            "audience",
        ),
        (
            SessionLayer::builder("a", "").secret("k", crate::support::SECRET),
            "issuer",
        ),
        (SessionLayer::builder("a", "i"), "no key"),
        (builder().secret("short", secret), "31 bytes"),
        (
            builder().secret("b", "base64:not base64 at all, which is quite long"),
            "base64",
        ),
        (
            builder().secret("orders-2025-11", crate::support::SECRET),
            "twice",
        ),
        (builder().secret("a key", crate::support::SECRET), "a key"),
        (
            builder().secret("\u{e9}\n", crate::support::SECRET),
            r"\u00e9\n",
        ),
        (builder().leeway(Duration::from_secs(7200)), "leeway"),
        (builder().exempt("healthz"), "exempt"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains(secret), "{error}");
    }
}

#[test]
fn exempt_requests_pass_without_a_session() {
    for (target, passes) in [
        ("/healthz", true),
        ("/healthz?a", true),
        ("/metrics", true),
        ("/healthz/", false),
        ("/%68ealthz", false),
        ("/", false),
    ] {
        let builder = builder()
            .exempt("/healthz")
            .exempt_if(|parts| parts.uri.path() == "/metrics");
        let request = Request::get(target).body(()).unwrap();
        assert_eq!(
            status(builder, request) == StatusCode::OK,
            passes,
            "{target}"
        );
    }
}

#[test]
fn on_refused_answers_instead() {
    let builder = builder().on_refused(|refused| {
        let mut response = http::Response::new(refused.reason().to_string());
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response
    });
    let response = answer(builder, Request::get("/").body(()).unwrap(), |_| {});
    assert_eq!(
        (response.status(), response.body().as_str()),
        (StatusCode::IM_A_TEAPOT, "missing")
    );
}
