//! What routes want to know of a user beyond the row: columns and groups, as a lookup gathers them.

use std::{collections::HashMap, fmt};

use super::shape::ColumnKind;
use crate::{django::UserKey, json};

/// Deepest nesting of a column that holds JSON.
const MAX_NESTING: usize = 32;

/// What routes want to know of a user beyond the row.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UserDetails {
    /// Raw JSON, canonical, in the order of [`super::UserOptions::columns`]; `None` for NULL.
    pub columns: Vec<Option<Box<str>>>,
    /// The names of the user's groups, sorted.
    pub groups: Vec<String>,
}

impl fmt::Debug for UserDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserDetails(redacted)")
    }
}

/// Details of some users, while the rows come in.
pub(super) struct Gathered(HashMap<UserKey, UserDetails>);

impl Gathered {
    /// For these users, each with nothing yet.
    pub(super) fn of(keys: &[UserKey]) -> Self {
        let empty = |key: &UserKey| (key.clone(), UserDetails::default());
        Self(keys.iter().map(empty).collect())
    }

    /// A user's columns. A key that was not asked for (a collation's alias) is left out.
    pub(super) fn columns(&mut self, key: &UserKey, columns: Vec<Option<Box<str>>>) {
        if let Some(details) = self.0.get_mut(key) {
            details.columns = columns;
        }
    }

    /// One of a user's groups.
    pub(super) fn group(&mut self, key: &UserKey, name: String) {
        if let Some(details) = self.0.get_mut(key) {
            details.groups.push(name);
        }
    }

    /// All of them, complete.
    pub(super) fn finish(self) -> impl Iterator<Item = (UserKey, UserDetails)> {
        self.0.into_iter().map(|(key, mut details)| {
            details.groups.sort_unstable();
            (key, details)
        })
    }
}

/// A column that the database spells as JSON, as a claim holds it: `None` for null, and for what strict JSON
/// cannot hold.
pub(super) fn json_claim(text: &str, kind: ColumnKind) -> Option<Box<str>> {
    let canonical = json::canonical(text, MAX_NESTING).ok()?;
    let claim = match (kind, canonical.as_str()) {
        (_, "null") => return None,
        (ColumnKind::Boolean, "0") => "false".to_owned(),
        (ColumnKind::Boolean, "1") => "true".to_owned(),
        _ => canonical,
    };
    Some(claim.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_told_as_its_type_says() {
        let told = |text, kind| json_claim(text, kind).map(String::from);
        assert_eq!(told("1", ColumnKind::Boolean).as_deref(), Some("true"));
        assert_eq!(told("0", ColumnKind::Boolean).as_deref(), Some("false"));
        assert_eq!(told("true", ColumnKind::Boolean).as_deref(), Some("true"));
        assert_eq!(told("1", ColumnKind::Number).as_deref(), Some("1"));
        assert_eq!(
            told("\"Jos\u{e9}\"", ColumnKind::Text).as_deref(),
            Some("\"Jos\\u00e9\"")
        );
        assert_eq!(told("null", ColumnKind::Text), None);
        assert_eq!(told("NaN", ColumnKind::Number), None);
    }

    #[test]
    fn groups_are_sorted_and_go_to_those_who_were_asked_for() {
        let keys = [UserKey::Integer(1), UserKey::Integer(2)];
        let mut gathered = Gathered::of(&keys);
        gathered.group(&keys[0], "b".into());
        gathered.group(&keys[0], "a".into());
        gathered.group(&UserKey::Integer(3), "c".into());
        gathered.columns(&keys[1], vec![None]);
        let found: HashMap<_, _> = gathered.finish().collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[&keys[0]].groups, ["a", "b"]);
        assert_eq!(found[&keys[1]].columns, [None]);
    }
}
