//! SQLite.
//!
//! Dates are text, in the very format that Django writes: they are compared as text. The journal mode is left
//! as Django has it. Every read is stepped to its end ([`fetch_all`]), because a statement left open would pin
//! the snapshot of the next one.
//!
//! [`fetch_all`]: sqlx::query::Query::fetch_all

mod examine;
mod users;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use sqlx::{
    ConnectOptions, Connection, Row, Sqlite as Driver,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow},
};

use self::users::Users;
use super::{
    Options, RowData, SessionRow, UserRow,
    backend::{Backend, Fault, Found, Proof, Wanted},
    change::{NewRow, Swap, stored},
    details::Gathered,
    shape::{self, Column, Shape},
    sql::{MOST, Sql, filled, padded, padded_statements, quoted},
};
use crate::{
    django::{
        UserKey,
        expiry::{parse_sqlite_text, sqlite_text},
    },
    session::SessionKey,
};

/// The columns of a table. An integer primary key fills itself.
const COLUMNS: &str = "SELECT name, type, NOT \"notnull\" OR dflt_value IS NOT NULL \
    OR (pk = 1 AND lower(type) LIKE '%int%') FROM pragma_table_info(?, ?)";

/// Around names. Not `"`: what no column is called in those, SQLite takes for a text, so that a column that a
/// migration has renamed would be found and hold its own name.
const QUOTE: char = '`';

/// Where the rows of lookups say whether they are of users, behind three columns of either.
const IS_USER: usize = 3;

/// SQLite, with the SQL for one session table.
#[derive(Debug)]
pub struct Sqlite {
    site: Options,
    path: PathBuf,
    session_data: i64,
    busy_timeout: Duration,
    lookup_sessions: Vec<Sql>,
    columns: Sql,
    insert: Sql,
    update: Sql,
    touch: Sql,
    delete: Sql,
    swap: Vec<Sql>,
}

