//! The user table on PostgreSQL.

use chrono_tz::Tz;
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
    /// Rows with the columns and groups that routes ask for: in one statement, so that they are of one moment.
    details: Option<Statement>,
    columns: Vec<ColumnKind>,
}

/// Where the proof of a lookup stands in its rows: behind key, password and condition.
const PROOF: usize = 3;

impl Users {
    pub(super) fn new(terms: &Terms, options: &UserOptions, shape: &UserShape) -> Self {
        let quote = |name: &str| quoted(name, '"');
        let read_only = terms.read_only;
        let (table, key) = (quote(&options.table), quote(&options.key));
        // Integers go as they are, everything else as text. A citext column has no index for text.
        let kind = &shape.key_type;
        let (keys, one, spelt) = match shape.key {
            KeyKind::Integer => ("$1".into(), "$1".into(), "::bigint"),
            KeyKind::Text if !is_citext(kind) => ("$1".into(), "$1".into(), "::text"),
            KeyKind::Text | KeyKind::Uuid => {
                (format!("$1::{kind}[]"), format!("$1::{kind}"), "::text")
            }
        };
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition(options, '"');
        let row = format!("{key}{spelt}, {password}::text, {condition}");
        let told = options.columns.iter().zip(&shape.columns);
        let told = told.map(|(name, kind)| told_column(&quote(name), *kind, options.told_bytes));
        let groups = options.groups.as_ref().zip(shape.member.as_ref());
        let groups = groups.map(|((members, groups), member)| {
            let (members, groups, member) = (quote(members), quote(groups), quote(member));
            format!(
                "ARRAY(SELECT sg_group.name::text FROM {members} sg_member \
                 JOIN {groups} sg_group ON sg_group.id = sg_member.group_id \
                 WHERE sg_member.{member} = {table}.{key})"
            )
        });
        let more: Vec<String> = told.chain(groups).collect();
        let details = (!more.is_empty()).then(|| {
            let nothing = ", NULL".repeat(more.len());
            terms.statement(format!(
                "SELECT NULL, NULL, NULL, {read_only}{nothing} UNION ALL \
                 SELECT {row}, NULL, {} FROM {table} WHERE {key} = ANY({keys})",
                more.join(", ")
            ))
        });
        Self {
            kind: shape.key,
            rows: terms.statement(format!(
                "SELECT NULL, NULL, NULL, {read_only} UNION ALL \
                 SELECT {row}, NULL FROM {table} WHERE {key} = ANY({keys})"
            )),
            one: terms.statement(format!("SELECT {row} FROM {table} WHERE {key} = {one}")),
            details,
            columns: shape.columns.clone(),
        }
    }

    /// Reads nothing, but as a lookup would.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        for sql in std::iter::once(&self.rows).chain(&self.details) {
            let query = self.bind(sql, &[]);
            query.fetch_all(&mut *connection).await.map_err(fault)?;
        }
        Ok(())
    }

    pub(super) async fn look_up(
        &self,
        connection: &mut PgConnection,
        wanted: &Wanted,
        found: &mut Found,
    ) -> Result<Proof, Fault> {
        let details = self.details.as_ref().filter(|_| !wanted.details.is_empty());
        let query = self.bind(details.unwrap_or(&self.rows), &wanted.users);
        let rows = query.fetch_all(&mut *connection).await.map_err(fault)?;
        let mut gathered = Gathered::of(&wanted.details);
        let proof = proven(rows, PROOF, |row| {
            let Some(key) = self.key(&row)? else {
                return Ok(());
            };
            if details.is_some() {
                self.gather(&row, &key, &mut gathered)?;
            }
            found.users.push((key, user_row(&row)?));
            Ok(())
        })?;
        found.details.extend(gathered.finish());
        Ok(proof)
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

    fn gather(&self, row: &PgRow, key: &UserKey, gathered: &mut Gathered) -> Result<(), Fault> {
        let first = PROOF + 1;
        let told = self.columns.iter().enumerate().map(|(place, kind)| {
            let text: Option<&str> = row.try_get(first + place).map_err(fault)?;
            Ok(text.and_then(|text| json_claim(text, *kind, Tz::UTC)))
        });
        gathered.columns(key, told.collect::<Result<_, Fault>>()?);
        let groups = first + self.columns.len();
        if groups < row.len() {
            let names: Vec<Option<String>> = row.try_get(groups).map_err(fault)?;
            for name in names.into_iter().flatten() {
                gathered.group(key, name);
            }
        }
        Ok(())
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

    /// The key of a row; `None` for one that no session can name.
    fn key(&self, row: &PgRow) -> Result<Option<UserKey>, Fault> {
        Ok(match self.kind {
            KeyKind::Integer => Some(UserKey::Integer(row.try_get(0).map_err(fault)?)),
            KeyKind::Uuid | KeyKind::Text => {
                let text: &str = row.try_get(0).map_err(fault)?;
                UserKey::parse(self.kind, text)
            }
        })
    }
}

/// The extension may be in any schema.
fn is_citext(declared: &str) -> bool {
    declared.rsplit('.').next() == Some("citext")
}

/// A column as JSON. What is longer than any header may be is never told, so zeros come in its place.
fn told_column(name: &str, kind: ColumnKind, most: usize) -> String {
    match kind {
        ColumnKind::Text => format!(
            "CASE WHEN octet_length({name}::text) > {most} THEN to_json(repeat('0', {most}))::text \
             ELSE to_json({name})::text END"
        ),
        _ => format!("to_json({name})::text"),
    }
}

fn user_row(row: &PgRow) -> Result<UserRow, Fault> {
    let password: Option<String> = row.try_get(1).map_err(fault)?;
    Ok(UserRow {
        password: password.unwrap_or_default(),
        is_active: row.try_get(2).map_err(fault)?,
    })
}
