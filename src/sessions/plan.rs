//! A change of a session, decided under the row's lock by Django's rules.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::{Cookie, Site, memo::Derived};
use crate::{
    assertion::{self, Opaque},
    config::Forward,
    django::{Expiry, Standing, Unreadable, UserKey, expiry},
    patch::Patch,
    session::{Session, SessionKey},
    store::{ChangeError, Decision, NewRow, Plan, RowData, SessionRow, UserRow},
};

/// Most time that an extension may lag behind, so that not every request writes.
const TOUCH_MOST: TimeDelta = TimeDelta::seconds(60);

/// What is asked for, and what the asker knew before.
pub(super) struct Change {
    /// The key of the session that the request came with; `None` where there was no live row.
    pub(super) key: Option<SessionKey>,
    /// Whether the request bore a session cookie at all.
    pub(super) had_cookie: bool,
    /// Whether the asker was told "nobody" because the login did not fit the password any more.
    pub(super) logged_out: bool,
    /// What to do.
    pub(super) patch: Patch,
    /// What an upstream sees of a session, for `"if"`.
    pub(super) view: Option<View>,
    /// The row as the asker has seen it, where the change only gives it new contents.
    pub(super) seen: Option<SessionRow>,
}

/// An upstream's view of a session.
#[derive(Clone, Debug)]
pub struct View {
    /// The upstream's name.
    pub audience: String,
    /// Its route's projection.
    pub forward: Forward,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing had to be written, and the browser need not be told anything.
    Nothing,
    /// Stored: the browser gets this cookie.
    Saved(Cookie),
    /// The session is gone: the browser's cookie is deleted.
    Deleted,
}

/// The same, and what the row holds now.
pub(super) struct Outcome {
    pub(super) changed: Changed,
    /// `None` where there is no row.
    pub(super) stored: Option<Stored>,
}

/// A row as it was committed.
pub(super) struct Stored {
    pub(super) session: Session,
    pub(super) expire_date: DateTime<Utc>,
}

impl From<Changed> for Outcome {
    fn from(changed: Changed) -> Self {
        Self {
            changed,
            stored: None,
        }
    }
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The row has gone since the request was resolved.
    #[error("the session was deleted while the upstream worked")]
    Gone,
    /// `"if"` names another revision, or there is none.
    #[error("the session is not the one that \"if\" names")]
    Changed,
    /// The row cannot be verified.
    #[error("the session's row cannot be verified")]
    Unreadable,
    /// Over `limits.session_write` or 256 keys.
    #[error("the session would grow over its limit")]
    TooLarge,
    /// Somebody else holds the row.
    #[error("the session is busy")]
    Busy,
    /// Nothing is stored.
    #[error("the session was not saved")]
    NotSaved,
    /// Nobody can say.
    #[error("nobody can say whether the session was saved")]
    Unknown,
}

impl Outcome {
    fn saved(key: SessionKey, session: Session, end: Expiry, now: DateTime<Utc>) -> Self {
        let cookie = Cookie {
            key,
            lifetime: end.lifetime,
            now,
        };
        let stored = Stored {
            session,
            expire_date: end.date,
        };
        Self {
            changed: Changed::Saved(cookie),
            stored: Some(stored),
        }
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Busy => Self::Busy,
            ChangeError::NotSaved => Self::NotSaved,
            ChangeError::Unknown => Self::Unknown,
        }
    }
}

/// Whether to move the end of a session is worth a write: not where it would move by less than a minute, or by
/// less than a tenth of the session's life. The row alone tells, so there is nothing to remember between requests.
pub(super) fn is_due(stored: DateTime<Utc>, end: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    end - stored > TOUCH_MOST.min((end - now) / 10)
}

/// Carries out a change.
pub(super) async fn carry_out(site: Arc<Site>, change: Change) -> Result<Outcome, Refused> {
    // Who was told "nobody" was told no revision that could still hold.
    if change.logged_out && change.patch.condition().is_some() {
        return Err(Refused::Changed);
    }
    // What changes nothing takes no connection.
    if change.key.is_none() && !change.creates() {
        return change.without_session().map(Outcome::from);
    }
    let key = change.key;
    let plan = SessionPlan {
        site: site.clone(),
        change,
    };
    site.store.change(key, plan).await?
}

