//! What a session is: its key, and its members as Django spelt them.

use std::{borrow::Cow, collections::HashMap, fmt, ops::Range};

use crate::json::{self, NotJson};

/// The length of a session key: `VALID_KEY_CHARS` times 32 in Django's
/// `contrib/sessions/backends/base.py`.
const KEY_LENGTH: usize = 32;

/// Up to this many members, a name that stands twice is found by comparing all pairs; above, by
/// hashing.
const FEW_MEMBERS: usize = 16;

/// Replaced values may fill this many bytes before the live ones are copied together.
const GARBAGE: usize = 4096;

/// The key of a session row: exactly 32 of `a-z0-9`. Whoever knows one *is* the visitor, so it
/// prints as nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey([u8; KEY_LENGTH]);

impl SessionKey {
    /// The key that a cookie's value is; `None` for anything else, which no live row can have.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let key: [u8; KEY_LENGTH] = value.try_into().ok()?;
        key.iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
            .then_some(Self(key))
    }

    /// A new key, uniform over all of them, from the operating system's random numbers.
    ///
    /// # Errors
    ///
    /// The system has none to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        const ALPHABET: [u8; 36] = *b"abcdefghijklmnopqrstuvwxyz0123456789";
        // The largest multiple of 36 in a byte: what lies above would make the first letters
        // likelier.
        const FAIR: u8 = 252;
        let mut key = [0; KEY_LENGTH];
        let mut filled = 0;
        while filled < KEY_LENGTH {
            let mut bytes = [0; 2 * KEY_LENGTH];
            getrandom::fill(&mut bytes)?;
            let letters = bytes
                .iter()
                .filter(|byte| **byte < FAIR)
                .map(|byte| ALPHABET[usize::from(byte % 36)]);
            for letter in letters.take(KEY_LENGTH - filled) {
                key[filled] = letter;
                filled += 1;
            }
        }
        Ok(Self(key))
    }

    /// The key itself: for the cookie and the database, never for a log.
    pub fn as_str(&self) -> &str {
        // Both constructors admit ASCII only, so there is always a text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(redacted)")
    }
}

/// The members of a session, in Python's order, each value byte for byte as it was spelt.
///
/// A value is raw JSON. Reading one costs no allocation; a session is one text and a list of ranges
/// in it.
#[derive(Clone, Default)]
pub struct Session {
    text: String,
    entries: Vec<Entry>,
    /// Bytes of `text` that belong to no entry.
    garbage: usize,
}

#[derive(Clone)]
struct Entry {
    name: Range<usize>,
    value: Range<usize>,
    escaped_name: bool,
    portable: bool,
}

/// One member of a [`Session`].
pub struct MemberRef<'a> {
    /// The name after unescaping, as WTF-8: a lone surrogate stands as three bytes.
    pub name: Cow<'a, [u8]>,
    /// The name as spelt, with its quotes.
    pub raw_name: &'a str,
    /// The value as spelt.
    pub raw_value: &'a str,
    /// Whether every JSON parser reads the member as Python does ([`json::Member::portable`]).
    pub portable: bool,
}

impl Session {
    /// A session without members.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The session that a payload holds: what Django's `JSONSerializer.loads` makes of it (latin-1,
    /// Python's JSON).
    ///
    /// Of members with the same name the last value stands in the first one's place, as in a Python
    /// dict.
    ///
    /// # Errors
    ///
    /// The payload is not JSON for Python, or not an object.
    pub fn parse(payload: Vec<u8>) -> Result<Self, NotJson> {
        let text = json::latin1_to_ascii(payload)?;
        let entries: Vec<Entry> = json::scan_object(&text)?
            .into_iter()
            .map(Entry::from)
            .collect();
        let mut session = Self {
            text,
            entries,
            garbage: 0,
        };
        session.merge_duplicates();
        Ok(session)
    }

