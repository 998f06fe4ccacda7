//! The README's programs, as they stand there.

use std::time::SystemTime;

use axum::{Router, body::Body, routing::post};
use http::Request;
use http_body_util::BodyExt;
use session_gateway_upstream::SessionLayer;
use tower::ServiceExt;

use crate::support::{SECRET, sign};

#[allow(dead_code)]
mod orders {
    include!("readme/orders.rs");

    pub fn service(key: &[u8]) -> Router {
        app(key).unwrap()
    }
}
mod cart;

const ANN: &str = r#""sub":"7","sid":"s","rev":"R","session":{"cart":["pen"]}"#;
const NOBODY: &str = r#""session":{}"#;
const TOO_LARGE: &str = r#""sub":"7","sid":"s","rev":"R","withheld":"too_large""#;
const AWAY: &str = r#""withheld":"unavailable""#;

/// The status, `X-Session-Set` and the body for a visitor with these claims.
fn asked(app: Router, method: &str, path: &str, claims: &str) -> (u16, Option<String>, String) {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "127.0.0.1:3001");
    if !claims.is_empty() {
        let req = crate::vectors::req(method, "127.0.0.1:3001", path);
        let token = sign(
            r#"{"alg":"HS256","kid":"orders-1","typ":"x-session.v1+jwt"}"#,
            &format!(
                r#"{{"iss":"https://shop.example","aud":"orders","iat":{now},"exp":{},"jti":"AA","req":"{req}",{claims}}}"#,
                now + 60
            ),
        );
        request = request.header("X-Session", token);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let response = app
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let set = response.headers().get("x-session-set");
        let set = set.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, set, String::from_utf8(body.to_vec()).unwrap())
    })
}

#[test]
fn the_readme_shows_what_is_tested_here() {
    let readme = include_str!("../../README.md");
    for (kind, program) in [
        ("rust,no_run", include_str!("readme/orders.rs")),
        ("rust", include_str!("readme/cart.rs")),
    ] {
        let block = format!("```{kind}\n{program}```\n");
        assert!(readme.contains(&block), "{block}");
    }
    assert_eq!(readme.matches("```rust").count(), 2);
    assert!(readme.contains(r#"`.route("/orders/add/{item}", axum::routing::post(cart::add))`"#));
}

#[test]
fn the_first_program_reads_also_where_the_session_is_withheld() {
    let app = orders::service(format!("{SECRET}\n").as_bytes());
    for (path, claims, status, body) in [
        ("/orders/", ANN, 200, "7 has [\"pen\"] in the cart\n"),
        ("/orders/", NOBODY, 200, "nobody has [] in the cart\n"),
        ("/orders/", TOO_LARGE, 503, ""),
        ("/orders/", AWAY, 503, ""),
        ("/orders/", "", 401, "{\"code\":\"x-session-missing\"}\n"),
        ("/healthz", "", 200, "ok"),
    ] {
        assert_eq!(
            asked(app.clone(), "GET", path, claims),
            (status, None, body.to_owned()),
            "{path} {claims}"
        );
    }
}

#[test]
fn the_second_program_changes_what_nobody_else_has_changed() {
    let sessions = SessionLayer::builder("orders", "https://shop.example")
        .secret("orders-1", SECRET)
        .build()
        .unwrap();
    let app = Router::new()
        .route("/orders/add/{item}", post(cart::add))
        .layer(sessions);
    for (claims, status, set) in [
        (
            ANN,
            200,
            Some(r#"{"if":"R","set":{"cart":["pen","book"]}}"#),
        ),
        // Who has no session yet gets one.
        (NOBODY, 200, Some(r#"{"set":{"cart":["book"]}}"#)),
        (TOO_LARGE, 503, None),
        (AWAY, 503, None),
        ("", 401, None),
    ] {
        let (got, sent, _) = asked(app.clone(), "POST", "/orders/add/book", claims);
        assert_eq!((got, sent.as_deref()), (status, set), "{claims}");
    }
}
