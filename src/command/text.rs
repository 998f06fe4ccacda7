//! What the commands that look into sessions read and print: a key that is in nobody's shell history, and text
//! that no terminal takes for anything else.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
    str::FromStr,
};

use crate::json;

/// A session key as it is given to a command. Whoever knows one *is* the visitor, so it prints as nothing.
#[derive(Clone)]
pub(super) struct KeySource(String);

impl FromStr for KeySource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource(redacted)")
    }
}

impl KeySource {
    /// The key: `-` is the first line of standard input, `env:NAME` a variable of the environment.
    pub(super) fn read(&self) -> Result<String, String> {
        if self.0 == "-" {
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line);
            read.map_err(|error| format!("standard input cannot be read: {error}"))?;
            return Ok(line.trim().to_owned());
        }
        match self.0.strip_prefix("env:") {
            Some(name) => std::env::var(name).map_err(|_| {
                format!("the environment has no variable {name:?} with a session key")
            }),
            None => Ok(self.0.clone()),
        }
    }
}

/// Writes to standard output. Whoever does not read on (`| head`) gets no more, and no success.
pub(super) fn print(text: &str, code: ExitCode) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// JSON as Python spelt it, on one line: control characters stand between its tokens only, but for DEL.
pub(super) fn one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\x7f' => line.push_str("\\u007f"),
            letter if letter.is_control() => line.push(' '),
            letter => line.push(letter),
        }
    }
    line
}

/// Any text as a JSON string, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut json = String::new();
    json::quote(&mut json, text);
    one_line(&json)
}

/// What a JSON value is, without what it says.
pub(super) fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// `1 row`, `2 rows`.
pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Lines of a label and a text, aligned; a text of several lines stands below its label.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    /// Adds a line; an empty label goes on with the one before.
    pub(super) fn add(&mut self, label: &str, text: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{label:<10} {text}");
    }

    /// All of them.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed_with_the_arguments() {
        let key: KeySource = "k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h1".parse().unwrap();
        assert_eq!(format!("{key:?}"), "KeySource(redacted)");
    }

    #[test]
    fn a_key_is_taken_as_it_is_or_from_the_environment() {
        let read = |text: &str| text.parse::<KeySource>().unwrap().read();
        assert_eq!(read("abc").as_deref(), Ok("abc"));
        assert_eq!(read("env:CARGO_PKG_NAME").as_deref(), Ok("session-gateway"));
        assert!(read("env:NO_SUCH_VARIABLE").is_err());
    }

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        assert_eq!(one_line("{\"a\" :\n\t1}"), "{\"a\" :  1}");
        assert_eq!(
            quoted("a\x1b[2J\x7f\u{e9}"),
            "\"a\\u001b[2J\\u007f\\u00e9\""
        );
    }
}