impl Change {
    fn creates(&self) -> bool {
        self.patch.has_set() && self.patch.condition().is_none()
    }

    /// The answer where there was no session, and none is created.
    fn without_session(&self) -> Result<Changed, Refused> {
        if self.patch.condition().is_some() {
            return Err(Refused::Changed);
        }
        Ok(if self.patch.flush() && self.had_cookie {
            Changed::Deleted
        } else {
            Changed::Nothing
        })
    }
}

impl Site {
    /// The row of a session as it was last read here, with the end that the asker was told.
    pub(super) fn seen(&self, key: &SessionKey, expire_date: DateTime<Utc>) -> Option<SessionRow> {
        let text = self.memo.latest(key)?.text().clone();
        let data = RowData::Text(text);
        Some(SessionRow { data, expire_date })
    }

    /// What a row means: a copy of what is remembered, or found out.
    fn contents(&self, key: &SessionKey, row: &SessionRow) -> Result<Session, Unreadable> {
        if let RowData::Text(text) = &row.data
            && let Some(derived) = self.memo.latest(key)
            && derived.is_of(text)
        {
            return Ok((*derived.session).clone());
        }
        self.decode(row)
    }

    /// The text of a row, which is remembered: whoever reads it next knows what it means.
    fn seal(&self, key: SessionKey, session: &Session, now: DateTime<Utc>) -> String {
        let text = self.codec.encode(session, now);
        // Parsed as whoever reads it would.
        if let Ok(parsed) = Session::parse(session.to_json().into_bytes()) {
            let login = self.login_of(&parsed);
            let derived = Derived::new(text.as_str().into(), parsed, login);
            if let Some(earlier) = self.memo.latest(&key) {
                derived.succeed(&earlier);
            }
            self.memo.remember(key, derived);
        }
        text
    }

    /// The row's data signed anew, if a fallback has signed it: a row that is only ever extended would outlive the
    /// rotation of its key. `None` leaves the bytes as they are.
    pub(super) fn under_the_first_key(
        &self,
        row: &SessionRow,
        session: &Session,
        now: DateTime<Utc>,
    ) -> Option<String> {
        let RowData::Text(text) = &row.data else {
            return None;
        };
        (!self.codec.is_current(text)).then(|| self.codec.encode(session, now))
    }
}

struct SessionPlan {
    site: Arc<Site>,
    change: Change,
}

type Answer = Result<Outcome, Refused>;

impl Plan for SessionPlan {
    type Answer = Answer;

    fn seen(&self) -> Option<SessionRow> {
        self.change.seen.clone()
    }

