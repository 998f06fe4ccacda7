//! `/healthz`, `/readyz`, `/metrics` and the public keys. Nothing here is secret, so the address may be open.

use bytes::Bytes;
use chrono::SecondsFormat;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use super::jwks::Jwks;
use crate::{
    gateway::{Current, Gateway, Reloads},
    telemetry::metrics,
};

/// Answers a request on the health address. `draining`: the process is about to end.
pub fn answer<B>(request: &Request<B>, current: &Current, draining: bool) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let gateway = current.load();
    let jwks = Jwks::new(gateway.config()).filter(|jwks| jwks.is_at(path));
    match jwks {
        Some(jwks) => jwks.answer(request.method()),
        None => state(path, current, &gateway, draining),
    }
}

/// `/healthz`: the process runs. `/readyz`: it has spoken to the database once and is not shutting down; a
/// database that goes away later is told in the body only, because all gateways going unready together would
/// be an outage of everything.
fn state(
    path: &str,
    current: &Current,
    gateway: &Gateway,
    draining: bool,
) -> Response<Full<Bytes>> {
    if path == "/metrics" {
        return metrics(gateway);
    }
    let state = gateway.sessions().store().state();
    let database = serde_json::json!({
        "contacted": state.was_contacted(),
        "away": state.is_away(),
        "cause": state.cause(),
    });
    let (status, body) = match path {
        "/healthz" => (StatusCode::OK, serde_json::json!({ "status": "ok" })),
        "/readyz" => {
            let ready = current.was_contacted() && !draining;
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (
                status,
                serde_json::json!({
                    "ready": ready,
                    "draining": draining,
                    "database": database,
                    "config": configuration(current, gateway),
                }),
            )
        }
        _ => (
            StatusCode::NOT_FOUND,
            serde_json::json!({ "detail": "there are /healthz, /readyz and /metrics" }),
        ),
    };
    let mut response = answer_with("application/json", body.to_string());
    *response.status_mut() = status;
    response
}

/// Which configuration is in force. Why another one was refused is for the log: it may name paths.
fn configuration(current: &Current, gateway: &Gateway) -> Value {
    let Reloads { loaded, last } = current.reloads();
    let refused = last.filter(|last| last.refused.is_some());
    serde_json::json!({
        "digest": gateway.config().digest,
        "loaded": loaded.to_rfc3339_opts(SecondsFormat::Secs, true),
        "refused": refused.map(|last| last.at.to_rfc3339_opts(SecondsFormat::Secs, true)),
    })
}

/// `/metrics`: what was counted since the process began.
fn metrics(gateway: &Gateway) -> Response<Full<Bytes>> {
    gateway.sessions().measure();
    answer_with(metrics::MEDIA_TYPE, gateway.metrics().text())
}

fn answer_with(media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
