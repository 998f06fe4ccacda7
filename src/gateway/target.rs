//! Where a request goes on to: its target at the upstream, or another URL.

use http::Uri;

use super::{admit::Admitted, respond::Refusal};
use crate::{
    config::{HTTPS, Redirect, Route},
    error::Code,
    path::EncodedSlashes,
};

/// Where the requests of a route have gone.
pub fn elsewhere(redirect: &Redirect, route: &Route, admitted: &Admitted) -> String {
    let path = &admitted.path;
    let rest = route.prefix.strip(path);
    redirect.location(path.forwarded(), &rest, admitted.query.as_deref())
}

/// The same resource over TLS.
pub fn with_https(port: u16, admitted: &Admitted) -> Result<String, Refusal> {
    let host = match admitted.host.as_str() {
        "" => {
            let detail = "The request was refused: it has no Host field.";
            return Err(Refusal::new(Code::BadRequest, detail));
        }
        host => host,
    };
    let port = match port {
        HTTPS => String::new(),
        port => format!(":{port}"),
    };
    let path = admitted.path.forwarded();
    let mut location = format!("https://{host}{port}{path}");
    if let Some(query) = &admitted.query {
        location.push('?');
        location.push_str(query);
    }
    Ok(location)
}

/// Not every server takes `%2F` for a part of a segment.
pub fn check_slashes(route: &Route, admitted: &Admitted) -> Result<(), Refusal> {
    if !admitted.path.encoded_slash() || route.encoded_slashes == EncodedSlashes::Keep {
        return Ok(());
    }
    let detail = "The request was refused: its path has an encoded slash (%2F).";
    Err(Refusal::new(Code::BadRequest, detail))
}

/// Whether the target for the upstream is the one that came: nothing of it was resolved, taken off or left out.
pub fn is_same(route: &Route, admitted: &Admitted, came: &Uri) -> bool {
    route.strip_prefix.is_none()
        && !admitted.asterisk
        && came.authority().is_none()
        && came.scheme().is_none()
        && came.path() == admitted.path.forwarded()
}

/// The request-target for the upstream: origin form, resolved, without the prefix that the route takes off.
pub fn target(route: &Route, admitted: &Admitted) -> Result<Uri, Refusal> {
    let mut target = match &route.strip_prefix {
        _ if admitted.asterisk => "*".to_owned(),
        Some(prefix) => prefix.strip(&admitted.path),
        None => admitted.path.forwarded().to_owned(),
    };
    if let Some(query) = &admitted.query {
        target.push('?');
        target.push_str(query);
    }
    Uri::try_from(target).map_err(|_| {
        Refusal::new(
            Code::BadRequest,
            "The request was refused: its target is not a URL.",
        )
    })
}
