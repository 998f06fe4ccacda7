//! The text of a statement, built once and shared by all connections.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// Lengths of the IN lists of databases that take no arrays, so that few statements are prepared. The last is
/// the largest batch.
const PADDED: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, MOST];

/// Longest IN list.
pub(super) const MOST: usize = 128;

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

/// A statement for each length of an IN list, of which it is handed the marks.
pub(super) fn padded_statements(statement: impl Fn(&str) -> String) -> Vec<Sql> {
    let of_length = |length| Sql::new(statement(&vec!["?"; length].join(",")));
    PADDED.into_iter().map(of_length).collect()
}

/// The statement for this many values, and how many it takes.
pub(super) fn padded(statements: &[Sql], count: usize) -> (&Sql, usize) {
    let place = PADDED
        .iter()
        .position(|length| *length >= count)
        .unwrap_or(PADDED.len() - 1);
    (&statements[place], PADDED[place])
}

/// So many values: these, and the last of them again.
pub(super) fn filled<T>(values: &[T], length: usize) -> impl Iterator<Item = &T> {
    let rest = length.saturating_sub(values.len());
    values
        .iter()
        .chain(std::iter::repeat_n(values.last(), rest).flatten())
}
