//! JSON as Python's `json` module reads and writes it.
//!
//! Django keeps a session as the output of `json.dumps` and reads it with `json.loads`, which is
//! not strict JSON: NaN, lone surrogates and integers of any length pass (CPython
//! `Lib/json/decoder.py`, `Modules/_json.c`). A strict parser would refuse whole sessions that
//! Django reads, so [`scan_object`] splits an object by Python's grammar and leaves each value as
//! it is spelt. What an upstream writes is held to RFC 8259 and re-spelt by [`canonical`].
//!
//! Nothing here calls itself: hostile nesting costs a byte a level, never the stack.

mod canonical;
mod tokens;
mod value;

use std::{borrow::Cow, ops::Range};

use thiserror::Error;

use self::tokens::{Kind, Token, Tokens, escape};
pub use self::{
    canonical::{canonical, quote},
    value::from_value,
};

/// Deepest value in a session. CPython reads 900 levels below the object and gives up between that
/// and its recursion limit of 1,000, where Django takes the session for empty.
const MAX_NESTING: usize = 900;

/// Deepest value that every verifier of an assertion reads: PHP's `json_decode` with depth 64, less
/// the levels of the claims and of `session`.
const PORTABLE_NESTING: usize = 60;

/// Why a text is not JSON, and where. Never holds any of the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{rule}, at byte {at}")]
pub struct NotJson {
    /// Offset in bytes.
    pub at: usize,
    /// The rule that is broken, as a clause.
    pub rule: Cow<'static, str>,
}

impl NotJson {
    fn new(at: usize, rule: impl Into<Cow<'static, str>>) -> Self {
        Self {
            at,
            rule: rule.into(),
        }
    }
}

/// One member of an object, as ranges of the text that was scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name with its quotes.
    pub name: Range<usize>,
    /// The value.
    pub value: Range<usize>,
    /// Whether the name holds an escape, so that [`unescape`] is needed to compare it.
    pub escaped_name: bool,
    /// Whether every JSON parser reads the member as Python does: neither NaN nor Infinity, no lone
    /// surrogate, no number beyond a double, no nesting over 60, no name twice in an object inside it. (Python writes
    /// one twice for `{1: 0, "1": 0}`.)
    pub portable: bool,
}

/// The ASCII spelling of a payload that Django reads as latin-1: a byte of 0x80 or more becomes
/// `\u00xx`.
///
/// ASCII, which is all that Django itself writes, is taken as it is, without a copy.
///
/// # Errors
///
/// A byte of 0x80 or more directly after a backslash that begins an escape: JSON knows no such
/// escape, and spelling it as another one would turn what Python refuses into something else.
pub fn latin1_to_ascii(bytes: Vec<u8>) -> Result<String, NotJson> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => return Ok(text),
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    };
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    let mut escaping = false;
    for (at, byte) in bytes.into_iter().enumerate() {
        if byte.is_ascii() {
            text.push(char::from(byte));
        } else if escaping {
            return Err(NotJson::new(at, "an escape that JSON does not know"));
        } else {
            canonical::escape_unit(&mut text, u16::from(byte));
        }
        escaping = byte == b'\\' && !escaping;
    }
    Ok(text)
}

/// The members of one JSON object, by the grammar of Python's `json.loads`.
///
/// Members stand in the order of the text; a name that occurs twice is there twice.
///
/// # Errors
///
/// What Python refuses: another top level, raw control characters in strings, trailing commas and
/// text, leading zeros, `.5`, a byte order mark, integers of more than 4,300 digits
/// (`sys.int_info.default_max_str_digits`), and nesting over 900.
pub fn scan_object(text: &str) -> Result<Vec<Member>, NotJson> {
    let mut tokens = Tokens::new(text, MAX_NESTING + 1);
    let mut members = Vec::new();
    let opening = tokens.next_within()?;
    if opening.kind != Kind::OpenObject {
        return Err(NotJson::new(
            opening.start,
            "the top level is not an object",
        ));
    }
    while let Some(name) = tokens.next()? {
        if name.kind != Kind::Name {
            continue; // The closing brace: next() now looks for what must not follow it.
        }
        let first = tokens.next_within()?;
        let (value, portable) = finish_value(&mut tokens, first, text)?;
        members.push(Member {
            name: name.start..name.end,
            value,
            escaped_name: name.escaped,
            portable: portable && !name.lone_surrogate,
        });
    }
    Ok(members)
}

/// The items of one JSON array, as ranges of `text`, by the same grammar.
///
/// # Errors
///
/// As [`scan_object`].
pub fn scan_array(text: &str) -> Result<Vec<Range<usize>>, NotJson> {
    let mut tokens = Tokens::new(text, MAX_NESTING + 1);
    let mut items = Vec::new();
    let opening = tokens.next_within()?;
    if opening.kind != Kind::OpenArray {
        return Err(NotJson::new(opening.start, "the top level is not an array"));
    }
    while let Some(first) = tokens.next()? {
        if first.kind != Kind::Close {
            items.push(finish_value(&mut tokens, first, text)?.0);
        }
    }
    Ok(items)
}

