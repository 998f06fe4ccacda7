//! Cookie to caller. It never says "nobody" when it does not know.

use http::{HeaderMap, HeaderValue, header};

use super::respond::Refusal;
use crate::{
    config,
    django::cookie,
    error::Code,
    session::SessionKey,
    sessions::{Error, handle::Session},
    telemetry::metrics::Metrics,
};

/// Who calls, as far as it is known.
#[derive(Debug)]
pub enum Caller {
    /// The route does not read sessions.
    NotAsked,
    /// It was read: a session, with or without a login, or nobody.
    Visitor(Session),
    /// A row that cannot be verified.
    Unverifiable,
    /// The database did not answer, and the route goes on all the same (`on_store_error = "forward"`).
    Unavailable,
}

/// What was found in the request.
#[derive(Debug)]
pub struct Resolution {
    /// Who calls.
    pub caller: Caller,
    /// Whether the request bore a session cookie, of whatever value.
    pub had_cookie: bool,
}

impl Resolution {
    /// The key of a session that is there.
    pub fn key(&self) -> Option<&SessionKey> {
        match &self.caller {
            Caller::Visitor(session) => session.known().map(|(key, _)| key),
            _ => None,
        }
    }
}

/// Takes the session cookie out of the request, and asks whose it is where the route wants to know: `open` gives
/// the session of its key, and of its being there.
///
/// # Errors
///
/// 503 where the database does not answer: the upstream is not called then.
pub async fn resolve(
    cookie: &config::Cookie,
    open: impl FnOnce(Option<SessionKey>, bool) -> Session,
    route: &config::Route,
    preflight: bool,
    headers: &mut HeaderMap,
    metrics: &Metrics,
) -> Result<Resolution, Refusal> {
    if route.session == config::SessionMode::Pass {
        return Ok(Resolution {
            caller: Caller::NotAsked,
            had_cookie: false,
        });
    }
    let (key, count) = take_cookie(&cookie.name, headers);
    let had_cookie = count > 0;
    if count > 1 {
        metrics.duplicate_session_cookies.inc();
        tracing::debug!(count, "a request with several session cookies");
        if cookie.refuse_duplicate {
            let detail = "The request has more than one session cookie. Clear this site's cookies and try again.";
            return Err(Refusal::new(Code::AmbiguousCookie, detail));
        }
    }
    if route.session == config::SessionMode::Off {
        return Ok(Resolution {
            caller: Caller::NotAsked,
            had_cookie,
        });
    }
    // A browser sends a preflight without cookies; one with cookies is still nobody's.
    let session = open(key.filter(|_| !preflight), had_cookie);
    let caller = look_up(session, route).await?;
    Ok(Resolution { caller, had_cookie })
}

async fn look_up(mut session: Session, route: &config::Route) -> Result<Caller, Refusal> {
    match session.read(route.reads_user()).await {
        Ok(_) => Ok(Caller::Visitor(session)),
        Err(Error::Unreadable(_)) => Ok(Caller::Unverifiable),
        Err(Error::Overloaded) => Err(Refusal::new(
            Code::Overloaded,
            "Too many requests are waiting. Try again shortly.",
        )),
        // Whatever it is, nobody knows who this is.
        Err(_) if route.forward_on_store_error => Ok(Caller::Unavailable),
        Err(_) => Err(Refusal::new(
            Code::SessionStoreUnavailable,
            "The session database does not answer at the moment. You are still logged in; try again shortly.",
        )),
    }
}

/// The possible key in the session cookie, and how many session cookies there were. The cookie and everything
/// that only looks like it are cut from the field; its neighbours stay as they are.
fn take_cookie(name: &str, headers: &mut HeaderMap) -> (Option<SessionKey>, usize) {
    if !headers.contains_key(header::COOKIE) {
        return (None, 0);
    }
    let found = cookie::find(
        name,
        headers
            .get_all(header::COOKIE)
            .iter()
            .map(HeaderValue::as_bytes),
    );
    let key = found.value.as_deref().and_then(SessionKey::parse);
    let count = found.count;
    let rest = found
        .changed
        .then(|| found.rest.map(|rest| HeaderValue::from_bytes(&rest)));
    match rest {
        None => {}
        Some(Some(Ok(mut rest))) => {
            rest.set_sensitive(true);
            headers.insert(header::COOKIE, rest);
        }
        // Parts of field values are field values, so `Err` does not happen; if it did, less would go on.
        Some(None | Some(Err(_))) => {
            headers.remove(header::COOKIE);
        }
    }
    (key, count)
}
