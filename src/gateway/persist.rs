//! `X-Session-Set` to the session row, and the row's end where the site saves every request: committed before the first byte of the response leaves.

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{
    resolve::{Caller, Resolution},
    respond::Refusal,
};
use crate::{
    config::{Config, Route},
    error::Code,
    patch::Patch,
    reserved,
    sessions::{Refused, Sessions, View},
};

/// What is needed to carry out an upstream's wish.
pub struct Persist<'a> {
    /// Where it is stored.
    pub sessions: &'a Sessions,
    /// Whether anything may be stored at all.
    pub config: &'a Config,
    /// What the route grants.
    pub route: &'a Route,
    /// Who asks.
    pub upstream: &'a str,
}

impl Persist<'_> {
    /// Whether something may be to be stored for a response that does not ask for it.
    pub fn extends(&self) -> bool {
        self.config.django.save_every_request && self.config.writes
    }

    /// Carries out what the response asks for, and what the site asks for. Gives the cookie for the browser, if it has to be told.
    ///
    /// # Errors
    ///
    /// The answer that the client gets instead of the upstream's: it must not see "welcome" when the login
    /// was not stored.
    pub async fn persist(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        resolution: &mut Resolution,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let mut fields = headers.get_all(reserved::X_SESSION_SET).iter();
        let Some(field) = fields.next() else {
            return Ok(self.extend(status, &mut resolution.caller).await);
        };
        // Django saves nothing then either (`SessionMiddleware`).
        if status.is_server_error() {
            tracing::warn!(
                upstream = self.upstream,
                status = status.as_u16(),
                "an X-Session-Set on an error answer is ignored, as Django saves nothing then"
            );
            return Ok(None);
        }
        if fields.next().is_some() {
            return Err(self.bad(status, "it came in two fields"));
        }
        let patch =
            Patch::parse(field.as_bytes()).map_err(|error| self.bad(status, &error.to_string()))?;
        patch
            .permitted(
                &self.route.grants,
                self.sessions.protected(),
                self.sessions.settings().cookie.age,
            )
            .map_err(|error| self.bad(status, &error.to_string()))?;
        if !self.config.writes {
            let detail = "Sessions are not stored at the moment (writes = \"off\").";
            return Err(Refusal::after(Code::SessionNotSaved, detail, status));
        }
        let session = match &mut resolution.caller {
            Caller::Visitor(session) => session,
            Caller::Unverifiable => return Err(refused(Refused::Unreadable, status)),
            // No route grants anything there; the configuration is checked for that.
            Caller::NotAsked | Caller::Unavailable => {
                return Err(self.bad(status, "the session was not read for this request"));
            }
        };
        let view = View {
            audience: self.upstream.to_owned(),
            forward: self.route.forward.clone(),
        };
        session
            .apply(patch, Some(view))
            .await
            .map_err(|why| refused(why, status))?;
        Ok(session.cookie())
    }

    /// SESSION_SAVE_EVERY_REQUEST. A patch extends the session by itself, so this is for responses without one.
    async fn extend(&self, status: StatusCode, caller: &mut Caller) -> Option<HeaderValue> {
        if !self.extends() || status.is_server_error() {
            return None;
        }
        let Caller::Visitor(session) = caller else {
            return None;
        };
        session.extend().await;
        session.cookie()
    }

    fn bad(&self, status: StatusCode, why: &str) -> Refusal {
        tracing::warn!(
            upstream = self.upstream,
            route = self.route.line,
            why,
            "an X-Session-Set was refused"
        );
        let detail = format!(
            "The service {} answered with an X-Session-Set that cannot be carried out: {why} (route at line {} of \
             the gateway's configuration).",
            self.upstream, self.route.line
        );
        Refusal::after(Code::BadSessionSet, detail, status)
    }
}

fn refused(why: Refused, status: StatusCode) -> Refusal {
    let (code, detail) = match why {
        Refused::Gone => (
            Code::SessionGone,
            "Your session ended while this was under way, so nothing was stored in it.",
        ),
        Refused::Changed => (
            Code::SessionChanged,
            "Your session has changed in the meantime. Load the page again.",
        ),
        Refused::Unreadable => (
            Code::SessionUnreadable,
            "Your session cannot be read at the moment. Nothing was stored in it.",
        ),
        Refused::TooLarge => (
            Code::SessionTooLarge,
            "Your session would become too large. Nothing was stored.",
        ),
        Refused::Busy => (
            Code::SessionBusy,
            "Your session is in use elsewhere. Nothing was stored.",
        ),
        Refused::NotSaved => (
            Code::SessionNotSaved,
            "Your session could not be stored. Nothing was changed.",
        ),
        Refused::Unknown => (
            Code::SessionOutcomeUnknown,
            "The database broke off while your session was stored; whether it was is not known.",
        ),
    };
    Refusal::after(code, detail, status)
}
