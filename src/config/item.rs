//! One value of the file: read as what it should be, or reported with its place and what would do.

use std::time::Duration;

use toml::{Spanned, de::DeValue};

use super::{
    keys::Kind,
    report::{did_you_mean, nearest},
    tree::{Context, Table, place},
    value::{self, Parsed},
};

/// A value, and how messages call it.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) context: &'a Context<'a>,
    /// The key that it stands under.
    pub(super) key: &'a str,
    /// What it may be.
    pub(super) kind: &'static Kind,
    /// The table's name.
    pub(super) table: String,
    pub(super) at: Option<usize>,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Reports a problem with this value; the sentence starts with its place.
    pub(super) fn problem(&self, why: impl AsRef<str>, suggestion: Option<String>) {
        let sentence = format!("{:?} {}: {}", self.key, place(&self.table), why.as_ref());
        self.context.report.problem(self.at, sentence, suggestion);
    }

    /// Reports that this is not of the right type.
    pub(super) fn wrong(&self, expected: &str, suggestion: Option<String>) {
        let kind = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let sentence = format!(
            "{:?} {} must be {expected}, not {kind}",
            self.key,
            place(&self.table)
        );
        self.context.report.problem(self.at, sentence, suggestion);
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// A text; anything else is reported with what was expected.
    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        let text = self.as_text();
        if text.is_none() {
            let quoted = match self.value {
                DeValue::Float(number) => Some(did_you_mean(number.as_str())),
                _ => None,
            };
            self.wrong(expected, quoted);
        }
        text
    }

    /// A text that `parse` accepts.
    pub(super) fn parse<T>(&self, expected: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let parsed = parse(self.text(expected)?);
        parsed
            .map_err(|refused| self.problem(refused.why, refused.suggestion))
            .ok()
    }

    /// Whether it is `true` or `false`, if it is one of them.
    pub(super) fn as_flag(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            let meant = match self.as_text() {
                Some("on" | "yes" | "true" | "True") => Some("did you mean true?".to_owned()),
                Some("off" | "no" | "false" | "False") => Some("did you mean false?".to_owned()),
                _ => None,
            };
            self.wrong("true or false", meant);
        }
        flag
    }

    /// A whole number in its range.
    pub(super) fn count(&self) -> Option<usize> {
        let range = self.kind.counts();
        let Some(number) = self.integer() else {
            let meant = self.as_text().and_then(|text| text.parse::<usize>().ok());
            self.wrong(
                "a whole number",
                meant.map(|number| format!("did you mean {number}?")),
            );
            return None;
        };
        let count = usize::try_from(number)
            .ok()
            .filter(|number| range.contains(number));
        if count.is_none() {
            self.problem(
                format!(
                    "{number} is not between {} and {}",
                    range.start(),
                    range.end()
                ),
                None,
            );
        }
        count
    }

    /// A duration in its range.
    pub(super) fn duration(&self) -> Option<Duration> {
        let range = self.kind.durations();
        if let Some(number) = self.integer() {
            self.wrong(
                "a duration such as \"30s\"",
                Some(did_you_mean(&format!("{number}s"))),
            );
            return None;
        }
        let duration = self.parse("a duration such as \"30s\"", value::duration)?;
        if !range.contains(&duration) {
            let [found, from, to] =
                [duration, *range.start(), *range.end()].map(value::spell_duration);
            self.problem(format!("{found} is not between {from} and {to}"), None);
            return None;
        }
        if self.kind.is_of_seconds() && duration.subsec_nanos() != 0 {
            self.problem("this is counted in whole seconds", None);
            return None;
        }
        Some(duration)
    }

    /// A size in bytes, in its range.
    pub(super) fn size(&self) -> Option<u64> {
        let range = self.kind.sizes();
        if let Some(number) = self.integer() {
            let meant = u64::try_from(number)
                .ok()
                .map(|bytes| did_you_mean(&value::spell_size(bytes)));
            self.wrong("a size such as \"64KiB\"", meant);
            return None;
        }
        let size = self.parse("a size such as \"64KiB\"", value::size)?;
        if !range.contains(&size) {
            let [found, from, to] = [size, *range.start(), *range.end()].map(value::spell_size);
            self.problem(format!("{found} is not between {from} and {to}"), None);
            return None;
        }
        Some(size)
    }

    /// One of its words, of which these are the meanings.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        debug_assert!(
            choices.iter().map(|(word, _)| word).eq(self.kind.words()),
            "the words of {} are others in the table of keys",
            self.key
        );
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let expected = match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        };
        let Some(text) = self.as_text() else {
            let words: &[&str] = match self.value.as_bool() {
                Some(true) => &["on"],
                Some(false) => &["off", "omit"],
                None => &[],
            };
            let mut words = words.iter().copied();
            let meant = words.find(|word| choices.iter().any(|(name, _)| name == word));
            self.wrong(&expected, meant.map(did_you_mean));
            return None;
        };
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let suggestion = nearest(text, choices.iter().map(|(name, _)| *name));
            self.problem(format!("{text:?} is not {expected}"), suggestion);
        }
        found.map(|(_, choice)| *choice)
    }

    /// The items of a list; `expected` is what the list should be. What is there instead may be a secret, and
    /// is not repeated.
    pub(super) fn items(&self, expected: &str) -> Option<Vec<Self>> {
        let DeValue::Array(items) = self.value else {
            self.wrong(expected, None);
            return None;
        };
        let item = |item: &'a Spanned<DeValue<'a>>| Self {
            at: Some(item.span().start),
            value: item.get_ref(),
            kind: self.kind.items(),
            ..self.clone()
        };
        Some(items.iter().map(item).collect())
    }

    /// The items of a list of names.
    pub(super) fn texts(&self, expected: &str) -> Option<Vec<Self>> {
        if let Some(text) = self.as_text() {
            self.wrong(expected, Some(format!("did you mean [{text:?}]?")));
            return None;
        }
        self.items(expected)
    }

    /// A list of texts, each parsed. What is refused is reported and left out.
    pub(super) fn list<T>(
        &self,
        expected: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let items = self.texts(expected)?;
        let mut seen: Vec<&str> = Vec::new();
        let mut parsed = Vec::new();
        for item in items {
            if let Some(text) = item.as_text().filter(|text| seen.contains(text)) {
                item.problem(format!("{text:?} is given twice"), None);
            }
            seen.extend(item.as_text());
            parsed.extend(item.parse(expected, &parse));
        }
        Some(parsed)
    }

    /// A table; messages call it by this name, or by the key that it stands under.
    pub(super) fn table(&self, name: Option<String>) -> Option<Table<'a>> {
        let section = self.kind.section();
        let Some(entries) = self.value.as_table() else {
            let several = self.value.is_array() && section.name == "[django]";
            match several {
                true => self.context.report.problem(
                    self.at,
                    "there is one Django site in a process",
                    None,
                ),
                false => self.wrong("a table", None),
            }
            return None;
        };
        let name = name.unwrap_or_else(|| match section.name.starts_with('[') {
            true => section.name.to_owned(),
            false => format!("{} of {}", self.key, self.table),
        });
        Some(Table::new(
            self.context,
            section,
            name,
            self.at,
            Some(entries),
        ))
    }

    /// Whether this is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Whether this is `[]`.
    pub(super) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(|items| items.is_empty())
    }

    fn integer(&self) -> Option<i128> {
        let number = self.value.as_integer()?;
        i128::from_str_radix(number.as_str(), number.radix()).ok()
    }
}
