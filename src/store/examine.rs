//! What a database tells of itself when something is wrong: asked by commands, never on a request's way.
//!
//! Each question has a connection of its own and is bounded in time, so that one that fails takes no other with
//! it. Nothing here writes. A new backend implements `Examine`, and its arm in [`examine`].

use std::{future::Future, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::timeout;

use super::{
    Backend, Engine, Fault, MySql, Options, Postgres, Proof, SessionRow, Sqlite, Store, Wanted,
    backend::connect,
    shape::{Column, Shape},
    sql::Sql,
};
use crate::{config, session::SessionKey};

/// Most live rows that are looked at.
pub const SAMPLE: usize = 200;

/// What the backends call a pooler in what they say of it.
pub(super) const POOLER: &str = "connection pooler";

/// Most time for one question, the connection included.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found out. A question that was not answered has its fault in its place.
#[derive(Debug)]
pub struct Examination {
    /// The server.
    pub server: Server,
    /// The session table alone.
    pub sessions: Result<Shape, Fault>,
    /// All tables that are read. Where [`Examination::sessions`] is good, a fault is about the others.
    pub tables: Result<Shape, Fault>,
    /// The indexes of the session table.
    pub indexes: Result<Vec<Index>, Fault>,
    /// Some of the live rows: those that end last and those that end next.
    pub rows: Result<Vec<Sampled>, Fault>,
    /// Where there is no live row: what else the tables show.
    pub traces: Option<Traces>,
    /// Whether the role may write what a change writes; not asked for where no route may change anything.
    pub writing: Option<Result<(), Fault>>,
}

/// What a server says of itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// Product, version and place, such as `PostgreSQL 15.8 at 127.0.0.1:5432`. No login, no password.
    pub product: String,
    /// Why its answers are thrown away.
    pub read_only: Option<ReadOnly>,
    /// Its clock; `None` where it has none of its own.
    pub clock: Option<Clock>,
    /// Whether a pooler gives statements of one connection to different ones of the server's.
    pub is_shared: bool,
}

/// Why a server is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// It follows another one.
    Standby,
    /// This setting of it, of the database or of the role makes it so.
    Setting(&'static str),
}

/// A server's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How far it is ahead of this machine's.
    pub ahead: TimeDelta,
    /// The most that this may be wrong by: half the time of the question.
    pub margin: TimeDelta,
}

/// An index of the session table that covers all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its first column.
    pub column: String,
    /// Whether that column is its only one and no value is there twice.
    pub unique: bool,
}

/// A live row, without its key.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Whether the key is one that is looked up: 32 of `a-z0-9`.
    pub usable_key: bool,
    /// The row.
    pub row: SessionRow,
}

/// What is in the tables where no session is live.
#[derive(Clone, Copy, Debug)]
pub struct Traces {
    /// When the last session has ended; `None` for an empty table.
    pub last_end: Option<DateTime<Utc>>,
    /// When a user has logged in last, where the user table says so (`last_login`).
    pub last_login: Option<DateTime<Utc>>,
}

/// A database that can be asked about itself.
pub(super) trait Examine: Backend {
    /// A connection that opens whatever the tables look like.
    type Bare;

    /// Opens one.
    fn bare(&self) -> impl Future<Output = Result<Self::Bare, Fault>>;

    /// Asks the server about itself, over connections of its own.
    fn server(&self) -> impl Future<Output = Result<Server, Fault>>;

    /// The columns of the tables that are read, in the order of [`super::shape::tables`].
    fn columns(
        &self,
        bare: &mut Self::Bare,
    ) -> impl Future<Output = Result<Vec<Vec<Column>>, Fault>>;

    /// The indexes of the session table that cover all rows.
    fn indexes(&self, bare: &mut Self::Bare) -> impl Future<Output = Result<Vec<Index>, Fault>>;

    /// At most [`SAMPLE`] live rows; without `ordered`, which takes an index on `expire_date`, any of them.
    fn sample(
        &self,
        bare: &mut Self::Bare,
        now: DateTime<Utc>,
        ordered: bool,
    ) -> impl Future<Output = Result<Vec<Sampled>, Fault>>;

    /// What the tables show besides; `last_login`: whether the user table has that column.
    fn traces(
        &self,
        bare: &mut Self::Bare,
        last_login: bool,
    ) -> impl Future<Output = Result<Traces, Fault>>;

    /// Whether a change could be written. A definite no is [`Fault::Refused`], with the sentence.
    fn writing(&self, bare: &mut Self::Bare) -> impl Future<Output = Result<(), Fault>>;
}

/// Examines a database. `writing`: also whether changes could be written.
///
/// # Errors
///
/// The address cannot be understood, or nobody answers there.
pub async fn examine(
    database: &config::Database,
    options: &Options,
    writing: bool,
) -> Result<Examination, Fault> {
    match database {
        config::Database::Postgres(url) => {
            let backend = Postgres::new(url, options).map_err(Fault::Refused)?;
            examine_by(&backend, options, writing).await
        }
        config::Database::MySql(url) => {
            let backend = MySql::new(url, options).map_err(Fault::Refused)?;
            examine_by(&backend, options, writing).await
        }
        config::Database::Sqlite(path) => {
            examine_by(&Sqlite::new(path, options), options, writing).await
        }
    }
}

/// Whether it is a pooler, and not the server, that keeps the gateway out.
pub fn tells_of_pooler(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused(sentence) if sentence.contains(POOLER))
}

