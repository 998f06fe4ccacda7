//! PostgreSQL.

mod examine;
mod terms;
mod users;

use std::{io, str::FromStr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    ConnectOptions, Connection, Row, SqlSafeStr,
    postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres as Driver},
    query::Query,
};

use self::{
    terms::{Statement, Terms, WRITE_POOLER, refused_parameter},
    users::Users,
};
use super::{
    Options, RowData, SessionRow, UserRow,
    backend::{Backend, Fault, Found, Proof, Wanted},
    change::{NewRow, Swap, stored},
    details::Gathered,
    shape::{self, Column, Shape},
    sql::quoted,
};
use crate::{config::Secret, django::UserKey, session::SessionKey};

/// PostgreSQL, with the SQL for one session table.
#[derive(Debug)]
pub struct Postgres {
    site: Options,
    terms: Terms,
    options: PgConnectOptions,
    /// Most time for connecting; leaves some of the deadline for the statement.
    connect: Duration,
    session_data: i32,
    lookup_sessions: Statement,
    columns: Statement,
    lock: Statement,
    insert: Statement,
    update: Statement,
    touch: Statement,
    delete: Statement,
    swap: Statement,
}

/// Where the boolean stands in the rows of a lookup, behind a key, a text and a moment.
const FLAG: usize = 3;

/// Key, data and date of a session. As text, whatever their types: the driver would ask the catalogue about a type
/// that it does not know. 'infinity' and far years are dates to PostgreSQL only.
const SESSION: &str = "session_key::text, \
    CASE WHEN octet_length(session_data) <= $3 THEN session_data::text END, \
    CASE WHEN isfinite(expire_date) AND expire_date < '9999-01-01'::timestamptz THEN expire_date END";

/// The columns of some tables, found by the same search path as the statements find them.
const COLUMNS: &str = "SELECT t.place, a.attname::text, format_type(a.atttypid, a.atttypmod), \
    NOT a.attnotnull OR a.atthasdef OR a.attidentity <> '' \
    FROM unnest($1::text[]) WITH ORDINALITY AS t(name, place) \
    JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) \
    WHERE a.attnum > 0 AND NOT a.attisdropped";

/// A connection, and what it has seen of the tables.
pub struct Handle {
    connection: PgConnection,
    shape: Arc<Shape>,
    users: Option<Users>,
}

