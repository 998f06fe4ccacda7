//! Django's tables as rows: look up many, change one. No session semantics, no HTTP.
//!
//! A request's future is dropped when its client leaves, so no statement runs in one: all of them run in tasks
//! of the store. Lookups go through the batcher ([`batch`]), which never answers from before the question.
//! Changes ([`change`]) lock the row and are carried to their end whatever becomes of the one who asked.

pub mod backend;
pub mod batch;
mod bounded;
pub mod change;
mod clock;
mod details;
pub mod examine;
mod mysql;
mod postgres;
pub mod shape;
mod sql;
mod sqlite;
mod state;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use tokio::{runtime, task::AbortHandle, time::Instant};

use self::{
    backend::Backend, batch::Batcher, bounded::Bounded, change::Changer, clock::SystemClock,
};
pub use self::{
    backend::{Fault, Found, Proof, Wanted},
    batch::LookupError,
    bounded::Freshness,
    change::{ChangeError, Decision, NewRow, Plan, UnderWay},
    details::UserDetails,
    mysql::MySql,
    postgres::Postgres,
    sqlite::Sqlite,
    state::State,
};
use crate::{
    config::{self, Config, Verify},
    django::UserKey,
    session::SessionKey,
    telemetry::metrics::Metrics,
};

/// A live row of the session table.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// `session_data`.
    pub data: RowData,
    /// `expire_date`.
    pub expire_date: DateTime<Utc>,
}

/// The column `session_data`, as far as it could be taken.
#[derive(Clone, PartialEq, Eq)]
pub enum RowData {
    /// The text.
    Text(Arc<str>),
    /// Larger than `limits.session_data`; the database did not send it.
    TooLarge,
    /// Not text, or with an `expire_date` that Django does not write.
    Malformed,
}

impl SessionRow {
    /// A row that cannot be taken as it is.
    fn malformed() -> Self {
        Self {
            data: RowData::Malformed,
            expire_date: DateTime::UNIX_EPOCH,
        }
    }
}

impl fmt::Debug for SessionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRow")
            .field("expire_date", &self.expire_date)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RowData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowData(redacted)")
    }
}

/// What is read of a user: `django/contrib/auth/base_user.py`, `AbstractBaseUser`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The encoded password column; empty with `verify = "active-only"`, which does not read it.
    pub password: Arc<str>,
    /// Whether the user satisfies `[django.user] where`: by default, `is_active`.
    pub is_active: bool,
}

impl fmt::Debug for UserRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRow")
            .field("is_active", &self.is_active)
            .finish_non_exhaustive()
    }
}

/// A user, as looked up.
#[derive(Clone, Debug)]
pub struct User {
    /// The row.
    pub row: UserRow,
    /// The rest, where it was asked for.
    pub details: Option<UserDetails>,
}

/// What a store needs to know; the same for every database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The session table; checked to be a plain identifier when the configuration was read.
    pub table: String,
    /// The zone of moments in a database that does not hold instants.
    pub time_zone: Tz,
    /// How old an answer may be; zero for none from before its question.
    pub max_staleness: Duration,
    /// How long a lookup or a change may take.
    pub deadline: Duration,
    /// Connections for lookups.
    pub connections: usize,
    /// Connections for changes.
    pub write_connections: usize,
    /// Whether a connection leads to another server with each transaction (PostgreSQL only).
    pub pooled: bool,
    /// Whether answers of standbys and read-only servers count.
    pub accept_replica: bool,
    /// Largest `session_data` in bytes.
    pub session_data: usize,
    /// Most lookups that wait.
    pub lookup_queue: usize,
    /// Most changes of one session that wait.
    pub session_queue: usize,
    /// Which users are looked up, and how; `None` with `verify = "off"`.
    pub users: Option<UserOptions>,
    /// Where the store counts.
    pub metrics: Arc<Metrics>,
    /// Where its changes are counted while they are under way: beside those of the store before it.
    pub under_way: UnderWay,
}