    /// The raw JSON of a member's value.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.position(name)
            .map(|at| &self.text[self.entries[at].value.clone()])
    }

    /// The text of a member whose value is a JSON string; `None` too where it holds a lone
    /// surrogate.
    pub fn string(&self, name: &str) -> Option<String> {
        json::string(self.raw(name)?)
    }

    /// Whether there is a member of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Replaces a member's value in its place, or appends the member.
    ///
    /// `canonical_json` is one JSON value as [`json::canonical`] spells it; nothing else may be
    /// handed in, because it goes into the row as it is.
    pub fn set(&mut self, name: &str, canonical_json: &str) {
        let scanned = json::scan_value(canonical_json);
        debug_assert!(
            scanned.is_ok() && canonical_json.is_ascii(),
            "set: not canonical JSON"
        );
        let portable = scanned.unwrap_or_default();
        let value = self.push(|text| text.push_str(canonical_json));
        if let Some(at) = self.position(name) {
            self.garbage += self.entries[at].value.len();
            self.entries[at].value = value;
            self.entries[at].portable = portable;
            self.collect_garbage();
            return;
        }
        let name = self.push(|text| json::quote(text, name));
        let escaped_name = self.text[name.clone()].contains('\\');
        self.entries.push(Entry {
            name,
            value,
            escaped_name,
            portable,
        });
    }

    /// Removes a member; `false` if there was none.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(at) = self.position(name) else {
            return false;
        };
        let entry = self.entries.remove(at);
        self.garbage += entry.name.len() + entry.value.len();
        self.collect_garbage();
        true
    }

    /// Removes the members of these names, which are sorted; whether there was one. Takes one look at each
    /// member, however many names there are.
    pub fn remove_all(&mut self, names: &[String]) -> bool {
        let (text, mut freed) = (&self.text, 0);
        self.entries.retain(|entry| {
            let name = json::unescape(&text[entry.name.clone()]);
            let found = names.binary_search_by(|other| other.as_bytes().cmp(&name));
            if found.is_ok() {
                freed += entry.name.len() + entry.value.len();
            }
            found.is_err()
        });
        self.garbage += freed;
        self.collect_garbage();
        freed > 0
    }

    /// The members, in order.
    pub fn members(&self) -> impl Iterator<Item = MemberRef<'_>> {
        self.entries.iter().map(|entry| MemberRef {
            name: self.name(entry),
            raw_name: &self.text[entry.name.clone()],
            raw_value: &self.text[entry.value.clone()],
            portable: entry.portable,
        })
    }

    /// The session as one JSON object: ASCII, names and values byte for byte, nothing between them
    /// but `,` and `:`.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(self.json_len());
        json.push('{');
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            json.push_str(&self.text[entry.name.clone()]);
            json.push(':');
            json.push_str(&self.text[entry.value.clone()]);
        }
        json.push('}');
        json
    }

    /// The length of [`Self::to_json`] in bytes.
    pub fn json_len(&self) -> usize {
        let members: usize = self
            .entries
            .iter()
            .map(|entry| entry.name.len() + entry.value.len() + 2)
            .sum();
        members + if self.is_empty() { 2 } else { 1 }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|entry| {
            if entry.escaped_name {
                return *self.name(entry) == *name.as_bytes();
            }
            self.text[entry.name.start + 1..entry.name.end - 1] == *name
        })
    }

    fn name(&self, entry: &Entry) -> Cow<'_, [u8]> {
        json::unescape(&self.text[entry.name.clone()])
    }

    fn push(&mut self, write: impl FnOnce(&mut String)) -> Range<usize> {
        let start = self.text.len();
        write(&mut self.text);
        start..self.text.len()
    }

    fn merge_duplicates(&mut self) {
        let text = &self.text;
        if self.entries.len() <= FEW_MEMBERS && !self.entries.iter().any(|entry| entry.escaped_name)
        {
            let names = || self.entries.iter().map(|entry| &text[entry.name.clone()]);
            if !names()
                .enumerate()
                .any(|(at, name)| names().take(at).any(|earlier| earlier == name))
            {
                return;
            }
        }
        let mut places = HashMap::with_capacity(self.entries.len());
        let mut merged: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..) {
            let place = *places
                .entry(json::unescape(&text[entry.name.clone()]))
                .or_insert(merged.len());
            match merged.get_mut(place) {
                None => merged.push(entry),
                Some(earlier) => {
                    self.garbage += entry.name.len() + earlier.value.len();
                    earlier.value = entry.value;
                    earlier.portable = entry.portable;
                }
            }
        }
        self.entries = merged;
    }

    /// Copies the members together once most of the text belongs to none of them.
    fn collect_garbage(&mut self) {
        if self.garbage <= GARBAGE || self.garbage <= self.text.len() / 2 {
            return;
        }
        let old = std::mem::take(&mut self.text);
        let mut text = String::with_capacity(old.len() - self.garbage);
        for entry in &mut self.entries {
            for range in [&mut entry.name, &mut entry.value] {
                let start = text.len();
                text.push_str(&old[range.clone()]);
                *range = start..text.len();
            }
        }
        self.text = text;
        self.garbage = 0;
    }
}

