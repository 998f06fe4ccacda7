//! `[error_pages]`: pages of one's own for the gateway's own answers.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use toml::de::DeValue;

use super::{item::Value, report::nearest, tree::Table};
use crate::error::Code;

/// The largest page. It is sent to many when all is not well.
const MAX_FILE: u64 = 256 * 1024;

/// `[error_pages]`.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages(BTreeMap<Which, Arc<Page>>);

/// Which answers a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    /// `"session-gone"`: by the place in [`Code::ALL`].
    Code(usize),
    /// `"503"`.
    Status(u16),
    /// `"5xx"`: by the first digit.
    Class(u16),
    /// `"default"`.
    Default,
}

/// A page with gaps.
#[derive(Debug, PartialEq, Eq)]
pub struct Page(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Gap(Gap),
}

/// What is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// `{{status}}`: 503.
    Status,
    /// `{{title}}`: what the status means.
    Title,
    /// `{{detail}}`: what happened and what to do.
    Detail,
    /// `{{code}}`: the code of the answer.
    Code,
    /// `{{request_id}}`: by which the log has it.
    RequestId,
}

const GAPS: [(&str, Gap); 5] = [
    ("status", Gap::Status),
    ("title", Gap::Title),
    ("detail", Gap::Detail),
    ("code", Gap::Code),
    ("request_id", Gap::RequestId),
];

impl ErrorPages {
    /// Whether the gateway's own plain page is all that there is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page for a code: that of the code itself, of its status, of its class (`"5xx"`), or of all.
    pub fn page(&self, code: Code) -> Option<&Page> {
        if self.is_empty() {
            return None;
        }
        let status = code.status().as_u16();
        let which = [
            Code::ALL
                .iter()
                .position(|(other, _)| *other == code)
                .map(Which::Code),
            Some(Which::Status(status)),
            Some(Which::Class(status / 100)),
            Some(Which::Default),
        ];
        let mut found = which.into_iter().flatten().map(|which| self.0.get(&which));
        found.find_map(|page| page.map(Arc::as_ref))
    }
}