/// How users are looked up. Names were checked to be plain identifiers when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOptions {
    /// The user table.
    pub table: String,
    /// Its primary key.
    pub key: String,
    /// Its password column; `None` where it is not read.
    pub password: Option<String>,
    /// An SQL condition on its row; `None` is `is_active`, where there is such a column.
    pub condition: Option<String>,
    /// The columns that routes ask for.
    pub columns: Vec<String>,
    /// Longer texts in them, in bytes, are not read: no upstream takes a header as long. So many zeros stand for
    /// them, which makes the claims too large.
    pub told_bytes: usize,
    /// The membership table and the group table, where a route asks for groups.
    pub groups: Option<(String, String)>,
}

impl Options {
    /// As configured.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            table: config.django.table.clone(),
            time_zone: config.django.time_zone.unwrap_or(Tz::UTC),
            max_staleness: config.django.max_staleness,
            deadline: config.django.deadline,
            connections: config.django.connections,
            write_connections: config.django.write_connections,
            pooled: config.django.pooled,
            accept_replica: config.django.accept_replica,
            session_data: config.limits.session_data,
            lookup_queue: config.limits.lookup_queue,
            session_queue: config.limits.session_queue,
            users: UserOptions::new(config),
            metrics,
            under_way: UnderWay::default(),
        }
    }

    /// Whether a store with the other ones would do the same.
    fn is_same(&self, other: &Self) -> bool {
        let Self {
            table,
            time_zone,
            max_staleness,
            deadline,
            connections,
            write_connections,
            pooled,
            accept_replica,
            session_data,
            lookup_queue,
            session_queue,
            users,
            metrics: _,
            under_way: _,
        } = other;
        self.table == *table
            && self.time_zone == *time_zone
            && self.max_staleness == *max_staleness
            && self.deadline == *deadline
            && self.connections == *connections
            && self.write_connections == *write_connections
            && self.pooled == *pooled
            && self.accept_replica == *accept_replica
            && self.session_data == *session_data
            && self.lookup_queue == *lookup_queue
            && self.session_queue == *session_queue
            && self.users == *users
    }
}

impl UserOptions {
    fn new(config: &Config) -> Option<Self> {
        let config::User {
            table,
            key,
            password,
            condition,
            groups,
        } = &config.django.user;
        let password = match config.django.verify {
            Verify::Off => return None,
            Verify::ActiveOnly => None,
            Verify::User => Some(password.clone()),
        };
        Some(Self {
            table: table.clone(),
            key: key.clone(),
            password,
            condition: condition.clone(),
            columns: config.user_columns(),
            told_bytes: config
                .upstreams
                .iter()
                .map(|upstream| upstream.max_header_bytes)
                .max()
                .map_or(0, |most| most + 1),
            groups: config.reads_groups().then(|| groups.clone()),
        })
    }
}

/// The database, behind a channel.
pub struct Store {
    engine: Engine,
    state: Arc<State>,
    /// Where answers may be older than their questions.
    bounded: Option<Arc<Bounded>>,
    /// What it was opened with.
    database: config::Database,
    options: Options,
}

enum Engine {
    Postgres(Parts<Postgres>),
    MySql(Parts<MySql>),
    Sqlite(Parts<Sqlite>),
}

struct Parts<B: Backend> {
    batcher: Batcher,
    changer: Arc<Changer<B>>,
    backend: Arc<B>,
    /// Looks for the database while it is away, for as long as the store exists.
    probe: AbortHandle,
}

impl<B: Backend> Drop for Parts<B> {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

/// Why a store could not be opened. All of these are definite: no answer at all is not an error here.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address cannot be understood.
    #[error("{0}")]
    Address(String),
    /// Not inside a Tokio runtime, on which the connections would live.
    #[error("a store must be opened inside a Tokio runtime")]
    NoRuntime,
    /// The database said no.
    #[error("{0}")]
    Refused(String),
}

