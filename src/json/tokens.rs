//! The tokens of a JSON text, by Python's grammar, one after the other.

use super::NotJson;

/// Most digits of an integer that Python reads: `sys.int_info.default_max_str_digits`.
pub(super) const MAX_DIGITS: usize = 4300;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    OpenObject,
    OpenArray,
    Close,
    /// A member's name; its colon is consumed with it.
    Name,
    String,
    Integer,
    Float,
    /// NaN, Infinity, -Infinity.
    NotFinite,
    /// true, false, null.
    Literal,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// A name or string with a backslash.
    pub escaped: bool,
    /// A name or string with a surrogate that has no partner.
    pub lone_surrogate: bool,
    /// A name or string with U+0000.
    pub nul: bool,
}

impl Token {
    fn new(kind: Kind, start: usize, end: usize) -> Self {
        Self {
            kind,
            start,
            end,
            escaped: false,
            lone_surrogate: false,
            nul: false,
        }
    }
}

/// What the grammar allows next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstItem,
    FirstName,
    AfterItem,
    Done,
}

/// A reader of tokens. It keeps one byte for each open object or array.
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<u8>,
    most_open: usize,
    state: State,
}

impl<'a> Tokens<'a> {
    /// Reads `text`, with at most `nesting` objects and arrays inside each other.
    pub fn new(text: &'a str, nesting: usize) -> Self {
        Self {
            text: text.as_bytes(),
            at: 0,
            open: Vec::new(),
            most_open: nesting,
            state: State::Value,
        }
    }

    /// How many objects and arrays are open after the last token.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// The next token; `None` when the one value of the text and the blanks after it are read.
    pub fn next(&mut self) -> Result<Option<Token>, NotJson> {
        self.skip_blanks();
        match (self.state, self.peek()) {
            (State::Done, None) => Ok(None),
            (State::Done, Some(_)) => Err(self.fault("something follows the value")),
            (State::FirstItem | State::AfterItem, Some(b']')) if !self.in_object() => {
                Ok(Some(self.close()))
            }
            (State::FirstName | State::AfterItem, Some(b'}')) if self.in_object() => {
                Ok(Some(self.close()))
            }
            (State::AfterItem, Some(b',')) => {
                self.at += 1;
                self.skip_blanks();
                if self.in_object() {
                    self.name()
                } else {
                    self.value()
                }
                .map(Some)
            }
            (State::AfterItem, _) => {
                Err(self.fault("expected a comma or the end of the object or array"))
            }
            (State::FirstName, _) => self.name().map(Some),
            (State::FirstItem | State::Value, _) => self.value().map(Some),
        }
    }

    /// The next token, where the grammar promises one.
    pub fn next_within(&mut self) -> Result<Token, NotJson> {
        match self.next()? {
            Some(token) => Ok(token),
            None => Err(self.fault("expected a value")),
        }
    }

