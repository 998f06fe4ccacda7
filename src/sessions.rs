//! Sessions as Django means them: who is this, and carry out this change. On top of the store, below HTTP.

mod connect;
mod error;
mod extend;
pub mod handle;
mod inspect;
mod memo;
mod plan;
mod told;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::memo::{Derived, Memo};
pub use self::{
    connect::Connect,
    error::Error,
    inspect::{LoginState, Look, UserState},
    plan::{Changed, Refused, View},
    told::Told,
};
use crate::{
    assertion::{self, Opaque},
    config::{Config, Forward, Limits, Protected},
    django::{
        self, Account, AuthHash, Codec, KeyKind, Lifetime, Settings, Standing, Unreadable, UserKey,
        Verify,
    },
    session::{Session, SessionKey},
    store::{self, Freshness, LookupError, RowData, SessionRow, Store, User, UserDetails, UserRow},
    telemetry::{
        Throttle,
        metrics::{self, Cached, Lookup, Metrics},
    },
};

/// How often the log says that rows cannot be read.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// One site's sessions.
#[derive(Clone)]
pub struct Sessions(Arc<Site>);

struct Site {
    store: Arc<Store>,
    settings: Settings,
    codec: Codec,
    memo: Arc<Memo>,
    auth: AuthHash,
    opaque: Opaque,
    /// What `"if"` may bear too: revisions that were told under another key of a rotation.
    earlier: Vec<Opaque>,
    protected: Protected,
    /// The columns of the user table that routes ask for.
    user_columns: Arc<[String]>,
    /// Whether a program wants to know the user's groups.
    reads_groups: bool,
    session_write: usize,
    /// By cause, so that one kind of row does not hide another.
    unreadable: [Throttle; 5],
    not_extended: Throttle,
    metrics: Arc<Metrics>,
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
    pub session: Arc<Session>,
    /// When it ends.
    pub expire_date: DateTime<Utc>,
    /// Who is logged in, by Django's rules.
    pub user: Option<CurrentUser>,
    /// What its row means, where it was read from one.
    derived: Option<Arc<Derived>>,
}

/// The user who is logged in.
#[derive(Clone, Debug)]
pub struct CurrentUser {
    /// The primary key, as text.
    pub id: String,
    /// Columns and groups, where they were asked for.
    details: Option<UserDetails>,
    columns: Arc<[String]>,
}

impl CurrentUser {
    /// The raw JSON of a column; `None` for NULL, and where it was not asked for.
    pub fn column(&self, name: &str) -> Option<&str> {
        let place = self.columns.iter().position(|column| column == name)?;
        self.details.as_ref()?.columns.get(place)?.as_deref()
    }

    /// A column as serde reads it; `None` for NULL, for a value of another type, and where it was not asked for.
    pub fn get<T: DeserializeOwned>(&self, column: &str) -> Option<T> {
        serde_json::from_str(self.column(column)?).ok()
    }

    /// The names of the user's groups, sorted; empty where they were not asked for.
    pub fn groups(&self) -> &[String] {
        self.details
            .as_ref()
            .map_or(&[], |details| details.groups.as_slice())
    }
}

enum Login {
    Nobody,
    User(CurrentUser),
    WrongHash,
}

impl Sessions {
    /// Prepares the store of a configured site, which counts in `metrics`; does not wait for the database.
    ///
    /// # Errors
    ///
    /// A definite no: an address that cannot be understood.
    pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, store::OpenError> {
        let options = store::Options::new(config, metrics.clone());
        let store = Store::open(&config.django.database, options)?;
        let site = Site::new(Settings::from(config), Arc::new(store), metrics);
        Ok(Self::configured(config, site))
    }

    /// The sessions of the same site after a change of the configuration. The store stays where everything that
    /// it depends on is as it was, and so does the memo of what rows mean.
    ///
    /// # Errors
    ///
    /// As [`Sessions::open`].
    pub fn reopen(&self, config: &Config) -> Result<Self, store::OpenError> {
        let Site {
            store,
            memo,
            settings,
            metrics,
            ..
        } = &*self.0;
        let database = &config.django.database;
        let options = store::Options {
            under_way: store.under_way().clone(),
            ..store::Options::new(config, metrics.clone())
        };
        let store = match store.is_of(database, &options) {
            true => store.clone(),
            false => Arc::new(Store::open(database, options)?),
        };
        let mut site = Site::new(Settings::from(config), store, metrics.clone());
        if site.settings == *settings {
            site.memo = memo.clone();
        }
        Ok(Self::configured(config, site))
    }