impl Store {
    /// Prepares a store on the current Tokio runtime, without waiting for the database: see [`Store::first_contact`].
    pub fn open(database: &config::Database, options: Options) -> Result<Self, OpenError> {
        let handle = runtime::Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let state = Arc::new(State::default());
        let bounded = (!options.max_staleness.is_zero()).then(|| {
            let (bound, metrics) = (options.max_staleness, options.metrics.clone());
            Arc::new(Bounded::new(bound, Arc::new(SystemClock), metrics))
        });
        if let Some(bounded) = &bounded {
            handle.spawn(Bounded::sweep(Arc::downgrade(bounded)));
        }
        let engine = match database {
            config::Database::Postgres(url) => {
                let backend = Postgres::new(url, &options).map_err(OpenError::Address)?;
                Engine::Postgres(Parts::start(backend, &options, &state, &bounded, &handle))
            }
            config::Database::MySql(url) => {
                let backend = MySql::new(url, &options).map_err(OpenError::Address)?;
                Engine::MySql(Parts::start(backend, &options, &state, &bounded, &handle))
            }
            config::Database::Sqlite(path) => {
                let backend = Sqlite::new(path, &options);
                // One writer: SQLite has one write lock, and waiting in our own line is fairer than in its.
                let options = Options {
                    write_connections: 1,
                    ..options.clone()
                };
                Engine::Sqlite(Parts::start(backend, &options, &state, &bounded, &handle))
            }
        };
        Ok(Self {
            engine,
            state,
            bounded,
            database: database.clone(),
            options,
        })
    }

    /// Whether it is what [`Store::open`] would make of these.
    pub fn is_of(&self, database: &config::Database, options: &Options) -> bool {
        self.database == *database && self.options.is_same(options)
    }

    /// The changes under way, of this store and of those before it.
    pub fn under_way(&self) -> &UnderWay {
        &self.options.under_way
    }

    /// Tries the database for up to `patience`. A definite no (no such database, no such table, a login that
    /// is refused), three times, is an error; no answer is not: the gateway then serves what it can.
    pub async fn first_contact(&self, patience: Duration) -> Result<(), OpenError> {
        match &self.engine {
            Engine::Postgres(parts) => self.contact(parts.backend.clone(), patience).await,
            Engine::MySql(parts) => self.contact(parts.backend.clone(), patience).await,
            Engine::Sqlite(parts) => self.contact(parts.backend.clone(), patience).await,
        }
    }

