//! MySQL and MariaDB.
//!
//! Dates are what a clock in some zone showed, and are compared as such. Collations of these databases find `abc`
//! for `ABC` and for `abc` with blanks behind it: a lookup compares what it was given by bytes afterwards, and a
//! change says so in its statement.

mod examine;
mod fault;
mod users;

use std::{str::FromStr, sync::Arc, time::Duration};

use chrono::{DateTime, NaiveDateTime, SubsecRound, Utc};
use chrono_tz::Tz;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, Row,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow},
};

use self::{
    fault::{connect_fault, fault},
    users::Users,
};
use super::{
    Options, RowData, SessionRow, UserRow,
    backend::{Backend, Fault, Found, Proof, Wanted},
    change::NewRow,
    shape::{self, Column, Shape},
    sql::{MOST, Sql, filled, padded, padded_statements, quoted},
};
use crate::{
    config::Secret,
    django::{
        UserKey,
        zone::{moment, wall_clock},
    },
    session::SessionKey,
};

/// Which server answers, and how. It comes with every answer, also when no row matches: 0 is the primary, 1 a
/// server that is read-only, 2 a connection that would pin a snapshot. MySQL's super_read_only comes with
/// read_only, which has more values than two in newer releases of MariaDB; Aurora's readers have the second.
const PROOF: &str = "IF(@@autocommit = 0, 2, \
    IF(CONCAT(@@global.read_only) IN ('0', 'OFF') AND NOT @@innodb_read_only, 0, 1))";

/// The same where a read-only server is accepted.
const PROOF_OF_ANY: &str = "IF(@@autocommit = 0, 2, 0)";

/// The columns of a table.
const COLUMNS: &str = "SELECT column_name, column_type, \
    is_nullable = 'YES' OR column_default IS NOT NULL OR extra LIKE '%auto_increment%' \
    OR extra LIKE '%generated%' FROM information_schema.columns \
    WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?";

/// Most bytes of the names of a user's groups. MariaDB cuts what is longer, so that no group would be left of them.
const MOST_GROUPS: usize = 64 * 1024 * 1024;

/// Named by the key that was asked for, byte for byte. The first half finds it by the index.
const BY_KEY: &str = "session_key = ? AND CAST(session_key AS BINARY) = ?";

/// MySQL or MariaDB, with the SQL for one session table.
#[derive(Debug)]
pub struct MySql {
    site: Options,
    options: MySqlConnectOptions,
    /// Most time for connecting; leaves some of the deadline for the statement.
    connect: Duration,
    session_data: i64,
    lookup_sessions: Vec<Sql>,
    columns: Sql,
    lock: Sql,
    insert: Sql,
    update: Sql,
    touch: Sql,
    delete: Sql,
}

/// A connection, and what it has seen of the tables.
pub struct Handle {
    connection: MySqlConnection,
    shape: Arc<Shape>,
    users: Option<Users>,
}

