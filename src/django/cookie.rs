//! The session cookie: read as Django reads it, cut from what an upstream gets, written and deleted as
//! Django writes and deletes it.

mod response;
mod vary;

use std::{borrow::Cow, iter, ops::Range};

pub use self::{
    response::{delete, set, set_cookie_name, sets_session},
    vary::vary_by_cookie,
};

/// What [`find`] finds in a request's Cookie fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// The session cookie's value as Django reads it: of several the last, unquoted. Not yet checked to
    /// be a possible key.
    pub value: Option<Cow<'a, [u8]>>,
    /// How many session cookies there are.
    pub count: usize,
    /// The Cookie field without the session cookie and its look-alikes; `None` if nothing is left.
    pub rest: Option<Cow<'a, [u8]>>,
    /// Whether `rest` differs from the fields that came: something was cut, or several became one.
    pub changed: bool,
}

impl Found<'_> {
    fn into_owned(self) -> Found<'static> {
        let owned = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        Found {
            value: self.value.map(owned),
            count: self.count,
            rest: self.rest.map(owned),
            changed: self.changed,
        }
    }
}

/// Finds the session cookie in the values of the Cookie fields, by Django's rules (`parse_cookie` in
/// django/http/cookie.py). Several fields, as HTTP/2 clients send them, are joined with `; ` first
/// (RFC 9113, section 8.2.3).
///
/// Django takes a name's Unicode white space off with `str.strip()`. No browser stores the session
/// cookie under such a name, but a page of a sibling host can, beside the real one. Such a look-alike is
/// cut, and neither believed nor counted.
pub fn find<'a>(name: &str, fields: impl IntoIterator<Item = &'a [u8]>) -> Found<'a> {
    let mut fields = fields.into_iter();
    let Some(first) = fields.next() else {
        return Found::default();
    };
    let Some(second) = fields.next() else {
        return find_in(name, first);
    };
    let mut joined = first.to_vec();
    for field in iter::once(second).chain(fields) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(field);
    }
    let found = find_in(name, &joined).into_owned();
    Found {
        changed: true,
        ..found
    }
}

fn find_in<'a>(name: &str, field: &'a [u8]) -> Found<'a> {
    let mut value = None;
    let mut count = 0;
    let mut rest = Rest::default();
    let mut start = 0;
    for chunk in field.split(|byte| *byte == b';') {
        let end = start + chunk.len();
        match cookie(name.as_bytes(), chunk) {
            Kind::Session(raw) => {
                value = Some(raw);
                count += 1;
                rest.cut();
            }
            Kind::LookAlike => rest.cut(),
            Kind::Other => rest.keep(field, start..end),
        }
        start = end + 1;
    }
    let changed = rest.changed;
    Found {
        value: value.map(unquote),
        count,
        rest: rest.finish(field),
        changed,
    }
}

/// What one chunk between semicolons is.
enum Kind<'a> {
    /// The session cookie, with its value before unquoting.
    Session(&'a [u8]),
    LookAlike,
    Other,
}

fn cookie<'a>(name: &[u8], chunk: &'a [u8]) -> Kind<'a> {
    // Without `=` a chunk is the value of a cookie that has no name.
    let Some(equals) = chunk.iter().position(|byte| *byte == b'=') else {
        return Kind::Other;
    };
    let (before, after) = (&chunk[..equals], &chunk[equals + 1..]);
    if trim(before, is_blank) == name {
        Kind::Session(trim(after, is_python_space))
    } else if looks_like(name, before) {
        Kind::LookAlike
    } else {
        Kind::Other
    }
}

/// Whether somebody may take `candidate` for `name` after trimming. What languages call white space
/// differs, and so does the encoding they assume; all of it is outside visible ASCII, so whatever
/// is there at either end does not count.
fn looks_like(name: &[u8], candidate: &[u8]) -> bool {
    trim(candidate, |byte| !byte.is_ascii_graphic()) == name
}

/// The blanks that may stand round a name (RFC 6265, section 5.2).
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What Python's `str.strip()` removes, as far as it is ASCII.
fn is_python_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | 0x1c..=0x1f | b' ')
}

fn trim(mut bytes: &[u8], dispensable: impl Fn(u8) -> bool) -> &[u8] {
    while let [first, tail @ ..] = bytes
        && dispensable(*first)
    {
        bytes = tail;
    }
    while let [head @ .., last] = bytes
        && dispensable(*last)
    {
        bytes = head;
    }
    bytes
}