impl Sqlite {
    /// Prepares the statements for a database file.
    pub fn new(path: &Path, options: &Options) -> Self {
        let table = quoted(&options.table, QUOTE);
        let lookup_sessions = padded_statements(|marks| live_sessions(&options.table, "", marks));
        Self {
            site: options.clone(),
            path: path.to_owned(),
            session_data: i64::try_from(options.session_data).unwrap_or(i64::MAX),
            // Well inside the deadline: a thread that waits longer would commit after the client was told no.
            busy_timeout: options.deadline / 4,
            lookup_sessions,
            columns: Sql::new(COLUMNS.into()),
            insert: Sql::new(format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) VALUES (?, ?, ?)"
            )),
            update: Sql::new(format!(
                "UPDATE {table} SET session_data = ?, expire_date = ? WHERE session_key = ?"
            )),
            touch: Sql::new(format!(
                "UPDATE {table} SET expire_date = ? WHERE session_key = ?"
            )),
            delete: Sql::new(format!("DELETE FROM {table} WHERE session_key = ?")),
            swap: padded_statements(|marks| {
                let rows = marks.replace('?', "(?, ?, ?, ?, ?)");
                format!(
                    "UPDATE {table} AS t SET session_data = w.column4, expire_date = w.column5 \
                     FROM (VALUES {rows}) AS w WHERE t.session_key = w.column1 \
                     AND t.session_data = w.column2 COLLATE BINARY \
                     AND t.expire_date = w.column3 COLLATE BINARY RETURNING session_key"
                )
            }),
        }
    }

    fn text(&self, time: DateTime<Utc>) -> String {
        sqlite_text(time, self.site.time_zone)
    }

    fn connect_fault(&self, error: sqlx::Error) -> Fault {
        match fault(error) {
            Fault::Away(cause) => {
                let path = self.path.display();
                Fault::Refused(format!("the SQLite file {path} cannot be opened: {cause}"))
            }
            fault => fault,
        }
    }

    async fn sessions(
        &self,
        connection: &mut SqliteConnection,
        keys: &[SessionKey],
        now: DateTime<Utc>,
        found: &mut Found,
    ) -> Result<(), Fault> {
        for keys in keys.chunks(MOST) {
            let (sql, length) = padded(&self.lookup_sessions, keys.len());
            let query = self.bind(sqlx::query(sql.text()), keys, length, now);
            for row in query.fetch_all(&mut *connection).await.map_err(fault)? {
                self.take(&row, found)?;
            }
        }
        Ok(())
    }

    /// Sessions and users, in one statement.
    async fn both(
        &self,
        users: &Users,
        connection: &mut SqliteConnection,
        wanted: &Wanted,
        now: DateTime<Utc>,
        found: &mut Found,
    ) -> Result<(), Fault> {
        let most = wanted.sessions.len().max(wanted.users.len());
        let (sql, length) = padded(users.both(wanted), most);
        let query = users.bind_all(sqlx::query(sql.text()), &wanted.users, length);
        let query = self.bind(query, &wanted.sessions, length, now);
        let mut gathered = Gathered::of(&wanted.details);
        for row in query.fetch_all(connection).await.map_err(fault)? {
            match row.try_get_unchecked(IS_USER).map_err(fault)? {
                true => users.take(&row, found, &mut gathered)?,
                false => self.take(&row, found)?,
            }
        }
        found.details.extend(gathered.finish());
        Ok(())
    }

    /// Binds the parameters of [`live_sessions`].
    fn bind<'q>(
        &self,
        query: Query<'q, Driver, SqliteArguments>,
        keys: &'q [SessionKey],
        length: usize,
        now: DateTime<Utc>,
    ) -> Query<'q, Driver, SqliteArguments> {
        let query = query.bind(self.session_data).bind(self.text(now));
        filled(keys, length).fold(query, |query, key| query.bind(key.as_str()))
    }

    /// Takes the row of a session.
    fn take(&self, row: &SqliteRow, found: &mut Found) -> Result<(), Fault> {
        let key: &str = row.try_get_unchecked(0).map_err(fault)?;
        if let Some(key) = SessionKey::parse(key.as_bytes()) {
            let row = session_row(row, self.site.time_zone);
            found.sessions.push((key, row));
        }
        Ok(())
    }

    /// The columns of the tables that are read, in the order of [`shape::tables`].
    async fn look_up_columns(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<Vec<Column>>, Fault> {
        let mut columns = Vec::new();
        for table in shape::tables(&self.site) {
            let (schema, name) = table.split_once('.').unwrap_or(("main", table));
            let query = sqlx::query(self.columns.text()).bind(name).bind(schema);
            let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
            let column = |row: &SqliteRow| {
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

    /// Opens the file that has the configured name now.
    async fn open(&self) -> Result<(SqliteConnection, FileId), Fault> {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(false)
            .busy_timeout(self.busy_timeout)
            .foreign_keys(false)
            .disable_statement_logging();
        let file = FileId::of(&self.path)?;
        let connection = SqliteConnection::connect_with(&options)
            .await
            .map_err(|error| self.connect_fault(error))?;
        Ok((connection, file))
    }
}

/// A connection to the file that had the configured name when it was opened.
pub struct Handle {
    connection: SqliteConnection,
    file: FileId,
    shape: Arc<Shape>,
    users: Option<Users>,
}

/// Which file it is, whatever its name. SQLite goes on with a file that was deleted or replaced (a restored
/// backup), and would answer from it for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl FileId {
    fn of(path: &Path) -> Result<Self, Fault> {
        let metadata = std::fs::metadata(path).map_err(|error| {
            let path = path.display();
            match error.kind() {
                io::ErrorKind::NotFound => {
                    Fault::Refused(format!("there is no SQLite file {path}"))
                }
                _ => Fault::Refused(format!("the SQLite file {path} cannot be read: {error}")),
            }
        })?;
        if !metadata.is_file() {
            return Err(Fault::Refused(format!("{} is not a file", path.display())));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok(Self {
                device_and_inode: (metadata.dev(), metadata.ino()),
            })
        }
        #[cfg(not(unix))]
        {
            let _ = metadata;
            Ok(Self {})
        }
    }
}

impl Handle {
    fn is_current(&self, path: &Path) -> Result<(), Fault> {
        if FileId::of(path)? == self.file {
            return Ok(());
        }
        Err(Fault::Away(
            "the SQLite file was replaced by another one".into(),
        ))
    }
}

impl Backend for Sqlite {
    type Connection = Handle;

    async fn connect(&self) -> Result<Handle, Fault> {
        let (mut connection, file) = self.open().await?;
        let columns = self.look_up_columns(&mut connection).await?;
        let shape = Shape::new(&self.site, &columns)?;
        let users = self.site.users.as_ref().zip(shape.users.as_ref());
        Ok(Handle {
            connection,
            file,
            users: users.map(|(options, shape)| Users::new(&self.site, options, shape)),
            shape: Arc::new(shape),
        })
    }

    fn shape(&self, handle: &Handle) -> Arc<Shape> {
        handle.shape.clone()
    }

    async fn check(&self, handle: &mut Handle) -> Result<(), Fault> {
        let nobody = SessionKey::parse(&[b'0'; 32]);
        let mut found = Found::default();
        self.sessions(
            &mut handle.connection,
            nobody.as_slice(),
            Utc::now(),
            &mut found,
        )
        .await?;
        match &handle.users {
            Some(users) => users.check(&mut handle.connection).await,
            None => Ok(()),
        }
    }

    async fn ping(&self, handle: &mut Handle) -> Result<(), Fault> {
        handle.is_current(&self.path)
    }

    async fn lookup(
        &self,
        handle: &mut Handle,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<(Found, Proof), Fault> {
        handle.is_current(&self.path)?;
        let mut found = Found::default();
        let connection = &mut handle.connection;
        let (sessions, keys) = (wanted.sessions.len(), wanted.users.len());
        if let Some(users) = &handle.users
            && sessions.min(keys) > 0
            && sessions.max(keys) <= MOST
        {
            self.both(users, connection, wanted, now, &mut found)
                .await?;
            return Ok((found, Proof::Primary));
        }
        self.sessions(connection, &wanted.sessions, now, &mut found)
            .await?;
        if let Some(users) = &handle.users {
            users.look_up(connection, wanted, &mut found).await?;
        }
        // A file has no standby.
        Ok((found, Proof::Primary))
    }

    async fn begin(&self, handle: &mut Handle) -> Result<(), Fault> {
        // A deferred BEGIN that reads and then writes fails at once when another has written between.
        run(&mut handle.connection, "BEGIN IMMEDIATE").await?;
        // Afterwards: the file may have been replaced while its lock was waited for.
        handle.is_current(&self.path)
    }

    async fn lock(
        &self,
        handle: &mut Handle,
        key: &SessionKey,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRow>, Fault> {
        // BEGIN IMMEDIATE holds the whole file already.
        let mut found = Found::default();
        self.sessions(&mut handle.connection, &[*key], now, &mut found)
            .await?;
        Ok(found.sessions.pop().map(|(_, row)| row))
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
            .bind(self.text(row.expire_date));
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
        let date = self.text(expire_date);
        let done = match data {
            Some(data) => {
                let query = sqlx::query(self.update.text())
                    .bind(data)
                    .bind(date)
                    .bind(key.as_str());
                query.execute(&mut handle.connection).await
            }
            None => {
                let query = sqlx::query(self.touch.text()).bind(date).bind(key.as_str());
                query.execute(&mut handle.connection).await
            }
        };
        done.map(|done| done.rows_affected()).map_err(fault)
    }

    async fn delete(&self, handle: &mut Handle, key: &SessionKey) -> Result<(), Fault> {
        let query = sqlx::query(self.delete.text()).bind(key.as_str());
        query
            .execute(&mut handle.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    fn swaps(&self) -> bool {
        true
    }

    async fn swap(&self, handle: &mut Handle, swaps: &[Swap]) -> Result<Vec<bool>, Fault> {
        handle.is_current(&self.path)?;
        let (sql, length) = padded(&self.swap, swaps.len());
        let mut query = sqlx::query(sql.text());
        for swap in filled(swaps, length) {
            query = query
                .bind(swap.key.as_str())
                .bind(&*swap.old_data)
                .bind(self.text(swap.old_expire_date))
                .bind(&*swap.data)
                .bind(self.text(swap.expire_date));
        }
        let rows = query
            .fetch_all(&mut handle.connection)
            .await
            .map_err(fault)?;
        let swapped = stored(swaps, rows.iter().map(|row| row.try_get_unchecked(0)))?;
        // Afterwards too: the file may have been replaced while its lock was waited for.
        handle.is_current(&self.path)?;
        Ok(swapped)
    }

    fn held(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        parse_sqlite_text(&self.text(time), self.site.time_zone).unwrap_or(time)
    }

    async fn commit(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "COMMIT").await
    }

    async fn rollback(&self, handle: &mut Handle) -> Result<(), Fault> {
        run(&mut handle.connection, "ROLLBACK").await
    }
}

/// Finds sessions: so many as there are marks, from the largest `session_data`, the moment and the keys. With `more`
/// columns.
fn live_sessions(table: &str, more: &str, marks: &str) -> String {
    let table = quoted(table, QUOTE);
    format!(
        "SELECT session_key, CASE WHEN length(CAST(session_data AS BLOB)) <= ? THEN session_data END, \
         expire_date, 0{more} FROM {table} WHERE expire_date > ? AND session_key IN ({marks})"
    )
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), Fault> {
    sqlx::query(sql)
        .execute(connection)
        .await
        .map(drop)
        .map_err(fault)
}

/// A row of one visitor must not fail the batch of all: what is not text is told as such.
fn session_row(row: &SqliteRow, time_zone: Tz) -> SessionRow {
    // Unchecked: the declared types are Django's (varchar, text, datetime), the stored ones are text.
    let data: Result<Option<&str>, _> = row.try_get_unchecked(1);
    let date: Result<String, _> = row.try_get_unchecked(2);
    let date = date
        .ok()
        .and_then(|date| parse_sqlite_text(&date, time_zone));
    let (Ok(data), Some(expire_date)) = (data, date) else {
        return SessionRow::malformed();
    };
    SessionRow {
        data: data.map_or(RowData::TooLarge, |data| RowData::Text(data.into())),
        expire_date,
    }
}

/// By SQLite's primary result codes (`sqlite3.h`); the extended code's low byte is the primary one.
fn fault(error: sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::ColumnDecode { index, .. } => Fault::Refused(format!(
                "column {index} of the session or user table has an unexpected type"
            )),
            _ => Fault::Away("the connection to the SQLite file broke".into()),
        };
    };
    let code = database
        .code()
        .and_then(|code| code.parse::<u32>().ok())
        .unwrap_or_default();
    match code & 0xff {
        // SQLITE_BUSY, SQLITE_LOCKED: tried again within the deadline, the transaction as a whole.
        5 | 6 => Fault::Retry,
        // SQLITE_CONSTRAINT
        19 => Fault::Taken,
        // SQLITE_READONLY
        8 => {
            Fault::Refused("the SQLite file, or its folder, cannot be written by this user".into())
        }
        // SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
        10 | 13 | 14 => Fault::Away(format!("SQLite says: {}", database.message())),
        _ => Fault::Refused(format!("SQLite says: {} (code {code})", database.message())),
    }
}
