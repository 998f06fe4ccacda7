//! What the value of a key may be.

use std::{ops::RangeInclusive, time::Duration};

use super::{NO_KEYS, SECRET, Section, forms::Form};

/// What a value may be.
#[derive(Debug)]
pub(in crate::config) enum Kind {
    /// `true` or `false`.
    Flag,
    /// `false`.
    False,
    /// A whole number.
    Count(RangeInclusive<usize>),
    /// A text with a unit of time.
    Duration(RangeInclusive<Duration>),
    /// The same, without fractions of a second.
    Seconds(RangeInclusive<Duration>),
    /// A text with a unit of bytes.
    Size(RangeInclusive<u64>),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text of this form.
    Text(&'static Form),
    /// `{ env = "NAME" }` or `{ file = "path" }`, and what the reference adds to that.
    Secret(&'static str),
    /// A list.
    List(&'static List),
    /// One of several.
    Or(&'static [Self]),
    /// A table.
    Table(&'static Section),
    /// A list of tables, of this many at least.
    Tables(&'static Section, usize),
    /// A table of tables with names of their own.
    Named(&'static Section),
    /// A table with keys of its own.
    Map(&'static Map),
}

/// A list.
#[derive(Debug)]
pub(in crate::config) struct List {
    /// Its items.
    pub(in crate::config) of: Kind,
    /// How the reference calls its items.
    pub(in crate::config) called: &'static str,
    /// Least items.
    pub(in crate::config) least: usize,
    /// Most items.
    pub(in crate::config) most: Option<usize>,
    /// Whether two may not be the same.
    pub(in crate::config) unique: bool,
}

/// A table with keys of its own.
#[derive(Debug)]
pub(in crate::config) struct Map {
    /// What the keys may be.
    pub(in crate::config) names: &'static Form,
    /// What their values may be.
    pub(in crate::config) values: Kind,
    /// How the reference calls its lines.
    pub(in crate::config) called: &'static str,
}

// A reader that asks for what its kind does not have is a mistake in the program. It gets what nothing satisfies, so that
// any test which reads the key fails.
impl Kind {
    /// The whole numbers that it may be.
    pub(in crate::config) fn counts(&'static self) -> RangeInclusive<usize> {
        self.find(&|kind| match kind {
            Self::Count(range) => Some(range.clone()),
            _ => None,
        })
        .unwrap_or(RangeInclusive::new(1, 0))
    }

    /// The durations that it may be.
    pub(in crate::config) fn durations(&'static self) -> RangeInclusive<Duration> {
        self.find(&|kind| match kind {
            Self::Duration(range) | Self::Seconds(range) => Some(range.clone()),
            _ => None,
        })
        .unwrap_or(RangeInclusive::new(Duration::MAX, Duration::ZERO))
    }

    /// Whether durations must be whole seconds.
    pub(in crate::config) fn is_of_seconds(&'static self) -> bool {
        matches!(self, Self::Seconds(_))
    }

    /// The sizes that it may be, in bytes.
    pub(in crate::config) fn sizes(&'static self) -> RangeInclusive<u64> {
        self.find(&|kind| match kind {
            Self::Size(range) => Some(range.clone()),
            _ => None,
        })
        .unwrap_or(RangeInclusive::new(1, 0))
    }

    /// The words that it may be.
    pub(in crate::config) fn words(&'static self) -> &'static [&'static str] {
        self.find(&|kind| match kind {
            Self::Choice(words) => Some(*words),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// What the items of a list may be; of tables they are of the same kind.
    pub(in crate::config) fn items(&'static self) -> &'static Self {
        self.find(&|kind| match kind {
            Self::List(list) => Some(&list.of),
            _ => None,
        })
        .unwrap_or(self)
    }

    /// The keys that a table of it may have.
    pub(in crate::config) fn section(&'static self) -> &'static Section {
        self.find(&|kind| match kind {
            Self::Table(section) | Self::Tables(section, _) | Self::Named(section) => {
                Some(*section)
            }
            Self::Secret(_) => Some(&SECRET),
            _ => None,
        })
        .unwrap_or(&NO_KEYS)
    }

    fn find<T>(&'static self, pick: &impl Fn(&'static Self) -> Option<T>) -> Option<T> {
        match self {
            Self::Or(kinds) => kinds.iter().find_map(|kind| kind.find(pick)),
            kind => pick(kind),
        }
    }
}
