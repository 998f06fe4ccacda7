//! The text of a statement, built once and shared by all connections.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// A name as Django writes it into SQL: quoted, so that its case counts and it may be a reserved word. A dot
/// stands between a schema and a name in it.
pub(super) fn quoted(name: &str, quote: char) -> String {
    let parts = name.split('.').map(|part| format!("{quote}{part}{quote}"));
    parts.collect::<Vec<_>>().join(".")
}

/// Text that holds nothing but our own words and a table names, which the configuration has checked to be plain
/// identifiers.
#[derive(Clone, Debug)]
pub(super) struct Sql(Arc<str>);

impl Sql {
    pub(super) fn new(text: String) -> Self {
        Self(text.into())
    }

    pub(super) fn text(&self) -> SqlStr {
        AssertSqlSafe(self.0.clone()).into_sql_str()
    }
}
