//! Walking the file: tables that know where they stand, and say what is wrong with them.
//!
//! A reader asks a [`Table`] for each key with the key's default. What is wrong is reported and the default
//! is handed out, so that one run of `check` names everything.

use std::{cell::RefCell, ffi::OsString, path::Path, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{
    files::Files,
    item::Value,
    keys::{Key, Otherwise, Section},
    report::Report,
    value::Parsed,
};

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
            if section.key(unknown).is_none() {
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
        let Key { name, kind, .. } = self.key(key)?;
        let value = self.entries?.get(*name)?;
        let at = Some(value.span().start);
        Some(Value {
            context: self.context,
            key: name,
            kind,
            table: self.name.clone(),
            at,
            value: value.get_ref(),
        })
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        let key = self.section.key(name);
        debug_assert!(key.is_some(), "{name} is not in {}", self.section.name);
        key
    }

    /// The value of a key that the file must have.
    pub(super) fn required(&self, key: &'static str) -> Option<Value<'a>> {
        let value = self.value(key);
        if value.is_none() && !self.misplaced {
            let example = match self.key(key)?.otherwise {
                Otherwise::Required(example) | Otherwise::Unless(_, example) => example,
                _ => "...",
            };
            self.problem(
                format!("{key:?} is missing {}", self.place()),
                Some(format!("such as {key} = {example}")),
            );
        }
        value
    }

    /// A table in this one; it may be absent.
    pub(super) fn table(&self, key: &'static str) -> Self {
        let value = self.value(key);
        let section = self.section_of(key);
        let misplaced = value.is_some();
        let absent = || Self {
            misplaced,
            ..Self::new(self.context, section, section.name.to_owned(), None, None)
        };
        value
            .and_then(|value| value.table(None))
            .unwrap_or_else(absent)
    }

    /// The keys of a table in this one.
    fn section_of(&self, key: &str) -> &'static Section {
        self.key(key).map_or(self.section, |key| key.kind.section())
    }

    /// Whether it has no keys, known or not.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_none_or(|entries| entries.is_empty())
    }

    /// The `[[key]]` tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let section = self.section_of(key);
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
            .filter_map(|item| item.table(Some(section.name.to_owned())))
            .collect()
    }

    /// The tables under `[key.NAME]`, by name, in the order of the file.
    pub(super) fn named_tables(&self, key: &'static str) -> Vec<(&'a str, Self)> {
        let section = self.section_of(key);
        let Some(outer) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Table(entries) = outer.value else {
            let suggestion = Some(format!("write [{key}.NAME]"));
            self.context
                .report
                .problem(outer.at, format!("each {key} has a name"), suggestion);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, entry) in entries {
            let name = name.get_ref().as_ref();
            if !entry.get_ref().is_table() && section.key(name).is_some() {
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
                kind: outer.kind,
                table: key.to_owned(),
                at,
                value: entry.get_ref(),
            };
            if let Some(table) = value.table(Some(format!("[{key}.{name}]"))) {
                tables.push((name, table));
            }
        }
        tables.sort_by_key(|(_, table)| table.at);
        tables
    }

    /// A value that is read by `read`, or the default. `None` only if a problem was reported, or if there is no
    /// default.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Value<'_>) -> Option<T>,
    ) -> Option<T> {
        let written = self.value(key).and_then(|value| read(&value));
        written.or_else(|| self.default(key, read))
    }

    /// The default, read as if it stood in the file.
    fn default<T>(&self, key: &'static str, read: impl Fn(&Value<'_>) -> Option<T>) -> Option<T> {
        let Key {
            kind, otherwise, ..
        } = self.key(key)?;
        let Otherwise::Is(default) = otherwise else {
            return None;
        };
        let parsed = DeValue::parse(default);
        let Ok(parsed) = parsed else {
            self.problem(format!("the default of {key:?} is not TOML"), None);
            return None;
        };
        read(&Value {
            context: self.context,
            key,
            kind,
            table: self.name.clone(),
            at: None,
            value: parsed.get_ref(),
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str) -> bool {
        self.read(key, |value| value.flag()).unwrap_or_default()
    }

    /// A whole number.
    pub(super) fn count(&self, key: &'static str) -> usize {
        self.read(key, |value| value.count()).unwrap_or_default()
    }

    /// A duration.
    pub(super) fn duration(&self, key: &'static str) -> Duration {
        self.read(key, |value| value.duration()).unwrap_or_default()
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &'static str) -> usize {
        self.read(key, |value| usize::try_from(value.size()?).ok())
            .unwrap_or_default()
    }

    /// One of a few words, of which these are the meanings.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, |value| value.choice(choices))
    }

    /// A list of texts, each parsed.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Vec<T> {
        self.read(key, |value| value.list(expected, &parse))
            .unwrap_or_default()
    }

    fn place(&self) -> String {
        place(&self.name)
    }
}

/// What `read` makes of a table that is not there.
pub(super) fn absent<T>(section: &'static Section, read: impl Fn(&Table<'_>) -> T) -> T {
    let context = Context {
        report: Report::new(Path::new(""), ""),
        env: &|_| None,
        folder: Path::new(""),
        without_secrets: true,
        env_names: RefCell::default(),
        files: Files::default(),
    };
    read(&Table::new(
        &context,
        section,
        section.name.to_owned(),
        None,
        None,
    ))
}

/// `in [django]`, for messages.
pub(super) fn place(table: &str) -> String {
    match table {
        "" => "at the top".to_owned(),
        name => format!("in {name}"),
    }
}
