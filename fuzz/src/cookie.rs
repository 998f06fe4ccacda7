//! The Cookie fields of a request, and an upstream's Set-Cookie.
//!
//! Input: a byte that chooses the session cookie's name, then the fields, one a line.

use std::borrow::Cow;

use session_gateway::{
    django::cookie::{find, set_cookie_name, sets_session},
    session::SessionKey,
};

const NAMES: [&str; 3] = ["sessionid", "__Host-sid", "s"];

/// Runs the target.
pub fn check(input: &[u8]) {
    let Some((choice, fields)) = input.split_first() else {
        return;
    };
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    let fields: Vec<&[u8]> = fields.split(|byte| *byte == b'\n').collect();
    check_request(name, &fields);
    for field in fields {
        check_response(name, field);
    }
}

fn check_request(name: &str, fields: &[&[u8]]) {
    let found = find(name, fields.iter().copied());
    let joined = fields.join(&b"; "[..]);
    let chunks: Vec<&[u8]> = joined.split(|byte| *byte == b';').collect();

    // What Django would take for the session cookie, and what others might, is cut; all else stays.
    let (cut, kept): (Vec<&[u8]>, Vec<&[u8]>) =
        chunks.iter().partition(|chunk| is_called(name, chunk));
    let own: Vec<&[u8]> = cut
        .iter()
        .filter(|chunk| {
            let name_part = split(chunk).expect("it has a name").0;
            trim(name_part, |byte| b" \t".contains(&byte)) == name.as_bytes()
        })
        .copied()
        .collect();
    let changed = !cut.is_empty() || fields.len() > 1;
    assert_eq!(found.changed, changed);
    assert_eq!(found.count, own.len());
    assert_eq!(found.value.is_some(), !own.is_empty());
    let rest = kept.join(&b";"[..]);
    let expected = match cut.is_empty() {
        true => Some(&rest[..]),
        false => {
            let blanks = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
            Some(&rest[blanks..]).filter(|rest| !rest.is_empty())
        }
    };
    assert_eq!(found.rest.as_deref(), expected);

    // However an upstream decodes the field, there is no session cookie in it.
    for text in decodings(found.rest.as_deref().unwrap_or_default()) {
        assert_eq!(django(name, &text), None, "left over: {text:?}");
    }
    let again = find(name, found.rest.as_deref());
    assert_eq!((again.count, again.changed), (0, false));

    // A key is one that Django would see too, and nothing but a key.
    let Some(key) = found.value.as_deref().and_then(SessionKey::parse) else {
        return;
    };
    let letters = key.as_str().as_bytes();
    assert!(
        letters.len() == 32
            && letters
                .iter()
                .all(|b| b"0123456789abcdefghijklmnopqrstuvwxyz".contains(b))
    );
    if own.len() == cut.len() {
        for text in decodings(&joined) {
            assert_eq!(django(name, &text).as_deref(), Some(key.as_str()));
        }
    }
}

/// A Set-Cookie that is let through makes no browser send back a session cookie.
fn check_response(name: &str, field: &[u8]) {
    let pair = field.split(|byte| *byte == b';').next().unwrap_or_default();
    let (stored_name, value) = split(pair).unwrap_or((b"", pair));
    let blank = |byte: u8| b" \t".contains(&byte);
    let (stored_name, value) = (trim(stored_name, blank), trim(value, blank));
    assert_eq!(set_cookie_name(field), stored_name);
    if sets_session(name, field) {
        assert!(stored_name.is_empty() || is_called(name, pair));
        return;
    }
    let sent = [stored_name, b"=", value].concat();
    let found = find(name, [&sent[..]]);
    assert_eq!((found.value, found.count, found.changed), (None, 0, false));
    for text in decodings(&sent) {
        assert_eq!(django(name, &text), None);
    }
}

/// Whether a chunk's name is the session cookie's but for what is no visible ASCII round it.
fn is_called(name: &str, chunk: &[u8]) -> bool {
    let Some((candidate, _)) = split(chunk) else {
        return false;
    };
    let mut places = candidate.windows(name.len()).enumerate();
    places.any(|(start, window)| {
        let around = [&candidate[..start], &candidate[start + name.len()..]].concat();
        window == name.as_bytes() && !around.iter().any(|byte| (0x21..0x7f).contains(byte))
    })
}

/// `parse_cookie` of django/http/cookie.py (5.2), and what it has under this name.
fn django(name: &str, field: &str) -> Option<String> {
    let mut found = None;
    for chunk in field.split(';') {
        let (key, value) = chunk.split_once('=').unwrap_or(("", chunk));
        if strip(key) == name {
            found = Some(unquote(strip(value)));
        }
    }
    found
}

/// WSGI hands Django UTF-8 with U+FFFD for what is none, ASGI latin-1.
fn decodings(field: &[u8]) -> [Cow<'_, str>; 2] {
    let latin1 = field.iter().copied().map(char::from).collect::<String>();
    [String::from_utf8_lossy(field), latin1.into()]
}

/// Python's `str.strip()`.
fn strip(text: &str) -> &str {
    text.trim_matches(|letter: char| {
        matches!(
            letter,
            '\t'..='\r' | '\x1c'..=' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}'
            | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
        )
    })
}

/// `_unquote` of CPython's Lib/http/cookies.py, in the form of before its regular expressions met.
fn unquote(value: &str) -> String {
    let letters: Vec<char> = value.chars().collect();
    if letters.len() < 2 || letters[0] != '"' || letters[letters.len() - 1] != '"' {
        return value.to_owned();
    }
    let letters = &letters[1..letters.len() - 1];
    let mut plain = String::new();
    let mut at = 0;
    while at < letters.len() {
        let octal = letters.get(at + 1..at + 4).and_then(|digits| {
            let digits: String = digits.iter().collect();
            let first = digits.chars().all(|digit| digit.is_digit(8)) && digits.as_str() < "4";
            first
                .then(|| u32::from_str_radix(&digits, 8).ok())
                .flatten()
        });
        match (letters[at], octal) {
            ('\\', Some(code)) => {
                plain.extend(char::from_u32(code));
                at += 4;
            }
            ('\\', None) if at + 1 < letters.len() => {
                plain.push(letters[at + 1]);
                at += 2;
            }
            (letter, _) => {
                plain.push(letter);
                at += 1;
            }
        }
    }
    plain
}

fn split(chunk: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = chunk.iter().position(|byte| *byte == b'=')?;
    Some((&chunk[..equals], &chunk[equals + 1..]))
}

fn trim(bytes: &[u8], dispensable: impl Fn(u8) -> bool) -> &[u8] {
    let start = bytes.iter().position(|byte| !dispensable(*byte));
    let end = bytes.iter().rposition(|byte| !dispensable(*byte));
    match (start, end) {
        (Some(start), Some(end)) => &bytes[start..=end],
        _ => &[],
    }
}
