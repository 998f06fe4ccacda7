//! Walking the file: tables that know where they stand, and say what is wrong with them.
//!
//! A reader asks a [`Table`] for each key with the key's default. What is wrong is reported and the default
//! is handed out, so that one run of `check` names everything.

use std::{cell::RefCell, ffi::OsString, ops::RangeInclusive, path::Path, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{files::Files, item::Value, keys::Section, report::Report, value::Parsed};

/// What reading needs beside the text.
pub(super) struct Context<'a> {
    pub(super) report: Report<'a>,
    /// Looks up an environment variable.
    pub(super) env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The file's folder: relative paths start here.
    pub(super) folder: &'a Path,
    /// Whether secrets are left alone.
    pub(super) without_secrets: bool,
    /// The environment variables that secrets were asked from, with the place of the first.
    pub(super) env_names: RefCell<Vec<(Option<usize>, String)>>,
    /// What is read beside the text.
    pub(super) files: Files,
}

/// A table, or the absence of one: then every key has its default.
#[derive(Clone)]
pub(super) struct Table<'a> {
    pub(super) context: &'a Context<'a>,
    section: &'static Section,
    /// How messages call it: `[upstream.orders]`; empty for the top.
    name: String,
    /// Where it stands; `None` where it is absent, and for the top.
    pub(super) at: Option<usize>,
    entries: Option<&'a DeTable<'a>>,
    /// Whether something else stands in its place: that was reported, and what is missing would be an echo.
    misplaced: bool,
}

impl<'a> Table<'a> {
    /// The file as a whole.
    pub(super) fn top(
        context: &'a Context<'a>,
        section: &'static Section,
        entries: &'a DeTable<'a>,
    ) -> Self {
        Self::new(context, section, String::new(), None, Some(entries))
    }

    pub(super) fn new(
        context: &'a Context<'a>,
        section: &'static Section,
        name: String,
        at: Option<usize>,
        entries: Option<&'a DeTable<'a>>,
    ) -> Self {
        let table = Self {
            context,
            section,
            name,
            at,
            entries,
            misplaced: false,
        };
        for (key, _) in entries.into_iter().flatten() {
            let unknown = key.get_ref();
            if !section.keys.contains(&unknown.as_ref()) {
                let sentence = format!("unknown key {unknown:?} {}", table.place());
                context
                    .report
                    .problem(Some(key.span().start), sentence, section.suggest(unknown));
            }
        }
        table
    }

    /// Reports a problem with the table as a whole.
    pub(super) fn problem(&self, sentence: impl Into<String>, suggestion: Option<String>) {
        self.context.report.problem(self.at, sentence, suggestion);
    }

    /// The value of a key, if the file has it.
    pub(super) fn value(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(
            self.section.keys.contains(&key),
            "{key} is not in {}",
            self.section.name
        );
        let value = self.entries?.get(key)?;
        let at = Some(value.span().start);
        Some(Value {
            context: self.context,
            key,
            table: self.name.clone(),
            at,
            value: value.get_ref(),
        })
    }

    /// The value of a key that the file must have; `example` is a line that would do.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<Value<'a>> {
        let value = self.value(key);
        if value.is_none() && !self.misplaced {
            self.problem(
                format!("{key:?} is missing {}", self.place()),
                Some(format!("such as {example}")),
            );
        }
        value
    }

    /// A table in this one; it may be absent.
    pub(super) fn table(&self, key: &'static str, section: &'static Section) -> Self {
        let value = self.value(key);
        let misplaced = value.is_some();
        let absent = || Self {
            misplaced,
            ..Self::new(self.context, section, section.name.to_owned(), None, None)
        };
        value
            .and_then(|value| value.table(section, None))
            .unwrap_or_else(absent)
    }

    /// Whether it has no keys, known or not.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_none_or(|entries| entries.is_empty())
    }

    /// The `[[key]]` tables.
    pub(super) fn tables(&self, key: &'static str, section: &'static Section) -> Vec<Self> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(_) = value.value else {
            let sentence = format!("there may be several of {}", section.name);
            self.context
                .report
                .problem(value.at, sentence, Some(format!("write [[{key}]]")));
            return Vec::new();
        };
        let tables = value.items("").into_iter().flatten();
        tables
            .filter_map(|item| item.table(section, Some(section.name.to_owned())))
            .collect()
    }

    /// The tables under `[key.NAME]`, by name, in the order of the file.
    pub(super) fn named_tables(
        &self,
        key: &'static str,
        section: &'static Section,
    ) -> Vec<(&'a str, Self)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Table(entries) = value.value else {
            let suggestion = Some(format!("write [{key}.NAME]"));
            self.context
                .report
                .problem(value.at, format!("each {key} has a name"), suggestion);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, entry) in entries {
            let name = name.get_ref().as_ref();
            if !entry.get_ref().is_table() && section.keys.contains(&name) {
                let suggestion = Some(format!("write [{key}.NAME]"));
                let sentence = format!("{name:?} in [{key}]: each {key} has a name");
                self.context
                    .report
                    .problem(Some(entry.span().start), sentence, suggestion);
                continue;
            }
            let at = Some(entry.span().start);
            let value = Value {
                context: self.context,
                key: name,
                table: key.to_owned(),
                at,
                value: entry.get_ref(),
            };
            if let Some(table) = value.table(section, Some(format!("[{key}.{name}]"))) {
                tables.push((name, table));
            }
        }
        tables.sort_by_key(|(_, table)| table.at);
        tables
    }

    /// A value that is read by `read`, or the default.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> T {
        self.value(key)
            .and_then(|value| read(&value))
            .unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.read(key, default, Value::flag)
    }

    /// A whole number in a range.
    pub(super) fn count(
        &self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        self.read(key, default, |value| value.count(range))
    }

    /// A duration in a range.
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.read(key, default, |value| value.duration(range))
    }

    /// A size in bytes, in a range.
    pub(super) fn size(
        &self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        self.read(key, default, |value| {
            usize::try_from(value.size(range)?).ok()
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        default: T,
        choices: &[(&str, T)],
    ) -> T {
        self.read(key, default, |value| value.choice(choices))
    }

    /// A list of texts, each parsed.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        default: Vec<T>,
        expected: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Vec<T> {
        self.read(key, default, |value| value.list(expected, parse))
    }

    fn place(&self) -> String {
        place(&self.name)
    }
}

/// `in [django]`, for messages.
pub(super) fn place(table: &str) -> String {
    match table {
        "" => "at the top".to_owned(),
        name => format!("in {name}"),
    }
}