async fn examine_by<B: Examine>(
    backend: &B,
    options: &Options,
    writing: bool,
) -> Result<Examination, Fault> {
    let server = in_time(backend.server()).await?;
    let columns = ask(backend, async |bare| backend.columns(bare).await).await;
    let sessions = shape_of_sessions(options, &columns);
    let has_sessions = sessions.is_ok();
    let indexes = match has_sessions {
        true => ask(backend, async |bare| backend.indexes(bare).await).await,
        false => Ok(Vec::new()),
    };
    let by_date = |index: &Index| index.column == "expire_date";
    let ordered = indexes
        .as_ref()
        .is_ok_and(|indexes| indexes.iter().any(by_date));
    let rows = match has_sessions {
        true => {
            let sample = async |bare: &mut B::Bare| backend.sample(bare, Utc::now(), ordered).await;
            ask(backend, sample).await
        }
        false => Ok(Vec::new()),
    };
    let is_empty = rows.as_ref().is_ok_and(Vec::is_empty);
    let last_login = columns
        .as_ref()
        .is_ok_and(|columns| has_last_login(options, columns));
    let traces = match has_sessions && is_empty {
        true => {
            let traces = async |bare: &mut B::Bare| backend.traces(bare, last_login).await;
            ask(backend, traces).await.ok()
        }
        false => None,
    };
    let writing = match has_sessions && writing {
        true => Some(ask(backend, async |bare| backend.writing(bare).await).await),
        false => None,
    };
    Ok(Examination {
        server,
        sessions,
        tables: columns.and_then(|columns| Shape::new(options, &columns)),
        indexes,
        rows,
        traces,
        writing,
    })
}

/// One question, on a connection that nobody uses before or after.
async fn ask<B: Examine, T>(
    backend: &B,
    question: impl AsyncFnOnce(&mut B::Bare) -> Result<T, Fault>,
) -> Result<T, Fault> {
    in_time(async {
        let mut bare = backend.bare().await?;
        question(&mut bare).await
    })
    .await
}

async fn in_time<T>(question: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let answered = timeout(PATIENCE, question).await;
    answered.unwrap_or(Err(Fault::Timeout))
}

fn shape_of_sessions(
    options: &Options,
    columns: &Result<Vec<Vec<Column>>, Fault>,
) -> Result<Shape, Fault> {
    let alone = Options {
        users: None,
        ..options.clone()
    };
    match columns {
        Ok(columns) => Shape::new(&alone, columns),
        Err(fault) => Err(Fault::Refused(fault.to_string())),
    }
}

fn has_last_login(options: &Options, columns: &[Vec<Column>]) -> bool {
    let users = columns.get(1).filter(|_| options.users.is_some());
    users.is_some_and(|columns| columns.iter().any(|column| column.name == "last_login"))
}

/// The statement of [`Examine::sample`]: half of the rows are those that end last, half those that end next.
/// `columns` are named usable, data and date; `live` is the condition.
pub(super) fn sample_sql(table: &str, columns: &str, live: &str, ordered: bool) -> Sql {
    let some = |order: &str, most: usize| {
        format!("SELECT session_key, {columns} FROM {table} WHERE {live} {order} LIMIT {most}")
    };
    let rows = match ordered {
        true => {
            let last = some("ORDER BY expire_date DESC", SAMPLE / 2);
            let next = some("ORDER BY expire_date", SAMPLE / 2);
            // A row that is in both is in here once.
            format!("SELECT * FROM ({last}) AS ends_last UNION SELECT * FROM ({next}) AS ends_next")
        }
        false => some("", SAMPLE),
    };
    Sql::new(format!("SELECT usable, data, date FROM ({rows}) AS sample"))
}

/// The statement of [`Examine::traces`]: two moments, each told as `told` says.
pub(super) fn traces_sql(table: &str, users: Option<&str>, told: impl Fn(&str) -> String) -> Sql {
    let end = told("max(expire_date)");
    let login = users.map_or_else(
        || "NULL".to_owned(),
        |users| format!("(SELECT {} FROM {users})", told("max(last_login)")),
    );
    Sql::new(format!("SELECT (SELECT {end} FROM {table}), {login}"))
}

impl Store {
    /// The row of a key, also where it has expired. Asks over a connection of its own.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn even_expired(&self, key: SessionKey) -> Result<Option<SessionRow>, Fault> {
        match &self.engine {
            Engine::Postgres(parts) => self.even_expired_by(parts.backend.as_ref(), key).await,
            Engine::MySql(parts) => self.even_expired_by(parts.backend.as_ref(), key).await,
            Engine::Sqlite(parts) => self.even_expired_by(parts.backend.as_ref(), key).await,
        }
    }

    async fn even_expired_by<B: Backend>(
        &self,
        backend: &B,
        key: SessionKey,
    ) -> Result<Option<SessionRow>, Fault> {
        in_time(async {
            let mut connection = connect(backend, &self.state).await?;
            let wanted = Wanted {
                sessions: vec![key],
                ..Wanted::default()
            };
            let long_ago = DateTime::UNIX_EPOCH;
            let (found, proof) = backend.lookup(&mut connection, &wanted, long_ago).await?;
            if proof == Proof::ReadOnly {
                return Err(Fault::ReadOnly);
            }
            let mut rows = found.sessions.into_iter();
            Ok(rows.find(|(other, _)| *other == key).map(|(_, row)| row))
        })
        .await
    }
}
