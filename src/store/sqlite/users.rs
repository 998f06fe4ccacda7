//! The user table on SQLite.

use chrono_tz::Tz;
use sqlx::{
    Row, Sqlite as Driver, TypeInfo, ValueRef,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnection, SqliteRow},
};
use uuid::Uuid;

use super::{IS_USER, QUOTE, fault, live_sessions};
use crate::{
    django::{KeyKind, UserKey},
    json,
    store::{
        Fault, Found, Options, UserOptions, UserRow, Wanted,
        details::{Gathered, json_claim},
        shape::{ColumnKind, UserShape},
        sql::{MOST, Sql, filled, padded, padded_statements, quoted},
    },
};

/// The statements on one user table, as its shape asks for them.
#[derive(Debug)]
pub(super) struct Users {
    kind: KeyKind,
    /// Whether a UUID is stored with hyphens: Django's `char(32)` is without.
    hyphens: bool,
    rows: Lookup,
    /// Rows with the columns and groups that routes ask for: in one statement, so that they are of one moment.
    details: Option<Lookup>,
    columns: Vec<ColumnKind>,
    /// The zone of columns that hold what a clock showed.
    zone: Tz,
}

/// Finds users, alone or in one statement with sessions.
#[derive(Debug)]
struct Lookup {
    alone: Vec<Sql>,
    both: Vec<Sql>,
}

impl Users {
    pub(super) fn new(site: &Options, options: &UserOptions, shape: &UserShape) -> Self {
        let quote = |name: &str| quoted(name, QUOTE);
        let (table, key) = (quote(&options.table), quote(&options.key));
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition(options, QUOTE);
        let row = format!("{key}, {password}, {condition}, 1");
        let told = options.columns.iter();
        let told = told.map(|name| told_column(&quote(name), options.told_bytes));
        let groups = options.groups.as_ref().zip(shape.member.as_ref());
        let groups = groups.map(|((members, groups), member)| {
            let (members, groups, member) = (quote(members), quote(groups), quote(member));
            format!(
                "(SELECT json_group_array(CASE typeof(sg_group.name) WHEN 'text' THEN sg_group.name END) \
                 FROM {members} sg_member JOIN {groups} sg_group ON sg_group.id = sg_member.group_id \
                 WHERE sg_member.{member} = {table}.{key})"
            )
        });
        let more: Vec<String> = told.chain(groups).collect();
        let lookup = |more: &[String]| {
            let nothing = ", NULL".repeat(more.len());
            let more: String = more.iter().map(|column| format!(", {column}")).collect();
            let users =
                |marks: &str| format!("SELECT {row}{more} FROM {table} WHERE {key} IN ({marks})");
            Lookup {
                alone: padded_statements(users),
                both: padded_statements(|marks| {
                    let sessions = live_sessions(&site.table, &nothing, marks);
                    format!("{} UNION ALL {sessions}", users(marks))
                }),
            }
        };
        Self {
            kind: shape.key,
            hyphens: !shape.key_type.eq_ignore_ascii_case("char(32)"),
            details: (!more.is_empty()).then(|| lookup(&more)),
            rows: lookup(&[]),
            columns: shape.columns.clone(),
            zone: site.time_zone,
        }
    }

