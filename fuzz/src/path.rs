//! The path of a request target, the prefixes of routes, and the login page's `next`.
//!
//! Input: path, prefix and query, one a line; the last two may be missing.

use session_gateway::path::{Canonical, Prefix, safe_next};

/// Runs the target.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let path = lines.next().unwrap_or_default();
    let prefix = lines.next().unwrap_or("/");
    let query = lines.next();

    let own = Canonical::parse(path).ok();
    let expected = resolve(path);
    assert_eq!(
        own.is_some(),
        expected.is_some(),
        "{path:?} is read otherwise"
    );
    let (Some(own), Some(expected)) = (own, expected) else {
        return;
    };
    assert_eq!(own.forwarded(), expected.forwarded);
    assert_eq!(own.matched(), expected.matched);
    check_forwarded(&own);
    check_prefix(&own, prefix);
    check_next(&own, query);
}

/// What goes to the upstream: nothing is left in it that somebody could resolve.
fn check_forwarded(path: &Canonical) {
    let forwarded = path.forwarded();
    let again = Canonical::parse(forwarded).expect("a forwarded path is a path");
    assert_eq!(again.forwarded(), forwarded);
    assert_eq!(again.matched(), path.matched());
    assert!(path.encoded_slash() || !again.encoded_slash());

    for segment in path.matched() {
        assert!(![&b""[..], b".", b".."].contains(&segment));
    }
    // A lenient upstream decodes first, then splits, then cuts parameters.
    let decoded = decode(forwarded.as_bytes()).expect("it was decoded before");
    let seen = pieces(&decoded);
    assert!(!seen.iter().any(|piece| [&b"."[..], b".."].contains(piece)));
    if !again.encoded_slash() {
        assert_eq!(seen, path.matched());
    }
    // One that decodes twice finds no more.
    if let Some(twice) = decode(&decoded) {
        assert!(!twice.iter().any(|byte| [b'\\', 0].contains(byte)));
        assert!(
            !pieces(&twice)
                .iter()
                .any(|piece| [&b"."[..], b".."].contains(piece))
        );
    }
}

fn check_prefix(path: &Canonical, text: &str) {
    let Ok(prefix) = Prefix::parse(text) else {
        return;
    };
    let segments: Vec<Vec<u8>> = text
        .split('/')
        .filter(|spelling| !spelling.is_empty())
        .map(|spelling| decode(spelling.as_bytes()).expect("a prefix is a path"))
        .collect();
    assert_eq!(prefix.specificity(), segments.len());
    let own = Canonical::parse(text).expect("a prefix is a path");
    assert!(prefix.matches(&own));
    assert_eq!(Prefix::parse(&prefix.to_string()), Ok(prefix.clone()));

    let matched = path.matched();
    let begins = matched.len() >= segments.len()
        && matched
            .iter()
            .zip(&segments)
            .all(|(own, other)| own == other);
    assert_eq!(prefix.matches(path), begins);
    let outer = Prefix::parse("/").expect("the root");
    assert!(outer.matches(path) && prefix.is_within(&outer));

    let stripped = prefix.strip(path);
    let again = Canonical::parse(&stripped).expect("what is left is a path");
    assert_eq!(again.forwarded(), stripped, "stripping made a new path");
    assert!(path.forwarded().ends_with(&stripped) || stripped == "/");
    let left = if begins { segments.len() } else { 0 };
    assert_eq!(again.matched(), matched[left..]);
}

/// A login page sends the browser back to this path, on this host.
fn check_next(path: &Canonical, query: Option<&str>) {
    let next = safe_next(path, query);
    assert!(
        next.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte))
    );
    let decoded = decode(next.as_bytes()).expect("it is well encoded");
    let expected = match query {
        Some(query) => format!("{}?{query}", path.forwarded()),
        None => path.forwarded().to_owned(),
    };
    assert_eq!(decoded, expected.as_bytes());
    assert_eq!(decoded.first(), Some(&b'/'));
    assert!(!matches!(decoded.get(1), Some(b'/' | b'\\')));
}

/// A path as the rules have it, found in another way than the crate does.
struct Resolved {
    forwarded: String,
    matched: Vec<Vec<u8>>,
}

fn resolve(path: &str) -> Option<Resolved> {
    let is_plain = |byte: u8| (0x21..0x7f).contains(&byte) && !b"?#\\".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(is_plain) {
        return None;
    }
    let mut stack: Vec<&str> = Vec::new();
    let mut is_folder = true;
    for spelling in path[1..].split('/') {
        let decoded = decode(spelling.as_bytes())?;
        if decoded
            .iter()
            .any(|byte| *byte < 0x20 || [0x7f, b'\\'].contains(byte))
        {
            return None;
        }
        let lower = decoded.to_ascii_lowercase();
        let twice = [&b"%2e"[..], b"%2f", b"%5c", b"%00"];
        if twice
            .iter()
            .any(|escape| lower.windows(3).any(|piece| piece == *escape))
        {
            return None;
        }
        is_folder = true;
        match &decoded[..] {
            b"" | b"." => {}
            b".." => drop(stack.pop()),
            _ if hides_dots(&decoded) => return None,
            _ => {
                stack.push(spelling);
                is_folder = false;
            }
        }
    }
    let mut forwarded: String = stack.iter().flat_map(|spelling| ["/", *spelling]).collect();
    if is_folder {
        forwarded.push('/');
    }
    let matched = stack.iter().filter_map(|spelling| {
        let decoded = decode(spelling.as_bytes())?;
        let end = decoded.iter().position(|byte| *byte == b';');
        let matched = decoded[..end.unwrap_or(decoded.len())].to_vec();
        (!matched.is_empty()).then_some(matched)
    });
    Some(Resolved {
        matched: matched.collect(),
        forwarded,
    })
}

fn hides_dots(segment: &[u8]) -> bool {
    pieces(segment)
        .iter()
        .any(|piece| [&b"."[..], b".."].contains(piece))
}

/// The segments of a decoded path, each cut at its first `;`, without the empty ones.
fn pieces(decoded: &[u8]) -> Vec<&[u8]> {
    decoded
        .split(|byte| *byte == b'/')
        .map(|piece| piece.split(|byte| *byte == b';').next().unwrap_or_default())
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// Percent-decoded once; `None` where a `%` begins no escape.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'%' {
            decoded.push(text[at]);
            at += 1;
            continue;
        }
        let digits = text.get(at + 1..at + 3)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        at += 3;
    }
    Some(decoded)
}
