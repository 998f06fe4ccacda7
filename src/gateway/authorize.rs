//! May this caller use this route? The route's `require`, and the cross-site guard.

use http::{HeaderMap, HeaderName, Method, header, request::Parts};

use super::{
    admit::Admitted,
    resolve::{Caller, Resolution},
    respond::{Refusal, prefers_html},
};
use crate::{
    config::{Require, Route, SessionMode},
    error::Code,
    path::{encode_component, safe_next},
    sessions::{CurrentUser, Known},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Longest redirect to a login page: gunicorn takes request lines up to 4094 bytes, and proxies keep an answer's
/// head in 4 KiB.
const MAX_LOCATION: usize = 3800;

/// Why a request goes no further.
#[derive(Debug)]
pub enum Denied {
    /// An error answer.
    Refused(Refusal),
    /// A page load without the login that the route needs: this is where to log in.
    LoginPage(String),
    /// The route is elsewhere now: there.
    Moved(String),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Whether this is a CORS preflight (Fetch standard, "CORS-preflight request"). It carries no cookie, so the
/// question who asks has no meaning for it.
pub fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Decides by what was resolved.
///
/// # Errors
///
/// The answer that the client gets instead.
pub fn authorize(
    route: &Route,
    parts: &Parts,
    admitted: &Admitted,
    trusted_origins: &[String],
    preflight: bool,
    resolution: &Resolution,
) -> Result<(), Denied> {
    if route.session != SessionMode::Read {
        return Ok(());
    }
    if !route.allow_cross_site {
        check_site(parts, admitted, trusted_origins, preflight)?;
    }
    if preflight {
        return Ok(());
    }
    let missing = || Err(needs_login(route, parts, admitted));
    match (&resolution.caller, route.require) {
        // The login page would only send such a visitor back here. Who reads a plain header cannot tell "unreadable"
        // from "nobody".
        (Caller::Unverifiable, require)
            if require != Require::Anyone || !route.plain_headers.is_empty() =>
        {
            Err(Refusal::new(
            Code::SessionUnreadable,
            "Your session cannot be read at the moment. Nothing about it was changed; try again later.",
        )
        .into())
        }
        (_, Require::Anyone) => Ok(()),
        (Caller::Visitor(session), require) => match session.known() {
            Some(_) if require == Require::Session => Ok(()),
            Some((_, Known { user: Some(user), .. })) if may_enter(require, &route.groups, user) => {
                Ok(())
            }
            Some((_, Known { user: Some(_), .. })) => {
                let detail = "You are logged in, but not as somebody who may do this.";
                Err(Refusal::new(Code::NotAllowed, detail).into())
            }
            _ => missing(),
        },
        _ => missing(),
    }
}

/// Whether a logged-in user is whom the route asks for. What was not read counts as no.
fn may_enter(require: Require, groups: &[String], user: &CurrentUser) -> bool {
    let has_column = |name| user.column(name) == Some("true");
    let in_group = || {
        let mut own = groups.iter();
        groups.is_empty() || own.any(|group| user.groups().contains(group))
    };
    require.column().is_none_or(has_column) && in_group()
}

/// Whether a session that is there satisfies `require` and `groups` of a route.
pub fn is_enough(require: Require, groups: &[String], known: &Known) -> bool {
    match (require, &known.user) {
        (Require::Anyone | Require::Session, _) => true,
        (_, Some(user)) => may_enter(require, groups, user),
        (_, None) => false,
    }
}

/// The guard: a request that may change something must come from the site's own pages, or from one of the trusted
/// origins (as Go's `http.CrossOriginProtection`). Also one without a session cookie: across sites `SameSite` keeps the
/// cookie back, and the new session that a service makes then would take the place of the visitor's. A WebSocket
/// handshake is a GET, but what it opens may change anything, and no browser applies CORS to it.
fn check_site(
    parts: &Parts,
    admitted: &Admitted,
    trusted_origins: &[String],
    preflight: bool,
) -> Result<(), Refusal> {
    let safe =
        matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) && !admitted.upgrade;
    if !preflight && safe {
        return Ok(());
    }
    let headers = &parts.headers;
    let origin = single(headers, header::ORIGIN);
    let foreign = || {
        Err(Refusal::new(
            Code::CrossSiteRequest,
            "A page of another site has sent this request. If that site is one of yours, its origin belongs \
             into gateway.trusted_origins.",
        ))
    };
    if origin.is_some_and(|origin| trusted_origins.iter().any(|trusted| trusted == origin)) {
        return Ok(());
    }
    if !preflight && headers.contains_key(SEC_FETCH_SITE) {
        return match single(headers, SEC_FETCH_SITE) {
            Some("same-origin" | "none") => Ok(()),
            _ => foreign(),
        };
    }
    match origin {
        Some(origin) if is_own(origin, admitted) => Ok(()),
        // Present, but not one readable value: not a browser's, and not to be trusted.
        None if !headers.contains_key(header::ORIGIN) => Ok(()),
        _ => foreign(),
    }
}

fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether the origin has the host and port of the request. The scheme is not compared: TLS may end in front
/// of the gateway. A port that one of them leaves out is the default of the origin's scheme.
fn is_own(origin: &str, admitted: &Admitted) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let default = if scheme.eq_ignore_ascii_case("https") {
        "443"
    } else {
        "80"
    };
    let Some(authority) = admitted
        .authority
        .as_ref()
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let (host, port) = split_port(rest);
    let (own_host, own_port) = split_port(authority);
    host.eq_ignore_ascii_case(own_host) && port.unwrap_or(default) == own_port.unwrap_or(default)
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn needs_login(route: &Route, parts: &Parts, admitted: &Admitted) -> Denied {
    let refused = || {
        let what = if route.require == Require::Session {
            "a session"
        } else {
            "a login"
        };
        Refusal::new(Code::LoginRequired, format!("This needs {what}.")).into()
    };
    let Some(login_url) = route.login_url.as_deref().filter(|_| is_page_load(parts)) else {
        return refused();
    };
    let mut next = String::new();
    if login_url.starts_with("https:") {
        let Some(authority) = admitted
            .authority
            .as_ref()
            .and_then(|value| value.to_str().ok())
        else {
            return refused();
        };
        encode_component(&format!("{}://{authority}", admitted.scheme), &mut next);
    }
    next.push_str(&safe_next(&admitted.path, admitted.query.as_deref()));
    let separator = if login_url.contains('?') { '&' } else { '?' };
    let location = format!("{login_url}{separator}next={next}");
    // Part of an address could mean another thing than the whole.
    Denied::LoginPage(match location.len() {
        ..=MAX_LOCATION => location,
        _ => login_url.to_owned(),
    })
}

/// Whether a browser loads a page, so that a redirect makes sense: docs/configuration.md has the table.
fn is_page_load(parts: &Parts) -> bool {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return false;
    }
    let headers = &parts.headers;
    if let Some(mode) = headers.get("sec-fetch-mode") {
        return mode == "navigate";
    }
    // Browsers of before 2023, and programs. A script would put the login page where it wanted a part of a page.
    let is_script = headers.contains_key("hx-request")
        || headers
            .get("x-requested-with")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"xmlhttprequest"));
    !is_script && prefers_html(headers.get_all(header::ACCEPT))
}
