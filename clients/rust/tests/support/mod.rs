// Tokens as the gateway makes them. Examples in the documentation include this file, so it has no inner attributes.

use base64::Engine as _;
use session_gateway_upstream::SessionLayer;

/// The secret of tests/vectors/contract.json.
#[allow(dead_code)]
pub const SECRET: &str = "base64:3Bs8gUMG0e5Hx6moOQDVjvKR9T6sEtMUU4wczvBAOcc=";

/// Signs a header and a payload.
#[allow(dead_code)]
pub fn sign(header: &str, payload: &str) -> String {
    use hmac::{KeyInit as _, Mac as _};

    let base64url = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let secret = SECRET.strip_prefix("base64:").unwrap();
    let secret = base64::engine::general_purpose::STANDARD
        .decode(secret)
        .unwrap();
    let signed = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(payload.as_bytes())
    );
    let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", base64url(&signature))
}

/// A token with the claims that are always there, and these.
#[allow(dead_code)]
pub fn token(claims: &str) -> String {
    sign(
        r#"{"alg":"HS256","kid":"orders-2025-11","typ":"x-session.v1+jwt"}"#,
        &format!(
            r#"{{"iss":"gw.shop.example","aud":"orders","iat":1764000000,"exp":1764000060,"jti":"AA","req":"r",{claims}}}"#
        ),
    )
}

/// A layer for these tokens, at their time.
#[allow(dead_code)]
pub fn builder() -> session_gateway_upstream::Builder {
    SessionLayer::builder("orders", "gw.shop.example")
        .secret("orders-2025-11", SECRET)
        .clock(|| std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_764_000_005))
}

/// What a handler with a session of these contents sends as `X-Session-Set`.
#[allow(dead_code)]
pub fn sent(session: &str, handler: impl Fn(&http::Request<()>)) -> Option<String> {
    let token = token(&format!(
        r#""sid":"s","rev":"R-1","sub":"42","session":{session}"#
    ));
    let request = http::Request::get("/")
        .header("X-Session", token)
        .body(())
        .unwrap();
    let service = tower::service_fn(|request: http::Request<()>| {
        handler(&request);
        async { Ok::<_, std::convert::Infallible>(http::Response::new(String::new())) }
    });
    let service = tower_layer::Layer::layer(&builder().build().unwrap(), service);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let response = runtime
        .block_on(tower::ServiceExt::oneshot(service, request))
        .unwrap();
    assert_eq!(response.status(), 200);
    let value = response.headers().get("X-Session-Set");
    value.map(|value| value.to_str().unwrap().to_owned())
}
