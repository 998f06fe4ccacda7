//! What a database must be able to do. PostgreSQL and SQLite implement it; tests implement it with fakes.

use std::{future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};

use super::{
    SessionRow, State, UserDetails, UserRow,
    change::{NewRow, Swap},
    shape::Shape,
};
use crate::{django::UserKey, session::SessionKey};

/// A connection is replaced after this time, so that a changed address or role is noticed.
pub(super) const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// What one lookup asks for, each key once.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Live sessions.
    pub sessions: Vec<SessionKey>,
    /// Users.
    pub users: Vec<UserKey>,
    /// Users of whom the columns and groups are asked for that routes want.
    pub details: Vec<UserKey>,
}

/// Rows found by one lookup, in any order.
#[derive(Debug, Default)]
pub struct Found {
    /// Live sessions.
    pub sessions: Vec<(SessionKey, SessionRow)>,
    /// Users.
    pub users: Vec<(UserKey, UserRow)>,
    /// Users' columns and groups.
    pub details: Vec<(UserKey, UserDetails)>,
}

/// Which server a lookup was answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// One that accepts writes: the primary.
    Primary,
    /// A standby or a server set to read-only. It may lag, so its answer is thrown away.
    ReadOnly,
}

/// What went wrong, in the classes that matter to those who retry.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The server is away, the connection broke, or it shuts down: the connection is of no more use.
    #[error("{0}")]
    Away(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// A standby or read-only server answered.
    #[error(
        "the server that answered is read-only (a standby, or set so: default_transaction_read_only on PostgreSQL, \
         read_only on MySQL): it stores \
         nothing, and what it answers may be old; it is believed only with replica = \"accepted\" in [django]"
    )]
    ReadOnly,
    /// A definite no: no such table or column, permission denied, login refused.
    #[error("{0}")]
    Refused(String),
    /// Somebody else holds the row or the file.
    #[error("the row is locked by another transaction")]
    Busy,
    /// The table was altered under a prepared statement: another connection will do.
    #[error("the table was altered")]
    Altered,
    /// Deadlock or serialization failure: the whole transaction can be tried again.
    #[error("the transaction met another one")]
    Retry,
    /// The key of a new row is taken.
    #[error("the key is taken")]
    Taken,
}

impl Fault {
    /// Whether the connection must not be used again.
    pub fn breaks_connection(&self) -> bool {
        matches!(
            self,
            Self::Away(_) | Self::Timeout | Self::ReadOnly | Self::Altered
        )
    }
}

/// A database. One connection is used by one task at a time; a connection whose future was dropped while a
/// statement ran is never used again (its answer would be taken for the next one's).
pub trait Backend: Send + Sync + 'static {
    /// A connection.
    type Connection: Send;

    /// Opens a connection and looks up the shape of the tables. Bounded in time by the caller.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Fault>> + Send;

    /// What the tables looked like when the connection was opened.
    fn shape(&self, connection: &Self::Connection) -> Arc<Shape>;

    /// Reads nothing, but as a lookup and a change would: shows a missing table or column.
    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether the connection answers.
    fn ping(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Finds live rows. The statement's snapshot is taken after this call, outside of any transaction.
    fn lookup(
        &self,
        connection: &mut Self::Connection,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(Found, Proof), Fault>> + Send;

    /// Begins a transaction in which [`Backend::lock`] sees the latest committed row.
    fn begin(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Locks the live row of a key until the end of the transaction.
    fn lock(
        &self,
        connection: &mut Self::Connection,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Option<SessionRow>, Fault>> + Send;

    /// Reads a user inside the transaction.
    fn user(
        &self,
        connection: &mut Self::Connection,
        key: &UserKey,
    ) -> impl Future<Output = Result<Option<UserRow>, Fault>> + Send;

    /// Inserts a row; [`Fault::Taken`] where the key exists.
    fn insert(
        &self,
        connection: &mut Self::Connection,
        row: &NewRow,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Updates the row; without `data` only its `expire_date`. Gives the number of rows matched.
    fn update(
        &self,
        connection: &mut Self::Connection,
        key: &SessionKey,
        data: Option<&str>,
        expire_date: DateTime<Utc>,
    ) -> impl Future<Output = Result<u64, Fault>> + Send;

    /// Deletes the row.
    fn delete(
        &self,
        connection: &mut Self::Connection,
        key: &SessionKey,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether [`Backend::swap`] can be used.
    fn swaps(&self) -> bool {
        false
    }

    /// Replaces rows, each only if it is, byte for byte, what it must be and nobody holds it; commits. Tells of each
    /// whether it was replaced. Outside of any transaction. Of an error, only [`Fault::Away`] and
    /// [`Fault::Timeout`] leave open what was stored.
    fn swap(
        &self,
        _: &mut Self::Connection,
        swaps: &[Swap],
    ) -> impl Future<Output = Result<Vec<bool>, Fault>> + Send {
        let none = vec![false; swaps.len()];
        async { Ok(none) }
    }

    /// What is read back where this moment was written as an `expire_date`: a wall clock that is put back shows
    /// two moments alike.
    fn held(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        time.trunc_subsecs(6)
    }

    /// Commits. An error other than [`Fault::Retry`] and [`Fault::Busy`] leaves the outcome unknown.
    fn commit(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Ends the transaction without a trace.
    fn rollback(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Connects and reads once: shows a wrong address, login, table or column, and a server that cannot write.
pub(super) async fn contact<B: Backend>(backend: &B, state: &State) -> Result<(), Fault> {
    let mut connection = connect(backend, state).await?;
    backend.check(&mut connection).await
}

/// Opens a connection and remembers what it has learned of the tables.
pub(super) async fn connect<B: Backend>(
    backend: &B,
    state: &State,
) -> Result<B::Connection, Fault> {
    let connection = backend.connect().await?;
    state.learn(&backend.shape(&connection));
    Ok(connection)
}
