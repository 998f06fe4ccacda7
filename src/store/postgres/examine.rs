//! What PostgreSQL tells of itself.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{
    Executor, Row,
    postgres::{PgConnection, PgRow},
};
use tokio::time::timeout;

use super::{Postgres, fault, quoted, run, session_row};
use crate::store::{
    Fault,
    examine::{Clock, Examine, Index, ReadOnly, Sampled, Server, Traces, sample_sql, traces_sql},
    shape::Column,
};

/// Everything as text: it goes by the simple protocol, which no pooler tears apart.
const SERVER: &str = "SELECT current_setting('server_version'), pg_is_in_recovery()::text, \
    current_setting('transaction_read_only'), extract(epoch FROM clock_timestamp())::text";

const BACKEND: &str = "SELECT pg_backend_pid()::text";

/// How often two connections are compared: others may use the pooler in the same moment.
const ROUNDS: usize = 3;

impl Postgres {
    async fn dial_in_time(&self) -> Result<PgConnection, Fault> {
        let dialled = timeout(self.connect, self.dial()).await;
        dialled.unwrap_or_else(|_| Err(self.too_late()))
    }

    /// Whether two connections of ours are one of the server's in turn. While the second one is in a
    /// transaction, a pooler in transaction mode must give the first one another server connection; and it may
    /// have given the second one that of the first.
    async fn is_shared(&self, first: &mut PgConnection) -> Result<bool, Fault> {
        let mut second = self.dial_in_time().await?;
        for _ in 0..ROUNDS {
            let before = backend(first).await?;
            run(&mut second, "BEGIN").await?;
            let held = backend(&mut second).await?;
            let is_moved = held != before && backend(first).await? != before;
            run(&mut second, "ROLLBACK").await?;
            if held == before || is_moved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// In a transaction even a pooler keeps to one of the server's connections. It ends with the connection.
    async fn begin(&self, bare: &mut PgConnection) -> Result<(), Fault> {
        match self.site.pooled {
            true => self.terms.begin_lookup(bare).await,
            false => run(bare, "BEGIN READ ONLY").await,
        }
    }

    async fn settings(&self, connection: &mut PgConnection) -> Result<Server, Fault> {
        let asked = Utc::now();
        let row = one(connection, SERVER).await?;
        let answered = Utc::now();
        let half = (answered - asked) / 2;
        let seconds: f64 = text(&row, 3)?.parse().unwrap_or_default();
        let clock = seconds_to_time(seconds).map(|clock| Clock {
            ahead: clock - (asked + half),
            margin: half,
        });
        let read_only = match (text(&row, 1)?, text(&row, 2)?) {
            ("true", _) => Some(ReadOnly::Standby),
            (_, "on") => Some(ReadOnly::Setting("default_transaction_read_only")),
            _ => None,
        };
        Ok(Server {
            product: self.address().replacen(
                "PostgreSQL",
                &format!("PostgreSQL {}", text(&row, 0)?),
                1,
            ),
            read_only,
            clock,
            is_shared: false,
        })
    }
}

impl Examine for Postgres {
    type Bare = PgConnection;

    async fn bare(&self) -> Result<PgConnection, Fault> {
        self.dial_in_time().await
    }

    async fn server(&self) -> Result<Server, Fault> {
        let mut connection = self.dial_in_time().await?;
        Ok(Server {
            is_shared: self.is_shared(&mut connection).await?,
            ..self.settings(&mut connection).await?
        })
    }

    async fn columns(&self, bare: &mut PgConnection) -> Result<Vec<Vec<Column>>, Fault> {
        self.look_up_columns(bare).await
    }

    async fn indexes(&self, bare: &mut PgConnection) -> Result<Vec<Index>, Fault> {
        let sql = "SELECT a.attname::text, i.indisunique AND i.indnkeyatts = 1 FROM pg_index i \
                   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                   WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL";
        let query = sqlx::query(sql).persistent(false);
        let query = query.bind(quoted(&self.site.table, '"'));
        let index = |row: &PgRow| {
            Ok(Index {
                column: row.try_get(0).map_err(fault)?,
                unique: row.try_get(1).map_err(fault)?,
            })
        };
        self.begin(bare).await?;
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        rows.iter().map(index).collect()
    }

    async fn sample(
        &self,
        bare: &mut PgConnection,
        now: DateTime<Utc>,
        ordered: bool,
    ) -> Result<Vec<Sampled>, Fault> {
        let table = quoted(&self.site.table, '"');
        let columns = "session_key ~ '^[a-z0-9]{32}$' AS usable, \
                       CASE WHEN octet_length(session_data) <= $2 THEN session_data END AS data, \
                       CASE WHEN isfinite(expire_date) AND expire_date < '9999-01-01'::timestamptz \
                       THEN expire_date END AS date";
        let sql = sample_sql(&table, columns, "expire_date > $1", ordered);
        let query = sqlx::query(sql.text()).persistent(false);
        let query = query.bind(now).bind(self.session_data);
        let sampled = |row: &PgRow| {
            Ok(Sampled {
                usable_key: row.try_get(0).map_err(fault)?,
                row: session_row(row)?,
            })
        };
        self.begin(bare).await?;
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        rows.iter().map(sampled).collect()
    }

    async fn traces(&self, bare: &mut PgConnection, last_login: bool) -> Result<Traces, Fault> {
        let table = quoted(&self.site.table, '"');
        let users = self.site.users.as_ref().filter(|_| last_login);
        let users = users.map(|users| quoted(&users.table, '"'));
        let finite =
            |time: &str| format!("CASE WHEN isfinite({time}) THEN {time}::timestamptz END");
        let sql = traces_sql(&table, users.as_deref(), finite);
        let query = sqlx::query(sql.text()).persistent(false);
        self.begin(bare).await?;
        let row = query.fetch_one(bare).await.map_err(fault)?;
        Ok(Traces {
            last_end: row.try_get(0).map_err(fault)?,
            last_login: row.try_get(1).map_err(fault)?,
        })
    }

    async fn writing(&self, bare: &mut PgConnection) -> Result<(), Fault> {
        let sql = "SELECT privilege FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS privilege \
                   WHERE NOT has_table_privilege(to_regclass($1)::oid, privilege)";
        let query = sqlx::query(sql).persistent(false);
        let query = query.bind(quoted(&self.site.table, '"'));
        self.begin(bare).await?;
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        let lacking: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let lacking = lacking.map_err(fault)?;
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Fault::Refused(format!(
            "the database's role has no {} on {}",
            lacking.join(", "),
            self.site.table
        )))
    }
}

/// A bare &str goes by the simple protocol.
async fn one(connection: &mut PgConnection, sql: &'static str) -> Result<PgRow, Fault> {
    connection.fetch_one(sql).await.map_err(fault)
}

async fn backend(connection: &mut PgConnection) -> Result<String, Fault> {
    let row = one(connection, BACKEND).await?;
    Ok(text(&row, 0)?.to_owned())
}

fn text(row: &PgRow, column: usize) -> Result<&str, Fault> {
    row.try_get(column).map_err(fault)
}

fn seconds_to_time(seconds: f64) -> Option<DateTime<Utc>> {
    let since = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    DateTime::UNIX_EPOCH.checked_add_signed(TimeDelta::from_std(since).ok()?)
}
