//! The text of a statement, built once and shared by all connections.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// Text that holds nothing but our own words and a table name, which the configuration has checked to be a plain
/// identifier.
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