    /// Whether both ask the database over the same connections.
    pub fn shares_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.store, &other.0.store)
    }

    fn configured(config: &Config, site: Site) -> Self {
        let sid_key = config.gateway.sid_key.as_ref();
        let sid_key = sid_key.unwrap_or(&config.django.secret_key);
        let secret_keys =
            std::iter::once(&config.django.secret_key).chain(&config.django.secret_key_fallbacks);
        Self(Arc::new(Site {
            opaque: Opaque::new(sid_key),
            earlier: secret_keys
                .filter(|key| *key != sid_key)
                .map(Opaque::new)
                .collect(),
            protected: config.django.protected.clone(),
            user_columns: config.user_columns().into(),
            session_write: config.limits.session_write,
            ..site
        }))
    }

    /// The database behind.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Brings the metrics up to date that tell how much there is of something.
    pub fn measure(&self) {
        let Site {
            store,
            memo,
            metrics,
            ..
        } = &*self.0;
        store.measure();
        memo.measure(&metrics.memo);
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

    /// Whose key is this? From snapshots taken after this call, or, with `max_staleness`, at most that much
    /// before it. With `details`, the columns and groups that routes ask for are read with the user.
    ///
    /// # Errors
    ///
    /// The database did not answer; that must never be taken for [`Resolved::Missing`].
    pub async fn resolve(&self, key: SessionKey, details: bool) -> Result<Resolved, LookupError> {
        let started = Instant::now();
        // One deadline for all the lookups of a request.
        let until = self.0.store.deadline_after(started);
        let resolved = self.look_up(key, details, until).await;
        let metrics = &self.0.metrics;
        metrics
            .session_lookup_duration
            .observe_duration(started.elapsed());
        metrics.session_lookups.count(match &resolved {
            Ok(Resolved::Missing) => Lookup::Missing,
            Ok(Resolved::Known(_)) => Lookup::Known,
            Ok(Resolved::LoggedOut) => Lookup::LoggedOut,
            Ok(Resolved::Unverifiable(_)) => Lookup::Unverifiable,
            Err(LookupError::Unavailable) => Lookup::Unavailable,
            Err(LookupError::Overloaded) => Lookup::Overloaded,
        });
        resolved
    }

    async fn look_up(
        &self,
        key: SessionKey,
        details: bool,
        until: Instant,
    ) -> Result<Resolved, LookupError> {
        let site = &self.0;
        let latest = site.memo.latest(&key);
        let latest = latest.as_ref();
        let (mut row, mut guess) = site.first_look(key, latest, details, until).await?;
        // A password change writes the user, then the session under a new key. Between our two reads both can
        // happen, so a wrong hash counts only when the row is still the one that it was read from. That look is
        // never at something older: a session and a user that were read at different times need not fit.
        for _ in 0..3 {
            let Some(found) = row else {
                site.memo.forget(&key);
                return Ok(Resolved::Missing);
            };
            let derived = match site.derive(key, latest, &found) {
                Ok(derived) => derived,
                Err(unreadable) => return Ok(site.unverifiable(unreadable)),
            };
            let user = match site.login(&derived, guess.take(), details, until).await? {
                Login::Nobody => None,
                Login::User(user) => Some(user),
                Login::WrongHash => {
                    let again = site.store.session(key, Freshness::Exact, until);
                    let again = Box::pin(again).await?;
                    if again.as_ref() == Some(&found) {
                        return Ok(Resolved::LoggedOut);
                    }
                    row = again;
                    continue;
                }
            };
            return Ok(Resolved::Known(Box::new(Known {
                session: derived.session.clone(),
                expire_date: found.expire_date,
                user,
                derived: Some(derived),
            })));
        }
        // Three different rows in three looks: somebody rewrites it all the time. Not knowing is no answer.
        Err(LookupError::Unavailable)
    }

    /// Counts what became of a change, and how long it took.
    fn count_change(&self, outcome: Result<Changed, Refused>, took: Duration) {
        let metrics = &self.0.metrics;
        metrics.session_change_duration.observe_duration(took);
        metrics.session_changes.count(match outcome {
            Ok(Changed::Saved(_)) => metrics::Change::Saved,
            Ok(Changed::Deleted) => metrics::Change::Deleted,
            Ok(Changed::Nothing) => metrics::Change::Nothing,
            Err(Refused::Gone) => metrics::Change::Gone,
            Err(Refused::Changed) => metrics::Change::Changed,
            Err(Refused::Unreadable) => metrics::Change::Unreadable,
            Err(Refused::TooLarge) => metrics::Change::TooLarge,
            Err(Refused::Busy) => metrics::Change::Busy,
            Err(Refused::NotSaved) => metrics::Change::NotSaved,
            Err(Refused::Unknown) => metrics::Change::Unknown,
        });
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

/// A user who was looked up before it was known whether the session names him.
struct Guess {
    key: UserKey,
    user: Option<User>,
}

impl Site {
    fn new(settings: Settings, store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self {
            codec: Codec::new(&settings),
            memo: Arc::new(Memo::new()),
            auth: AuthHash::new(&settings),
            opaque: Opaque::new(&settings.secret_key),
            earlier: Vec::new(),
            protected: Protected::default(),
            user_columns: Arc::default(),
            reads_groups: false,
            session_write: Limits::default().session_write,
            unreadable: Default::default(),
            not_extended: Throttle::new(),
            settings,
            store,
            metrics,
        }
    }

    /// Reads the row and, where it is remembered whom the session named last time, that user in the same
    /// batch. Whether the guess was right shows when the row is here.
    async fn first_look(
        &self,
        key: SessionKey,
        latest: Option<&Arc<Derived>>,
        details: bool,
        until: Instant,
    ) -> Result<(Option<SessionRow>, Option<Guess>), LookupError> {
        let user_key = match self.settings.verify {
            Verify::Off => None,
            Verify::User | Verify::ActiveOnly => latest
                .and_then(|derived| self.store.user_key(&derived.login.as_ref()?.user_id).ok()?),
        };
        let Some(user_key) = user_key else {
            let row = self.store.session(key, Freshness::Bounded, until).await?;
            return Ok((row, None));
        };
        let (row, user) = self
            .store
            .both(key, user_key.clone(), details, Freshness::Bounded, until)
            .await?;
        let guess = Guess {
            key: user_key,
            user,
        };
        Ok((row, Some(guess)))
    }

    /// What a row means: remembered, or found out. `latest` was remembered before the row was read; another
    /// request may have met the same row since.
    fn derive(
        &self,
        key: SessionKey,
        latest: Option<&Arc<Derived>>,
        row: &SessionRow,
    ) -> Result<Arc<Derived>, Unreadable> {
        if let RowData::Text(text) = &row.data {
            let before = latest.filter(|derived| derived.is_of(text)).cloned();
            let since = || self.memo.latest(&key).filter(|derived| derived.is_of(text));
            if let Some(derived) = before.or_else(since) {
                self.metrics.memo.lookups.count(Cached::Hit);
                return Ok(derived);
            }
        }
        self.metrics.memo.lookups.count(Cached::Miss);
        let session = self.decode(row)?;
        let login = self.login_of(&session);
        let text = match &row.data {
            RowData::Text(text) => text.clone(),
            RowData::TooLarge | RowData::Malformed => "".into(),
        };
        let derived = Derived::new(text, session, login);
        self.memo.remember(key, derived.clone());
        Ok(derived)
    }

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
    async fn login(
        &self,
        derived: &Derived,
        guess: Option<Guess>,
        details: bool,
        until: Instant,
    ) -> Result<Login, LookupError> {
        let Some(login) = &derived.login else {
            return Ok(Login::Nobody);
        };
        if self.settings.verify == Verify::Off {
            // Longer ones are no keys, and would make a token too large.
            let id = UserKey::parse(KeyKind::Text, &login.user_id);
            let user = id.map(|id| self.current_user(id.to_string(), None));
            return Ok(user.map_or(Login::Nobody, Login::User));
        }
        let Some(key) = self.store.user_key(&login.user_id)? else {
            return Ok(Login::Nobody);
        };
        // A guess only says yes. Its snapshot can be older than the row's, so that the user's new password
        // may not be in it when the session's new hash is: then the user is read after the row, from a
        // snapshot taken after this.
        if let Some(user) = guess
            .filter(|guess| guess.key == key)
            .and_then(|guess| guess.user)
            && self.standing(derived, login, Some(&user.row)) == Standing::LoggedIn
        {
            return Ok(Login::User(
                self.current_user(key.to_string(), user.details),
            ));
        }
        let user = self
            .store
            .user(key.clone(), details, Freshness::Exact, until);
        // Of its own, because it is rare: the future of each request would be larger.
        let user = Box::pin(user).await?;
        let standing = self.standing(derived, login, user.as_ref().map(|user| &user.row));
        Ok(match (standing, user) {
            (Standing::LoggedIn, Some(user)) => {
                Login::User(self.current_user(key.to_string(), user.details))
            }
            (Standing::Flushed, _) => Login::WrongHash,
            (Standing::Anonymous, _) | (Standing::LoggedIn, None) => Login::Nobody,
        })
    }

    fn current_user(&self, id: String, details: Option<UserDetails>) -> CurrentUser {
        CurrentUser {
            id,
            details,
            columns: self.user_columns.clone(),
        }
    }

    /// What Django makes of the login, as it was worked out before for the same hash and password, if it was.
    fn standing(
        &self,
        derived: &Derived,
        login: &django::Login,
        user: Option<&UserRow>,
    ) -> Standing {
        if let Some(user) = user
            && user.is_active
            && derived.fits(&user.password)
        {
            return Standing::LoggedIn;
        }
        let standing = self.judge(login, user);
        if let Some(user) = user
            && standing == Standing::LoggedIn
        {
            derived.remember_fit(&user.password);
        }
        standing
    }

    fn judge(&self, login: &django::Login, user: Option<&UserRow>) -> Standing {
        let account = user.map(|user| Account {
            password: &user.password,
            is_active: user.is_active,
        });
        login.standing(&self.settings, &self.auth, account)
    }

    /// The login that a session claims, where one of the site's backends could have made it.
    fn login_of(&self, session: &Session) -> Option<django::Login> {
        let login = django::login(session)?;
        self.settings
            .backends
            .contains(&login.backend)
            .then_some(login)
    }

    /// The user whom a session names, if the key column can hold the id. What it cannot hold never enters a
    /// batch.
    fn user_of(&self, session: &Session) -> Option<(django::Login, UserKey)> {
        let login = self.login_of(session)?;
        let key = self.store.user_key(&login.user_id).ok()??;
        Some((login, key))
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