/// Reads on to the end of a value directly inside the top level, whose first token is `first`:
/// where it stands, and whether it is portable.
fn finish_value(
    tokens: &mut Tokens<'_>,
    first: Token,
    text: &str,
) -> Result<(Range<usize>, bool), NotJson> {
    let mut last = first;
    let mut names = Names::default();
    let mut portable = names.differ(&first, text) & is_portable(&first, text);
    while tokens.depth() > 1 {
        portable &= tokens.depth() <= PORTABLE_NESTING + 1;
        last = tokens.next_within()?;
        portable &= names.differ(&last, text) & is_portable(&last, text);
    }
    Ok((first.start..last.end, portable))
}

/// The names of the objects that are open, to find one that stands twice.
#[derive(Default)]
struct Names {
    seen: Vec<Range<usize>>,
    /// Where in `seen` each open object or array begins.
    open: Vec<usize>,
}

impl Names {
    /// Takes a token in; `false` at the end of an object that has a name twice.
    fn differ(&mut self, token: &Token, text: &str) -> bool {
        match token.kind {
            Kind::OpenObject | Kind::OpenArray => self.open.push(self.seen.len()),
            Kind::Name => self.seen.push(token.start..token.end),
            Kind::Close => {
                let first = self.open.pop().unwrap_or_default();
                let differ = all_differ(&self.seen[first..], text);
                self.seen.truncate(first);
                return differ;
            }
            _ => {}
        }
        true
    }
}

fn all_differ(names: &[Range<usize>], text: &str) -> bool {
    /// Up to so many names all pairs are compared.
    const FEW: usize = 8;
    let name = |range: &Range<usize>| unescape(&text[range.clone()]);
    if names.len() <= FEW {
        let mut rest = names;
        while let Some((first, others)) = rest.split_first() {
            let first = name(first);
            if others.iter().any(|other| name(other) == first) {
                return false;
            }
            rest = others;
        }
        return true;
    }
    let mut names: Vec<_> = names.iter().map(name).collect();
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

/// The one JSON value that `text` is, by the same grammar: whether it is portable, as in
/// [`Member::portable`].
///
/// # Errors
///
/// As [`scan_object`].
pub fn scan_value(text: &str) -> Result<bool, NotJson> {
    let mut tokens = Tokens::new(text, MAX_NESTING);
    let mut names = Names::default();
    let mut portable = true;
    while let Some(token) = tokens.next()? {
        portable &= names.differ(&token, text)
            & is_portable(&token, text)
            & (tokens.depth() <= PORTABLE_NESTING);
    }
    Ok(portable)
}

fn is_portable(token: &Token, text: &str) -> bool {
    match token.kind {
        Kind::NotFinite => false,
        Kind::Integer | Kind::Float => is_finite(&text[token.start..token.end]),
        _ => !token.lone_surrogate,
    }
}

/// Whether a number of JSON's grammar is finite as a double. Digits alone reach infinity only after
/// 308 of them.
fn is_finite(number: &str) -> bool {
    let short = number.len() <= 308 && !number.bytes().any(|byte| matches!(byte, b'e' | b'E'));
    short || number.parse::<f64>().is_ok_and(f64::is_finite)
}

/// The string that a JSON string means, as WTF-8: UTF-8 in which a lone surrogate stands as three
/// bytes.
///
/// `raw` is the string with its quotes, as [`scan_object`] found it. Two names are the same for
/// Python if and only if these bytes are.
pub fn unescape(raw: &str) -> Cow<'_, [u8]> {
    let raw = raw.as_bytes();
    let inner = raw
        .strip_prefix(b"\"")
        .and_then(|raw| raw.strip_suffix(b"\""))
        .unwrap_or(raw);
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut at = 0;
    while let Some(&byte) = inner.get(at) {
        if byte == b'\\'
            && let Some((code, next)) = escape(inner, at)
        {
            push_wtf8(&mut text, code);
            at = next;
        } else {
            text.push(byte);
            at += 1;
        }
    }
    Cow::Owned(text)
}

/// The text that a JSON string means; `None` if `raw` is not a string or holds a lone surrogate.
pub fn string(raw: &str) -> Option<String> {
    raw.starts_with('"')
        .then(|| unescape(raw).into_owned())
        .and_then(|text| String::from_utf8(text).ok())
}

fn push_wtf8(text: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(character) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        // A surrogate: three bytes, as UTF-8 would have them.
        None => text.extend(
            [
                0xe0 | (code >> 12),
                0x80 | ((code >> 6) & 0x3f),
                0x80 | (code & 0x3f),
            ]
            .map(|b| b as u8),
        ),
    }
}

#[cfg(test)]
mod tests;
