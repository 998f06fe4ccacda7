//! What SQLite tells of itself. It runs in this process, so it has neither a clock nor a role of its own.

use chrono::{DateTime, Utc};
use sqlx::{
    Row,
    sqlite::{SqliteConnection, SqliteRow},
};

use super::{Sqlite, fault, parse_sqlite_text, quoted, run, session_row, sqlite_text};
use crate::store::{
    Fault,
    examine::{Examine, Index, Sampled, Server, Traces, sample_sql, traces_sql},
    shape::Column,
};

impl Examine for Sqlite {
    type Bare = SqliteConnection;

    async fn bare(&self) -> Result<SqliteConnection, Fault> {
        Ok(self.open().await?.0)
    }

    async fn server(&self) -> Result<Server, Fault> {
        let mut connection = self.bare().await?;
        // The first read: shows a file that is no database.
        let sql = "SELECT sqlite_version(), count(*) FROM sqlite_master";
        let query = sqlx::query(sql).fetch_all(&mut connection);
        let rows = query.await.map_err(fault)?;
        let version: &str = match rows.first() {
            Some(row) => row.try_get_unchecked(0).map_err(fault)?,
            None => "",
        };
        Ok(Server {
            product: format!("SQLite {version}, file {}", self.path.display()),
            read_only: None,
            clock: None,
            is_shared: false,
        })
    }

    async fn columns(&self, bare: &mut SqliteConnection) -> Result<Vec<Vec<Column>>, Fault> {
        self.look_up_columns(bare).await
    }

    async fn indexes(&self, bare: &mut SqliteConnection) -> Result<Vec<Index>, Fault> {
        let (schema, name) = self.schema_and_table();
        let sql = "SELECT i.name, l.\"unique\" AND \
                   (SELECT count(*) FROM pragma_index_info(l.name, ?2)) = 1 \
                   FROM pragma_index_list(?1, ?2) AS l JOIN pragma_index_info(l.name, ?2) AS i \
                   WHERE i.seqno = 0 AND NOT l.partial AND i.name IS NOT NULL";
        let query = sqlx::query(sql).bind(name).bind(schema);
        let index = |row: &SqliteRow| {
            Ok(Index {
                column: row.try_get_unchecked(0).map_err(fault)?,
                unique: row.try_get_unchecked(1).map_err(fault)?,
            })
        };
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        rows.iter().map(index).collect()
    }

    async fn sample(
        &self,
        bare: &mut SqliteConnection,
        now: DateTime<Utc>,
        ordered: bool,
    ) -> Result<Vec<Sampled>, Fault> {
        let table = quoted(&self.site.table, '"');
        let columns = "length(session_key) = 32 AND session_key NOT GLOB '*[^a-z0-9]*' AS usable, \
                       CASE WHEN length(CAST(session_data AS BLOB)) <= ?2 THEN session_data END AS data, \
                       expire_date AS date";
        let sql = sample_sql(&table, columns, "expire_date > ?1", ordered);
        let query = sqlx::query(sql.text());
        let query = query
            .bind(sqlite_text(now, self.site.time_zone))
            .bind(self.session_data);
        let sampled = |row: &SqliteRow| {
            Ok(Sampled {
                usable_key: row.try_get_unchecked(0).map_err(fault)?,
                row: session_row(row, self.site.time_zone),
            })
        };
        let rows = query.fetch_all(bare).await.map_err(fault)?;
        rows.iter().map(sampled).collect()
    }

    async fn traces(&self, bare: &mut SqliteConnection, last_login: bool) -> Result<Traces, Fault> {
        let table = quoted(&self.site.table, '"');
        let users = self.site.users.as_ref().filter(|_| last_login);
        let users = users.map(|users| quoted(&users.table, '"'));
        let sql = traces_sql(&table, users.as_deref(), str::to_owned);
        let rows = sqlx::query(sql.text()).fetch_all(bare).await;
        let rows = rows.map_err(fault)?;
        let time = |column: usize| {
            let text: Result<Option<String>, _> = rows.first()?.try_get_unchecked(column);
            parse_sqlite_text(&text.ok().flatten()?, self.site.time_zone)
        };
        Ok(Traces {
            last_end: time(0),
            last_login: time(1),
        })
    }

    async fn writing(&self, bare: &mut SqliteConnection) -> Result<(), Fault> {
        match run(bare, "BEGIN IMMEDIATE").await {
            Ok(()) => run(bare, "ROLLBACK").await,
            // Somebody else writes just now, so the file can be written.
            Err(Fault::Retry) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

impl Sqlite {
    fn schema_and_table(&self) -> (&str, &str) {
        let table = self.site.table.as_str();
        table.split_once('.').unwrap_or(("main", table))
    }
}
