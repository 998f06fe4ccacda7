//! The user table on MySQL and MariaDB.

use chrono_tz::Tz;
use sqlx::{
    MySql as Driver, Row,
    mysql::{MySqlArguments, MySqlConnection, MySqlRow},
    query::Query,
};
use uuid::Uuid;

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
    /// Rows with the columns and groups that routes ask for: in one statement, so that they are of one moment.
    details: Option<Vec<Sql>>,
    columns: Vec<ColumnKind>,
    /// The zone of columns that hold what a clock showed.
    zone: Tz,
}

/// Where what routes ask for begins: behind proof, key, password and condition.
const MORE: usize = 4;

impl Users {
    pub(super) fn new(options: &UserOptions, shape: &UserShape, proof: &str, zone: Tz) -> Self {
        let quote = |name: &str| quoted(name, '`');
        let (table, key) = (quote(&options.table), quote(&options.key));
        let spelt = match shape.key {
            KeyKind::Integer => format!("CAST({key} AS SIGNED)"),
            KeyKind::Uuid | KeyKind::Text => format!("CAST({key} AS CHAR)"),
        };
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition(options, '`');
        let row = format!("{spelt}, {password}, {condition}");
        let told = options.columns.iter();
        let told = told.map(|name| told_column(&quote(name), options.told_bytes));
        let groups = options.groups.as_ref().zip(shape.member.as_ref());
        let groups = groups.map(|((members, groups), member)| {
            let (members, groups, member) = (quote(members), quote(groups), quote(member));
            format!(
                "(SELECT CAST(JSON_ARRAYAGG(sg_group.name) AS CHAR) FROM {members} sg_member \
                 JOIN {groups} sg_group ON sg_group.id = sg_member.group_id \
                 WHERE sg_member.{member} = {table}.{key})"
            )
        });
        let more: Vec<String> = told.chain(groups).collect();
        let of = |row: &str, nothing: &str| {
            padded_statements(|marks| {
                format!(
                    "SELECT {proof}, NULL, NULL, NULL{nothing} UNION ALL \
                     SELECT NULL, {row} FROM {table} WHERE {key} IN ({marks})"
                )
            })
        };
        let details = (!more.is_empty()).then(|| {
            of(
                &format!("{row}, {}", more.join(", ")),
                &", NULL".repeat(more.len()),
            )
        });
        Self {
            kind: shape.key,
            hyphens: !shape.key_type.eq_ignore_ascii_case("char(32)"),
            rows: of(&row, ""),
            details,
            columns: shape.columns.clone(),
            zone,
        }
    }

    /// Reads nothing, but as a lookup would.
    pub(super) async fn check(&self, connection: &mut MySqlConnection) -> Result<(), Fault> {
        let nobody = match self.kind {
            KeyKind::Integer => UserKey::Integer(0),
            KeyKind::Uuid => UserKey::Uuid(Uuid::nil()),
            KeyKind::Text => UserKey::Text("".into()),
        };
        for statements in std::iter::once(&self.rows).chain(&self.details) {
            self.fetch(
                statements,
                std::slice::from_ref(&nobody),
                connection,
                |_, _| {},
            )
            .await?;
        }
        Ok(())
    }

    pub(super) async fn look_up(
        &self,
        connection: &mut MySqlConnection,
        wanted: &Wanted,
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let details = self.details.as_ref().filter(|_| !wanted.details.is_empty());
        let statements = details.unwrap_or(&self.rows);
        let mut gathered = Gathered::of(&wanted.details);
        let take = |key: UserKey, row: &MySqlRow| {
            if details.is_some() {
                self.gather(row, &key, &mut gathered);
            }
            found.users.push((key, user_row(row)));
        };
        let proof = self
            .fetch(statements, &wanted.users, connection, take)
            .await?;
        found.details.extend(gathered.finish());
        Ok(proof)
    }

    /// What of a row cannot be taken (bytes that are no text) is not told.
    fn gather(&self, row: &MySqlRow, key: &UserKey, gathered: &mut Gathered) {
        let text = |place: usize| -> Option<String> { row.try_get_unchecked(place).ok()? };
        let told = self.columns.iter().enumerate();
        let told = told.map(|(place, kind)| {
            let text = text(MORE + place)?;
            let json = match kind {
                ColumnKind::Boolean | ColumnKind::Number => text,
                ColumnKind::Time | ColumnKind::Uuid | ColumnKind::Text => {
                    serde_json::Value::String(text).to_string()
                }
            };
            json_claim(&json, *kind, self.zone)
        });
        gathered.columns(key, told.collect());
        let groups = MORE + self.columns.len();
        if groups >= row.len() {
            return;
        }
        gathered.groups_of_json(key, text(groups).as_deref());
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

/// A column as text. What is longer than any header may be is never told, so zeros come in its place.
fn told_column(column: &str, most: usize) -> String {
    format!("IF(LENGTH({column}) > {most}, REPEAT('0', {most} + 1), CAST({column} AS CHAR))")
}

/// A user whose row is not what Django writes is not active.
fn user_row(row: &MySqlRow) -> UserRow {
    let password: Result<Option<String>, _> = row.try_get_unchecked(2);
    let is_active: Result<bool, _> = row.try_get_unchecked(3);
    UserRow {
        is_active: password.is_ok() && is_active.unwrap_or(false),
        password: password.ok().flatten().unwrap_or_default().into(),
    }
}
