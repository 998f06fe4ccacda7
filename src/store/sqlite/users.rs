//! The user table on SQLite.

use sqlx::{
    Row, Sqlite as Driver,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnection, SqliteRow},
};

use super::fault;
use crate::{
    django::{KeyKind, UserKey},
    store::{
        Fault, Found, UserOptions, UserRow, Wanted,
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
    rows: Vec<Sql>,
    /// The columns that routes ask for, and what they hold.
    columns: Option<(Vec<Sql>, Vec<ColumnKind>)>,
    groups: Option<Vec<Sql>>,
}

impl Users {
    pub(super) fn new(options: &UserOptions, shape: &UserShape) -> Self {
        let quote = |name: &str| quoted(name, '"');
        let (table, key) = (quote(&options.table), quote(&options.key));
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition.as_deref().unwrap_or("TRUE");
        let rows = padded_statements(|marks| {
            format!("SELECT {key}, {password}, ({condition}) FROM {table} WHERE {key} IN ({marks})")
        });
        let columns = (!options.columns.is_empty()).then(|| {
            // A BLOB has no JSON.
            let told = options.columns.iter().map(|name| {
                let name = quote(name);
                format!(", CASE typeof({name}) WHEN 'blob' THEN 'null' ELSE json_quote({name}) END")
            });
            let told: String = told.collect();
            let statements = padded_statements(|marks| {
                format!("SELECT {key}{told} FROM {table} WHERE {key} IN ({marks})")
            });
            (statements, shape.columns.clone())
        });
        let groups = options.groups.as_ref().zip(shape.member.as_ref());
        let groups = groups.map(|((members, groups), member)| {
            let (members, groups, member) = (quote(members), quote(groups), quote(member));
            padded_statements(|marks| {
                format!(
                    "SELECT m.{member}, g.name FROM {members} m JOIN {groups} g ON g.id = m.group_id \
                     WHERE m.{member} IN ({marks})"
                )
            })
        });
        Self {
            kind: shape.key,
            hyphens: !shape.key_type.eq_ignore_ascii_case("char(32)"),
            rows,
            columns,
            groups,
        }
    }

    /// Reads nothing, but as a lookup would.
    pub(super) async fn check(&self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        let nobody = match self.kind {
            KeyKind::Integer => UserKey::Integer(0),
            KeyKind::Uuid | KeyKind::Text => UserKey::Text("".into()),
        };
        let wanted = Wanted {
            users: vec![nobody.clone()],
            details: vec![nobody],
            ..Wanted::default()
        };
        self.look_up(connection, &wanted, &mut Found::default())
            .await
    }

    pub(super) async fn look_up(
        &self,
        connection: &mut SqliteConnection,
        wanted: &Wanted,
        found: &mut Found,
    ) -> Result<(), Fault> {
        for row in self.fetch(&self.rows, &wanted.users, connection).await? {
            if let Some(key) = self.key(&row)? {
                found.users.push((key, user_row(&row)));
            }
        }
        let mut gathered = Gathered::of(&wanted.details);
        if let Some((statements, kinds)) = &self.columns {
            for row in self.fetch(statements, &wanted.details, connection).await? {
                let Some(key) = self.key(&row)? else { continue };
                // What is no text at all (a JSON of bytes that are not UTF-8) is not told.
                let told = kinds.iter().enumerate().map(|(place, kind)| {
                    let text: Result<String, _> = row.try_get_unchecked(place + 1);
                    text.ok().and_then(|text| json_claim(&text, *kind))
                });
                gathered.columns(&key, told.collect());
            }
        }
        if let Some(statements) = &self.groups {
            for row in self.fetch(statements, &wanted.details, connection).await? {
                let name: Result<String, _> = row.try_get_unchecked(1);
                if let (Some(key), Ok(name)) = (self.key(&row)?, name) {
                    gathered.group(&key, name);
                }
            }
        }
        found.details.extend(gathered.finish());
        Ok(())
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
            let mut query = sqlx::query(sql.text());
            for key in filled(keys, length) {
                query = self.bind(query, key);
            }
            let found = query.fetch_all(&mut *connection).await.map_err(fault)?;
            rows.extend(found);
        }
        Ok(rows)
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

/// A user whose row is not what Django writes is not active.
fn user_row(row: &SqliteRow) -> UserRow {
    let password: Result<Option<String>, _> = row.try_get_unchecked(1);
    let is_active: Result<Option<bool>, _> = row.try_get_unchecked(2);
    let is_active = password.is_ok() && is_active.ok().flatten().unwrap_or(false);
    UserRow {
        password: password.ok().flatten().unwrap_or_default(),
        is_active,
    }
}