impl Page {
    /// The page with its gaps filled; `fill` gives HTML.
    pub fn filled(&self, fill: impl Fn(Gap) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Gap(gap) => fill(*gap),
        });
        parts.collect()
    }

    /// Parses a page. Only `{{` of a gap is special.
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err("has \"{{\" without \"}}\"".to_owned());
            };
            let found = GAPS.iter().find(|(known, _)| *known == name.trim());
            let Some((_, gap)) = found else {
                let names = GAPS.map(|(name, _)| format!("{{{{{name}}}}}")).join(", ");
                let name: String = name.chars().take(40).collect();
                return Err(format!("has {{{{{name}}}}}; there are {names}"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Gap(*gap));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

/// Reads `[error_pages]`.
pub(super) fn read(top: &Table<'_>) -> ErrorPages {
    let Some(value) = top.value("error_pages") else {
        return ErrorPages::default();
    };
    let DeValue::Table(entries) = value.value else {
        value.wrong("a table such as { \"5xx\" = \"errors/5xx.html\" }", None);
        return ErrorPages::default();
    };
    let mut pages = BTreeMap::new();
    for (key, entry) in entries {
        let name = key.get_ref().as_ref();
        let at_key = Value {
            context: value.context,
            key: name,
            kind: value.kind,
            table: "[error_pages]".to_owned(),
            at: Some(key.span().start),
            value: entry.get_ref(),
        };
        let which = which(name);
        if let Err(suggestion) = &which {
            let why = "this is no code of an answer of the gateway's, no status that it has, not \"4xx\", \"5xx\" or \
                       \"default\"";
            at_key.problem(why, suggestion.clone());
        }
        let at_value = Value {
            at: Some(entry.span().start),
            ..at_key
        };
        if let (Ok(which), Some(page)) = (which, read_page(&at_value)) {
            pages.insert(which, Arc::new(page));
        }
    }
    ErrorPages(pages)
}

/// What a key stands for, or what was probably meant.
fn which(name: &str) -> Result<Which, Option<String>> {
    if let Some(place) = Code::ALL.iter().position(|(_, code)| *code == name) {
        return Ok(Which::Code(place));
    }
    match name {
        "default" => return Ok(Which::Default),
        "4xx" => return Ok(Which::Class(4)),
        "5xx" => return Ok(Which::Class(5)),
        _ => {}
    }
    let is_ours = |status: &StatusCode| Code::ALL.iter().any(|(code, _)| code.status() == *status);
    let status = StatusCode::from_bytes(name.as_bytes()).ok();
    match status.filter(is_ours) {
        Some(status) => Ok(Which::Status(status.as_u16())),
        None => Err(nearest(name, Code::ALL.iter().map(|(_, code)| *code))),
    }
}

fn read_page(value: &Value<'_>) -> Option<Page> {
    let path = value
        .context
        .folder
        .join(value.text("the path of an HTML file")?);
    let too_large = "it is larger than 256 KiB";
    let bytes = match value.context.files.read(&path, MAX_FILE, too_large) {
        Ok(bytes) => bytes,
        Err(error) => {
            value.problem(format!("{} cannot be read: {error}", path.display()), None);
            return None;
        }
    };
    let parsed = match String::from_utf8(bytes) {
        Ok(text) => Page::parse(&text),
        Err(_) => Err("is not UTF-8".to_owned()),
    };
    parsed
        .map_err(|why| value.problem(format!("{} {why}", path.display()), None))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_filled_and_everything_else_stays_as_it_is() {
        let text =
            "<style>a{b:c}</style>{{ status }}{{title}}-{{detail}}{{code}}{{request_id}}{ }}";
        let page = Page::parse(text).unwrap();
        let filled = page.filled(|gap| format!("<{gap:?}>"));
        let expected =
            "<style>a{b:c}</style><Status><Title>-<Detail><Code><RequestId>{ }}".to_owned();
        assert_eq!(filled, expected);
        for (wrong, why) in [
            ("a {{nonsense}}", "nonsense"),
            ("a {{status", "without"),
            ("{{", "without"),
        ] {
            assert!(Page::parse(wrong).unwrap_err().contains(why), "{wrong}");
        }
    }

    #[test]
    fn the_page_is_that_of_the_code_then_of_the_status_then_of_the_class_then_of_all() {
        let all = ["session-gone", "409", "4xx", "5xx", "default"];
        let page = |name: &str| (which(name).unwrap(), Arc::new(Page::parse(name).unwrap()));
        let pages = |names: &[&str]| ErrorPages(names.iter().map(|name| page(name)).collect());
        let found = |names: &[&str], code| {
            let pages = pages(names);
            pages.page(code).map(|page| page.filled(|_| String::new()))
        };
        for (code, expected) in [
            (Code::SessionGone, "session-gone"),
            (Code::SessionBusy, "409"),
            (Code::NoRoute, "4xx"),
            (Code::NoServer, "5xx"),
        ] {
            assert_eq!(found(&all, code).as_deref(), Some(expected));
        }
        assert_eq!(
            found(&["default"], Code::NoServer).as_deref(),
            Some("default")
        );
        assert_eq!(found(&["404"], Code::NoServer), None);
    }

    #[test]
    fn every_code_and_its_status_have_a_name_and_nothing_else_has() {
        for (code, name) in Code::ALL {
            assert!(which(name).is_ok(), "{name}");
            assert!(which(code.status().as_str()).is_ok(), "{code:?}");
        }
        for name in ["200", "418", "3xx", "", "Default", "5XX"] {
            assert!(which(name).is_err(), "{name}");
        }
        let meant = which("session-gome").unwrap_err().unwrap();
        assert!(meant.contains("session-gone"), "{meant}");
    }
}
