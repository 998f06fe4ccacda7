//! How much may come, and what is changed on the way: `rate`, `limits`, `redirect` and the header fields of a route.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use toml::de::DeValue;

use super::{Limits, item::Value, load::read_body_limit, tree::Table, value};
use crate::reserved;

/// One of a route's `rate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// `by`.
    pub by: RateBy,
    /// `requests`: at most this many ...
    pub requests: u32,
    /// ... in any such time.
    pub every: Duration,
}

/// `by`: whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// `"address"`: those of one IPv4 address, or one IPv6 network of 64 bits.
    Address,
    /// `"session"`: those of one known session; of who has none, those of the address.
    Session,
}

/// `limits` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// `request_body`, in bytes; `None` is no limit.
    pub request_body: Option<u64>,
    /// `in_flight`; `None` is as many as the gateway takes.
    pub in_flight: Option<usize>,
}

/// One of `request_headers` or `response_headers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field.
    pub name: HeaderName,
    /// The one value that it gets; `None` removes it.
    pub value: Option<HeaderValue>,
}

/// `redirect`: where the requests of a route are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Scheme, host and port.
    origin: String,
    /// What takes the place of the route's `path`; `None` leaves the path as it is. Without a final slash.
    base: Option<String>,
}

impl Redirect {
    /// The URL for a request: `path` as it came, `rest` what is left of it without the route's `path`; both begin
    /// with a slash.
    pub fn location(&self, path: &str, rest: &str, query: Option<&str>) -> String {
        let mut location = self.origin.clone();
        match &self.base {
            Some(base) => {
                location.push_str(base);
                location.push_str(rest);
            }
            None => location.push_str(path),
        }
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

/// `rate` of a route.
pub(super) fn read_rates(table: &Table<'_>) -> Vec<Rate> {
    let example = "a list such as [{ by = \"address\", requests = 100, every = \"10s\" }]";
    let Some(items) = table.value("rate").and_then(|value| value.items(example)) else {
        return Vec::new();
    };
    let mut rates: Vec<Rate> = Vec::new();
    for item in items {
        let Some(entry) = item.table(None) else {
            continue;
        };
        let by = entry.required("by").and_then(|value| {
            value.choice(&[("address", RateBy::Address), ("session", RateBy::Session)])
        });
        let requests = entry.required("requests").and_then(|value| value.count());
        let every = entry.required("every").and_then(|value| value.duration());
        let (Some(by), Some(requests), Some(every)) = (by, requests, every) else {
            continue;
        };
        if rates
            .iter()
            .any(|rate| rate.by == by && rate.every == every)
        {
            item.problem(
                "there is another rate with the same \"by\" and \"every\"",
                None,
            );
        }
        rates.push(Rate {
            by,
            requests: u32::try_from(requests).unwrap_or(u32::MAX),
            every,
        });
    }
    rates
}

/// `limits` of a route, over the ones that hold otherwise.
pub(super) fn read_limits(table: &Table<'_>, outer: &Limits) -> RouteLimits {
    let own = table.table("limits");
    RouteLimits {
        request_body: own
            .read("request_body", read_body_limit)
            .unwrap_or(outer.request_body),
        in_flight: own.value("in_flight").and_then(|value| value.count()),
    }
}

/// `redirect` of a route.
pub(super) fn read_redirect(value: &Value<'_>) -> Option<Redirect> {
    value.parse("a URL such as \"https://shop.example\"", |text| {
        let (origin, path) = match text.find("://").and_then(|scheme| {
            let path = text[scheme + 3..].find(['/', '?', '#'])? + scheme + 3;
            Some(text.split_at(path))
        }) {
            Some((origin, path)) => (origin, Some(path)),
            None => (text, None),
        };
        let origin = value::origin(origin)?;
        let base = path.map(|path| match path.parse::<Uri>() {
            Ok(uri) if path.starts_with('/') && uri.query().is_none() && !path.contains('#') => {
                Ok(path.trim_end_matches('/').to_owned())
            }
            _ => Err(value::Refused::new(format!(
                "{text:?} is not a URL without query and fragment"
            ))),
        });
        Ok(Redirect {
            origin,
            base: base.transpose()?,
        })
    })
}

/// Who sends the fields that are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// The gateway to an upstream.
    Request,
    /// The gateway to a client.
    Response,
}

/// What frames a message or belongs to one connection (RFC 9110, section 7.6.1): the gateway's own to say.
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// `request_headers` or `response_headers` of a route.
pub(super) fn read_fields(value: &Value<'_>, message: Message) -> Option<Vec<FieldChange>> {
    let expected = "a table such as { \"X-Frame-Options\" = \"DENY\", \"Server\" = false }";
    let DeValue::Table(entries) = value.value else {
        value.wrong(expected, None);
        return None;
    };
    let mut changes: Vec<FieldChange> = Vec::new();
    for (key, entry) in entries {
        let written = key.get_ref().as_ref();
        let at_name = Value {
            at: Some(key.span().start),
            value: entry.get_ref(),
            ..value.clone()
        };
        let Some(name) = field_name(&at_name, written, message) else {
            continue;
        };
        if changes.iter().any(|change| change.name == name) {
            at_name.problem(format!("{written:?} is given twice"), None);
        }
        let at_value = Value {
            at: Some(entry.span().start),
            ..at_name
        };
        if let Some(value) = field_value(&at_value) {
            changes.push(FieldChange { name, value });
        }
    }
    Some(changes)
}

fn field_name(value: &Value<'_>, written: &str, message: Message) -> Option<HeaderName> {
    let Ok(name) = HeaderName::try_from(written) else {
        value.problem(
            format!("{written:?} is not the name of a header field"),
            None,
        );
        return None;
    };
    let own = match message {
        Message::Request => name == "cookie" || name.as_str().starts_with("x-forwarded-"),
        Message::Response => name == "set-cookie",
    };
    if own || FRAMING.contains(&name.as_str()) || reserved::in_response(name.as_str()) {
        value.problem(format!("{written:?} is set by the gateway itself"), None);
        return None;
    }
    Some(name)
}

/// `None` where it is wrong, `Some(None)` for `false`.
fn field_value(value: &Value<'_>) -> Option<Option<HeaderValue>> {
    if value.value.as_bool() == Some(false) {
        return Some(None);
    }
    let Some(text) = value.as_text() else {
        value.wrong("text, or false to remove the field", None);
        return None;
    };
    match HeaderValue::from_str(text) {
        Ok(field) if text.is_ascii() && text.trim() == text => Some(Some(field)),
        _ => {
            let why = "a field's value is visible ASCII without blanks around it";
            value.problem(why, None);
            None
        }
    }
}

/// Keys of a route that say something of an upstream.
const OF_UPSTREAMS: [&str; 22] = [
    "upstream",
    "session",
    "require",
    "groups",
    "user",
    "plain_headers",
    "forward",
    "writable",
    "may",
    "unsafe_writable",
    "on_anonymous",
    "login_url",
    "on_store_error",
    "cross_site",
    "cache",
    "request_headers",
    "strip_prefix",
    "timeouts",
    "limits",
    "upgrades",
    "recheck",
    "recheck_grace",
];

/// Reports what a route with `redirect` cannot have.
pub(super) fn check_redirect(table: &Table<'_>) {
    for key in OF_UPSTREAMS {
        if let Some(value) = table.value(key) {
            value.problem("a route with \"redirect\" has no upstream", None);
        }
    }
}

/// Reports rates that count what the route does not read.
pub(super) fn check_rates(table: &Table<'_>, rates: &[Rate], reads_sessions: bool) {
    if !reads_sessions
        && rates.iter().any(|rate| rate.by == RateBy::Session)
        && let Some(value) = table.value("rate")
    {
        let suggestion = Some("write by = \"address\"".to_owned());
        value.problem("this route reads no sessions to count by", suggestion);
    }
}
