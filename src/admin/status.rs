//! The status page on the admin address: one page for operators, live, without anything from elsewhere.
//!
//! It is for people on this machine. A page of another site can make their browser ask here, so `Host` must be a
//! name of this machine (or a rebound name would read it), nothing may frame it, and nothing is changed by asking.

mod history;
mod live;
mod page;

use std::{net::IpAddr, sync::LazyLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority,
};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};

pub use self::history::{EVERY, History};
use self::live::Live;
use crate::gateway::Current;

/// How the page looks.
const STYLE: &str = include_str!("status/style.css");
/// What keeps it up to date.
const SCRIPT: &str = include_str!("status/live.js");

/// Only this style and this script run, and only this page's own numbers are fetched.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// Answers a request on the admin address. `draining`: the process is about to end.
pub fn answer<B>(
    request: &Request<B>,
    current: &Current,
    history: &History,
    draining: bool,
) -> Response<Full<Bytes>> {
    let mut response = match (request.method(), request.uri().path()) {
        _ if !is_for_this_machine(request) => {
            let why = "This page is asked for by a name of this machine: localhost, 127.0.0.1 or [::1].\n";
            told(
                StatusCode::MISDIRECTED_REQUEST,
                "text/plain; charset=utf-8",
                why,
            )
        }
        (&Method::GET | &Method::HEAD, "/") => {
            let live = page::render(current, history, draining);
            told(StatusCode::OK, "text/html; charset=utf-8", document(&live))
        }
        (&Method::GET | &Method::HEAD, "/status.json") => {
            let live = page::render(current, history, draining);
            told(StatusCode::OK, "application/json", live.json())
        }
        (&Method::GET | &Method::HEAD, _) => told(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "There are / and /status.json.\n",
        ),
        _ => {
            let mut refused = told(
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain; charset=utf-8",
                "Nothing can be changed here.\n",
            );
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(header::ALLOW, allowed);
            refused
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether its one `Host` is localhost or a loopback address.
fn is_for_this_machine<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn told(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The whole page. Without JavaScript it is asked for again every ten seconds.
fn document(live: &Live) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>session-gateway</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n\
         <style>{STYLE}</style>\n</head>\n<body data-shape=\"{}\">\n{}<script>{SCRIPT}</script>\n</body>\n</html>\n",
        live.shape(),
        live.html()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_for_this_machine(hosts: &[&str]) -> bool {
        let mut request = Request::get("/");
        for host in hosts {
            request = request.header("host", *host);
        }
        super::is_for_this_machine(&request.body(()).unwrap())
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:9901",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]:9901",
            "[::1]",
        ] {
            assert!(is_for_this_machine(&[host]), "{host}");
        }
        for host in [
            "",
            "evil.test",
            "evil.test:9901",
            "localhost.evil.test",
            "10.0.0.1",
            "127.0.0.1.evil.test",
            "localhost.",
            "[::2]",
            "0.0.0.0",
            "user@localhost.evil",
        ] {
            assert!(!is_for_this_machine(&[host]), "{host}");
        }
        assert!(!is_for_this_machine(&[]));
        assert!(!is_for_this_machine(&["localhost", "localhost"]));
    }

    #[test]
    fn nothing_in_style_and_script_ends_their_elements() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"));
        for outside in ["http:", "https:", "//", "@import", "url("] {
            assert!(!STYLE.contains(outside), "{outside}");
        }
    }
}