impl Postgres {
    /// Understands the address and prepares the statements.
    pub fn new(url: &Secret, options: &Options) -> Result<Self, String> {
        // The address holds a password, so no error of its parser may be shown.
        let unclear = "the PostgreSQL address in [django] database cannot be understood; \
                       it looks like postgres://user:password@host:5432/name"
            .to_owned();
        let text = std::str::from_utf8(url.expose()).map_err(|_| unclear.clone())?;
        let terms = Terms::new(options);
        let connect = PgConnectOptions::from_str(text)
            .map_err(|_| unclear)?
            .application_name("session-gateway")
            .disable_statement_logging();
        let table = quoted(&options.table, '"');
        Ok(Self {
            site: options.clone(),
            options: terms.options(connect),
            connect: options.deadline * 3 / 4,
            session_data: i32::try_from(options.session_data).unwrap_or(i32::MAX),
            lookup_sessions: terms.statement(format!(
                "{} UNION ALL {}",
                terms.proof,
                live_sessions(&options.table, "")
            )),
            columns: terms.statement(COLUMNS.into()),
            lock: terms.statement(format!(
                "SELECT {SESSION} FROM {table} \
                 WHERE session_key = $1 AND expire_date > $2 FOR UPDATE"
            )),
            insert: terms.statement(format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) VALUES ($1, $2, $3)"
            )),
            update: terms.statement(format!(
                "UPDATE {table} SET session_data = $2, expire_date = $3 WHERE session_key = $1"
            )),
            touch: terms.statement(format!(
                "UPDATE {table} SET expire_date = $2 WHERE session_key = $1"
            )),
            delete: terms.statement(format!("DELETE FROM {table} WHERE session_key = $1")),
            // Locked before they are replaced, so that a row that somebody holds is passed over. The comparison is
            // of bytes, whatever the column's collation. The planner must not see how long the arrays are: for short
            // ones it would plan the statement each time, which costs twice what the statement itself does.
            swap: terms.statement(format!(
                "WITH free AS (SELECT t.session_key, w.data, w.date \
                 FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::timestamptz[]), \
                 (SELECT $4::text[]), (SELECT $5::timestamptz[])) \
                 AS w(key, old_data, old_date, data, date) \
                 JOIN {table} t ON t.session_key = w.key AND t.expire_date = w.old_date \
                 AND t.session_data COLLATE \"C\" = w.old_data FOR UPDATE OF t SKIP LOCKED) \
                 UPDATE {table} t SET session_data = free.data, expire_date = free.date \
                 FROM free WHERE t.session_key = free.session_key RETURNING {key}",
                key = "t.session_key::text"
            )),
            terms,
        })
    }

    /// Where the server is, without who logs in there.
    fn address(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => format!("PostgreSQL at {}", socket.display()),
            None => {
                let (host, port) = (self.options.get_host(), self.options.get_port());
                format!("PostgreSQL at {host}:{port}")
            }
        }
    }

    /// A failure to connect: the server's definite no, or nobody there.
    fn connect_fault(&self, error: sqlx::Error) -> Fault {
        let address = self.address();
        match &error {
            // 28: login refused. 3D: no such database. 57P03 (starting up) and 53 (too many) pass by themselves.
            sqlx::Error::Database(database) => match database.code().as_deref() {
                Some(code) if code.starts_with("28") || code.starts_with("3D") => {
                    Fault::Refused(format!("PostgreSQL says: {}", database.message()))
                }
                Some("08P01") if database.message().contains("startup parameter") => {
                    refused_parameter(self.site.pooled, database.message())
                }
                _ => Fault::Away(format!("PostgreSQL says: {}", database.message())),
            },
            // What TLS finds wrong with the server comes as an error of the socket.
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Fault::Refused(format!("no TLS connection to {address}: {error}"))
            }
            sqlx::Error::Io(error) => Fault::Away(format!("no connection to {address}: {error}")),
            sqlx::Error::Tls(error) => {
                Fault::Refused(format!("no TLS connection to {address}: {error}"))
            }
            _ => Fault::Away(format!("no connection to {address}")),
        }
    }

    /// What is asked of a connection that knows these users: sessions, users or both, in one statement.
    fn question<'q>(
        &self,
        users: Option<&Users>,
        wanted: &'q Wanted,
        now: DateTime<Utc>,
    ) -> Option<Query<'q, Driver, PgArguments>> {
        let users = users.filter(|_| !wanted.users.is_empty());
        let bind = |sql: &Statement| {
            let query = sql.query().bind(keys(&wanted.sessions));
            query.bind(now).bind(self.session_data)
        };
        match (wanted.sessions.is_empty(), users) {
            (true, None) => None,
            (true, Some(users)) => Some(users.bind(users.alone(wanted).query(), &wanted.users)),
            (false, None) => Some(bind(&self.lookup_sessions)),
            (false, Some(users)) => Some(users.bind(bind(users.both(wanted)), &wanted.users)),
        }
    }

    /// The columns of the tables that are read, in the order of [`shape::tables`].
    async fn look_up_columns(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<Vec<Column>>, Fault> {
        let tables = shape::tables(&self.site);
        let names: Vec<String> = tables.iter().map(|name| quoted(name, '"')).collect();
        let query = self.columns.query().bind(names);
        let mut columns = vec![Vec::new(); tables.len()];
        self.terms.begin_lookup(connection).await?;
        let rows = query.fetch_all(&mut *connection).await.map_err(fault);
        for row in self.terms.end_lookup(connection, rows).await? {
            let place: i64 = row.try_get(0).map_err(fault)?;
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some(columns) = columns.get_mut(place) {
                columns.push(Column {
                    name: row.try_get(1).map_err(fault)?,
                    declared: row.try_get(2).map_err(fault)?,
                    optional: row.try_get(3).map_err(fault)?,
                });
            }
        }
        Ok(columns)
    }

    fn too_late(&self) -> Fault {
        Fault::Away(format!(
            "no connection to {} within {:?}",
            self.address(),
            self.connect
        ))
    }

    async fn dial(&self) -> Result<PgConnection, Fault> {
        let mut connection = PgConnection::connect_with(&self.options)
            .await
            .map_err(|error| self.connect_fault(error))?;
        self.terms.verify(&mut connection).await?;
        Ok(connection)
    }

    async fn try_check(&self, handle: &mut Handle) -> Result<Proof, Fault> {
        let nobody: &[SessionKey] = &[];
        let query = self.lookup_sessions.query();
        let query = query
            .bind(keys(nobody))
            .bind(Utc::now())
            .bind(self.session_data);
        let rows = query
            .fetch_all(&mut handle.connection)
            .await
            .map_err(fault)?;
        let (_, proof) = taken(rows, None, &Wanted::default())?;
        if let Some(users) = &handle.users {
            users.check(&mut handle.connection).await?;
        }
        Ok(proof)
    }

    async fn find(
        &self,
        handle: &mut Handle,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        let users = handle.users.as_ref();
        let Some(query) = self.question(users, wanted, now) else {
            return Ok((Found::default(), Proof::Primary));
        };
        let rows = query.fetch_all(&mut handle.connection).await;
        taken(rows.map_err(fault)?, users, wanted)
    }

    async fn open(&self) -> Result<Handle, Fault> {
        let mut connection = self.dial().await?;
        let columns = self.look_up_columns(&mut connection).await?;
        let shape = Shape::new(&self.site, &columns)?;
        let users = self.site.users.as_ref().zip(shape.users.as_ref());
        Ok(Handle {
            connection,
            users: users
                .map(|(options, shape)| Users::new(&self.terms, &self.site, options, shape)),
            shape: Arc::new(shape),
        })
    }
}

