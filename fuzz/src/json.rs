//! The JSON scanner, and the spelling that goes into rows.
//!
//! Input: a text.

use session_gateway::json::{
    canonical, latin1_to_ascii, quote, scan_array, scan_object, scan_value, string,
};

use super::oracle::Json;

/// As [`session_gateway::patch`] has it.
const NESTING: usize = 32;

/// Python reads integers of so many digits.
const MAX_DIGITS: usize = 4300;

/// Runs the target.
pub fn check(input: &[u8]) {
    check_latin1(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    check_quoted(text);
    let strict = Json::strict(input);
    check_canonical(text, strict.as_ref());
    check_scanned(text, strict.as_ref());
}

/// What upstreams write is strict JSON, and comes out in one spelling.
fn check_canonical(text: &str, strict: Option<&Json>) {
    let accepted = strict
        .filter(|value| value.depth() <= NESTING && !value.has_duplicates() && !value.has_nul());
    let canonical_text = match canonical(text, NESTING) {
        Ok(canonical_text) => canonical_text,
        Err(error) => {
            assert!(error.at <= text.len());
            assert!(error.rule.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            assert!(
                accepted.is_none() || text.len() > MAX_DIGITS,
                "refused: {error}"
            );
            return;
        }
    };
    let accepted = accepted.expect("what is no strict JSON is refused");
    assert!(
        canonical_text
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte))
    );
    assert_eq!(
        Json::strict(canonical_text.as_bytes()).as_ref(),
        Some(accepted)
    );
    assert_eq!(
        canonical(&canonical_text, NESTING).as_ref(),
        Ok(&canonical_text)
    );
    assert_eq!(scan_value(&canonical_text), Ok(true));
}

/// What Django wrote is split by Python's grammar, which has all of strict JSON and more.
fn check_scanned(text: &str, strict: Option<&Json>) {
    match scan_value(text) {
        Err(_) => assert!(strict.is_none() || text.len() > MAX_DIGITS),
        Ok(true) => assert!(
            strict.is_some_and(|value| !value.has_duplicates()),
            "not portable"
        ),
        Ok(false) => assert!(
            strict.is_none_or(|value| value.depth() > 60 || value.has_duplicates()),
            "portable"
        ),
    }
    if let Ok(members) = scan_object(text) {
        assert!(text.trim_start().starts_with('{') && scan_array(text).is_err());
        let mut end = 0;
        for member in members {
            assert!(end < member.name.start && member.name.end < member.value.start);
            end = member.value.end;
            let (name, value) = (&text[member.name], &text[member.value]);
            assert_eq!(member.escaped_name, name.contains('\\'));
            let whole = [scan_value(name), scan_value(value)];
            let portable = whole.iter().all(|part| *part == Ok(true));
            assert_eq!(member.portable, portable, "{name}: {value}");
            assert!(whole.iter().all(Result::is_ok));
        }
        assert!(end < text.len());
    }
    if let Ok(items) = scan_array(text) {
        assert!(text.trim_start().starts_with('['));
        for item in items {
            assert!(scan_value(&text[item]).is_ok());
        }
    }
}

fn check_quoted(text: &str) {
    let mut quoted = String::new();
    quote(&mut quoted, text);
    assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    assert_eq!(string(&quoted).as_deref(), Some(text));
    assert_eq!(
        Json::strict(quoted.as_bytes()),
        Some(Json::Text(text.to_owned()))
    );
}

/// Payloads are bytes that Python reads as latin-1. Their ASCII spelling means the same.
fn check_latin1(input: &[u8]) {
    let Ok(ascii) = latin1_to_ascii(input.to_vec()) else {
        assert!(!input.is_ascii());
        return;
    };
    assert!(ascii.is_ascii());
    let latin1: String = input.iter().copied().map(char::from).collect();
    // U+0080 to U+00FF may stand in strings only, where both spellings mean one character.
    if let (Ok(members), Ok(respelt)) = (scan_object(&latin1), scan_object(&ascii)) {
        let named = |text: &str, name: std::ops::Range<usize>| string(&text[name]);
        assert!(members.len() == respelt.len());
        for (one, other) in members.into_iter().zip(respelt) {
            assert_eq!(named(&latin1, one.name), named(&ascii, other.name));
            assert_eq!(string(&latin1[one.value]), string(&ascii[other.value]));
        }
    }
    assert_eq!(scan_value(&latin1).is_ok(), scan_value(&ascii).is_ok());
}
