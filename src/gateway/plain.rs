//! A route's plain headers: values for software that reads a user's name from a header and cannot check a token.

use http::{HeaderName, HeaderValue};

use super::respond::Refusal;
use crate::{
    config::{PlainHeader, PlainSource, Route},
    error::Code,
    json,
    sessions::Known,
};

/// More is no name, and would fill the upstream's buffer for all fields.
const MAX_BYTES: usize = 1024;

/// What the headers of a route say about this visitor. What is NULL, empty or not there has no header.
///
/// # Errors
///
/// 502 where a value cannot stand in a header as it is. It is never cut or respelt: two users could become one.
pub fn values(
    route: &Route,
    sid: &str,
    known: &Known,
) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let mut values = Vec::with_capacity(route.plain_headers.len());
    for PlainHeader { name, source } in &route.plain_headers {
        let user = known.user.as_ref();
        let value = match source {
            PlainSource::Sid => header_value(sid.as_bytes()),
            PlainSource::Sub => user.map_or(Ok(None), |user| header_value(user.id.as_bytes())),
            PlainSource::User(column) => {
                let raw = user.and_then(|user| user.column(column));
                raw.map_or(Ok(None), json_value)
            }
            PlainSource::Session(name) => known.session.raw(name).map_or(Ok(None), json_value),
        };
        match value {
            Ok(value) => values.extend(value.map(|value| (name.clone(), value))),
            Err(NotPlain) => return Err(refused(route, name)),
        }
    }
    Ok(values)
}

fn refused(route: &Route, name: &HeaderName) -> Refusal {
    let (header, line) = (name.as_str(), route.line);
    tracing::warn!(
        route = line,
        header,
        "a value cannot stand in its plain header, and the request was refused"
    );
    Refusal::new(
        Code::BadPlainHeader,
        format!(
            "The service cannot be told who is asking: what belongs into the header {header} is not plain text \
             (route at line {line} of the gateway's configuration)."
        ),
    )
}

#[derive(Debug, PartialEq, Eq)]
struct NotPlain;

/// The value of a string, a number or a boolean in JSON.
fn json_value(raw: &str) -> Result<Option<HeaderValue>, NotPlain> {
    let is_number = |raw: &str| {
        raw.bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
    };
    match raw {
        "null" => Ok(None),
        _ if raw.starts_with('"') => header_value(&json::unescape(raw)),
        "true" | "false" => header_value(raw.as_bytes()),
        _ if is_number(raw) => header_value(raw.as_bytes()),
        _ => Err(NotPlain),
    }
}

/// A field value of visible ASCII, with blanks inside only (RFC 9110, 5.5). Other bytes mean different things to
/// different servers.
fn header_value(bytes: &[u8]) -> Result<Option<HeaderValue>, NotPlain> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let is_plain = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    let is_trimmed = !bytes.starts_with(b" ") && !bytes.ends_with(b" ");
    if !is_plain || !is_trimmed || bytes.len() > MAX_BYTES {
        return Err(NotPlain);
    }
    let mut value = HeaderValue::from_bytes(bytes).map_err(|_| NotPlain)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_told_as_it_is_or_not_at_all() {
        let told = |raw: &str| {
            json_value(raw).map(|value| value.map(|value| value.to_str().unwrap().to_owned()))
        };
        for (raw, value) in [
            (r#""alice""#, "alice"),
            (r#""Alice B. \"C\" \u0041\/\\""#, r#"Alice B. "C" A/\"#),
            (r#""~!,;=""#, "~!,;="),
            ("7", "7"),
            ("-1.5e3", "-1.5e3"),
            ("true", "true"),
            ("false", "false"),
        ] {
            assert_eq!(told(raw), Ok(Some(value.to_owned())), "{raw}");
        }
        for raw in ["null", r#""""#] {
            assert_eq!(told(raw), Ok(None), "{raw}");
        }
        let long = format!("\"{}\"", "x".repeat(MAX_BYTES + 1));
        for raw in [
            r#"" alice""#,
            r#""alice ""#,
            r#"" ""#,
            r#""a\tb""#,
            r#""a\r\nX-Admin: 1""#,
            r#""a\nb""#,
            r#""a\u0000b""#,
            r#""a\u007fb""#,
            r#""Jos\u00e9""#,
            "\"Jos\u{e9}\"",
            r#""\ud800""#,
            r#""\u65e5""#,
            "[]",
            "{}",
            "[\"a\"]",
            "NaN",
            "-Infinity",
            "Infinity",
            &long,
        ] {
            assert_eq!(told(raw), Err(NotPlain), "{raw}");
        }
        assert!(json_value(r#""alice""#).unwrap().unwrap().is_sensitive());
    }

    proptest! {
        #[test]
        fn what_is_told_is_the_value_itself_in_visible_ascii(text in any::<String>()) {
            let mut raw = String::new();
            json::quote(&mut raw, &text);
            match json_value(&raw) {
                Ok(None) => prop_assert!(text.is_empty()),
                Ok(Some(value)) => {
                    prop_assert_eq!(value.as_bytes(), text.as_bytes());
                    prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                    prop_assert_eq!(text.trim(), text.as_str());
                }
                Err(NotPlain) => prop_assert!(!text.is_empty()),
            }
        }
    }
}
