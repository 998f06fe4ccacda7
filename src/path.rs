//! Canonical paths: what a request target's path means, for the configuration and for routing.
//!
//! A path has two forms. The *forwarded* one is the path with dot segments and empty segments resolved, in
//! the client's own spelling otherwise. The *matched* one is what a lenient upstream will understand: each
//! segment decoded once and cut at its first `;`. Routes look at the second, or `/%61dmin/` walks round a
//! rule for `/admin/` (CVE-2026-33494, CVE-2026-42274).

use std::fmt;

use thiserror::Error;

/// Why a path is refused. Each sentence names the rule, never the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPath {
    /// The path is relative, empty, or `*`.
    #[error("a path starts with /")]
    Relative,
    /// A byte of 0x80 or more, not percent-encoded (RFC 3986, 2).
    #[error("a path has ASCII characters only; others are percent-encoded")]
    NotAscii,
    /// 0x00-0x1F or 0x7F, raw or percent-encoded.
    #[error("a path has no control characters, percent-encoded or not")]
    Control,
    /// A space, `?` or `#` that is not percent-encoded.
    #[error("a path has no raw space, ? or #")]
    Delimiter,
    /// `\` or `%5c`: some servers take it for `/`.
    #[error("a path has no backslash, percent-encoded or not")]
    Backslash,
    /// A `%` without two hexadecimal digits (RFC 3986, 2.1).
    #[error("each % in a path is followed by two hexadecimal digits")]
    Escape,
    /// `%252e`, `%252f`, `%255c` or `%2500`: another character for whoever decodes twice.
    #[error("a path has no dot, slash, backslash or NUL that is percent-encoded twice")]
    EncodedTwice,
    /// `..;x`, `.;`, `..%3b`, or a dot segment between percent-encoded slashes: some servers resolve these.
    #[error("a path has no dot segment with a parameter or between encoded slashes")]
    HiddenDots,
}

/// Why a `path` of the configuration cannot be a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPrefix {
    /// It is not even a path.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// Routes are found by whole segments, and `%2f` is none's end.
    #[error("a prefix has no %2f")]
    EncodedSlash,
    /// Segments are cut at their first `;` before they are compared.
    #[error("a prefix has no ;")]
    Parameter,
    /// `/a/../b` in a configuration is a slip.
    #[error("a prefix has no empty and no dot segments")]
    NotResolved,
}

/// What a route does with `%2f` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// 400: upstreams do not agree whether it separates segments.
    #[default]
    Refuse,
    /// It is part of its segment, and is forwarded as it is.
    Keep,
}

/// A path of which every segment is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    forwarded: String,
    /// `None` where every segment stands in `forwarded` as it is matched.
    segments: Option<Vec<Segment>>,
    encoded_slash: bool,
}

/// A matched segment that may differ from its spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    /// Decoded once and cut; never empty; not always UTF-8.
    matched: Vec<u8>,
    /// Where its spelling ends in `forwarded`.
    end: usize,
}

impl Canonical {
    /// Resolves the path of a request target: origin form, without the query.
    ///
    /// `..` above the root stays at the root (RFC 3986, 5.2.4). `%2f` is only recorded here, in
    /// [`encoded_slash`](Self::encoded_slash): whether it is refused is up to the route, which the path
    /// finds.
    ///
    /// # Errors
    /// A [`BadPath`] names the rule; it is a 400.
    pub fn parse(path: &str) -> Result<Self, BadPath> {
        if !path.starts_with('/') {
            return Err(BadPath::Relative);
        }
        if is_plain(path.as_bytes()) {
            return Ok(Self {
                forwarded: path.to_owned(),
                segments: None,
                encoded_slash: false,
            });
        }
        Self::resolve(path)
    }

    /// The path to send upstream: starts with exactly one `/`, has no empty and no dot segments, keeps a
    /// final `/`, and is spelt as the client spelt it otherwise.
    pub fn forwarded(&self) -> &str {
        &self.forwarded
    }