    async fn contact<B: Backend>(
        &self,
        backend: Arc<B>,
        patience: Duration,
    ) -> Result<(), OpenError> {
        let state = self.state.clone();
        let task = async move {
            let mut refusals = 0;
            loop {
                let fault = match backend::contact(backend.as_ref(), &state).await {
                    Ok(()) => {
                        state.succeeded();
                        return Ok(());
                    }
                    Err(fault) => fault,
                };
                state.failed(&fault);
                if let Fault::Refused(sentence) = fault {
                    refusals += 1;
                    if refusals == 3 {
                        return Err(OpenError::Refused(sentence));
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        // No answer in time is no error.
        tokio::time::timeout(patience, task).await.unwrap_or(Ok(()))
    }

    /// The live row of a key. `None`: the primary answered, and there is no row that has not expired.
    pub async fn session(
        &self,
        key: SessionKey,
        freshness: Freshness,
        until: Instant,
    ) -> Result<Option<SessionRow>, LookupError> {
        match &self.bounded {
            None => Ok(self.batcher().session(key, until).await?.value),
            Some(bounded) => bounded.session(self.batcher(), key, freshness, until).await,
        }
    }

    /// A user; with `details`, also what routes want to know.
    pub async fn user(
        &self,
        key: UserKey,
        details: bool,
        freshness: Freshness,
        until: Instant,
    ) -> Result<Option<User>, LookupError> {
        let batcher = self.batcher();
        match &self.bounded {
            None => Ok(batcher.user(key, details, until).await?.value),
            Some(bounded) => bounded.user(batcher, key, details, freshness, until).await,
        }
    }

    /// The live row of a key and a user, asked for at once.
    pub async fn both(
        &self,
        key: SessionKey,
        user: UserKey,
        details: bool,
        freshness: Freshness,
        until: Instant,
    ) -> Result<(Option<SessionRow>, Option<User>), LookupError> {
        let batcher = self.batcher();
        match &self.bounded {
            None => {
                let (row, user) = batcher.both(key, user, details, until).await?;
                Ok((row.value, user.value))
            }
            Some(bounded) => {
                let asked = bounded.both(batcher, key, user, details, freshness, until);
                asked.await
            }
        }
    }

    /// The key that a session's `_auth_user_id` names in the user table's key column; `None` for what that
    /// column cannot hold.
    ///
    /// # Errors
    ///
    /// No connection has seen the table yet.
    pub fn user_key(&self, id: &str) -> Result<Option<UserKey>, LookupError> {
        let kind = self.state.key_kind().ok_or(LookupError::Unavailable)?;
        Ok(UserKey::parse(kind, id))
    }

    /// Carries out one plan on the row of `key`, or without a row to start from. The work goes on when the
    /// returned future is dropped; when it has ended, everything is committed or nothing is.
    pub async fn change<P: Plan>(
        &self,
        key: Option<SessionKey>,
        plan: P,
    ) -> Result<P::Answer, ChangeError> {
        match &self.engine {
            Engine::Postgres(parts) => parts.changer.clone().run(key, plan).await,
            Engine::MySql(parts) => parts.changer.clone().run(key, plan).await,
            Engine::Sqlite(parts) => parts.changer.clone().run(key, plan).await,
        }
    }

    /// When a lookup that begins now must have its answer.
    pub fn deadline(&self) -> Instant {
        self.deadline_after(Instant::now())
    }

    /// When a lookup that began then must have its answer.
    pub fn deadline_after(&self, begun: Instant) -> Instant {
        begun + self.options.deadline
    }

    /// Brings the metrics up to date that tell how much there is of something.
    pub fn measure(&self) {
        if let Some(bounded) = &self.bounded {
            bounded.measure();
        }
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.options.metrics;
        metrics
            .changes_under_way
            .set(number(self.under_way().count()));
        metrics
            .lookups_waiting
            .set(number(self.batcher().waiting()));
        metrics.database_away.set(self.state.is_away().into());
    }

    /// Whether the database is believed to be there, and why not.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn batcher(&self) -> &Batcher {
        match &self.engine {
            Engine::Postgres(parts) => &parts.batcher,
            Engine::MySql(parts) => &parts.batcher,
            Engine::Sqlite(parts) => &parts.batcher,
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Parts<B> {
    fn start(
        backend: B,
        options: &Options,
        state: &Arc<State>,
        bounded: &Option<Arc<Bounded>>,
        runtime: &runtime::Handle,
    ) -> Self {
        let backend = Arc::new(backend);
        let clock = bounded.as_ref().map(|bounded| bounded.clock().clone());
        let probe = runtime.spawn(state.clone().probe(backend.clone(), options.deadline));
        Self {
            probe: probe.abort_handle(),
            batcher: Batcher::start(backend.clone(), options, state, clock, runtime),
            changer: Arc::new(Changer::new(
                backend.clone(),
                options,
                state,
                bounded.clone(),
                runtime,
            )),
            backend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_of_a_store_is_left_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let database = config::Database::Sqlite(folder.path().join("site.sqlite3"));
        let options = Options {
            table: "django_session".into(),
            time_zone: Tz::UTC,
            deadline: Duration::from_secs(1),
            connections: 2,
            write_connections: 1,
            pooled: false,
            accept_replica: false,
            max_staleness: Duration::ZERO,
            metrics: Arc::default(),
            under_way: UnderWay::default(),
            session_data: 1024,
            lookup_queue: 16,
            session_queue: 16,
            users: None,
        };
        let store = Store::open(&database, options).unwrap();
        let state = Arc::downgrade(&store.state);
        drop(store);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(state.strong_count(), 0, "a task still holds the state");
    }
}