/// `http.cookies._unquote`: where a value stands in double quotes they go, and `\"` and `\ooo` stand for
/// one character each. A character above 0x7F becomes one byte; no session key has one.
fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = value else {
        return Cow::Borrowed(value);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        rest = match rest {
            [] => break,
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                tail
            }
            [b'\\', character, tail @ ..] | [character, tail @ ..] => {
                plain.push(*character);
                tail
            }
        };
    }
    Cow::Owned(plain)
}

/// Collects the chunks that are kept, and copies only when they are no longer one piece of the field.
#[derive(Default)]
struct Rest {
    /// What was kept before anything had to be copied, as a part of the field.
    piece: Option<Range<usize>>,
    /// The chunks themselves, once some on both sides of a cut are kept.
    copied: Option<Vec<u8>>,
    changed: bool,
    /// Whether a cut lies between the last kept chunk and here.
    gap: bool,
}

impl Rest {
    fn cut(&mut self) {
        self.changed = true;
        self.gap = true;
    }

    fn keep(&mut self, field: &[u8], chunk: Range<usize>) {
        match (&mut self.copied, &mut self.piece) {
            (Some(copied), _) => {
                copied.push(b';');
                copied.extend_from_slice(&field[chunk]);
            }
            (None, None) => self.piece = Some(chunk),
            (None, Some(piece)) if !self.gap => piece.end = chunk.end,
            (None, Some(piece)) => {
                let mut copied = Vec::with_capacity(field.len());
                copied.extend_from_slice(&field[piece.clone()]);
                copied.push(b';');
                copied.extend_from_slice(&field[chunk]);
                self.copied = Some(copied);
            }
        }
        self.gap = false;
    }