    /// Whether the client's path had a `%2f`.
    pub fn encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// The segments as they are matched: decoded once, cut at the first `;`, without those that are empty
    /// then. They may hold `/` (from `%2f`) and need not be UTF-8.
    pub fn matched(&self) -> Vec<&[u8]> {
        match &self.segments {
            Some(segments) => segments
                .iter()
                .map(|segment| &segment.matched[..])
                .collect(),
            None => self
                .forwarded
                .split('/')
                .filter(|s| !s.is_empty())
                .map(str::as_bytes)
                .collect(),
        }
    }

    /// The general case of [`parse`](Self::parse).
    fn resolve(path: &str) -> Result<Self, BadPath> {
        let mut forwarded = String::with_capacity(path.len());
        // Each forwarded segment; `matched` is empty for `;x`, which upstreams see but routes do not.
        let mut segments: Vec<Segment> = Vec::new();
        let mut encoded_slash = false;
        let mut ends_in_slash = true;
        for spelling in path.split('/').skip(1) {
            let decoded = decode(spelling.as_bytes())?;
            encoded_slash |= decoded.contains(&b'/');
            ends_in_slash = true;
            match &decoded[..] {
                b"" | b"." => {}
                b".." => {
                    segments.pop();
                    forwarded.truncate(segments.last().map_or(0, |segment| segment.end));
                }
                _ if hides_dots(&decoded) => return Err(BadPath::HiddenDots),
                _ => {
                    forwarded.push('/');
                    forwarded.push_str(spelling);
                    segments.push(Segment {
                        matched: cut(decoded),
                        end: forwarded.len(),
                    });
                    ends_in_slash = false;
                }
            }
        }
        if ends_in_slash {
            forwarded.push('/');
        }
        segments.retain(|segment| !segment.matched.is_empty());
        Ok(Self {
            forwarded,
            segments: Some(segments),
            encoded_slash,
        })
    }
}

/// A route's `path`: decoded segments. `/orders/` and `/orders` are the same prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prefix {
    segments: Vec<Vec<u8>>,
}

impl Prefix {
    /// Parses a prefix of the configuration. `/` matches every path.
    ///
    /// # Errors
    /// What [`Canonical::parse`] refuses, and what could never match: `;`, `%2f`, empty and dot segments.
    pub fn parse(path: &str) -> Result<Self, BadPrefix> {
        let canonical = Canonical::parse(path)?;
        if canonical.encoded_slash {
            return Err(BadPrefix::EncodedSlash);
        }
        if canonical.forwarded != path {
            return Err(BadPrefix::NotResolved);
        }
        let mut segments = Vec::new();
        for spelling in path.split('/').filter(|spelling| !spelling.is_empty()) {
            let decoded = decode(spelling.as_bytes())?;
            if decoded.contains(&b';') {
                return Err(BadPrefix::Parameter);
            }
            segments.push(decoded);
        }
        Ok(Self { segments })
    }

    /// The number of segments. Of the prefixes that match a path, the one with the most is the most specific.
    pub fn specificity(&self) -> usize {
        self.segments.len()
    }

    /// Whether the path lies under this prefix; `/api` is not a prefix of `/apifoo`.
    pub fn matches(&self, path: &Canonical) -> bool {
        self.end_in(path).is_some()
    }

    /// Whether every path under this prefix lies under `other` too.
    pub fn is_within(&self, other: &Self) -> bool {
        self.segments.starts_with(&other.segments)
    }

    /// The forwarded path without the segments that this prefix matched: starts with exactly one `/`, and
    /// keeps a final `/`. A path that does not match is left as it is.
    pub fn strip(&self, path: &Canonical) -> String {
        match path.forwarded.get(self.end_in(path).unwrap_or(0)..) {
            None | Some("") => "/".to_owned(),
            Some(rest) => rest.to_owned(),
        }
    }

    /// Where in `forwarded` the spelling of the matched segments ends.
    fn end_in(&self, path: &Canonical) -> Option<usize> {
        if let Some(segments) = &path.segments {
            let found = segments.get(..self.segments.len())?;
            let same = found
                .iter()
                .map(|segment| &segment.matched)
                .eq(&self.segments);
            return same.then(|| found.last().map_or(0, |segment| segment.end));
        }
        let mut rest = path.forwarded.as_bytes();
        for segment in &self.segments {
            rest = rest.strip_prefix(b"/")?.strip_prefix(&segment[..])?;
            if !matches!(rest.first(), None | Some(b'/')) {
                return None;
            }
        }
        Some(path.forwarded.len() - rest.len())
    }
}