    fn name(&mut self) -> Result<Token, NotJson> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a name in double quotes"));
        }
        let name = self.string(Kind::Name)?;
        self.skip_blanks();
        if self.peek() != Some(b':') {
            return Err(self.fault("expected a colon"));
        }
        self.at += 1;
        self.state = State::Value;
        Ok(name)
    }

    fn value(&mut self) -> Result<Token, NotJson> {
        let token = match self.peek() {
            Some(b'{') => return self.open(b'{', Kind::OpenObject, State::FirstName),
            Some(b'[') => return self.open(b'[', Kind::OpenArray, State::FirstItem),
            Some(b'"') => self.string(Kind::String)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        self.state = self.after_value();
        Ok(token)
    }

    fn open(&mut self, byte: u8, kind: Kind, state: State) -> Result<Token, NotJson> {
        if self.open.len() == self.most_open {
            return Err(NotJson::new(
                self.at,
                format!("nesting over {} levels", self.most_open),
            ));
        }
        self.open.push(byte);
        self.state = state;
        self.at += 1;
        Ok(Token::new(kind, self.at - 1, self.at))
    }

    fn close(&mut self) -> Token {
        self.open.pop();
        self.state = self.after_value();
        self.at += 1;
        Token::new(Kind::Close, self.at - 1, self.at)
    }

    fn string(&mut self, kind: Kind) -> Result<Token, NotJson> {
        let mut token = Token::new(kind, self.at, self.at);
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.fault("a string has no end")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let Some((code, next)) = escape(self.text, self.at) else {
                        return Err(self.fault("an escape that JSON does not know"));
                    };
                    token.escaped = true;
                    token.lone_surrogate |= char::from_u32(code).is_none();
                    token.nul |= code == 0;
                    self.at = next;
                }
                Some(0..=0x1f) => return Err(self.fault("a control character in a string")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        token.end = self.at;
        Ok(token)
    }

    /// A number, as far as the grammar goes; what does not belong to it is for the next token to
    /// refuse.
    fn number(&mut self) -> Result<Token, NotJson> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.at;
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            Some(b'I') => {
                let word = self.word()?;
                return Ok(Token::new(Kind::NotFinite, start, word.end));
            }
            _ => return Err(self.fault("expected a digit")),
        }
        let whole = self.at;
        if self.peek() == Some(b'.') && self.digit_at(self.at + 1) {
            self.at += 1;
            self.skip_digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            let sign = usize::from(matches!(self.text.get(self.at + 1), Some(b'+' | b'-')));
            if self.digit_at(self.at + 1 + sign) {
                self.at += 1 + sign;
                self.skip_digits();
            }
        }
        if self.at > whole {
            return Ok(Token::new(Kind::Float, start, self.at));
        }
        if whole - digits > MAX_DIGITS {
            return Err(NotJson::new(start, "an integer of over 4300 digits"));
        }
        Ok(Token::new(Kind::Integer, start, self.at))
    }

    fn word(&mut self) -> Result<Token, NotJson> {
        const WORDS: [(&[u8], Kind); 5] = [
            (b"null", Kind::Literal),
            (b"true", Kind::Literal),
            (b"false", Kind::Literal),
            (b"NaN", Kind::NotFinite),
            (b"Infinity", Kind::NotFinite),
        ];
        let rest = &self.text[self.at..];
        let Some((word, kind)) = WORDS.into_iter().find(|(word, _)| rest.starts_with(word)) else {
            return Err(self.fault("expected a value"));
        };
        let start = self.at;
        self.at += word.len();
        Ok(Token::new(kind, start, self.at))
    }

    fn after_value(&self) -> State {
        if self.open.is_empty() {
            State::Done
        } else {
            State::AfterItem
        }
    }

    fn in_object(&self) -> bool {
        self.open.last() == Some(&b'{')
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn digit_at(&self, at: usize) -> bool {
        self.text.get(at).is_some_and(u8::is_ascii_digit)
    }

    fn skip_digits(&mut self) {
        while self.digit_at(self.at) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn fault(&self, rule: &'static str) -> NotJson {
        NotJson::new(self.at, rule)
    }
}

/// The code point of the escape whose backslash is at `at`, and where the text goes on. The two
/// escapes of a surrogate pair are one code point; a surrogate alone is its own. `None` if there is
/// no such escape.
pub(super) fn escape(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let code = match text.get(at + 1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(text, at),
        _ => return None,
    };
    Some((u32::from(code), at + 2))
}

fn unicode_escape(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let first = hex(text, at + 2)?;
    if !(0xd800..0xdc00).contains(&first) || text.get(at + 6..at + 8) != Some(b"\\u") {
        return Some((first, at + 6));
    }
    let second = hex(text, at + 8)?;
    if !(0xdc00..0xe000).contains(&second) {
        return Some((first, at + 6));
    }
    Some((
        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
        at + 12,
    ))
}

fn hex(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.iter().try_fold(0, |code, digit| {
        Some((code << 4) | char::from(*digit).to_digit(16)?)
    })
}