    /// Reads nothing, but as a lookup would.
    pub(super) async fn check(&self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        let nobody = match self.kind {
            KeyKind::Integer => UserKey::Integer(0),
            KeyKind::Uuid => UserKey::Uuid(Uuid::nil()),
            KeyKind::Text => UserKey::Text("".into()),
        };
        for lookup in std::iter::once(&self.rows).chain(&self.details) {
            self.fetch(&lookup.alone, std::slice::from_ref(&nobody), connection)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn look_up(
        &self,
        connection: &mut SqliteConnection,
        wanted: &Wanted,
        found: &mut Found,
    ) -> Result<(), Fault> {
        let statements = &self.lookup(wanted).alone;
        let mut gathered = Gathered::of(&wanted.details);
        for row in self.fetch(statements, &wanted.users, connection).await? {
            self.take(&row, found, &mut gathered)?;
        }
        found.details.extend(gathered.finish());
        Ok(())
    }

    /// Finds sessions and users: [`Users::bind_all`] binds the users, then come the parameters of
    /// [`live_sessions`].
    pub(super) fn both(&self, wanted: &Wanted) -> &[Sql] {
        &self.lookup(wanted).both
    }

    fn lookup(&self, wanted: &Wanted) -> &Lookup {
        let details = self.details.as_ref().filter(|_| !wanted.details.is_empty());
        details.unwrap_or(&self.rows)
    }

    /// Takes the row of a user.
    pub(super) fn take(
        &self,
        row: &SqliteRow,
        found: &mut Found,
        gathered: &mut Gathered,
    ) -> Result<(), Fault> {
        let Some(key) = self.key(row)? else {
            return Ok(());
        };
        if row.len() > IS_USER + 1 {
            self.gather(row, &key, gathered);
        }
        found.users.push((key, user_row(row)));
        Ok(())
    }

    /// What of a row cannot be taken (bytes that are not UTF-8) is not told.
    fn gather(&self, row: &SqliteRow, key: &UserKey, gathered: &mut Gathered) {
        let first = IS_USER + 1;
        let told = self.columns.iter().enumerate();
        let told =
            told.map(|(place, kind)| json_claim(&json_of(row, first + place)?, *kind, self.zone));
        gathered.columns(key, told.collect());
        let groups = first + self.columns.len();
        if groups >= row.len() {
            return;
        }
        let names: Result<&str, _> = row.try_get_unchecked(groups);
        gathered.groups_of_json(key, names.ok());
    }

    async fn fetch(
        &self,
        statements: &[Sql],
        keys: &[UserKey],
        connection: &mut SqliteConnection,
    ) -> Result<Vec<SqliteRow>, Fault> {
        let mut rows = Vec::new();
        for keys in keys.chunks(MOST) {
            let (sql, length) = padded(statements, keys.len());
            let query = self.bind_all(sqlx::query(sql.text()), keys, length);
            let found = query.fetch_all(&mut *connection).await.map_err(fault)?;
            rows.extend(found);
        }
        Ok(rows)
    }

    /// Binds these keys to so many marks.
    pub(super) fn bind_all<'q>(
        &self,
        query: Query<'q, Driver, SqliteArguments>,
        keys: &[UserKey],
        length: usize,
    ) -> Query<'q, Driver, SqliteArguments> {
        filled(keys, length).fold(query, |query, key| self.bind(query, key))
    }

    fn bind<'q>(
        &self,
        query: Query<'q, Driver, SqliteArguments>,
        key: &UserKey,
    ) -> Query<'q, Driver, SqliteArguments> {
        match key {
            UserKey::Integer(key) => query.bind(*key),
            UserKey::Uuid(key) if self.hyphens => query.bind(key.hyphenated().to_string()),
            UserKey::Uuid(key) => query.bind(key.simple().to_string()),
            UserKey::Text(key) => query.bind(key.to_string()),
        }
    }

    /// The key in the first column; `None` for one that no session can name.
    fn key(&self, row: &SqliteRow) -> Result<Option<UserKey>, Fault> {
        Ok(match self.kind {
            KeyKind::Integer => Some(UserKey::Integer(row.try_get_unchecked(0).map_err(fault)?)),
            KeyKind::Uuid | KeyKind::Text => {
                let text: Result<&str, _> = row.try_get_unchecked(0);
                text.ok().and_then(|text| UserKey::parse(self.kind, text))
            }
        })
    }
}

/// A column. What is longer than any header may be is never told, so zeros come in its place.
fn told_column(name: &str, most: usize) -> String {
    format!(
        "CASE WHEN length(CAST({name} AS BLOB)) > {most} THEN hex(zeroblob({most})) ELSE {name} END"
    )
}

/// A value as JSON, by what it is and not by what its column was declared as.
fn json_of(row: &SqliteRow, place: usize) -> Option<String> {
    let value = row.try_get_raw(place).ok()?;
    match value.type_info().name() {
        "INTEGER" => row
            .try_get_unchecked(place)
            .ok()
            .map(|n: i64| n.to_string()),
        "REAL" => {
            let number: f64 = row.try_get_unchecked(place).ok()?;
            number.is_finite().then(|| format!("{number:?}"))
        }
        "TEXT" => {
            let text: &str = row.try_get_unchecked(place).ok()?;
            let mut json = String::with_capacity(text.len() + 2);
            json::quote(&mut json, text);
            Some(json)
        }
        _ => None,
    }
}

/// A user whose row is not what Django writes is not active.
fn user_row(row: &SqliteRow) -> UserRow {
    let password: Result<Option<&str>, _> = row.try_get_unchecked(1);
    let is_active: Result<bool, _> = row.try_get_unchecked(2);
    let is_active = password.is_ok() && is_active.unwrap_or(false);
    UserRow {
        password: password.ok().flatten().unwrap_or_default().into(),
        is_active,
    }
}
