//! SESSION_SAVE_EVERY_REQUEST: a session that is used lives on. Only its end moves, and only when that is worth a
//! write; nothing is ever created, revived or lost by it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};

use super::{Cookie, Known, Site, plan};
use crate::{
    django::{UserKey, expiry},
    session::SessionKey,
    store::{ChangeError, Decision, Fault, Plan, SessionRow, UserRow},
};

/// How often the log says that sessions are not extended.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Extends a session that was read as `known`, if it is due. Gives the cookie when its end has moved.
pub(super) async fn extend(site: Arc<Site>, key: SessionKey, known: &Known) -> Option<Cookie> {
    let now = Utc::now();
    // By far most requests end here, without a word to the database.
    let end = expiry(&known.session, &site.settings, now).ok()?;
    if !plan::is_due(known.expire_date, end.date, now) {
        return None;
    }
    let extension = Extension {
        site: site.clone(),
        key,
    };
    match site.store.change(Some(key), extension).await {
        Ok(cookie) => cookie,
        // Its cause was logged where it was known.
        Err(ChangeError::NotSaved) => None,
        Err(error) => {
            site.say_not_extended(&error.to_string());
            None
        }
    }
}

struct Extension {
    site: Arc<Site>,
    key: SessionKey,
}

impl Plan for Extension {
    type Answer = Option<Cookie>;

    fn user(&self, _: Option<&SessionRow>) -> Option<UserKey> {
        None
    }

    fn decide(
        &mut self,
        row: Option<&SessionRow>,
        _: Option<&UserRow>,
        now: DateTime<Utc>,
    ) -> (Decision, Option<Cookie>) {
        row.and_then(|row| self.moved(row, now.trunc_subsecs(6)))
            .map_or((Decision::Keep, None), |(decision, cookie)| {
                (decision, Some(cookie))
            })
    }

    fn not_stored(&self, cause: &Fault) {
        self.site.say_not_extended(&cause.to_string());
    }
}

impl Extension {
    /// By the row as it is now: another request may have extended it, or changed how long it lives.
    fn moved(&self, row: &SessionRow, now: DateTime<Utc>) -> Option<(Decision, Cookie)> {
        let session = self.site.decode(row).ok()?;
        let end = expiry(&session, &self.site.settings, now).ok()?;
        let decision = Decision::Update {
            data: None,
            expire_date: end.date,
        };
        let cookie = Cookie {
            key: self.key,
            lifetime: end.lifetime,
            now,
        };
        plan::is_due(row.expire_date, end.date, now).then_some((decision, cookie))
    }
}

impl Site {
    fn say_not_extended(&self, cause: &str) {
        if let Some(others) = self.not_extended.pass(SAY_EVERY) {
            tracing::warn!(cause, others, "a session was not extended");
        }
    }
}