impl MySql {
    /// Understands the address and prepares the statements.
    pub fn new(url: &Secret, options: &Options) -> Result<Self, String> {
        // The address holds a password, so no error of its parser may be shown.
        let unclear = "the MySQL address in [django] database cannot be understood; \
                       it looks like mysql://user:password@host:3306/name"
            .to_owned();
        let text = std::str::from_utf8(url.expose()).map_err(|_| unclear.clone())?;
        let connect = MySqlConnectOptions::from_str(text)
            .map_err(|_| unclear)?
            // Operators mean what they mean to Django.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .disable_statement_logging();
        let table = quoted(&options.table, '`');
        let proof = proof(options);
        // Dates as text: a date that is none ('0000-00-00') must not fail the rows beside it.
        let columns = "session_key, IF(LENGTH(session_data) <= ?, session_data, NULL), CAST(expire_date AS CHAR)";
        let lookup_sessions = padded_statements(|marks| {
            format!(
                "SELECT NULL, NULL, NULL, {proof} UNION ALL SELECT {columns}, NULL FROM {table} \
                 WHERE expire_date > ? AND session_key IN ({marks})"
            )
        });
        Ok(Self {
            site: options.clone(),
            options: connect,
            connect: options.deadline * 3 / 4,
            session_data: i64::try_from(options.session_data).unwrap_or(i64::MAX),
            lookup_sessions,
            columns: Sql::new(COLUMNS.into()),
            lock: Sql::new(format!(
                "SELECT {columns} FROM {table} WHERE expire_date > ? AND {BY_KEY} FOR UPDATE"
            )),
            insert: Sql::new(format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) VALUES (?, ?, ?)"
            )),
            update: Sql::new(format!(
                "UPDATE {table} SET session_data = ?, expire_date = ? WHERE {BY_KEY}"
            )),
            touch: Sql::new(format!("UPDATE {table} SET expire_date = ? WHERE {BY_KEY}")),
            delete: Sql::new(format!("DELETE FROM {table} WHERE {BY_KEY}")),
        })
    }

    /// Where the server is, without who logs in there.
    fn address(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => format!("MySQL at {}", socket.display()),
            None => {
                let (host, port) = (self.options.get_host(), self.options.get_port());
                format!("MySQL at {host}:{port}")
            }
        }
    }

    fn clock(&self, time: DateTime<Utc>) -> NaiveDateTime {
        wall_clock(time.trunc_subsecs(6), self.site.time_zone)
    }

    fn too_late(&self) -> Fault {
        Fault::Away(format!(
            "no connection to {} within {:?}",
            self.address(),
            self.connect
        ))
    }

    async fn dial(&self) -> Result<MySqlConnection, Fault> {
        let mut connection = MySqlConnection::connect_with(&self.options)
            .await
            .map_err(|error| connect_fault(error, &self.address()))?;
        self.prepare(&mut connection).await?;
        Ok(connection)
    }

    async fn open(&self) -> Result<Handle, Fault> {
        let mut connection = self.dial().await?;
        let columns = self.look_up_columns(&mut connection).await?;
        let shape = Shape::new(&self.site, &columns)?;
        let users = self.site.users.as_ref().zip(shape.users.as_ref());
        Ok(Handle {
            connection,
            users: users.map(|(options, shape)| {
                Users::new(options, shape, proof(&self.site), self.site.time_zone)
            }),
            shape: Arc::new(shape),
        })
    }

    /// The connection's own settings, whatever the server's are: a statement outside of a transaction sees what
    /// is committed, one inside too, nobody waits for long, and nothing is cut to fit.
    async fn prepare(&self, connection: &mut MySqlConnection) -> Result<(), Fault> {
        let version = connection
            .fetch_one("SELECT VERSION()")
            .await
            .map_err(fault)?;
        let version: String = version.try_get_unchecked(0).map_err(fault)?;
        let is_mariadb = version.contains("MariaDB");
        // Counted in whole seconds.
        let lock_wait = (self.site.deadline / 2).as_secs().max(1);
        let settings = format!(
            "SET autocommit = 1, sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), \
             innodb_lock_wait_timeout = {lock_wait}, lock_wait_timeout = {lock_wait}, \
             group_concat_max_len = {MOST_GROUPS}, {}; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SELECT @@autocommit",
            statement_time(is_mariadb, self.site.deadline),
        );
        let row = connection
            .fetch_one(AssertSqlSafe(settings))
            .await
            .map_err(fault)?;
        if row.try_get_unchecked::<i64, _>(0).map_err(fault)? != 1 {
            return Err(Fault::Refused(
                "autocommit cannot be switched on for a connection to MySQL; without it a lookup would go on \
                 seeing what was there at the first one"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The columns of the tables that are read, in the order of [`shape::tables`].
    async fn look_up_columns(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<Vec<Vec<Column>>, Fault> {
        let mut columns = Vec::new();
        for table in shape::tables(&self.site) {
            let (schema, name) = match table.split_once('.') {
                Some((schema, name)) => (Some(schema), name),
                None => (None, table),
            };
            let query = sqlx::query(self.columns.text()).bind(schema).bind(name);
            let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
            let column = |row: &MySqlRow| {
                Ok(Column {
                    name: row.try_get_unchecked(0).map_err(fault)?,
                    declared: row.try_get_unchecked(1).map_err(fault)?,
                    optional: row.try_get_unchecked(2).map_err(fault)?,
                })
            };
            columns.push(rows.iter().map(column).collect::<Result<_, Fault>>()?);
        }
        Ok(columns)
    }

    async fn sessions(
        &self,
        connection: &mut MySqlConnection,
        keys: &[SessionKey],
        now: DateTime<Utc>,
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        for keys in keys.chunks(MOST) {
            let (sql, length) = padded(&self.lookup_sessions, keys.len());
            let mut query = sqlx::query(sql.text())
                .bind(self.session_data)
                .bind(self.clock(now));
            for key in filled(keys, length) {
                query = query.bind(key.as_str());
            }
            let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
            let proof = proven(rows, 3, |row| {
                // What is no key of ours, as an alias is none, was not asked for either.
                let key: Result<&str, _> = row.try_get_unchecked(0);
                let key = key.ok().and_then(|key| SessionKey::parse(key.as_bytes()));
                let row = |key| (key, session_row(&row, self.site.time_zone));
                found.sessions.extend(key.map(row));
                Ok(())
            })?;
            if proof == Proof::ReadOnly {
                return Ok(proof);
            }
        }
        Ok(Proof::Primary)
    }
}

/// Ends statements that take too long. MySQL does it for SELECTs only, in milliseconds; MariaDB for all, in
/// seconds. As locks are waited for in whole seconds, a short deadline leaves it to this to end the wait.
fn statement_time(is_mariadb: bool, deadline: Duration) -> String {
    if !is_mariadb {
        return format!("max_execution_time = {}", deadline.as_millis().max(1));
    }
    let limit = if deadline < Duration::from_secs(2) {
        deadline / 2
    } else {
        deadline
    };
    format!("max_statement_time = {:.3}", limit.as_secs_f64())
}

impl Backend for MySql {
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
        let nobody = SessionKey::parse(&[b'0'; 32]);
        let mut found = Found::default();
        let connection = &mut handle.connection;
        let proof = self
            .sessions(connection, nobody.as_slice(), Utc::now(), &mut found)
            .await?;
        if let Some(users) = &handle.users {
            users.check(connection).await?;
        }
        match proof {
            Proof::Primary => Ok(()),
            Proof::ReadOnly => Err(Fault::ReadOnly),
        }
    }

    async fn ping(&self, handle: &mut Handle) -> Result<(), Fault> {
        handle.connection.ping().await.map_err(fault)
    }

    async fn lookup(
        &self,
        handle: &mut Handle,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        let mut found = Found::default();
        let connection = &mut handle.connection;
        let mut proof = self
            .sessions(connection, &wanted.sessions, now, &mut found)
            .await?;
        if let Some(users) = &handle.users
            && proof == Proof::Primary
        {
            proof = users.look_up(connection, wanted, &mut found).await?;
        }
        Ok((found, proof))
    }

    async fn begin(&self, handle: &mut Handle) -> Result<(), Fault> {
        // Who may write on a read-only server is let in by it, so it is asked.
        let begin = format!("START TRANSACTION READ WRITE; SELECT {PROOF}");
        let rows = handle.connection.fetch_all(AssertSqlSafe(begin)).await;
        match proven(rows.map_err(fault)?, 0, |_| Ok(()))? {
            Proof::Primary => Ok(()),
            Proof::ReadOnly => Err(Fault::ReadOnly),
        }
    }

    async fn lock(
        &self,
        handle: &mut Handle,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        let query = sqlx::query(self.lock.text())
            .bind(self.session_data)
            .bind(self.clock(now))
            .bind(key.as_str())
            .bind(key.as_str());
        let row = query.fetch_optional(&mut handle.connection).await;
        let row = row.map_err(|error| match fault(error) {
            // Nothing but the lock takes time here.
            Fault::Timeout => Fault::Busy,
            fault => fault,
        })?;
        Ok(row.map(|row| session_row(&row, self.site.time_zone)))
    }

    async fn user(&self, handle: &mut Handle, key: &UserKey) -> Result<Option<UserRow>, Fault> {
        let Some(users) = &handle.users else {
            return Ok(None);
        };
        let mut found = Found::default();
        let wanted = Wanted {
            users: vec![key.clone()],
            ..Wanted::default()
        };
        let connection = &mut handle.connection;
        users.look_up(connection, &wanted, &mut found).await?;
        let mut users = found.users.into_iter();
        Ok(users.find(|(other, _)| other == key).map(|(_, row)| row))
    }

    async fn insert(&self, handle: &mut Handle, row: &NewRow) -> Result<(), Fault> {
        let query = sqlx::query(self.insert.text())
            .bind(row.key.as_str())
            .bind(&row.data)
            .bind(self.clock(row.expire_date));
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
        let query = match data {
            Some(data) => sqlx::query(self.update.text()).bind(data),
            None => sqlx::query(self.touch.text()),
        };
        // CLIENT_FOUND_ROWS, which the driver sets: rows that were matched, also where nothing changed in them.
        let done = query
            .bind(self.clock(expire_date))
            .bind(key.as_str())
            .bind(key.as_str())
            .execute(&mut handle.connection)
            .await;
        done.map(|done| done.rows_affected()).map_err(fault)
    }

    async fn delete(&self, handle: &mut Handle, key: &SessionKey) -> Result<(), Fault> {
        let query = sqlx::query(self.delete.text())
            .bind(key.as_str())
            .bind(key.as_str());
        query
            .execute(&mut handle.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    fn held(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        moment(self.clock(time), self.site.time_zone).unwrap_or(time)
    }

    async fn commit(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "COMMIT").await
    }

    async fn rollback(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "ROLLBACK").await
    }
}

async fn run(connection: &mut MySqlConnection, sql: &'static str) -> Result<(), Fault> {
    // A bare &str goes by the text protocol: one round trip, nothing prepared.
    connection.execute(sql).await.map(drop).map_err(fault)
}

/// A row of one visitor must not fail the batch of all: what is not text is told as such.
fn session_row(row: &MySqlRow, time_zone: Tz) -> SessionRow {
    // Unchecked: a column of bytes that are text will do.
    let data: Result<Option<&str>, _> = row.try_get_unchecked(1);
    let date: Result<&str, _> = row.try_get_unchecked(2);
    let date = date.ok().and_then(|date| {
        let clock = NaiveDateTime::parse_from_str(date, "%Y-%m-%d %H:%M:%S%.f").ok()?;
        moment(clock, time_zone)
    });
    let (Ok(data), Some(expire_date)) = (data, date) else {
        return SessionRow::malformed();
    };
    SessionRow {
        data: data.map_or(RowData::TooLarge, |data| RowData::Text(data.into())),
        expire_date,
    }
}

/// What a lookup asks about the server.
fn proof(options: &Options) -> &'static str {
    match options.accept_replica {
        true => PROOF_OF_ANY,
        false => PROOF,
    }
}

/// Takes the rows of a lookup. One of them is the proof of who answered: a number in this column, which is NULL
/// in all others.
fn proven(
    rows: Vec<MySqlRow>,
    column: usize,
    mut take: impl FnMut(MySqlRow) -> Result<(), Fault>,
) -> Result<Proof, Fault> {
    let mut proof = Proof::ReadOnly;
    for row in rows {
        match row
            .try_get_unchecked::<Option<i64>, _>(column)
            .map_err(fault)?
        {
            Some(0) => proof = Proof::Primary,
            Some(2) => {
                return Err(Fault::Away(
                    "autocommit was off on a connection to MySQL, so that its answers may be old"
                        .into(),
                ));
            }
            Some(_) => return Ok(Proof::ReadOnly),
            None => take(row)?,
        }
    }
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_statement_is_what_each_server_takes() {
        let limit = |is_mariadb, millis| statement_time(is_mariadb, Duration::from_millis(millis));
        assert_eq!(limit(false, 2000), "max_execution_time = 2000");
        assert_eq!(limit(false, 300), "max_execution_time = 300");
        assert_eq!(limit(true, 2000), "max_statement_time = 2.000");
        assert_eq!(limit(true, 300), "max_statement_time = 0.150");
    }
}
