//! Strict JSON in, Python's spelling of it out.

use std::ops::Range;

use super::{
    NotJson, is_finite,
    tokens::{Kind, MAX_DIGITS, Token, Tokens, escape},
};

/// A strict JSON text (RFC 8259), re-spelt as Python's `json.dumps(json.loads(text),
/// separators=(",", ":"))` does.
///
/// So what a gateway writes and what Django's next save makes of it are the same bytes: ASCII
/// without blanks, lower-case `\uXXXX`, integers with their digits, floats as `repr` has them.
/// `nesting` is the most objects and arrays inside each other.
///
/// # Errors
///
/// What is not RFC 8259, and what would hurt a later reader: a name twice in one object, NaN and
/// Infinity, numbers not finite as a double or of over 4,300 digits, lone surrogates, U+0000,
/// nesting over `nesting`.
pub fn canonical(text: &str, nesting: usize) -> Result<String, NotJson> {
    let mut tokens = Tokens::new(text, nesting);
    let mut out = String::with_capacity(text.len());
    let mut names = Names::default();
    while let Some(token) = tokens.next()? {
        let raw = &text[token.start..token.end];
        check(&token, raw)?;
        // Only the punctuation itself ends in one of these three: a string ends in its quote.
        if token.kind != Kind::Close
            && !matches!(out.as_bytes().last(), None | Some(b'{' | b'[' | b':'))
        {
            out.push(',');
        }
        match token.kind {
            Kind::OpenObject => names.open(&mut out, '{'),
            Kind::OpenArray => names.open(&mut out, '['),
            Kind::Close => names.close(&mut out, token, raw)?,
            Kind::Name => {
                let start = out.len();
                respell_string(&mut out, raw);
                names.seen.push(start..out.len());
                out.push(':');
            }
            Kind::String => respell_string(&mut out, raw),
            Kind::Integer => out.push_str(if raw == "-0" { "0" } else { raw }),
            Kind::Float => match raw.parse() {
                Ok(number) => push_float(&mut out, number),
                Err(_) => return Err(NotJson::new(token.start, "a number that no double holds")),
            },
            Kind::Literal | Kind::NotFinite => out.push_str(raw),
        }
    }
    Ok(out)
}

/// Appends `text` as a JSON string, spelt as `json.dumps` does.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    push_text(out, text);
    out.push('"');
}

fn check(token: &Token, raw: &str) -> Result<(), NotJson> {
    let rule = match token.kind {
        Kind::NotFinite => "NaN and Infinity are not JSON",
        Kind::Integer | Kind::Float if raw.len() > MAX_DIGITS => "a number of over 4300 digits",
        Kind::Integer | Kind::Float if !is_finite(raw) => "a number too large for a double",
        Kind::Name | Kind::String if token.lone_surrogate => "a surrogate without its partner",
        Kind::Name | Kind::String if token.nul => "U+0000 in a string",
        _ => return Ok(()),
    };
    Err(NotJson::new(token.start, rule))
}

/// The names seen in the objects that are open, as ranges of the output: there, equal names are
/// equal bytes.
#[derive(Default)]
struct Names {
    seen: Vec<Range<usize>>,
    /// Where in `seen` each open object or array begins.
    open: Vec<usize>,
}

impl Names {
    fn open(&mut self, out: &mut String, bracket: char) {
        out.push(bracket);
        self.open.push(self.seen.len());
    }

    fn close(&mut self, out: &mut String, token: Token, raw: &str) -> Result<(), NotJson> {
        out.push_str(raw);
        let Some(first) = self.open.pop() else {
            return Ok(());
        };
        let mut names: Vec<&str> = self.seen.drain(first..).map(|range| &out[range]).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NotJson::new(
                token.start,
                "a name stands twice in the object that ends here",
            ));
        }
        Ok(())
    }
}

/// Appends a JSON string (with quotes, without lone surrogates) in Python's spelling.
fn respell_string(out: &mut String, raw: &str) {
    let mut rest = raw;
    while let Some(backslash) = rest.find('\\') {
        push_raw(out, &rest[..backslash]);
        let Some((code, next)) = escape(rest.as_bytes(), backslash) else {
            break;
        };
        push_char(
            out,
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        );
        rest = &rest[next..];
    }
    push_raw(out, rest);
}

/// Appends text that is already inside quotes and has no escapes: `"` is punctuation here.
fn push_raw(out: &mut String, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return out.push_str(text);
    }
    for character in text.chars() {
        if character == '"' {
            out.push('"')
        } else {
            push_char(out, character)
        }
    }
}

fn push_text(out: &mut String, text: &str) {
    // To the end whatever is found, so that many bytes are looked at in one step.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    if text
        .bytes()
        .fold(true, |so_far, byte| so_far & is_plain(byte))
    {
        return out.push_str(text);
    }
    for character in text.chars() {
        push_char(out, character);
    }
}

/// One character of a string, as `ascii_escape_unichar` in CPython's `Modules/_json.c`.
fn push_char(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        ' '..='~' => out.push(character),
        _ => character
            .encode_utf16(&mut [0; 2])
            .iter()
            .for_each(|unit| escape_unit(out, *unit)),
    }
}

/// Appends a UTF-16 unit as `\uXXXX`, in lower case.
pub(super) fn escape_unit(out: &mut String, unit: u16) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from(
            b"0123456789abcdef"[usize::from((unit >> shift) & 0xf)],
        ));
    }
}

/// Appends a finite double as Python's `repr`: the fewest digits that give it back, plain from 1e-4
/// to below 1e16, else with an exponent of at least two digits.
fn push_float(out: &mut String, number: f64) {
    let scientific = fewest_digits(number);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return out.push_str(&scientific);
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return out.push_str(&format!("{mantissa}e{sign}{:02}", exponent.abs()));
    }
    let digits = mantissa.trim_start_matches('-').replace('.', "");
    if number.is_sign_negative() {
        out.push('-');
    }
    match usize::try_from(exponent) {
        Err(_) => {
            out.push_str("0.");
            out.extend((1..-exponent).map(|_| '0'));
            out.push_str(&digits);
        }
        Ok(last) => {
            let (whole, fraction) = digits.split_at(digits.len().min(last + 1));
            out.push_str(whole);
            out.extend((digits.len()..=last).map(|_| '0'));
            out.push('.');
            out.push_str(if fraction.is_empty() { "0" } else { fraction });
        }
    }
}

/// The fewest digits that give the number back, as `d.ddde-x`. Where two such are equally near, the
/// even one: Python's choice (`Python/dtoa.c`, mode 0), while Rust's shortest form rounds up.
fn fewest_digits(number: f64) -> String {
    let shortest = format!("{number:e}");
    let decimals = shortest
        .split_once('.')
        .and_then(|(_, rest)| rest.find('e'))
        .unwrap_or_default();
    let even = format!("{number:.decimals$e}");
    if even.parse() == Ok(number) {
        even
    } else {
        shortest
    }
}
