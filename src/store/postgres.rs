//! PostgreSQL.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    ConnectOptions, Connection, Executor, Row,
    postgres::{PgConnectOptions, PgConnection, PgRow},
};

use super::{
    Options, RowData, SessionRow, UserRow,
    backend::{Backend, Fault, Found, Proof},
    change::NewRow,
    sql::Sql,
};
use crate::{config::Secret, session::SessionKey};

/// PostgreSQL, with the SQL for one session table.
#[derive(Debug)]
pub struct Postgres {
    options: PgConnectOptions,
    /// Most time for connecting; leaves some of the deadline for the statement.
    connect: Duration,
    session_data: i32,
    lookup_sessions: Sql,
    lookup_users: Sql,
    lock: Sql,
    user: Sql,
    insert: Sql,
    update: Sql,
    touch: Sql,
    delete: Sql,
}

/// True where the server may lag behind the primary. It comes with every answer, also when no row matches.
const READ_ONLY: &str = "pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";

impl Postgres {
    /// Understands the address and prepares the statements.
    pub fn new(url: &Secret, options: &Options) -> Result<Self, String> {
        // The address holds a password, so no error of its parser may be shown.
        let unclear = "the PostgreSQL address in [django] database cannot be understood; \
                       it looks like postgres://user:password@host:5432/name"
            .to_owned();
        let text = std::str::from_utf8(url.expose()).map_err(|_| unclear.clone())?;
        let lock_timeout = (options.deadline / 2).as_millis().max(1).to_string();
        let statement_timeout = options.deadline.as_millis().max(1).to_string();
        let connect = PgConnectOptions::from_str(text)
            .map_err(|_| unclear)?
            .application_name("session-gateway")
            .options([
                ("lock_timeout", lock_timeout),
                ("statement_timeout", statement_timeout),
            ])
            .disable_statement_logging();
        let table = &options.table;
        let data = "CASE WHEN octet_length(session_data) <= $3 THEN session_data END";
        // 'infinity' and far years are dates to PostgreSQL only.
        let date = "CASE WHEN isfinite(expire_date) AND expire_date < '9999-01-01'::timestamptz \
                    THEN expire_date END";
        Ok(Self {
            options: connect,
            connect: options.deadline * 3 / 4,
            session_data: i32::try_from(options.session_data).unwrap_or(i32::MAX),
            lookup_sessions: Sql::new(format!(
                "SELECT NULL, NULL, NULL, {READ_ONLY} UNION ALL \
                 SELECT session_key, {data}, {date}, NULL FROM {table} \
                 WHERE session_key = ANY($1) AND expire_date > $2"
            )),
            lookup_users: Sql::new(format!(
                "SELECT NULL, NULL, NULL, {READ_ONLY} UNION ALL \
                 SELECT id::bigint, password, is_active, NULL FROM auth_user WHERE id = ANY($1)"
            )),
            lock: Sql::new(format!(
                "SELECT session_key, {data}, {date} FROM {table} \
                 WHERE session_key = $1 AND expire_date > $2 FOR UPDATE"
            )),
            user: Sql::new(
                "SELECT id::bigint, password, is_active FROM auth_user WHERE id = $1".into(),
            ),
            insert: Sql::new(format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) VALUES ($1, $2, $3)"
            )),
            update: Sql::new(format!(
                "UPDATE {table} SET session_data = $2, expire_date = $3 WHERE session_key = $1"
            )),
            touch: Sql::new(format!(
                "UPDATE {table} SET expire_date = $2 WHERE session_key = $1"
            )),
            delete: Sql::new(format!("DELETE FROM {table} WHERE session_key = $1")),
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

    async fn sessions(
        &self,
        connection: &mut PgConnection,
        keys: &[SessionKey],
        now: DateTime<Utc>,
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let keys: Vec<&str> = keys.iter().map(SessionKey::as_str).collect();
        let query = sqlx::query(self.lookup_sessions.text())
            .bind(keys)
            .bind(now)
            .bind(self.session_data);
        let rows = query.fetch_all(connection).await.map_err(fault)?;
        let mut proof = None;
        for row in rows {
            match row.try_get::<Option<bool>, _>(3).map_err(fault)? {
                Some(read_only) => proof = Some(read_only),
                None => {
                    let key: &str = row.try_get(0).map_err(fault)?;
                    if let Some(key) = SessionKey::parse(key.as_bytes()) {
                        found.sessions.push((key, session_row(&row)?));
                    }
                }
            }
        }
        Ok(if proof == Some(false) {
            Proof::Primary
        } else {
            Proof::ReadOnly
        })
    }

    async fn users(
        &self,
        connection: &mut PgConnection,
        ids: &[i64],
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let query = sqlx::query(self.lookup_users.text()).bind(ids);
        let rows = query.fetch_all(connection).await.map_err(fault)?;
        let mut proof = None;
        for row in rows {
            match row.try_get::<Option<bool>, _>(3).map_err(fault)? {
                Some(read_only) => proof = Some(read_only),
                None => found
                    .users
                    .push((row.try_get(0).map_err(fault)?, user_row(&row)?)),
            }
        }
        Ok(if proof == Some(false) {
            Proof::Primary
        } else {
            Proof::ReadOnly
        })
    }
}

impl Backend for Postgres {
    type Connection = PgConnection;

