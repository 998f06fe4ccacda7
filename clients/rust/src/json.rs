//! JSON with exact numbers and without a name twice in one object, which serde_json lets pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// Most digits of a number that Python reads (`sys.int_info.default_max_str_digits`).
const MAX_DIGITS: usize = 4300;

/// A JSON value. Two are equal if they mean the same: the order of names and the spelling do not count.
#[derive(Debug)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    /// As it is spelt.
    Number(String),
    String(String),
    Array(Vec<Node>),
    Object(Vec<Member>),
}

/// A member of an object. Each name is there once.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) value: Node,
    /// Where the value stands in the text.
    pub(crate) at: Range<usize>,
}

/// Which rules hold beside JSON's own.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Most objects and arrays inside each other.
    pub(crate) nesting: usize,
    /// Whether the gateway stores it: then no U+0000, and no number that Python or a double cannot hold.
    pub(crate) stored: bool,
}

impl Rules {
    /// Of tokens. That is more than the gateway ever sends: values nested 60 deep, in `session`, in the claims.
    pub(crate) const READ: Self = Self {
        nesting: 64,
        stored: false,
    };

    /// Of values that are sent: `X-Session-Set` and its `"set"` are around them, and the gateway takes 32.
    pub(crate) const STORED: Self = Self {
        nesting: 30,
        stored: true,
    };
}

/// The rule that a text breaks, as a clause. It holds nothing of the text.
pub(crate) type Broken = &'static str;

const NOT_JSON: Broken = "it is not JSON";
const HALF: Broken = "it has half a surrogate pair";

impl Node {
    pub(crate) fn parse(text: &str, rules: Rules) -> Result<Self, Broken> {
        let mut parser = Parser { text, at: 0, rules };
        parser.blanks();
        let node = parser.value(0)?;
        parser.blanks();
        if parser.at == text.len() {
            Ok(node)
        } else {
            Err(NOT_JSON)
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is spelt as an integer.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b || same_number(a, b),
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => {
                let values: BTreeMap<&str, &Self> =
                    b.iter().map(|m| (m.name.as_str(), &m.value)).collect();
                a.len() == b.len()
                    && a.iter()
                        .all(|m| values.get(m.name.as_str()).is_some_and(|v| **v == m.value))
            }
            _ => false,
        }
    }
}

/// Whether two numbers have the same value, by all their digits.
fn same_number(a: &str, b: &str) -> bool {
    matches!((decimal(a), decimal(b)), (Some(a), Some(b)) if a == b)
}

/// Sign, digits without zeros at either end, and the power of ten of `0.digits`. `None` where that power is
/// beyond an i64: such a number equals only itself.
fn decimal(number: &str) -> Option<(bool, String, i64)> {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Some((negative, String::new(), 0));
    }
    let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
    Some((negative, digits.to_owned(), exponent.checked_add(point)?))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    rules: Rules,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// Whether the next byte is this one, which is then read.
    fn takes(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// It calls itself no more than `rules.nesting` times.
    fn value(&mut self, depth: usize) -> Result<Node, Broken> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= self.rules.nesting => Err("it is nested too deep"),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Node::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for (word, node) in [
                    ("null", Node::Null),
                    ("true", Node::Bool(true)),
                    ("false", Node::Bool(false)),
                ] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(node);
                    }
                }
                Err(NOT_JSON)
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, Broken> {
        let (mut members, mut names) = (Vec::new(), BTreeSet::new());
        self.at += 1;
        self.blanks();
        if self.takes(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(NOT_JSON);
            }
            let name = self.string()?;
            if !names.insert(name.clone()) {
                return Err("it has a name twice in one object");
            }
            self.blanks();
            if !self.takes(b':') {
                return Err(NOT_JSON);
            }
            self.blanks();
            let start = self.at;
            let value = self.value(depth)?;
            let at = start..self.at;
            members.push(Member { name, value, at });
            self.blanks();
            if self.takes(b'}') {
                return Ok(Node::Object(members));
            }
            if !self.takes(b',') {
                return Err(NOT_JSON);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node, Broken> {
        let mut items = Vec::new();
        self.at += 1;
        self.blanks();
        if self.takes(b']') {
            return Ok(Node::Array(items));
        }
        loop {
            self.blanks();
            items.push(self.value(depth)?);
            self.blanks();
            if self.takes(b']') {
                return Ok(Node::Array(items));
            }
            if !self.takes(b',') {
                return Err(NOT_JSON);
            }
        }
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            Err(NOT_JSON)
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<Node, Broken> {
        let start = self.at;
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            if !self.takes(b'+') {
                self.takes(b'-');
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if self.rules.stored {
            if text.len() > MAX_DIGITS {
                return Err("it has a number of more than 4300 digits");
            }
            if !text.parse().is_ok_and(f64::is_finite) {
                return Err("it has a number that no double can hold");
            }
        }
        Ok(Node::Number(text.to_owned()))
    }

    fn string(&mut self) -> Result<String, Broken> {
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .ok_or(NOT_JSON)?;
            text.push_str(&rest[..plain]);
            self.at += plain;
            if self.takes(b'"') {
                return Ok(text);
            }
            if !self.takes(b'\\') {
                return Err(NOT_JSON); // A control character.
            }
            let letter = self.peek().ok_or(NOT_JSON)?;
            self.at += 1;
            text.push(match letter {
                b'"' | b'\\' | b'/' => char::from(letter),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.escaped()?,
                _ => return Err(NOT_JSON),
            });
        }
    }

    /// What a `\u`, and a second one if it belongs to it, stand for.
    fn escaped(&mut self) -> Result<char, Broken> {
        let first = self.unit()?;
        let code = match first {
            0 if self.rules.stored => return Err("it has U+0000 in a text"),
            0xd800..=0xdbff => {
                if !(self.takes(b'\\') && self.takes(b'u')) {
                    return Err(HALF);
                }
                match self.unit()? {
                    second @ 0xdc00..=0xdfff => {
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    _ => return Err(HALF),
                }
            }
            unit => unit,
        };
        char::from_u32(code).ok_or(HALF)
    }

    fn unit(&mut self) -> Result<u32, Broken> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(NOT_JSON)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NOT_JSON);
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| NOT_JSON)
    }
}

