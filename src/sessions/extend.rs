//! SESSION_SAVE_EVERY_REQUEST: a session that is used lives on. Only its end moves, and only when that is worth a
//! write; nothing is ever created, revived or lost by it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};

use super::{Changed, Cookie, Site, handle::Session, plan};
use crate::{
    django::{UserKey, expiry},
    session::SessionKey,
    store::{ChangeError, Decision, Fault, Plan, SessionRow, UserRow},
    telemetry::metrics,
};

/// How often the log says that sessions are not extended.
const SAY_EVERY: Duration = Duration::from_secs(60);

impl Session {
    /// Moves the end of a session that is in use, as SESSION_SAVE_EVERY_REQUEST does, where that is worth a write.
    ///
    /// It has no error: a session that is not extended has lost nothing, and one that has gone stays gone.
    pub(crate) async fn extend(&mut self) {
        let Some((key, known)) = self.known() else {
            return;
        };
        let (site, now) = (self.site(), Utc::now());
        // By far most requests end here, without a word to the database.
        match expiry(&known.session, &site.settings, now) {
            Ok(end) if plan::is_due(known.expire_date, end.date, now) => {}
            _ => return,
        }
        let extension = Extension {
            site: site.clone(),
            key: *key,
            seen: site.seen(key, known.expire_date),
        };
        let extended = site.store.change(Some(*key), extension).await;
        site.metrics.session_extensions.count(match &extended {
            Ok(Some(_)) => metrics::Extension::Moved,
            Ok(None) => metrics::Extension::Kept,
            Err(_) => metrics::Extension::Failed,
        });
        match extended {
            Ok(Some((cookie, end))) => self.was_extended(Changed::Saved(cookie), end),
            // Its cause was logged where it was known.
            Ok(None) | Err(ChangeError::NotSaved) => {}
            Err(error) => site.say_not_extended(&error.to_string()),
        }
    }
}

struct Extension {
    site: Arc<Site>,
    key: SessionKey,
    seen: Option<SessionRow>,
}

impl Plan for Extension {
    /// The cookie and the new end, where it has moved.
    type Answer = Option<(Cookie, DateTime<Utc>)>;

    fn seen(&self) -> Option<SessionRow> {
        self.seen.clone()
    }

    fn user(&self, _: Option<&SessionRow>) -> Option<UserKey> {
        None
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        _: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> (Decision, Self::Answer) {
        row.and_then(|row| self.moved(row, now.trunc_subsecs(6)))
            .map_or((Decision::Keep, None), |(decision, cookie, end)| {
                (decision, Some((cookie, end)))
            })
    }

    fn not_stored(&self, cause: &Fault) {
        self.site.say_not_extended(&cause.to_string());
    }
}

impl Extension {
    /// By the row as it is now: another request may have extended it, or changed how long it lives.
    fn moved(
        &self,
        row: &SessionRow,
        now: DateTime<Utc>,
    ) -> Option<(Decision, Cookie, DateTime<Utc>)> {
        let session = self.site.decode(row).ok()?;
        let end = expiry(&session, &self.site.settings, now).ok()?;
        if !plan::is_due(row.expire_date, end.date, now) {
            return None;
        }
        let decision = Decision::Update {
            data: self.site.under_the_first_key(row, &session, now),
            expire_date: end.date,
        };
        let cookie = Cookie {
            key: self.key,
            lifetime: end.lifetime,
            now,
        };
        Some((decision, cookie, end.date))
    }
}

impl Site {
    fn say_not_extended(&self, cause: &str) {
        if let Some(others) = self.not_extended.pass(SAY_EVERY) {
            tracing::warn!(cause, others, "a session was not extended");
        }
    }
}