impl Backend for Postgres {
    type Connection = Handle;

    async fn connect(&self) -> Result<Handle, Fault> {
        match tokio::time::timeout(self.connect, self.open()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.too_late()),
        }
    }

    fn shape(&self, handle: &Handle) -> Arc<Shape> {
        handle.shape.clone()
    }

    async fn check(&self, handle: &mut Handle) -> Result<(), Fault> {
        self.terms.begin_lookup(&mut handle.connection).await?;
        let checked = self.try_check(handle).await;
        match self
            .terms
            .end_lookup(&mut handle.connection, checked)
            .await?
        {
            Proof::Primary => Ok(()),
            Proof::ReadOnly => Err(Fault::ReadOnly),
        }
    }

    async fn ping(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "SELECT 1").await
    }

    async fn lookup(
        &self,
        handle: &mut Handle,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        self.terms.begin_lookup(&mut handle.connection).await?;
        let found = self.find(handle, wanted, now).await;
        self.terms.end_lookup(&mut handle.connection, found).await
    }

    async fn begin(&self, handle: &mut Handle) -> Result<(), Fault> {
        self.terms.begin_change(&mut handle.connection).await
    }

    async fn lock(
        &self,
        handle: &mut Handle,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        let query = self
            .lock
            .query()
            .bind(key.as_str())
            .bind(now)
            .bind(self.session_data);
        let row = query
            .fetch_optional(&mut handle.connection)
            .await
            .map_err(fault)?;
        row.as_ref().map(session_row).transpose()
    }

    async fn user(&self, handle: &mut Handle, key: &UserKey) -> Result<Option<UserRow>, Fault> {
        match &handle.users {
            Some(users) => users.one(&mut handle.connection, key).await,
            None => Ok(None),
        }
    }

    async fn insert(&self, handle: &mut Handle, row: &NewRow) -> Result<(), Fault> {
        let query = self
            .insert
            .query()
            .bind(row.key.as_str())
            .bind(&row.data)
            .bind(row.expire_date);
        query
            .execute(&mut handle.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    async fn update(
        &self,
        handle: &mut Handle,
        key: &SessionKey,
        data: Option<&str>,
        expire_date: DateTime<Utc>,
    ) -> Result<u64, Fault> {
        let done = match data {
            Some(data) => {
                let query = self
                    .update
                    .query()
                    .bind(key.as_str())
                    .bind(data)
                    .bind(expire_date);
                query.execute(&mut handle.connection).await
            }
            None => {
                let query = self.touch.query().bind(key.as_str()).bind(expire_date);
                query.execute(&mut handle.connection).await
            }
        };
        done.map(|done| done.rows_affected()).map_err(fault)
    }

    async fn delete(&self, handle: &mut Handle, key: &SessionKey) -> Result<(), Fault> {
        let query = self.delete.query().bind(key.as_str());
        query
            .execute(&mut handle.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    /// Not behind a pooler: a statement outside of a transaction would need a name there. Nor where a role may be
    /// read-only by default: only a transaction can say otherwise.
    fn swaps(&self) -> bool {
        !self.site.pooled && !self.site.accept_replica
    }

    async fn swap(&self, handle: &mut Handle, swaps: &[Swap]) -> Result<Vec<bool>, Fault> {
        let keys: Vec<&str> = swaps.iter().map(|swap| swap.key.as_str()).collect();
        let old_data: Vec<&str> = swaps.iter().map(|swap| &*swap.old_data).collect();
        let old_dates: Vec<_> = swaps.iter().map(|swap| swap.old_expire_date).collect();
        let data: Vec<&str> = swaps.iter().map(|swap| &*swap.data).collect();
        let dates: Vec<_> = swaps.iter().map(|swap| swap.expire_date).collect();
        let query = self
            .swap
            .query()
            .bind(&keys)
            .bind(old_data)
            .bind(old_dates)
            .bind(data)
            .bind(dates);
        // To its end, which is after the commit.
        let rows = query
            .fetch_all(&mut handle.connection)
            .await
            .map_err(fault)?;
        stored(swaps, rows.iter().map(|row| row.try_get(0)))
    }

    async fn commit(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "COMMIT").await
    }

    async fn rollback(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "ROLLBACK").await
    }
}

/// By the simple protocol: one message, one round trip, nothing prepared.
async fn run(connection: &mut PgConnection, sql: impl SqlSafeStr) -> Result<(), Fault> {
    let done = sqlx::raw_sql(sql).execute(connection).await;
    done.map(drop).map_err(fault)
}

fn session_row(row: &PgRow) -> Result<SessionRow, Fault> {
    let data: Option<&str> = row.try_get(1).map_err(fault)?;
    let expire_date: Option<DateTime<Utc>> = row.try_get(2).map_err(fault)?;
    let Some(expire_date) = expire_date else {
        return Ok(SessionRow::malformed());
    };
    Ok(SessionRow {
        data: data.map_or(RowData::TooLarge, |data| RowData::Text(data.into())),
        expire_date,
    })
}

/// Takes the rows of a lookup, which are of three kinds with the same columns: the proof of who answered has no
/// key and a boolean ([`FLAG`]), a session has a key and no boolean, a user has both.
fn taken(
    rows: Vec<PgRow>,
    users: Option<&Users>,
    wanted: &Wanted,
) -> Result<(Found, Proof), Fault> {
    let mut found = Found::default();
    let mut gathered = Gathered::of(&wanted.details);
    let mut proof = Proof::ReadOnly;
    for row in rows {
        let key: Option<&str> = row.try_get(0).map_err(fault)?;
        let flag: Option<bool> = row.try_get(FLAG).map_err(fault)?;
        match (key, flag, users) {
            (None, Some(false), _) => proof = Proof::Primary,
            (None, _, _) => return Ok((Found::default(), Proof::ReadOnly)),
            (Some(key), None, _) => {
                if let Some(key) = SessionKey::parse(key.as_bytes()) {
                    found.sessions.push((key, session_row(&row)?));
                }
            }
            (Some(key), Some(_), Some(users)) => {
                users.take(key, &row, &mut found, &mut gathered)?
            }
            // Nobody has asked for users.
            (Some(_), Some(_), None) => {}
        }
    }
    found.details.extend(gathered.finish());
    Ok((found, proof))
}

/// The part of a lookup that finds sessions, by the first three parameters; with `more` columns.
fn live_sessions(table: &str, more: &str) -> String {
    let table = quoted(table, '"');
    format!(
        "SELECT {SESSION}, NULL{more} FROM {table} \
         WHERE session_key = ANY($1) AND expire_date > $2"
    )
}

fn keys(keys: &[SessionKey]) -> Vec<&str> {
    keys.iter().map(SessionKey::as_str).collect()
}

/// A statement's failure by its SQLSTATE (PostgreSQL documentation, Appendix A). Messages of class 22 and 23
/// can quote values, so none of those is passed on.
fn fault(error: sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::Io(error) => {
                Fault::Away(format!("the connection to PostgreSQL broke: {error}"))
            }
            sqlx::Error::ColumnDecode { index, .. } => Fault::Refused(format!(
                "column {index} of the session or user table has an unexpected type"
            )),
            _ => Fault::Away("the connection to PostgreSQL broke".into()),
        };
    };
    let code = database.code();
    match code.as_deref().unwrap_or_default() {
        "55P03" => Fault::Busy,
        "40001" | "40P01" => Fault::Retry,
        "23505" => Fault::Taken,
        "25006" => Fault::ReadOnly,
        // A statement of the same name was there already, so somebody else was there before.
        "42P05" => Fault::Refused(format!(
            "a connection pooler in transaction mode is in the way; {WRITE_POOLER}"
        )),
        // "cached plan must not change result type", and a statement that the server no longer has.
        "0A000" | "26000" => Fault::Altered,
        "57014" => Fault::Timeout,
        code if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
            Fault::Away(format!("PostgreSQL says: {}", database.message()))
        }
        code if code.starts_with("22") || code.starts_with("23") => {
            Fault::Refused(format!("PostgreSQL refused a value (SQLSTATE {code})"))
        }
        code => Fault::Refused(format!(
            "PostgreSQL says: {} (SQLSTATE {code})",
            database.message()
        )),
    }
}
