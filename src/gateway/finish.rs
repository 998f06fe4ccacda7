//! What leaves of an upstream's response: without what ends at this hop, with the gateway's cookie and word to caches.

use http::{HeaderMap, HeaderValue, Response, header};

use super::{
    cache::{self, Personal},
    fields,
    resolve::Resolution,
    seen::{Name, Seen},
};
use crate::{
    body::Body,
    config::{Config, Route, SessionMode},
    django::cookie,
    reserved,
};

/// What ends at this hop leaves the response; our cookie and the caching rules come in. `seen` is of the response.
pub fn finish(
    config: &Config,
    route: &Route,
    resolution: &Resolution,
    set_cookie: Option<HeaderValue>,
    seen: Seen,
    response: &mut Response<Body>,
) {
    let headers = response.headers_mut();
    // An upstream that nominates one of our names only loses it, as it would anyway.
    fields::strip_hop_by_hop(headers, seen, reserved::in_response);
    if seen.has(Name::Doubtful) {
        fields::scrub(headers, reserved::in_response);
    }
    if seen.has(Name::Trailer) {
        fields::scrub_trailer(headers);
    }
    // Before what caches are told, which must hold whatever the configuration says.
    fields::change(headers, &route.response_headers);
    if route.session == SessionMode::Pass {
        return;
    }
    // The configuration can set cookies too.
    if seen.has(Name::SetCookie) || !route.response_headers.is_empty() {
        drop_session_cookies(&config.django.cookie.name, headers);
    }
    if route.session == SessionMode::Off {
        return;
    }
    let personal = match (&set_cookie, resolution.had_cookie) {
        (Some(_), _) => Personal::SetsCookie,
        (None, true) => Personal::Yes,
        (None, false) => Personal::No,
    };
    if personal == Personal::SetsCookie || !route.upstream_cache {
        cache::protect(headers, personal);
    }
    if let Some(set_cookie) = set_cookie {
        headers.append(header::SET_COOKIE, set_cookie);
    }
}

/// The gateway alone sets the session cookie. A cookie without a name could pass for it in the next request.
fn drop_session_cookies(name: &str, headers: &mut HeaderMap) {
    let foreign = |value: &HeaderValue| cookie::sets_session(name, value.as_bytes());
    if !headers.get_all(header::SET_COOKIE).iter().any(foreign) {
        return;
    }
    let kept: Vec<_> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter(|value| !foreign(value))
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}