impl From<json::Member> for Entry {
    fn from(member: json::Member) -> Self {
        let json::Member {
            name,
            value,
            escaped_name,
            portable,
        } = member;
        Self {
            name,
            value,
            escaped_name,
            portable,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} members, redacted)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(json: &str) -> Session {
        Session::parse(json.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_key_is_32_of_a_to_z_and_digits_and_nothing_else() {
        assert!(SessionKey::parse(b"k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h1").is_some());
        for bad in [
            "",
            "k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h",
            "k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h12",
            "K3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h1",
            "k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h\0",
            "k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8-1",
            "\u{e9}3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h",
        ] {
            assert!(SessionKey::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_random_key_is_a_key_and_uses_every_letter_about_equally() {
        let mut counts = HashMap::new();
        for _ in 0..8000 {
            let key = SessionKey::random().unwrap();
            assert_eq!(SessionKey::parse(key.as_str().as_bytes()), Some(key));
            key.0
                .iter()
                .for_each(|letter| *counts.entry(*letter).or_insert(0) += 1);
        }
        // 256,000 letters: 7,111 each, standard deviation 83. Six of them are no accident; bytes
        // taken modulo 36 would make the first four letters come 8,000 times.
        assert_eq!(counts.len(), 36);
        assert!(
            counts.values().all(|count| (6611..=7611).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn debug_shows_neither_key_nor_data() {
        let key = SessionKey::parse(b"k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h1").unwrap();
        assert!(!format!("{key:?}").contains("k3j9"));
        assert_eq!(
            format!("{:?}", session(r#"{"planted":"secret"}"#)),
            "Session(1 members, redacted)"
        );
    }

    #[test]
    fn of_members_with_one_name_the_last_value_stands_in_the_first_ones_place() {
        let few = session(r#"{"a":1,"b":2,"\u0061":3}"#);
        assert_eq!(few.to_json(), r#"{"a":3,"b":2}"#);
        let plain = session(r#"{"a":1,"b":2,"a":3,"a":4}"#);
        assert_eq!(plain.to_json(), r#"{"a":4,"b":2}"#);
        let members: Vec<String> = (0..40).map(|at| format!("\"k{}\":{at}", at % 20)).collect();
        let many = session(&format!("{{{}}}", members.join(",")));
        assert_eq!(many.len(), 20);
        assert_eq!((many.raw("k0"), many.raw("k19")), (Some("20"), Some("39")));
    }

    #[test]
    fn the_portability_of_a_merged_member_is_that_of_its_last_value() {
        let portable = |json| session(json).members().next().unwrap().portable;
        assert!(portable(r#"{"a":NaN,"a":1}"#));
        assert!(!portable(r#"{"a":1,"a":NaN}"#));
    }

    #[test]
    fn names_are_found_after_unescaping() {
        let session =
            session(r#"{"\u0063art":[],"caf\u00e9":1,"\ud83d\ude00":2,"\ud83d":3,"":4,"a\"b":5}"#);
        assert_eq!(session.raw("cart"), Some("[]"));
        assert_eq!(session.raw("caf\u{e9}"), Some("1"));
        assert_eq!(session.raw("\u{1f600}"), Some("2"));
        assert_eq!(session.raw(""), Some("4"));
        assert_eq!(session.raw("a\"b"), Some("5"));
        assert_eq!(session.raw("\u{fffd}"), None);
        assert_eq!(session.raw("\\u0063art"), None);
    }

    #[test]
    fn payloads_are_latin_1_and_become_ascii() {
        let session = Session::parse(b"{\"n\":\"Jos\xe9\",\"\xe9\":1}".to_vec()).unwrap();
        assert_eq!(session.string("n").as_deref(), Some("Jos\u{e9}"));
        assert_eq!(session.to_json(), r#"{"n":"Jos\u00e9","\u00e9":1}"#);
    }

    #[test]
    fn values_are_kept_byte_for_byte() {
        let session =
            session("{\"a\" : [1.0, 1e5,{\"b\":\tNaN }] ,\n\"c\":10000000000000000000000 }");
        assert_eq!(
            session.to_json(),
            "{\"a\":[1.0, 1e5,{\"b\":\tNaN }],\"c\":10000000000000000000000}"
        );
    }

    #[test]
    fn string_is_none_for_other_values_and_lone_surrogates() {
        let session = session(r#"{"a":"x\ny","b":1,"c":"\ud800","d":null}"#);
        assert_eq!(session.string("a").as_deref(), Some("x\ny"));
        for name in ["b", "c", "d", "e"] {
            assert_eq!(session.string(name), None, "{name}");
        }
    }

    #[test]
    fn set_keeps_the_place_of_a_name_and_its_spelling() {
        let mut session = session(r#"{"\u0061":1,"b":NaN}"#);
        session.set("a", "[2]");
        session.set("b", "3");
        session.set("caf\u{e9} \"", "null");
        assert_eq!(
            session.to_json(),
            r#"{"\u0061":[2],"b":3,"caf\u00e9 \"":null}"#
        );
        assert!(session.members().all(|member| member.portable));
        assert!(session.remove("a") && !session.remove("a"));
        assert_eq!(session.to_json(), r#"{"b":3,"caf\u00e9 \"":null}"#);
        assert_eq!(session.raw("caf\u{e9} \""), Some("null"));
    }

    #[test]
    fn members_are_removed_by_the_names_they_mean() {
        let mut session = session(r#"{"\u0061":1,"b":2,"c":NaN,"\ud800":3,"d":4}"#);
        let names = ["a", "c", "x"].map(str::to_owned);
        assert!(session.remove_all(&names));
        assert_eq!(session.to_json(), r#"{"b":2,"\ud800":3,"d":4}"#);
        assert!(!session.remove_all(&names) && !session.remove_all(&[]));
        session.set("b", "5");
        assert_eq!(session.to_json(), r#"{"b":5,"\ud800":3,"d":4}"#);
    }

    #[test]
    fn many_changes_do_not_pile_up() {
        let mut session = session(r#"{"a":1,"b":2}"#);
        let value = format!("\"{}\"", "x".repeat(1000));
        for _ in 0..1000 {
            session.set("a", &value);
            session.set("b", "3");
            session.remove("c");
            session.set("c", &value);
        }
        assert!(session.text.len() < 20_000);
        assert_eq!(
            session.to_json(),
            format!("{{\"a\":{value},\"b\":3,\"c\":{value}}}")
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            members in prop::collection::vec((any::<String>(), any::<String>()), 0..30),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut session = Session::empty();
            let mut expected: Vec<(String, String)> = Vec::new();
            for (name, value) in &members {
                let mut json = String::new();
                json::quote(&mut json, value);
                session.set(name, &json);
                match expected.iter_mut().find(|(known, _)| known == name) {
                    Some(member) => member.1 = value.clone(),
                    None => expected.push((name.clone(), value.clone())),
                }
            }
            for index in removed {
                if !expected.is_empty() {
                    let (name, _) = expected.remove(index.index(expected.len()));
                    prop_assert!(session.remove(&name));
                }
            }
            let json = session.to_json();
            prop_assert!(json.is_ascii());
            prop_assert_eq!(json.len(), session.json_len());
            let read = Session::parse(json.into_bytes()).unwrap();
            prop_assert_eq!(read.len(), expected.len());
            for (name, value) in &expected {
                prop_assert_eq!(read.string(name), Some(value.clone()));
                prop_assert_eq!(session.string(name), Some(value.clone()));
            }
        }

        #[test]
        fn no_payload_makes_parsing_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Session::parse(payload);
        }
    }
}
