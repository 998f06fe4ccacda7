//! What shared caches may do with a response that depends on a session.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::django::cookie::vary_by_cookie;

/// Fields that override Cache-Control for one kind of cache; some of those caches do not know `Vary`.
fn overrides_cache_control(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("cdn-cache-control") || name == "surrogate-control" || name == "x-accel-expires"
}

/// How much of a response is one visitor's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personal {
    /// The request bore no session cookie.
    No,
    /// It bore one.
    Yes,
    /// The response sets the session cookie.
    SetsCookie,
}

/// Keeps one visitor's response from another (RFC 9111; Django's CVE-2026-35192 is the omission of this).
pub fn protect(headers: &mut HeaderMap, personal: Personal) {
    vary_by_cookie(headers);
    if personal == Personal::No {
        return;
    }
    drop_overrides(headers);
    let control = match personal {
        Personal::SetsCookie => HeaderValue::from_static("private, no-store"),
        _ => private(headers),
    };
    headers.insert(header::CACHE_CONTROL, control);
}

/// Removes the fields that caches believe more than `Cache-Control`.
pub fn drop_overrides(headers: &mut HeaderMap) {
    let overriding: Vec<_> = headers
        .keys()
        .filter(|name| overrides_cache_control(name))
        .cloned()
        .collect();
    for name in overriding {
        headers.remove(name);
    }
}

/// The upstream's directives without those that speak to shared caches, and with `private`.
fn private(headers: &HeaderMap) -> HeaderValue {
    // What cannot be read may be a `no-store`.
    if headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .any(|value| value.to_str().is_err())
    {
        return HeaderValue::from_static("private, no-store");
    }
    let mut kept = String::from("private");
    for value in headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        for directive in directives(value) {
            let name = directive.split('=').next().unwrap_or_default().trim();
            let dropped = ["public", "private", "s-maxage"];
            if !directive.is_empty() && !dropped.iter().any(|word| name.eq_ignore_ascii_case(word))
            {
                kept.push_str(", ");
                kept.push_str(directive);
            }
        }
    }
    HeaderValue::try_from(kept).unwrap_or(HeaderValue::from_static("private, no-store"))
}

/// Splits at the commas that are not inside a quoted string (`no-cache="a, b"`).
fn directives(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value
        .split(move |letter| {
            quoted ^= letter == '"';
            letter == ',' && !quoted
        })
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(fields: &[(&'static str, &'static str)], personal: Personal) -> HeaderMap {
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        protect(&mut headers, personal);
        headers
    }

    #[test]
    fn shared_caches_never_keep_what_is_personal() {
        let fields = [
            (
                "cache-control",
                "public, s-maxage=60, max-age=10, no-cache=\"a, public\"",
            ),
            ("cache-control", "no-store"),
            ("cdn-cache-control", "max-age=9"),
            ("cloudflare-cdn-cache-control", "max-age=9"),
            ("surrogate-control", "max-age=9"),
            ("x-accel-expires", "9"),
        ];
        let headers = protected(&fields, Personal::Yes);
        assert_eq!(
            headers["cache-control"],
            "private, max-age=10, no-cache=\"a, public\", no-store"
        );
        assert_eq!(headers.get_all("cache-control").iter().count(), 1);
        assert_eq!(headers.len(), 2, "{headers:?}");
        let headers = protected(&fields, Personal::SetsCookie);
        assert_eq!(headers["cache-control"], "private, no-store");
    }

    #[test]
    fn a_response_to_nobody_may_be_cached_but_varies() {
        let headers = protected(&[("cache-control", "public, max-age=60")], Personal::No);
        assert_eq!(headers["cache-control"], "public, max-age=60");
        assert_eq!(headers["vary"], "Cookie");
    }
}