    async fn connect(&self) -> Result<PgConnection, Fault> {
        match tokio::time::timeout(self.connect, PgConnection::connect_with(&self.options)).await {
            Ok(connected) => connected.map_err(|error| connect_fault(error, &self.address())),
            Err(_) => Err(Fault::Away(format!(
                "no connection to {} within 1 s",
                self.address()
            ))),
        }
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        let mut found = Found::default();
        let proof = self
            .sessions(connection, &[], Utc::now(), &mut found)
            .await?;
        self.users(connection, &[], &mut found).await?;
        match proof {
            Proof::Primary => Ok(()),
            Proof::ReadOnly => Err(Fault::ReadOnly),
        }
    }

    async fn ping(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        connection.ping().await.map_err(fault)
    }

    async fn lookup(
        &self,
        connection: &mut PgConnection,
        sessions: &[SessionKey],
        users: &[i64],
        now: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        let mut found = Found::default();
        let mut proof = Proof::Primary;
        if !sessions.is_empty() {
            proof = self.sessions(connection, sessions, now, &mut found).await?;
        }
        if !users.is_empty() && proof == Proof::Primary {
            proof = self.users(connection, users, &mut found).await?;
        }
        Ok((found, proof))
    }

    async fn begin(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        // Spelled out: a role's default can be another isolation level, or read-only.
        run(
            connection,
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        )
        .await
    }

    async fn lock(
        &self,
        connection: &mut PgConnection,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        let query = sqlx::query(self.lock.text())
            .bind(key.as_str())
            .bind(now)
            .bind(self.session_data);
        let row = query.fetch_optional(connection).await.map_err(fault)?;
        row.as_ref().map(session_row).transpose()
    }

    async fn user(&self, connection: &mut PgConnection, id: i64) -> Result<Option<UserRow>, Fault> {
        let query = sqlx::query(self.user.text()).bind(id);
        let row = query.fetch_optional(connection).await.map_err(fault)?;
        row.as_ref().map(user_row).transpose()
    }

    async fn insert(&self, connection: &mut PgConnection, row: &NewRow) -> Result<(), Fault> {
        let query = sqlx::query(self.insert.text())
            .bind(row.key.as_str())
            .bind(&row.data)
            .bind(row.expire_date);
        query.execute(connection).await.map(drop).map_err(fault)
    }

    async fn update(
        &self,
        connection: &mut PgConnection,
        key: &SessionKey,
        data: Option<&str>,
        expire_date: DateTime<Utc>,
    ) -> Result<u64, Fault> {
        let done = match data {
            Some(data) => {
                let query = sqlx::query(self.update.text())
                    .bind(key.as_str())
                    .bind(data)
                    .bind(expire_date);
                query.execute(connection).await
            }
            None => {
                let query = sqlx::query(self.touch.text())
                    .bind(key.as_str())
                    .bind(expire_date);
                query.execute(connection).await
            }
        };
        done.map(|done| done.rows_affected()).map_err(fault)
    }

    async fn delete(&self, connection: &mut PgConnection, key: &SessionKey) -> Result<(), Fault> {
        let query = sqlx::query(self.delete.text()).bind(key.as_str());
        query.execute(connection).await.map(drop).map_err(fault)
    }

    async fn commit(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        run(connection, "COMMIT").await
    }

    async fn rollback(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        run(connection, "ROLLBACK").await
    }
}

async fn run(connection: &mut PgConnection, sql: &'static str) -> Result<(), Fault> {
    // A bare &str goes by the simple protocol: one round trip, nothing prepared.
    connection.execute(sql).await.map(drop).map_err(fault)
}

fn session_row(row: &PgRow) -> Result<SessionRow, Fault> {
    let data: Option<String> = row.try_get(1).map_err(fault)?;
    let expire_date: Option<DateTime<Utc>> = row.try_get(2).map_err(fault)?;
    let Some(expire_date) = expire_date else {
        return Ok(SessionRow::malformed());
    };
    Ok(SessionRow {
        data: data.map_or(RowData::TooLarge, RowData::Text),
        expire_date,
    })
}

fn user_row(row: &PgRow) -> Result<UserRow, Fault> {
    Ok(UserRow {
        password: row.try_get(1).map_err(fault)?,
        is_active: row.try_get(2).map_err(fault)?,
    })
}

/// A failure to connect: the server's definite no, or nobody there.
fn connect_fault(error: sqlx::Error, address: &str) -> Fault {
    match &error {
        // 28: login refused. 3D: no such database. 57P03 (starting up) and 53 (too many) pass by themselves.
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some(code) if code.starts_with("28") || code.starts_with("3D") => {
                Fault::Refused(format!("PostgreSQL says: {}", database.message()))
            }
            _ => Fault::Away(format!("PostgreSQL says: {}", database.message())),
        },
        sqlx::Error::Io(error) => Fault::Away(format!("no connection to {address}: {error}")),
        sqlx::Error::Tls(error) => {
            Fault::Refused(format!("no TLS connection to {address}: {error}"))
        }
        _ => Fault::Away(format!("no connection to {address}")),
    }
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
