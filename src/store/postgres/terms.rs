//! How a server is spoken to: what `[django] pooler` and `replica` make of connections, transactions and
//! statements.
//!
//! Behind a pooler in transaction mode (PgBouncer's `pool_mode = transaction`) a connection moves to another
//! server with each transaction. A statement that is prepared in one and executed in the next meets what
//! another client has prepared there, and its answer is an answer to somebody else's question. So with
//! `pooler = "transaction"` everything, lookups and catalogue included, happens in explicit transactions, with
//! statements that have no name and settings that end with the transaction.

use std::time::Duration;

use sqlx::{
    postgres::{PgArguments, PgConnectOptions, PgConnection, Postgres as Driver},
    query::Query,
};

use super::{fault, run};
use crate::store::{Fault, Options, sql::Sql};

/// SQL that is true where the server may lag behind the primary. In a transaction that did not say otherwise,
/// `transaction_read_only` is what `default_transaction_read_only` was when it began.
const READ_ONLY: &str = "pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";

/// What the configuration says of the way to the server.
#[derive(Debug)]
pub(super) struct Terms {
    pooled: bool,
    /// The time limits of our transactions, in milliseconds.
    limits: [(&'static str, String); 3],
    /// The part of a lookup that says who answers, also when no row matches.
    pub(super) proof: String,
    begin_lookup: Sql,
    begin_change: Sql,
    keeps_settings: Sql,
}

impl Terms {
    pub(super) fn new(options: &Options) -> Self {
        let milliseconds = |time: Duration| time.as_millis().max(1).to_string();
        let lock_timeout = milliseconds(options.deadline / 2);
        // A plan for these very keys is no better than one for any, and costs as much as carrying it out. Servers
        // that do not know the setting are left as they are, and so is a connection that is not our own.
        let keeps_settings = format!(
            "SELECT setting = '{lock_timeout}', CASE WHEN setting = '{lock_timeout}' THEN \
                (SELECT set_config(name, 'force_generic_plan', false) FROM pg_settings \
                 WHERE name = 'plan_cache_mode') END \
             FROM pg_settings WHERE name = 'lock_timeout'"
        );
        let limits = [
            ("lock_timeout", lock_timeout),
            ("statement_timeout", milliseconds(options.deadline)),
            // Whoever is gone without a word must not hold a row for longer. A role's own may be too short.
            (
                "idle_in_transaction_session_timeout",
                milliseconds(options.deadline * 2),
            ),
        ];
        let settings: String = match options.pooled {
            true => limits
                .iter()
                .map(|(name, value)| format!("; SET LOCAL {name} = {value}"))
                .collect(),
            false => String::new(),
        };
        // The isolation is spelled out, because a role's default can be another one. Read-only is not
        // overruled: whoever sets a server to it wants its rows to stay as they are. Where such servers are
        // accepted, the role's default says nothing about the server.
        let access = match options.accept_replica {
            true => " READ WRITE",
            false => "",
        };
        let read_only = match options.accept_replica {
            true => "false",
            false => READ_ONLY,
        };
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
        Self {
            pooled: options.pooled,
            proof: format!("SELECT NULL, NULL, NULL, {read_only}"),
            begin_lookup: Sql::new(format!("{begin}{settings}")),
            begin_change: Sql::new(format!("{begin}{access}{settings}")),
            keeps_settings: Sql::new(keeps_settings),
            limits,
        }
    }

    /// The parameters with which a connection is opened.
    pub(super) fn options(&self, connect: PgConnectOptions) -> PgConnectOptions {
        if self.pooled {
            // PgBouncer refuses what it cannot carry to another server. Floats are not ours to read.
            return connect.extra_float_digits(None);
        }
        // A lookup has nothing to win from a stricter isolation, which may fail or wait.
        connect
            .options([("default_transaction_isolation", "read committed")])
            .options(self.limits.iter().map(|(name, value)| (name, value)))
    }

    /// Makes sure that a connection that should be our own is: one that lost the parameters with which it was
    /// opened leads to a pooler. Our own keeps the plans of its statements.
    pub(super) async fn verify(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        if self.pooled {
            return Ok(());
        }
        let row = sqlx::raw_sql(self.keeps_settings.text());
        let row = row.fetch_one(connection).await.map_err(fault)?;
        match sqlx::Row::try_get(&row, 0) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fault::Refused(format!(
                "the connection has lost the lock_timeout with which it was opened, so it leads to a \
                 connection pooler; {WRITE_POOLER}"
            ))),
        }
    }

    /// A statement that is sent as the pooler needs it.
    pub(super) fn statement(&self, text: String) -> Statement {
        Statement {
            sql: Sql::new(text),
            persistent: !self.pooled,
        }
    }

    /// Before the statements of one lookup.
    pub(super) async fn begin_lookup(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        match self.pooled {
            true => run(connection, self.begin_lookup.text()).await,
            false => Ok(()),
        }
    }

    /// After them. A failed one leaves no transaction behind.
    pub(super) async fn end_lookup<T>(
        &self,
        connection: &mut PgConnection,
        answer: Result<T, Fault>,
    ) -> Result<T, Fault> {
        let broken = answer.as_ref().err().is_some_and(Fault::breaks_connection);
        if !self.pooled || broken {
            return answer;
        }
        let end = match answer {
            Ok(_) => "COMMIT",
            Err(_) => "ROLLBACK",
        };
        run(connection, end).await?;
        answer
    }

    /// Begins a change.
    pub(super) async fn begin_change(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        run(connection, self.begin_change.text())
            .await
            .map_err(|fault| match fault {
                // "cannot set transaction read-write mode during recovery" has the code of an altered table.
                Fault::Altered => Fault::ReadOnly,
                fault => fault,
            })
    }
}

/// What to do about a pooler that nobody has told us of.
pub(super) const WRITE_POOLER: &str =
    "write pooler = \"transaction\" in [django], or connect to PostgreSQL directly";

/// What to do about a pooler that refuses a parameter.
pub(super) fn refused_parameter(pooled: bool, message: &str) -> Fault {
    let advice = match pooled {
        false => WRITE_POOLER,
        true => "take it out of the address in [django] database",
    };
    Fault::Refused(format!("the connection pooler says: {message}; {advice}"))
}

/// A statement, and whether a server keeps it prepared for its connection.
#[derive(Debug)]
pub(super) struct Statement {
    sql: Sql,
    persistent: bool,
}

impl Statement {
    pub(super) fn query<'q>(&self) -> Query<'q, Driver, PgArguments> {
        sqlx::query(self.sql.text()).persistent(self.persistent)
    }
}
