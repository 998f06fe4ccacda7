//! What a response says to caches that depends on the session cookie.

use http::{HeaderMap, HeaderValue, header};

/// Appends `Cookie` to Vary as Django's `patch_vary_headers` (django/utils/cache.py) does: the order is kept,
/// and a `*` is all that is left.
pub fn vary_by_cookie(headers: &mut HeaderMap) {
    // What cannot be read may say anything; `*` says the most.
    if headers
        .get_all(header::VARY)
        .iter()
        .any(|value| value.to_str().is_err())
    {
        headers.insert(header::VARY, HeaderValue::from_static("*"));
        return;
    }
    let mut names: Vec<String> = Vec::new();
    for value in headers
        .get_all(header::VARY)
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        names.extend(
            value
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        );
    }
    if names.is_empty() {
        headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
        return;
    }
    if names.iter().any(|name| name == "*") {
        headers.insert(header::VARY, HeaderValue::from_static("*"));
        return;
    }
    if !names.iter().any(|name| name.eq_ignore_ascii_case("cookie")) {
        headers.append(header::VARY, HeaderValue::from_static("Cookie"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_is_patched_as_django_does() {
        let vary = |value| {
            let mut headers = HeaderMap::new();
            headers.append("vary", HeaderValue::from_static(value));
            vary_by_cookie(&mut headers);
            headers
        };
        let of = |headers: &HeaderMap| {
            headers
                .get_all("vary")
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&vary("Accept")), ["Accept", "Cookie"]);
        assert_eq!(of(&vary("accept, COOKIE")), ["accept, COOKIE"]);
        assert_eq!(of(&vary("Accept, *")), ["*"]);
    }
}
