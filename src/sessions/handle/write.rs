//! A session's way into the database, and what the browser is told of it.

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Session, State};
use crate::{
    django::cookie,
    patch::Patch,
    sessions::{
        Changed, Error, Known, Refused, Site, View,
        plan::{self, Change, Outcome},
    },
};

/// Writing to the database, and telling the browser.
impl Session {
    /// Stores what was changed: each name that this value has set or removed, under the row's lock, the others as
    /// they are there. A session without key gets a random one. `false` if nothing had to be written.
    ///
    /// Afterwards the contents are those of the row, with what others have stored in it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// # let key = site.log_in().await?;
    /// let (mut ours, mut theirs) = (sessions.get(Some(&key)), sessions.get(Some(&key)));
    /// ours.load().await?.insert("cart", ["book"])?;
    /// theirs.load().await?.insert("language", "fr")?;
    ///
    /// assert!(theirs.save().await?);
    /// assert!(ours.save().await?);
    /// assert_eq!(ours.get("language")?, Some("fr".to_owned()));
    /// assert!(!ours.save().await?, "nothing was changed since");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::SessionGone`], [`Error::Busy`], [`Error::TooLarge`], [`Error::NotSaved`]: nothing is stored. With
    /// [`Error::OutcomeUnknown`] nobody can say. What was changed is still here, so that a save can be tried
    /// again.
    pub async fn save(&mut self) -> Result<bool, Error> {
        if self.edits.is_empty() {
            return Ok(false);
        }
        let patch = self.patch();
        Ok(self.save_edits(patch).await? != Changed::Nothing)
    }

    /// Gives the session a new key, and stores what was changed: in one transaction, after which the old key is
    /// worth nothing. Do it where privileges rise. A session that is nobody's and empty stays what it is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// # let old = site.log_in().await?;
    /// let mut session = sessions.get(Some(&old));
    /// session.cycle_key().await?;
    /// assert_ne!(session.key(), Some(old.as_str()));
    ///
    /// let mut with_old_key = sessions.get(Some(&old));
    /// assert!(with_old_key.load().await?.key().is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save) and [`load`](Self::load).
    pub async fn cycle_key(&mut self) -> Result<(), Error> {
        self.load().await?;
        let patch = self.patch().with_cycle();
        self.save_edits(patch).await?;
        Ok(())
    }

