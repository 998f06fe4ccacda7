//! The schema of the configuration file, for editors: JSON Schema, draft 7, which those for TOML understand.
//!
//! It finds what can be found without looking anything up: unknown keys, missing ones, other types, what is out of its
//! range or none of the words. What the program refuses beyond that, [`Config`](super::Config) finds.

use std::time::Duration;

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use super::{
    digits,
    keys::{self, Form, Key, Kind, Otherwise, Section},
    reference,
    value::{DURATION_UNITS, SIZE_UNITS},
};

/// The schema of `gateway.toml`.
pub fn schema() -> Value {
    let mut schema = of_section(&keys::TOP);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("gateway.toml");
    schema
}

fn of_section(section: &Section) -> Value {
    let property = |key: &Key| (key.name.to_owned(), of_key(key));
    let is_required = |key: &&Key| matches!(key.otherwise, Otherwise::Required(_));
    let required = section.keys.iter().filter(is_required).map(|key| key.name);
    let mut schema = json!({
        "type": "object",
        "description": plain(section.about),
        "properties": section.keys.iter().map(property).collect::<Map<_, _>>(),
        "required": required.collect::<Vec<_>>(),
        "additionalProperties": false,
    });
    if !section.either.is_empty() {
        let one = section
            .either
            .iter()
            .map(|key| json!({ "required": [key] }));
        schema["oneOf"] = one.collect();
    }
    schema
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_kind(&key.kind);
    if !key.about.is_empty() {
        let (kind, otherwise) = (reference::kind(&key.kind), reference::otherwise(key));
        let about = plain(key.about);
        schema["description"] = json!(format!("{about}\n\n{kind}; default: {otherwise}"));
    }
    if let Otherwise::Is(default) = key.otherwise {
        schema["default"] = written(default);
    }
    schema
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::False => json!({ "enum": [false] }),
        Kind::Count(range) => {
            json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
        }
        Kind::Duration(range) => {
            let [from, to] = [range.start(), range.end()].map(milliseconds);
            of_pattern(digits::with_unit(from, to, &DURATION_UNITS))
        }
        Kind::Seconds(range) => {
            let [from, to] = [range.start(), range.end()].map(milliseconds);
            // So many milliseconds are whole seconds.
            let units = DURATION_UNITS.map(|(unit, factor)| match unit {
                "ms" => ("000ms", 1000),
                unit => (unit, factor),
            });
            of_pattern(digits::with_unit(from, to, &units))
        }
        Kind::Size(range) => {
            of_pattern(digits::with_unit(*range.start(), *range.end(), &SIZE_UNITS))
        }
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Text(form) => of_form(form),
        Kind::Secret(_) => of_section(&keys::SECRET),
        Kind::List(list) => {
            let mut schema = json!({
                "type": "array",
                "items": of_kind(&list.of),
                "minItems": list.least,
                "uniqueItems": list.unique,
            });
            if let Some(most) = list.most {
                schema["maxItems"] = json!(most);
            }
            schema
        }
        Kind::Or(kinds) => json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() }),
        Kind::Table(section) => of_section(section),
        Kind::Tables(section, least) => {
            json!({ "type": "array", "items": of_section(section), "minItems": least })
        }
        Kind::Named(section) => json!({
            "type": "object",
            "propertyNames": of_form(&keys::NAME),
            "additionalProperties": of_section(section),
        }),
        Kind::Map(map) => json!({
            "type": "object",
            "propertyNames": of_form(map.names),
            "additionalProperties": of_kind(&map.values),
        }),
    }
}

fn of_form(form: &Form) -> Value {
    let mut schema = json!({ "type": "string" });
    if !form.pattern.is_empty() {
        schema["pattern"] = json!(form.pattern);
    }
    if !form.good.is_empty() {
        schema["examples"] = json!(form.good);
    }
    schema
}

fn of_pattern(pattern: String) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn milliseconds(duration: &Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A default, as JSON.
fn written(default: &str) -> Value {
    let parsed = DeValue::parse(default).ok();
    parsed.map_or(Value::Null, |value| as_json(value.get_ref()))
}

/// What stands in TOML, without dates, of which the file has none.
fn as_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Integer(number) => json!(number.as_str().parse::<i64>().ok()),
        DeValue::Array(items) => items.iter().map(|item| as_json(item.get_ref())).collect(),
        _ => Value::Null,
    }
}

/// Markdown without links: an editor has nowhere to go from them.
fn plain(markdown: &str) -> String {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, label, after)) = link(rest) {
        text.push_str(before);
        text.push_str(label);
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The first link: what stands before it, its label, and what stands behind it.
fn link(markdown: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = markdown.split_at(markdown[..markdown.find("](")?].rfind('[')?);
    let (label, rest) = rest.strip_prefix('[')?.split_once("](")?;
    let (_, after) = rest.split_once(')')?;
    Some((before, label, after))
}