impl Prefix {
    /// Whether it is made for the challenges of certificate authorities, which come without TLS (RFC 8555, section
    /// 8.3).
    pub fn is_for_acme(&self) -> bool {
        let mut segments = self.segments.iter().map(Vec::as_slice);
        segments.next() == Some(b".well-known") && segments.next() == Some(b"acme-challenge")
    }

    /// Whether it is `/`, which every path begins with.
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }
}

impl fmt::Display for Prefix {
    /// The prefix as one would write it, without a final `/` (but `/` itself).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        let mut text = String::new();
        for segment in &self.segments {
            text.push('/');
            percent_encode(segment, b"-._~!$&'()*+,=:@", &mut text);
        }
        f.write_str(&text)
    }
}

/// The value of a login page's `?next=`, percent-encoded: this path and query on this host.
///
/// A canonical path starts with one `/` and has neither `//` nor a backslash nor a control character, so
/// that no browser reads a host or a scheme into it; everything but unreserved characters (RFC 3986, 2.3)
/// and `/` is encoded, so that the value stays one value.
pub fn safe_next(path: &Canonical, query: Option<&str>) -> String {
    let mut next =
        String::with_capacity(path.forwarded.len() + query.map_or(0, |query| query.len() * 2));
    encode_component(&path.forwarded, &mut next);
    if let Some(query) = query {
        next.push_str("%3F");
        encode_component(query, &mut next);
    }
    next
}

/// Appends the text with everything but unreserved characters (RFC 3986, 2.3) and `/` percent-encoded.
pub fn encode_component(text: &str, out: &mut String) {
    percent_encode(text.as_bytes(), b"-._~/", out);
}

/// Appends the bytes, percent-encoding all but letters, digits and `kept`.
fn percent_encode(bytes: &[u8], kept: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Whether the path is canonical by sight: nothing to decode, cut, resolve or refuse. Nearly every path is.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    path.iter().all(|byte| {
        let after_slash = previous == b'/';
        previous = *byte;
        match byte {
            b'/' | b'.' => !after_slash,
            b'%' | b';' | b'\\' | b'?' | b'#' => false,
            _ => byte.is_ascii_graphic(),
        }
    })
}

/// Decodes one segment once, refusing every byte that no route accepts.
fn decode(spelling: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(spelling.len());
    let mut rest = spelling;
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match first {
            b'%' => {
                let (byte, after) = escape(after).ok_or(BadPath::Escape)?;
                rest = after;
                byte
            }
            b' ' | b'?' | b'#' => return Err(BadPath::Delimiter),
            0x80.. => return Err(BadPath::NotAscii),
            _ => *first,
        };
        match byte {
            b'\\' => return Err(BadPath::Backslash),
            byte if byte.is_ascii_control() => return Err(BadPath::Control),
            byte => decoded.push(byte),
        }
    }
    // A server that decodes again would see another path.
    let mut twice = decoded.windows(3);
    if twice.any(|piece| piece[0] == b'%' && is_special_hex(&[piece[1], piece[2]])) {
        return Err(BadPath::EncodedTwice);
    }
    Ok(decoded)
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn escape(digits: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], after) = digits.split_first_chunk()?;
    let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
    Some((u8::try_from(value).ok()?, after))
}

/// Whether these are the digits of `.`, `/`, `\` or NUL.
fn is_special_hex(digits: &[u8; 2]) -> bool {
    matches!(
        &digits.map(|digit| digit.to_ascii_lowercase()),
        b"2e" | b"2f" | b"5c" | b"00"
    )
}

/// Whether a server that cuts parameters, or takes `%2f` for `/`, would find a dot segment here.
fn hides_dots(decoded: &[u8]) -> bool {
    decoded.split(|byte| *byte == b'/').any(|piece| {
        let name = piece.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

/// Cuts a decoded segment at its first `;`.
fn cut(mut decoded: Vec<u8>) -> Vec<u8> {
    let end = decoded
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(decoded.len());
    decoded.truncate(end);
    decoded
}

#[cfg(test)]
mod tests;