    /// Ends the session: the row is deleted, and the visitor is nobody. What is set after it begins a new one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// # let key = site.log_in().await?;
    /// let mut session = sessions.get(Some(&key));
    /// session.flush().await?;
    /// assert!(session.user()?.is_none() && session.key().is_none());
    /// let cookie = session.cookie().ok_or("the deletion cookie")?;
    /// assert!(cookie.to_str()?.starts_with("sessionid=\"\"; expires=Thu, 01 Jan 1970"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save) and [`load`](Self::load), but for [`Error::SessionGone`]: a row that is gone is
    /// what was wanted.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.load().await?;
        self.apply(Patch::of_flush(), None).await?;
        self.edits.clear();
        Ok(())
    }

    /// The `Set-Cookie` value that the response must bear after a change: the key and its lifetime, or the
    /// deletion. `None` where the browser need not be told anything.
    pub fn cookie(&self) -> Option<HeaderValue> {
        let settings = &self.sessions.settings().cookie;
        match self.told {
            Changed::Nothing => None,
            Changed::Saved(told) => Some(cookie::set(settings, &told.key, told.lifetime, told.now)),
            Changed::Deleted => Some(cookie::delete(settings)),
        }
    }

    /// What Django's `SessionMiddleware.process_response` does with a response: saves, unless it is an error of
    /// the server (5xx), and adds `Set-Cookie` and `Vary: Cookie` where they belong. With
    /// SESSION_SAVE_EVERY_REQUEST a session that was read, and is not as good as new, is extended.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// let mut session = sessions.get(None);
    /// session.load().await?.insert("language", "fr")?;
    ///
    /// let mut response = http::Response::new("Bonjour");
    /// session.finish(response.status(), response.headers_mut()).await?;
    /// assert_eq!(response.headers()["vary"], "Cookie");
    /// assert!(response.headers().contains_key("set-cookie"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save). Then the response must not go out: it would say that something was done.
    pub async fn finish(
        &mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) -> Result<(), Error> {
        if !status.is_server_error() && !self.save().await? {
            self.extend_if_every_request_saves().await;
        }
        let cookie = self.cookie();
        if self.accessed() || cookie.is_some() {
            cookie::vary_by_cookie(headers);
        }
        if let Some(cookie) = cookie {
            headers.append(header::SET_COOKIE, cookie);
        }
        Ok(())
    }

    /// Carries out a patch; when it returns `Ok`, the change is committed. Goes on when the caller leaves. What was
    /// changed here before stays as it is, unsaved. `view` is what `"if"` is judged by.
    pub(crate) async fn apply(
        &mut self,
        patch: Patch,
        view: Option<View>,
    ) -> Result<Changed, Refused> {
        let (key, logged_out) = match &self.state {
            // What nobody has looked at is not changed.
            State::Unread(_) => return Err(Refused::Unreadable),
            State::Nobody => (None, false),
            State::LoggedOut(key) => (Some(*key), true),
            State::Known(key, _) => (Some(*key), false),
        };
        let keeps_user = !patch.flush();
        let seen = match &self.state {
            State::Known(key, known) if !patch.flush() && !patch.cycle() => {
                self.site().seen(key, known.expire_date)
            }
            _ => None,
        };
        let change = Change {
            key,
            had_cookie: self.had_cookie,
            logged_out,
            patch,
            view,
            seen,
        };
        let started = Instant::now();
        let outcome = plan::carry_out(self.sessions.0.clone(), change).await;
        let changed = outcome.as_ref().map(|outcome| outcome.changed);
        self.sessions
            .count_change(changed.map_err(|refused| *refused), started.elapsed());
        Ok(self.take(outcome?, keeps_user))
    }

    /// What is in the row now is what was read.
    fn take(&mut self, outcome: Outcome, keeps_user: bool) -> Changed {
        let Outcome { changed, stored } = outcome;
        let (before, user) = match std::mem::replace(&mut self.state, State::Nobody) {
            State::Known(key, known) => (Some(key), known.user.filter(|_| keeps_user)),
            State::LoggedOut(key) => (Some(key), None),
            State::Unread(_) | State::Nobody => (None, None),
        };
        let key = match changed {
            Changed::Saved(cookie) => Some(cookie.key),
            Changed::Deleted => None,
            Changed::Nothing => before,
        };
        if let (Some(key), Some(stored)) = (key, stored) {
            let known = Known {
                session: Arc::new(stored.session),
                expire_date: stored.expire_date,
                user,
                derived: None,
            };
            self.state = State::Known(key, Box::new(known));
        }
        if changed != Changed::Nothing {
            self.told = changed;
        }
        changed
    }

    async fn extend_if_every_request_saves(&mut self) {
        if self.sessions.settings().save_every_request {
            self.extend().await;
        }
    }

    /// Only the row's end has moved.
    pub(in crate::sessions) fn was_extended(&mut self, told: Changed, end: DateTime<Utc>) {
        if let State::Known(_, known) = &mut self.state {
            known.expire_date = end;
        }
        self.told = told;
    }

    pub(in crate::sessions) fn site(&self) -> &Arc<Site> {
        &self.sessions.0
    }

    async fn save_edits(&mut self, patch: Patch) -> Result<Changed, Error> {
        let changed = self.apply(patch, None).await?;
        // Where nothing was stored because there was too little to begin a session with, it is kept for later.
        if !matches!(self.state, State::Nobody) || changed == Changed::Deleted {
            self.edits.clear();
        }
        Ok(changed)
    }

    fn patch(&self) -> Patch {
        Patch::of(self.in_order())
    }
}