    fn user(&self, row: Option<&SessionRow>) -> Option<UserKey> {
        if !self.change.logged_out {
            return None;
        }
        let session = self.site.decode(row?).ok()?;
        self.site.user_of(&session).map(|(_, key)| key)
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        user: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> (Decision, Answer) {
        // What the columns can hold, so that a row read back equals the one written.
        let now = now.trunc_subsecs(6);
        let decided = match (row, self.change.key) {
            (Some(row), Some(key)) => self.with_row(key, row, user, now),
            (None, Some(_)) => self.row_is_gone(now),
            (_, None) => self.create(now),
        };
        decided.map_or_else(
            |refused| (Decision::Keep, Err(refused)),
            |(decision, outcome)| (decision, Ok(outcome)),
        )
    }
}

impl SessionPlan {
    fn with_row(
        &self,
        key: SessionKey,
        row: &SessionRow,
        user: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> Result<(Decision, Outcome), Refused> {
        let patch = &self.change.patch;
        let mut session = self
            .site
            .contents(&key, row)
            .map_err(|_| Refused::Unreadable)?;
        if self.change.logged_out && !self.fits(&session, user) {
            // Django flushes such a session when it meets it; what the upstream stores starts afresh.
            return self.start_afresh(now);
        }
        if let Some(condition) = patch.condition()
            && !self.is_revision(condition, &key, &session)
        {
            return Err(Refused::Changed);
        }
        if patch.flush() {
            return self.start_afresh(now);
        }
        let changed = patch.apply(&mut session);
        if changed {
            self.check_size(&session)?;
        }
        let end = self.end(&session, now)?;
        if patch.cycle() {
            return self.store_new(session, end, now);
        }
        if !changed && !is_due(row.expire_date, end.date, now) {
            let stored = Some(Stored {
                session,
                expire_date: row.expire_date,
            });
            let changed = Changed::Nothing;
            return Ok((Decision::Keep, Outcome { changed, stored }));
        }
        let data = match changed {
            true => Some(self.site.seal(key, &session, now)),
            false => self.site.under_the_first_key(row, &session, now),
        };
        let decision = Decision::Update {
            data,
            expire_date: end.date,
        };
        Ok((decision, Outcome::saved(key, session, end, now)))
    }

    /// Deletes the row; what the change sets begins a session of its own.
    fn start_afresh(&self, now: DateTime<Utc>) -> Result<(Decision, Outcome), Refused> {
        if self.change.patch.has_set() {
            return self.create(now);
        }
        Ok((Decision::Delete, Changed::Deleted.into()))
    }

    /// Gone since the request was resolved. Never written again: that would bring back who has logged out.
    fn row_is_gone(&self, now: DateTime<Utc>) -> Result<(Decision, Outcome), Refused> {
        let patch = &self.change.patch;
        if patch.condition().is_some() || !(patch.flush() || self.change.logged_out) {
            return Err(Refused::Gone);
        }
        self.start_afresh(now)
    }

    fn create(&self, now: DateTime<Utc>) -> Result<(Decision, Outcome), Refused> {
        let mut session = Session::empty();
        self.change.patch.apply(&mut session);
        self.check_size(&session)?;
        let end = self.end(&session, now)?;
        self.store_new(session, end, now)
    }

    fn store_new(
        &self,
        session: Session,
        end: Expiry,
        now: DateTime<Utc>,
    ) -> Result<(Decision, Outcome), Refused> {
        // Never a key that a client offered: a fresh one from the system's random numbers.
        let key = SessionKey::random().map_err(|error| {
            tracing::error!(%error, "the operating system gave no random numbers");
            Refused::NotSaved
        })?;
        let new = NewRow {
            key,
            data: self.site.codec.encode(&session, now),
            expire_date: end.date,
        };
        Ok((
            Decision::Replace(new),
            Outcome::saved(key, session, end, now),
        ))
    }

    fn check_size(&self, session: &Session) -> Result<(), Refused> {
        crate::patch::limits(session, self.site.session_write).map_err(|_| Refused::TooLarge)
    }

    fn end(&self, session: &Session, now: DateTime<Utc>) -> Result<Expiry, Refused> {
        expiry(session, &self.site.settings, now).map_err(|error| {
            tracing::error!(cause = %error, "a session cannot be saved, by Django neither");
            Refused::Unreadable
        })
    }

    /// Whether `"if"` names what the upstream would see of this session now. While SECRET_KEY is rotated, it may
    /// have been told so by a gateway that has the keys in another order.
    fn is_revision(&self, condition: &str, key: &SessionKey, session: &Session) -> bool {
        let Some(View { audience, forward }) = &self.change.view else {
            return false;
        };
        let Ok(member) = assertion::project(session, forward, &self.site.protected) else {
            return false;
        };
        let revision = |opaque: &Opaque| opaque.rev(audience, &opaque.sid(audience, key), &member);
        let mut opaques = std::iter::once(&self.site.opaque).chain(&self.site.earlier);
        opaques.any(|opaque| revision(opaque) == condition)
    }

    /// Whether the session's login fits the user, read again under the lock.
    fn fits(&self, session: &Session, user: Option<&UserRow>) -> bool {
        let Some((login, _)) = self.site.user_of(session) else {
            return true;
        };
        self.site.judge(&login, user) != Standing::Flushed
    }
}

#[cfg(test)]
mod tests;
