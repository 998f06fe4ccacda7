//! `plain_headers` of a route: a user's name in a header of its own, for software that cannot check a token.

use http::HeaderName;
use toml::de::DeValue;

use super::{
    Django, Forward, PlainHeader, PlainSource, Protected, Route, Verify, Writable, item::Value,
    protected::NEVER_FORWARDED, report::did_you_mean, tree::Table, value,
};

const EXAMPLE: &str = "a table such as { \"X-WEBAUTH-USER\" = \"user.username\" }";

/// Names that others say something with: HTTP itself, browsers, Django, proxies and this gateway. A plain header's name
/// is taken from every client's request on every route, so these would be missed, or believed.
const TAKEN: [&str; 48] = [
    "authorization",
    "cache-control",
    "cf-connecting-ip",
    "client-ip",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "dnt",
    "early-data",
    "expect",
    "fastly-client-ip",
    "forwarded",
    "from",
    "front-end-https",
    "host",
    "http2-settings",
    "keep-alive",
    "last-event-id",
    "max-forwards",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "remote-addr",
    "script-name",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-csrftoken",
    "x-gateway-error",
    "x-http-method-override",
    "x-real-ip",
    "x-requested-with",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];
const TAKEN_PREFIXES: [&str; 9] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "proxy",
    "sec-",
    "x-forwarded",
    "x-original-",
    "x-session",
];

/// Reads the table, in the order of the names: the file's order has no meaning.
pub(super) fn read(value: &Value<'_>) -> Option<Vec<PlainHeader>> {
    let DeValue::Table(entries) = value.value else {
        value.wrong(EXAMPLE, None);
        return None;
    };
    let mut headers: Vec<PlainHeader> = Vec::new();
    for (key, entry) in entries {
        let written = key.get_ref().as_ref();
        let item = Value {
            context: value.context,
            key: value.key,
            kind: value.kind,
            table: value.table.clone(),
            at: Some(key.span().start),
            value: entry.get_ref(),
        };
        let Some(name) = name(&item, written) else {
            continue;
        };
        if headers.iter().any(|header| header.name == name) {
            item.problem(format!("{written:?} is given twice"), None);
        }
        let source = Value {
            at: Some(entry.span().start),
            ..item
        }
        .parse("a source such as \"user.username\"", source);
        headers.extend(source.map(|source| PlainHeader { name, source }));
    }
    Some(headers)
}

fn name(value: &Value<'_>, written: &str) -> Option<HeaderName> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if written.is_empty() || written.len() > 64 || !written.bytes().all(is_plain) {
        // Servers that fold names would take other characters for a hyphen, each in its own way.
        let folded: String = written
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let suggestion = (!written.is_empty() && written.is_ascii()).then(|| did_you_mean(&folded));
        value.problem(
            format!("{written:?} is not a header name of letters, digits and -"),
            suggestion,
        );
        return None;
    }
    let lower = written.to_ascii_lowercase();
    if TAKEN.contains(&lower.as_str())
        || TAKEN_PREFIXES
            .iter()
            .any(|prefix| lower.starts_with(prefix))
    {
        value.problem(
            format!(
                "{written:?} has a meaning of its own, and would be taken from every client's request"
            ),
            Some("such as \"X-WEBAUTH-USER\" or \"Remote-User\"".to_owned()),
        );
        return None;
    }
    HeaderName::try_from(lower).ok()
}

fn source(text: &str) -> value::Parsed<PlainSource> {
    if let Some(column) = text.strip_prefix("user.") {
        if column == "groups" {
            return Err(value::Refused {
                why: "\"user.groups\" are several values, and a plain header holds one".to_owned(),
                suggestion: None,
            });
        }
        return value::told_column(column).map(PlainSource::User);
    }
    match text.strip_prefix("session.") {
        Some("") => {}
        Some(name) => return Ok(PlainSource::Session(name.to_owned())),
        None if text == "sub" => return Ok(PlainSource::Sub),
        None if text == "sid" => return Ok(PlainSource::Sid),
        None => {}
    }
    Err(value::Refused {
        why: format!("{text:?} is none of \"user.COLUMN\", \"sub\", \"sid\" and \"session.NAME\""),
        suggestion: match text {
            "username" | "email" => Some(did_you_mean(&format!("user.{text}"))),
            _ => None,
        },
    })
}

/// What the route knows must be there, and may be told; and who reads only the header must not be misled.
pub(super) fn check(table: &Table<'_>, route: &Route, django: &Django) {
    let Some(value) = table.value("plain_headers") else {
        return;
    };
    if route.forward_on_store_error {
        let why = "with on_store_error = \"forward\" their absence would not mean that nobody is logged in";
        value.problem(why, None);
    }
    if django.verify == Verify::Off && route.plain_columns().next().is_some() {
        let suggestion = Some("write verify = \"user\" in [django]".to_owned());
        value.problem("with verify = \"off\" no user is looked up", suggestion);
    }
    if route
        .plain_columns()
        .any(|column| *column == django.user.password)
    {
        value.problem("this names the password column", None);
    }
    for header in &route.plain_headers {
        if let PlainSource::Session(name) = &header.source {
            check_session(&value, name, &route.forward, &django.protected);
        }
    }
}

/// A session's name goes into a header only where the route forwards it.
fn check_session(value: &Value<'_>, name: &str, forward: &Forward, protected: &Protected) {
    let is_forwarded = match forward {
        Forward::Only(names) => names.iter().any(|forwarded| forwarded == name),
        Forward::AllButProtected => !protected.contains(name),
    };
    if !is_forwarded || NEVER_FORWARDED.contains(&name) {
        value.problem(
            format!("{name:?} of the session is not forwarded on this route"),
            None,
        );
    }
}

/// What services may write is no identity.
pub(super) fn remark(routes: &[(Route, Table<'_>)]) {
    let is_writable = |name: &String| {
        routes
            .iter()
            .any(|(route, _)| match &route.grants.writable {
                Writable::Only(names) => names.contains(name),
                // Names that are protected do not get here.
                Writable::AllButProtected(_) => true,
            })
    };
    for (route, table) in routes {
        for header in &route.plain_headers {
            if let PlainSource::Session(name) = &header.source
                && is_writable(name)
                && let Some(value) = table.value("plain_headers")
            {
                let sentence = format!(
                    "an upstream may write {name:?}: who reads {} must not take it for a user",
                    header.name
                );
                table.context.report.remark(value.at, sentence);
            }
        }
    }
}