    fn finish(self, field: &[u8]) -> Option<Cow<'_, [u8]>> {
        if !self.changed {
            return Some(Cow::Borrowed(field));
        }
        let rest = match (self.copied, self.piece) {
            (Some(copied), _) => Cow::Owned(copied),
            (None, Some(piece)) => Cow::Borrowed(&field[piece]),
            (None, None) => return None,
        };
        // The blank after a semicolon is not part of the cookie that now comes first.
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        if blanks == rest.len() {
            return None;
        }
        Some(match rest {
            Cow::Borrowed(piece) => Cow::Borrowed(&piece[blanks..]),
            Cow::Owned(mut copied) => {
                copied.drain(..blanks);
                Cow::Owned(copied)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(field: &str) -> Found<'_> {
        find("sessionid", [field.as_bytes()])
    }

    fn text(bytes: Option<Cow<'_, [u8]>>) -> Option<String> {
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn the_value_is_the_one_django_reads() {
        for (field, value, count) in [
            ("sessionid=abc", Some("abc"), 1),
            ("a=b; sessionid=abc; c=d", Some("abc"), 1),
            ("sessionid=first; sessionid=last", Some("last"), 2),
            ("sessionid=first;sessionid=", Some(""), 2),
            (" sessionid = abc ", Some("abc"), 1),
            ("\tsessionid\t=\tabc\t", Some("abc"), 1),
            ("sessionid=\"abc\"", Some("abc"), 1),
            ("sessionid=\"a\\\"b\\\\c\"", Some("a\"b\\c"), 1),
            ("sessionid=\"a\\000b\\141\"", Some("a\0ba"), 1),
            ("sessionid=\"a\\400\\09\"", Some("a40009"), 1),
            ("sessionid=\"a\\\"", Some("a\\"), 1),
            ("sessionid=\"", Some("\""), 1),
            ("sessionid=\"\"", Some(""), 1),
            ("sessionid=\"a;b\"", Some("\"a"), 1),
            ("sessionid=a=b", Some("a=b"), 1),
            ("sessionid=%61", Some("%61"), 1),
            ("a=b,sessionid=abc", None, 0),
            ("SessionID=abc", None, 0),
            ("sessionid", None, 0),
            ("=sessionid=abc", None, 0),
            ("xsessionid=abc; sessionidx=abc", None, 0),
            ("", None, 0),
        ] {
            let found = one(field);
            assert_eq!(
                (text(found.value).as_deref(), found.count),
                (value, count),
                "{field:?}"
            );
        }
    }

    #[test]
    fn the_session_cookie_is_cut_and_its_neighbours_are_untouched() {
        for (field, rest) in [
            ("sessionid=abc", None),
            ("  sessionid=abc ; ", None),
            ("sessionid=abc; sessionid=def", None),
            ("a=b; sessionid=abc", Some("a=b")),
            ("sessionid=abc; a=b", Some("a=b")),
            ("sessionid=abc;a=b ; c", Some("a=b ; c")),
            ("a=b; sessionid=abc; c=\"d\\\"\"", Some("a=b; c=\"d\\\"\"")),
            (
                "a=b ;sessionid=abc;  c=d;;sessionid=x;e= f",
                Some("a=b ;  c=d;;e= f"),
            ),
            ("sessionid=\"a;b\"; c", Some("b\"; c")),
        ] {
            let found = one(field);
            assert!(found.changed, "{field:?}");
            assert_eq!(text(found.rest).as_deref(), rest, "{field:?}");
        }
        for field in ["a=b", "a=b;  c = d ", "", ";;", "sessionid"] {
            let found = one(field);
            assert!(!found.changed);
            assert_eq!(text(found.rest).as_deref(), Some(field));
        }
        assert_eq!(find("sessionid", []), Found::default());
    }

    #[test]
    fn a_name_that_is_the_session_cookies_only_after_stripping_is_cut_and_never_believed() {
        let spaces: [&[u8]; 12] = [
            b"\x1c",
            b"\x1f",
            b"\x0b",
            b"\x0c",
            b"\x85",
            b"\xa0",
            "\u{85}".as_bytes(),
            "\u{a0}".as_bytes(),
            "\u{1680}".as_bytes(),
            "\u{2000}".as_bytes(),
            "\u{3000}".as_bytes(),
            // Python does not strip it; JavaScript does.
            "\u{feff}".as_bytes(),
        ];
        for space in spaces {
            for name in [
                [space, b"sessionid"].concat(),
                [b"sessionid", space].concat(),
                [b" ", space, b" sessionid\t", space, space].concat(),
            ] {
                let fields = [b"a=b; sessionid=real; ", &*name, b"=planted; c=d"].concat();
                let found = find("sessionid", [&*fields]);
                assert_eq!(
                    (text(found.value).as_deref(), found.count),
                    (Some("real"), 1),
                    "{name:?}"
                );
                assert_eq!(text(found.rest).as_deref(), Some("a=b; c=d"), "{name:?}");
                let alone = [&*name, b"=planted"].concat();
                let found = find("sessionid", [&*alone]);
                assert_eq!(
                    found,
                    Found {
                        changed: true,
                        ..Found::default()
                    },
                    "{name:?}"
                );
                assert!(sets_session("sessionid", &alone));
            }
        }
    }

    #[test]
    fn several_cookie_fields_are_read_as_one() {
        let fields: [&[u8]; 3] = [b"a=b", b"sessionid=first; c=d", b"sessionid=last"];
        let found = find("sessionid", fields);
        assert_eq!(
            (text(found.value).as_deref(), found.count),
            (Some("last"), 2)
        );
        assert_eq!(text(found.rest).as_deref(), Some("a=b; c=d"));
        let none: [&[u8]; 2] = [b"a=b", b"c=d"];
        let found = find("sessionid", none);
        assert_eq!(
            (text(found.rest).as_deref(), found.changed),
            (Some("a=b; c=d"), true)
        );
    }

    #[test]
    fn a_usual_header_is_read_without_a_copy() {
        for field in [
            "sessionid=abc; a=b; c=d",
            "csrftoken=x; sessionid=abc",
            "sessionid=abc; csrftoken=x",
            "csrftoken=x",
        ] {
            let found = one(field);
            assert!(matches!(found.value, None | Some(Cow::Borrowed(_))));
            assert!(matches!(found.rest, Some(Cow::Borrowed(_))));
        }
    }

    proptest! {
        #[test]
        fn no_session_cookie_is_ever_left(
            field in "([a-b=; \t\"\\\\]|s=|\u{2003}|\u{a0}|sessionid=?){0,16}",
        ) {
            let found = one(&field);
            if let Some(rest) = &found.rest {
                let again = find("sessionid", [&**rest]);
                prop_assert_eq!((again.count, again.changed), (0, false));
            }
            prop_assert_eq!(found.value.is_some(), found.count > 0);
        }

        #[test]
        fn other_cookies_are_kept_in_order(
            cookies in proptest::collection::vec(("[a-z]{1,3}=[a-z \"=]{0,4}[a-z]", any::<bool>()), 1..8),
        ) {
            let mixed = |with: bool| {
                let of = |(cookie, session): &(String, bool)| {
                    let session = (*session && with).then(|| "sessionid=x".to_owned());
                    [Some(cookie.clone()), session].into_iter().flatten().collect::<Vec<_>>()
                };
                cookies.iter().flat_map(of).collect::<Vec<_>>().join("; ")
            };
            prop_assert_eq!(text(one(&mixed(true)).rest), Some(mixed(false)));
        }

    }
}