/// JSON with `\u` escapes for everything that a header field cannot carry.
pub(crate) fn ascii(json: &str) -> String {
    use std::fmt::Write;

    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, ' '..='~') {
            out.push(letter);
        } else if matches!(letter, '\t' | '\r' | '\n') {
            out.push(' '); // Between values: in a text they are escaped already.
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing into a String does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// A text as a JSON string in ASCII.
pub(crate) fn quoted(text: &str) -> String {
    ascii(&serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ: Rules = Rules::READ;
    const STORED: Rules = Rules::STORED;

    fn same(a: &str, b: &str) -> bool {
        Node::parse(a, READ).unwrap() == Node::parse(b, READ).unwrap()
    }

    #[test]
    fn numbers_are_compared_by_all_their_digits() {
        for (a, b) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("1e+16", "10000000000000000"),
            ("0.5", "5e-1"),
            ("0", "0.0"),
            ("-0.0", "-0"),
            ("1E400", "10e399"),
            ("0.001", "1e-3"),
            ("0e5", "0"),
            ("1e99999999999999999999", "1e99999999999999999999"),
            (r#"[1,{"a":"\u00e9","b":2}]"#, r#"[1.0, {"b":2,"a":"é"}]"#),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("1", "-1"),
            ("0", "-0"),
            ("1", "1.00000000000000000000001"),
            ("9007199254740992", "9007199254740993"),
            ("1", "\"1\""),
            ("1", "true"),
            ("null", "false"),
            ("[]", "{}"),
            ("[1]", "[1,1]"),
            (r#"{"a":null}"#, r#"{"b":null}"#),
            ("10", "1"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_serde_json_lets_pass_is_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"b":{"a":1,"a":1}}]"#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800x""#,
            "01",
            "+1",
            "1.",
            ".5",
            "-",
            "1e",
            "nul",
            "[1,]",
            "{\"a\":1,}",
            "[1 2]",
            "{\"a\" 1}",
            "{1:1}",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u00g0\"",
            "\"\\u00\u{e9}\"",
            "\"",
            "",
            "1 1",
            "\u{feff}1",
        ] {
            assert!(Node::parse(text, READ).is_err(), "{text}");
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Node::parse(&deep(30), STORED).is_ok() && Node::parse(&deep(31), STORED).is_err());
        assert!(Node::parse(&deep(100_000), READ).is_err());
        for text in [
            "\"\\u0000\"",
            "1e309",
            &format!("1{}e-4290", "0".repeat(4300)),
        ] {
            assert!(Node::parse(text, STORED).is_err() && Node::parse(text, READ).is_ok());
        }
    }

    #[test]
    fn a_member_tells_where_its_value_stands() {
        let text = "{ \"a\" : [1, 2] ,\"b\":\"c\"}";
        let Node::Object(members) = Node::parse(text, READ).unwrap() else {
            panic!("no object");
        };
        let values: Vec<_> = members.iter().map(|m| &text[m.at.clone()]).collect();
        assert_eq!(values, ["[1, 2]", "\"c\""]);
    }

    proptest! {
        /// Whatever is taken, serde_json takes, and means the same.
        #[test]
        fn what_is_taken_is_json(text in r#"[\[\]{}:,"\\u0-9a-e.\- entrlfs]{0,24}"#) {
            if Node::parse(&text, READ).is_ok() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn ascii_means_the_same(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let ascii = ascii(&json);
            prop_assert!(ascii.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(Node::parse(&ascii, READ), Node::parse(&json, READ));
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&text)).unwrap(), text);
        }
    }
}
