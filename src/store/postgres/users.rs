//! The user table on PostgreSQL.

use sqlx::{
    Row,
    postgres::{PgArguments, PgConnection, PgRow, Postgres as Driver},
    query::Query,
};

use super::{
    fault, proven,
    terms::{Statement, Terms},
};
use crate::{
    django::{KeyKind, UserKey},
    store::{
        Fault, Found, Proof, UserOptions, UserRow, Wanted,
        details::{Gathered, json_claim},
        shape::{ColumnKind, UserShape},
        sql::quoted,
    },
};

/// The statements on one user table, as its shape asks for them.
#[derive(Debug)]
pub(super) struct Users {
    kind: KeyKind,
    rows: Statement,
    one: Statement,
    /// The columns and groups that routes ask for.
    columns: Option<(Statement, Vec<ColumnKind>)>,
    groups: Option<Statement>,
}

impl Users {
    pub(super) fn new(terms: &Terms, options: &UserOptions, shape: &UserShape) -> Self {
        let quote = |name: &str| quoted(name, '"');
        let read_only = terms.read_only;
        let (table, key) = (quote(&options.table), quote(&options.key));
        // Integers go as they are, everything else as text.
        let (keys, one, spelt) = match shape.key {
            KeyKind::Integer => ("$1", "$1", "::bigint"),
            KeyKind::Uuid => ("$1::uuid[]", "$1::uuid", "::text"),
            KeyKind::Text => ("$1", "$1", "::text"),
        };
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition.as_deref().unwrap_or("TRUE");
        let row = format!("{key}{spelt}, {password}::text, ({condition})");
        let columns = (!options.columns.is_empty()).then(|| {
            let told: String = options
                .columns
                .iter()
                .map(|name| format!(", to_json({})::text", quote(name)))
                .collect();
            let nothing = ", NULL".repeat(options.columns.len());
            let sql = format!(
                "SELECT {read_only}, NULL{nothing} UNION ALL \
                 SELECT NULL, {key}{spelt}{told} FROM {table} WHERE {key} = ANY({keys})"
            );
            (terms.statement(sql), shape.columns.clone())
        });
        let groups = options.groups.as_ref().zip(shape.member.as_ref());
        let groups = groups.map(|((members, groups), member)| {
            let (members, groups, member) = (quote(members), quote(groups), quote(member));
            terms.statement(format!(
                "SELECT {read_only}, NULL, NULL UNION ALL \
                 SELECT NULL, m.{member}{spelt}, g.name::text FROM {members} m \
                 JOIN {groups} g ON g.id = m.group_id WHERE m.{member} = ANY({keys})"
            ))
        });
        Self {
            kind: shape.key,
            rows: terms.statement(format!(
                "SELECT NULL, NULL, NULL, {read_only} UNION ALL \
                 SELECT {row}, NULL FROM {table} WHERE {key} = ANY({keys})"
            )),
            one: terms.statement(format!("SELECT {row} FROM {table} WHERE {key} = {one}")),
            columns,
            groups,
        }
    }

    /// Reads nothing, but as a lookup would.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        self.look_up(connection, &Wanted::default(), &mut Found::default())
            .await?;
        self.details(connection, &[], &mut Found::default())
            .await
            .map(drop)
    }

    pub(super) async fn look_up(
        &self,
        connection: &mut PgConnection,
        wanted: &Wanted,
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let query = self.bind(&self.rows, &wanted.users);
        let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
        let proof = proven(rows, 3, |row| {
            if let Some(key) = self.key(&row, 0)? {
                found.users.push((key, user_row(&row)?));
            }
            Ok(())
        })?;
        if wanted.details.is_empty() || proof == Proof::ReadOnly {
            return Ok(proof);
        }
        self.details(connection, &wanted.details, found).await
    }

    pub(super) async fn one(
        &self,
        connection: &mut PgConnection,
        key: &UserKey,
    ) -> Result<Option<UserRow>, Fault> {
        let query = self.one.query();
        let query = match key {
            UserKey::Integer(key) => query.bind(*key),
            key => query.bind(key.to_string()),
        };
        let row = query.fetch_optional(connection).await.map_err(fault)?;
        row.as_ref().map(user_row).transpose()
    }

    async fn details(
        &self,
        connection: &mut PgConnection,
        keys: &[UserKey],
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let mut gathered = Gathered::of(keys);
        let mut proof = Proof::Primary;
        if let Some((sql, kinds)) = &self.columns {
            let query = self.bind(sql, keys);
            let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
            proof = proven(rows, 0, |row| {
                let Some(key) = self.key(&row, 1)? else {
                    return Ok(());
                };
                let told = kinds.iter().enumerate().map(|(place, kind)| {
                    let text: Option<String> = row.try_get(place + 2).map_err(fault)?;
                    Ok(text.and_then(|text| json_claim(&text, *kind)))
                });
                gathered.columns(&key, told.collect::<Result<_, Fault>>()?);
                Ok(())
            })?;
        }
        if let Some(sql) = self.groups.as_ref().filter(|_| proof == Proof::Primary) {
            let query = self.bind(sql, keys);
            let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
            proof = proven(rows, 0, |row| {
                if let Some(key) = self.key(&row, 1)? {
                    gathered.group(&key, row.try_get(2).map_err(fault)?);
                }
                Ok(())
            })?;
        }
        found.details.extend(gathered.finish());
        Ok(proof)
    }

    fn bind<'q>(&self, sql: &Statement, keys: &[UserKey]) -> Query<'q, Driver, PgArguments> {
        let query = sql.query();
        match self.kind {
            KeyKind::Integer => {
                let integer = |key: &UserKey| match key {
                    UserKey::Integer(key) => Some(*key),
                    UserKey::Uuid(_) | UserKey::Text(_) => None,
                };
                query.bind(keys.iter().filter_map(integer).collect::<Vec<i64>>())
            }
            KeyKind::Uuid | KeyKind::Text => {
                query.bind(keys.iter().map(UserKey::to_string).collect::<Vec<String>>())
            }
        }
    }

    /// The key in a column; `None` for one that no session can name.
    fn key(&self, row: &PgRow, column: usize) -> Result<Option<UserKey>, Fault> {
        Ok(match self.kind {
            KeyKind::Integer => Some(UserKey::Integer(row.try_get(column).map_err(fault)?)),
            KeyKind::Uuid | KeyKind::Text => {
                let text: &str = row.try_get(column).map_err(fault)?;
                UserKey::parse(self.kind, text)
            }
        })
    }
}

fn user_row(row: &PgRow) -> Result<UserRow, Fault> {
    // NULL in a condition is no yes.
    let is_active: Option<bool> = row.try_get(2).map_err(fault)?;
    let password: Option<String> = row.try_get(1).map_err(fault)?;
    Ok(UserRow {
        password: password.unwrap_or_default(),
        is_active: is_active.unwrap_or(false),
    })
}
