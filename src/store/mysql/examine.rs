//! What MySQL and MariaDB tell of themselves.

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::{
    Executor, Row,
    mysql::{MySqlConnection, MySqlRow},
};
use tokio::time::timeout;

use super::{MySql, fault, moment, quoted, session_row};
use crate::store::{
    Fault,
    examine::{Clock, Examine, Index, ReadOnly, Sampled, Server, Traces, sample_sql, traces_sql},
    shape::Column,
};

const SERVER: &str = "SELECT VERSION(), CONCAT(@@global.read_only) NOT IN ('0', 'OFF'), \
    @@innodb_read_only, CAST(UTC_TIMESTAMP(6) AS CHAR)";

impl MySql {
    async fn dial_in_time(&self) -> Result<MySqlConnection, Fault> {
        let dialled = timeout(self.connect, self.dial()).await;
        dialled.unwrap_or_else(|_| Err(self.too_late()))
    }
}

impl Examine for MySql {
    type Bare = MySqlConnection;

    async fn bare(&self) -> Result<MySqlConnection, Fault> {
        self.dial_in_time().await
    }

    async fn server(&self) -> Result<Server, Fault> {
        let mut connection = self.dial_in_time().await?;
        let asked = Utc::now();
        let row = connection.fetch_one(SERVER).await.map_err(fault)?;
        let half = (Utc::now() - asked) / 2;
        let version: String = row.try_get_unchecked(0).map_err(fault)?;
        let flag = |column: usize| row.try_get_unchecked::<bool, _>(column).map_err(fault);
        let read_only = match (flag(1)?, flag(2)?) {
            (true, _) => Some(ReadOnly::Setting("read_only")),
            (_, true) => Some(ReadOnly::Setting("innodb_read_only")),
            (false, false) => None,
        };
        Ok(Server {
            product: format!("{version}, {}", self.address()),
            read_only,
            clock: clock(&row, 3).map(|clock| Clock {
                ahead: clock.and_utc() - (asked + half),
                margin: half,
            }),
            is_shared: false,
        })
    }

    async fn columns(&self, bare: &mut MySqlConnection) -> Result<Vec<Vec<Column>>, Fault> {
        self.look_up_columns(bare).await
    }

    async fn indexes(&self, bare: &mut MySqlConnection) -> Result<Vec<Index>, Fault> {
        let (schema, name) = match self.site.table.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, self.site.table.as_str()),
        };
        let sql = "SELECT MIN(CASE WHEN seq_in_index = 1 THEN column_name END), \
                   MAX(non_unique) = 0 AND COUNT(*) = 1 FROM information_schema.statistics \
                   WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? \
                   GROUP BY index_name";
        let query = sqlx::query(sql).bind(schema).bind(name);
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        let index = |row: &MySqlRow| {
            Ok(Index {
                column: row.try_get_unchecked(0).map_err(fault)?,
                unique: row.try_get_unchecked(1).map_err(fault)?,
            })
        };
        rows.iter().map(index).collect()
    }

    async fn sample(
        &self,
        bare: &mut MySqlConnection,
        now: DateTime<Utc>,
        ordered: bool,
    ) -> Result<Vec<Sampled>, Fault> {
        let table = quoted(&self.site.table, '`');
        // The expression is matched by the collation, to which A may be a.
        let columns = "session_key REGEXP '^[a-z0-9]{32}$' \
                       AND CAST(session_key AS BINARY) = CAST(LOWER(session_key) AS BINARY) AS usable, \
                       IF(LENGTH(session_data) <= ?, session_data, NULL) AS data, \
                       CAST(expire_date AS CHAR) AS date";
        let sql = sample_sql(&table, columns, "expire_date > ?", ordered);
        let mut query = sqlx::query(sql.text());
        for _ in 0..if ordered { 2 } else { 1 } {
            query = query.bind(self.session_data).bind(self.clock(now));
        }
        let sampled = |row: &MySqlRow| {
            Ok(Sampled {
                usable_key: row.try_get_unchecked(0).map_err(fault)?,
                row: session_row(row, self.site.time_zone),
            })
        };
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        rows.iter().map(sampled).collect()
    }

    async fn traces(&self, bare: &mut MySqlConnection, last_login: bool) -> Result<Traces, Fault> {
        let table = quoted(&self.site.table, '`');
        let users = self.site.users.as_ref().filter(|_| last_login);
        let users = users.map(|users| quoted(&users.table, '`'));
        let text = |time: &str| format!("CAST({time} AS CHAR)");
        let sql = traces_sql(&table, users.as_deref(), text);
        let row = sqlx::query(sql.text())
            .fetch_one(bare)
            .await
            .map_err(fault)?;
        let time = |column| moment(clock(&row, column)?, self.site.time_zone);
        Ok(Traces {
            last_end: time(0),
            last_login: time(1),
        })
    }

    async fn writing(&self, bare: &mut MySqlConnection) -> Result<(), Fault> {
        // The server looks at the privileges when it prepares a statement.
        for sql in [&self.insert, &self.update, &self.delete] {
            (&mut *bare).prepare(sql.text()).await.map_err(fault)?;
        }
        Ok(())
    }
}

/// What a clock has shown, in a column of text; `None` for NULL and for what is no date.
fn clock(row: &MySqlRow, column: usize) -> Option<NaiveDateTime> {
    let text: Option<String> = row.try_get_unchecked(column).ok()?;
    NaiveDateTime::parse_from_str(&text?, "%Y-%m-%d %H:%M:%S%.f").ok()
}
