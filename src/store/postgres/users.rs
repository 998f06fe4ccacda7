//! The user table on PostgreSQL.

use chrono_tz::Tz;
use sqlx::{
    Row,
    postgres::{PgArguments, PgConnection, PgRow, Postgres as Driver},
    query::Query,
};

use super::{
    FLAG, fault, live_sessions,
    terms::{Statement, Terms},
};
use crate::{
    django::{KeyKind, UserKey},
    store::{
        Fault, Found, Options, UserOptions, UserRow, Wanted,
        details::{Gathered, json_claim},
        shape::{ColumnKind, UserShape},
        sql::quoted,
    },
};

/// The statements on one user table, as its shape asks for them.
#[derive(Debug)]
pub(super) struct Users {
    kind: KeyKind,
    rows: Lookup,
    /// Rows with the columns and groups that routes ask for: in one statement, so that they are of one moment.
    details: Option<Lookup>,
    one: Statement,
    columns: Vec<ColumnKind>,
}

/// Finds users, alone or in one statement with sessions.
#[derive(Debug)]
struct Lookup {
    alone: Statement,
    both: Statement,
}

impl Users {
    pub(super) fn new(
        terms: &Terms,
        site: &Options,
        options: &UserOptions,
        shape: &UserShape,
    ) -> Self {
        let quote = |name: &str| quoted(name, '"');
        let (table, key) = (quote(&options.table), quote(&options.key));
        // Everything goes as text but integers that are asked for. A citext column has no index for text.
        let kind = &shape.key_type;
        let is_cast = shape.key == KeyKind::Uuid || is_citext(kind);
        let cast = match is_cast {
            true => format!("::{kind}"),
            false => String::new(),
        };
        let casts = match is_cast {
            true => format!("::{kind}[]"),
            false => String::new(),
        };
        let password = options
            .password
            .as_ref()
            .map_or("''".into(), |name| quote(name));
        let condition = shape.condition(options, '"');
        let row = format!("{key}::text, {password}::text, NULL::timestamptz, {condition}");
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
        let lookup = |more: &[String]| {
            let (proof, nothing) = (&terms.proof, ", NULL".repeat(more.len()));
            let more: String = more.iter().map(|column| format!(", {column}")).collect();
            let sessions = live_sessions(&site.table, &nothing);
            let users = format!("SELECT {row}{more} FROM {table} WHERE {key} = ANY");
            Lookup {
                alone: terms.statement(format!("{proof}{nothing} UNION ALL {users}($1{casts})")),
                // Users first: two NULLs beside each other would be taken for text.
                both: terms.statement(format!(
                    "{proof}{nothing} UNION ALL {users}($4{casts}) UNION ALL {sessions}"
                )),
            }
        };
        Self {
            kind: shape.key,
            rows: lookup(&[]),
            details: (!more.is_empty()).then(|| lookup(&more)),
            one: terms.statement(format!("SELECT {row} FROM {table} WHERE {key} = $1{cast}")),
            columns: shape.columns.clone(),
        }
    }

    /// Reads nothing, but as a lookup would.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        for lookup in std::iter::once(&self.rows).chain(&self.details) {
            let query = self.bind(lookup.alone.query(), &[]);
            query.fetch_all(&mut *connection).await.map_err(fault)?;
        }
        Ok(())
    }

    /// Finds users. Its parameter is bound by [`Users::bind`].
    pub(super) fn alone(&self, wanted: &Wanted) -> &Statement {
        &self.lookup(wanted).alone
    }

    /// Finds sessions, and users by its last parameter, which is bound by [`Users::bind`].
    pub(super) fn both(&self, wanted: &Wanted) -> &Statement {
        &self.lookup(wanted).both
    }

    fn lookup(&self, wanted: &Wanted) -> &Lookup {
        let details = self.details.as_ref().filter(|_| !wanted.details.is_empty());
        details.unwrap_or(&self.rows)
    }

    /// Takes the row of a user.
    pub(super) fn take(
        &self,
        key: &str,
        row: &PgRow,
        found: &mut Found,
        gathered: &mut Gathered,
    ) -> Result<(), Fault> {
        // None: one that no session can name.
        let Some(key) = UserKey::parse(self.kind, key) else {
            return Ok(());
        };
        if row.len() > FLAG + 1 {
            self.gather(row, &key, gathered)?;
        }
        found.users.push((key, user_row(row)?));
        Ok(())
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
        let first = FLAG + 1;
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

    /// Binds the keys of users to the next parameter.
    pub(super) fn bind<'q>(
        &self,
        query: Query<'q, Driver, PgArguments>,
        keys: &[UserKey],
    ) -> Query<'q, Driver, PgArguments> {
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
    let password: Option<&str> = row.try_get(1).map_err(fault)?;
    Ok(UserRow {
        password: password.unwrap_or_default().into(),
        is_active: row.try_get(FLAG).map_err(fault)?,
    })
}
