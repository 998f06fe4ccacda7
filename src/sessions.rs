//! Sessions as Django means them: who is this, and carry out this change. On top of the store, below HTTP.

mod plan;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

pub use self::plan::{Change, Changed, Refused, View};
use crate::{
    assertion::{self, Opaque},
    config::{Config, Forward, Protected},
    django::{self, AuthHash, Codec, Lifetime, Settings, Unreadable},
    session::{Session, SessionKey},
    store::{self, LookupError, RowData, SessionRow, Store},
    telemetry::Throttle,
};

/// How often the log says that rows cannot be read.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// One site's sessions.
#[derive(Clone)]
pub struct Sessions(Arc<Site>);

struct Site {
    store: Store,
    settings: Settings,
    codec: Codec,
    auth: AuthHash,
    opaque: Opaque,
    protected: Protected,
    session_write: usize,
    /// By cause, so that one kind of row does not hide another.
    unreadable: [Throttle; 5],
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("store", &self.0.store)
            .finish_non_exhaustive()
    }
}

/// What is known about the owner of a session key. [`LookupError`] is not in here: not knowing is no answer.
#[derive(Debug)]
pub enum Resolved {
    /// The primary answered: there is no live row.
    Missing,
    /// A row is there, but it cannot be verified. Nobody may be told that this is "nobody".
    Unverifiable(Unreadable),
    /// Verified and parsed.
    Known(Box<Known>),
    /// Verified, but its login does not fit the user's password any more. Django would flush it on this
    /// request (`django/contrib/auth/__init__.py`, `get_user`), so this is nobody.
    LoggedOut,
}

/// A session that was verified and parsed.
#[derive(Debug)]
pub struct Known {
    /// Its contents.
    pub session: Session,
    /// When it ends.
    pub expire_date: DateTime<Utc>,
    /// The primary key of the user who is logged in by Django's rules, as text.
    pub user: Option<String>,
}

enum Login {
    Nobody,
    User(String),
    WrongHash,
}

impl Sessions {
    /// Prepares the store of a configured site; does not wait for the database.
    ///
    /// # Errors
    ///
    /// A definite no: an address that cannot be understood.
    pub fn open(config: &Config) -> Result<Self, store::OpenError> {
        let settings = Settings::from(config);
        let store = Store::open(&config.django.database, store::Options::from(config))?;
        Ok(Self(Arc::new(Site {
            codec: Codec::new(&settings),
            auth: AuthHash::new(&settings),
            opaque: Opaque::new(settings.secret_key.expose()),
            protected: config.django.protected.clone(),
            session_write: config.limits.session_write,
            unreadable: Default::default(),
            settings,
            store,
        })))
    }

    /// The database behind.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What was configured of the site.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Makes the ids that an upstream may see of a session.
    pub fn opaque(&self) -> &Opaque {
        &self.0.opaque
    }

    /// Names that `forward = "*"` and `writable = "*"` leave out.
    pub fn protected(&self) -> &Protected {
        &self.0.protected
    }

    /// Whose key is this? From snapshots taken after this call.
    ///
    /// # Errors
    ///
    /// The database did not answer; that must never be taken for [`Resolved::Missing`].
    pub async fn resolve(&self, key: SessionKey) -> Result<Resolved, LookupError> {
        let site = &self.0;
        // One deadline for all the lookups of a request.
        let until = site.store.deadline();
        let mut row = site.store.session(key, until).await?;
        // A password change writes the user, then the session under a new key. Between our two reads both can
        // happen, so a wrong hash counts only when the row is still the one that it was read from.
        for _ in 0..3 {
            let Some(found) = row else {
                return Ok(Resolved::Missing);
            };
            let session = match site.decode(&found) {
                Ok(session) => session,
                Err(unreadable) => return Ok(site.unverifiable(unreadable)),
            };
            let user = match site.login(&session, until).await? {
                Login::Nobody => None,
                Login::User(id) => Some(id),
                Login::WrongHash => {
                    let again = site.store.session(key, until).await?;
                    if again.as_ref() == Some(&found) {
                        return Ok(Resolved::LoggedOut);
                    }
                    row = again;
                    continue;
                }
            };
            return Ok(Resolved::Known(Box::new(Known {
                session,
                expire_date: found.expire_date,
                user,
            })));
        }
        // Three different rows in three looks: somebody rewrites it all the time. Not knowing is no answer.
        Err(LookupError::Unavailable)
    }

    /// Carries out a change; when it returns `Ok`, the change is committed. Goes on when the caller leaves.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why nothing is stored, or that nobody can say.
    pub async fn change(&self, change: Change) -> Result<Changed, Refused> {
        plan::carry_out(self.0.clone(), change).await
    }

    /// The `session` member for an upstream, or why it cannot be had.
    ///
    /// # Errors
    ///
    /// A forwarded value that strict JSON cannot hold.
    pub fn project(
        &self,
        session: &Session,
        forward: &Forward,
    ) -> Result<String, assertion::NotPortable> {
        assertion::project(session, forward, &self.0.protected)
    }
}

impl Site {
    fn decode(&self, row: &SessionRow) -> Result<Session, Unreadable> {
        match &row.data {
            RowData::Text(text) => self.codec.decode(text),
            RowData::TooLarge => Err(Unreadable::TooLarge),
            RowData::Malformed => Err(Unreadable::Malformed),
        }
    }

    fn unverifiable(&self, why: Unreadable) -> Resolved {
        let throttle = match why {
            Unreadable::Signature => &self.unreadable[0],
            Unreadable::Pickle => &self.unreadable[1],
            Unreadable::TooLarge => &self.unreadable[2],
            Unreadable::NotJson => &self.unreadable[3],
            Unreadable::Malformed => &self.unreadable[4],
        };
        if let Some(others) = throttle.pass(SAY_EVERY) {
            tracing::error!(cause = %why, others, "a session row cannot be read");
        }
        Resolved::Unverifiable(why)
    }

    /// Django's `get_user`, as far as it can be said without writing.
    async fn login(&self, session: &Session, until: Instant) -> Result<Login, LookupError> {
        let Some((login, id)) = self.user_of(session) else {
            return Ok(Login::Nobody);
        };
        let Some(user) = self.store.user(id, until).await? else {
            return Ok(Login::Nobody);
        };
        if !user.is_active {
            return Ok(Login::Nobody);
        }
        Ok(match login.hash {
            Some(hash) if self.auth.verify(&user.password, &hash) => Login::User(id.to_string()),
            _ => Login::WrongHash,
        })
    }

    /// The login that a session claims, where the site could have made it.
    fn user_of(&self, session: &Session) -> Option<(django::Login, i64)> {
        let login = django::login(session)?;
        if !self.settings.backends.contains(&login.backend) {
            return None;
        }
        // What the key column cannot hold is no user, and never enters a batch.
        let id = django::integer_key(&login.user_id)?;
        Some((login, id))
    }
}

/// How a browser is told about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The key.
    pub key: SessionKey,
    /// How long to keep it.
    pub lifetime: Lifetime,
    /// The moment from which the lifetime counts.
    pub now: DateTime<Utc>,
}
