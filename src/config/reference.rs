//! The tables of `docs/configuration.md`, written from the keys.

use super::{
    keys::{self, Key, Kind, Otherwise, Section},
    value::{spell_duration, spell_size},
};

const BEGIN: &str = "<!-- keys: ";
const END: &str = "<!-- end of keys -->";

/// The text with the tables of keys written anew. Each stands between `<!-- keys: [django] -->`, which may name several
/// sections, and `<!-- end of keys -->`.
///
/// # Errors
/// A sentence that says which mark is wrong.
pub fn reference(text: &str) -> Result<String, String> {
    let mut parts = text.split(BEGIN);
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let marked = part.split_once(" -->\n").and_then(|(names, rest)| {
            let (_, rest) = rest.split_once(END)?;
            Some((names, rest))
        });
        let Some((names, rest)) = marked else {
            let line = part.lines().next().unwrap_or_default();
            return Err(format!("there is no {END} behind {BEGIN}{line}"));
        };
        written.push_str(&format!("{BEGIN}{names} -->\n{}{END}{rest}", table(names)?));
    }
    Ok(written)
}

/// The table of these sections; a key that several have alike stands in it once.
fn table(names: &str) -> Result<String, String> {
    let mut rows: Vec<String> = Vec::new();
    for name in names.split(", ") {
        let section = keys::every().find(|section| called(section) == name);
        let section = section.ok_or_else(|| format!("there is no section {name}"))?;
        for key in section.keys.iter().filter(|key| !key.about.is_empty()) {
            let row = row(key);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    let rows = rows.concat();
    Ok(format!(
        "\n| key | type | default | what it does, and why |\n|---|---|---|---|\n{rows}\n"
    ))
}

fn called(section: &Section) -> &str {
    match section.name {
        "" => "the top",
        name => name,
    }
}

fn row(key: &Key) -> String {
    let (name, kind, otherwise) = (key.name, kind(&key.kind), otherwise(key));
    format!("| `{name}` | {kind} | {otherwise} | {} |\n", key.about)
}

/// What holds without a key, in Markdown.
pub(super) fn otherwise(key: &Key) -> String {
    match key.otherwise {
        Otherwise::Required(_) => "required".to_owned(),
        Otherwise::Unless(other, _) => format!("required, or `{other}`"),
        Otherwise::Is(value) => format!("`{value}`"),
        Otherwise::Words(words) => words.to_owned(),
        Otherwise::None => "none".to_owned(),
    }
}

/// What a value may be, in Markdown.
pub(super) fn kind(of: &Kind) -> String {
    match of {
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::False => "`false`".to_owned(),
        Kind::Count(range) => match (range.start(), range.end()) {
            (0, end) => format!("count, to {end}"),
            (start, end) => format!("count, {start} to {end}"),
        },
        Kind::Duration(range) | Kind::Seconds(range) => {
            let end = spell_duration(*range.end());
            let seconds = match of {
                Kind::Seconds(_) => "whole seconds, ",
                _ => "",
            };
            match range.start().is_zero() {
                true => format!("duration, {seconds}to {end}"),
                false => {
                    let start = spell_duration(*range.start());
                    format!("duration, {seconds}{start} to {end}")
                }
            }
        }
        Kind::Size(range) => match (*range.start(), spell_size(*range.end())) {
            (0, end) => format!("size, to {end}"),
            (start, end) => format!("size, {} to {end}", spell_size(start)),
        },
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word:?}`")).collect();
            words.join(", ")
        }
        Kind::Text(form) => form.called.to_owned(),
        Kind::Secret("") => "secret".to_owned(),
        Kind::Secret(more) => format!("secret, {more}"),
        Kind::List(list) => format!("list of {}", list.called),
        Kind::Or(kinds) => kinds.iter().map(kind).collect::<Vec<_>>().join(", or "),
        Kind::Table(section) => match is_short(section) {
            true => braces(section),
            false => "table".to_owned(),
        },
        Kind::Tables(section, _) => format!("list of {}", braces(section)),
        Kind::Named(_) => "tables by name".to_owned(),
        Kind::Map(map) => format!("table of {}", map.called),
    }
}

/// Whether a table has all its keys or none.
fn is_short(section: &Section) -> bool {
    let mut keys = section.keys.iter();
    keys.all(|key| matches!(key.otherwise, Otherwise::Required(_)))
}

fn braces(section: &Section) -> String {
    let names: Vec<&str> = section.names().collect();
    format!("`{{ {} }}`", names.join(", "))
}
