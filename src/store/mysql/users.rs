//! The user table on MySQL and MariaDB.

use sqlx::{
    MySql as Driver, Row,
    mysql::{MySqlArguments, MySqlConnection, MySqlRow},
    query::Query,
};

use super::{fault, proven};
use crate::{
    django::{KeyKind, UserKey},
    store::{
        Fault, Found, Proof, UserOptions, UserRow, Wanted,
        details::{Gathered, json_claim},
        shape::{ColumnKind, UserShape},
        sql::{MOST, Sql, filled, padded, padded_statements, quoted},
    },
};

/// The statements on one user table, as its shape asks for them.
#[derive(Debug)]
pub(super) struct Users {
    kind: KeyKind,
    /// Whether a UUID is spelt with hyphens: Django's `char(32)` is without, MariaDB's own type has them.
    hyphens: bool,
    rows: Vec<Sql>,
    /// The columns that routes ask for, and what they hold.
    columns: Option<(Vec<Sql>, Vec<ColumnKind>)>,
    groups: Option<Vec<Sql>>,
}

impl Users {
    pub(super) fn new(options: &UserOptions, shape: &UserShape, proof: &str) -> Self {
        let quote = |name: &str| quoted(name, '`');
        let (table, key) = (quote(&options.table), quote(&options.key));
        let spelt = |key: &str| match shape.key {
            KeyKind::Integer => format!("CAST({key} AS SIGNED)"),
            KeyKind::Uuid | KeyKind::Text => format!("CAST({key} AS CHAR)"),
        };
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition.as_deref().unwrap_or("TRUE");
        let rows = padded_statements(|marks| {
            format!(
                "SELECT {proof}, NULL, NULL, NULL UNION ALL \
                 SELECT NULL, {}, {password}, ({condition}) IS TRUE FROM {table} WHERE {key} IN ({marks})",
                spelt(&key)
            )
        });
        let columns = (!options.columns.is_empty()).then(|| {
            let told: String = options
                .columns
                .iter()
                .zip(&shape.columns)
                .map(|(name, kind)| format!(", {}", told(&quote(name), *kind)))
                .collect();
            let nothing = ", NULL".repeat(options.columns.len());
            let statements = padded_statements(|marks| {
                format!(
                    "SELECT {proof}, NULL{nothing} UNION ALL \
                     SELECT NULL, {}{told} FROM {table} WHERE {key} IN ({marks})",
                    spelt(&key)
                )
            });
            (statements, shape.columns.clone())
        });
        let groups = options.groups.as_ref().zip(shape.member.as_ref());
        let groups = groups.map(|((members, groups), member)| {
            let (members, groups) = (quote(members), quote(groups));
            let member = format!("m.{}", quote(member));
            padded_statements(|marks| {
                format!(
                    "SELECT {proof}, NULL, NULL UNION ALL \
                     SELECT NULL, {}, g.name FROM {members} m JOIN {groups} g ON g.id = m.group_id \
                     WHERE {member} IN ({marks})",
                    spelt(&member)
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
    pub(super) async fn check(&self, connection: &mut MySqlConnection) -> Result<(), Fault> {
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
            .map(drop)
    }

    pub(super) async fn look_up(
        &self,
        connection: &mut MySqlConnection,
        wanted: &Wanted,
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let take = |key, row: &MySqlRow| {
            found.users.push((key, user_row(row)));
        };
        let mut proof = self
            .fetch(&self.rows, &wanted.users, connection, take)
            .await?;
        let mut gathered = Gathered::of(&wanted.details);
        if let Some((statements, kinds)) = &self.columns
            && proof == Proof::Primary
        {
            let take = |key, row: &MySqlRow| {
                // What is no text at all is not told.
                let told = kinds.iter().enumerate().map(|(place, kind)| {
                    let text: Result<Option<String>, _> = row.try_get_unchecked(place + 2);
                    text.ok().flatten().and_then(|text| claim(text, *kind))
                });
                gathered.columns(&key, told.collect());
            };
            proof = self
                .fetch(statements, &wanted.details, connection, take)
                .await?;
        }
        if let Some(statements) = &self.groups
            && proof == Proof::Primary
        {
            let take = |key, row: &MySqlRow| {
                if let Ok(name) = row.try_get_unchecked(2) {
                    gathered.group(&key, name);
                }
            };
            proof = self
                .fetch(statements, &wanted.details, connection, take)
                .await?;
        }
        found.details.extend(gathered.finish());
        Ok(proof)
    }

    async fn fetch(
        &self,
        statements: &[Sql],
        keys: &[UserKey],
        connection: &mut MySqlConnection,
        mut take: impl FnMut(UserKey, &MySqlRow),
    ) -> Result<Proof, Fault> {
        for keys in keys.chunks(MOST) {
            let (sql, length) = padded(statements, keys.len());
            let mut query = sqlx::query(sql.text());
            for key in filled(keys, length) {
                query = self.bind(query, key);
            }
            let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
            let proof = proven(rows, 0, |row| {
                if let Some(key) = self.key(&row)? {
                    take(key, &row);
                }
                Ok(())
            })?;
            if proof == Proof::ReadOnly {
                return Ok(proof);
            }
        }
        Ok(Proof::Primary)
    }

    fn bind<'q>(
        &self,
        query: Query<'q, Driver, MySqlArguments>,
        key: &UserKey,
    ) -> Query<'q, Driver, MySqlArguments> {
        match key {
            UserKey::Integer(key) => query.bind(*key),
            UserKey::Uuid(key) if self.hyphens => query.bind(key.hyphenated().to_string()),
            UserKey::Uuid(key) => query.bind(key.simple().to_string()),
            UserKey::Text(key) => query.bind(key.to_string()),
        }
    }

    /// The key in the second column; `None` for one that no session can name.
    fn key(&self, row: &MySqlRow) -> Result<Option<UserKey>, Fault> {
        Ok(match self.kind {
            KeyKind::Integer => Some(UserKey::Integer(row.try_get_unchecked(1).map_err(fault)?)),
            KeyKind::Uuid | KeyKind::Text => {
                let text: Result<&str, _> = row.try_get_unchecked(1);
                text.ok().and_then(|text| UserKey::parse(self.kind, text))
            }
        })
    }
}

/// A column as text. Bytes are none.
fn told(column: &str, kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Text => {
            format!("IF(CHARSET({column}) = 'binary', NULL, CAST({column} AS CHAR))")
        }
        ColumnKind::Boolean | ColumnKind::Number | ColumnKind::Time => {
            format!("CAST({column} AS CHAR)")
        }
    }
}

fn claim(text: String, kind: ColumnKind) -> Option<Box<str>> {
    match kind {
        ColumnKind::Boolean | ColumnKind::Number => json_claim(&text, kind),
        ColumnKind::Time | ColumnKind::Text => {
            json_claim(&serde_json::Value::String(text).to_string(), kind)
        }
    }
}

/// A user whose row is not what Django writes is not active.
fn user_row(row: &MySqlRow) -> UserRow {
    let password: Result<Option<String>, _> = row.try_get_unchecked(2);
    let is_active: Result<bool, _> = row.try_get_unchecked(3);
    UserRow {
        is_active: password.is_ok() && is_active.unwrap_or(false),
        password: password.ok().flatten().unwrap_or_default(),
    }
}
