//! The text in which cases are written down.
//!
//! ```text
//! = the name of the case
//! POST / HTTP/1.1
//! Host: shop.test
//! Content-Length: 5
//!
//! hello\
//! <- 200
//! -> POST / content-length: 5 "hello"
//! ```
//!
//! A line of the request ends with CRLF, or with nothing where it ends with `\`. `\r`, `\n`, `\t`, `\v`, `\0`,
//! `\xNN` and `\\` are bytes; `\{70000}a` is 70000 of the next one. `<-` are the answers in their order (a status,
//! and the gateway's own code), up to the end of the connection; `->` are the requests that the upstream saw.

use std::path::Path;

/// One request with what becomes of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// As it is written.
    pub text: String,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// What becomes of a case and of the request after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub answers: Vec<String>,
    pub seen: Vec<String>,
}

/// Reads the cases of a file.
pub fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            cases.push(Case {
                name: name.to_owned(),
                text: String::new(),
                bytes: Vec::new(),
                outcome: Outcome::default(),
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        if let Some(answer) = line.strip_prefix("<- ") {
            case.outcome.answers.push(answer.to_owned());
        } else if let Some(seen) = line.strip_prefix("-> ") {
            case.outcome.seen.push(seen.to_owned());
        } else if case.outcome == Outcome::default() {
            case.text.push_str(line);
            case.text.push('\n');
        }
    }
    for case in &mut cases {
        case.bytes = bytes(&case.text);
    }
    cases
}

/// Writes what was observed into the folder `SG_TEST_CORPUS`, if there is one, to be looked at.
pub fn keep(name: &str, cases: &[Case], observed: &[Outcome]) {
    let Some(folder) = std::env::var_os("SG_TEST_CORPUS") else {
        return;
    };
    let cases = cases.iter().zip(observed);
    let text: String = cases.map(|(case, seen)| written(case, seen)).collect();
    std::fs::write(Path::new(&folder).join(name).with_extension("txt"), text).unwrap();
}

/// A case as it is written, with this outcome.
pub fn written(case: &Case, outcome: &Outcome) -> String {
    let answers = outcome.answers.iter().map(|line| format!("<- {line}\n"));
    let seen = outcome.seen.iter().map(|line| format!("-> {line}\n"));
    let outcome: String = answers.chain(seen).collect();
    format!("= {}\n{}{outcome}\n", case.name, case.text)
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let (line, end) = match line.strip_suffix('\\') {
            Some(line) if !line.ends_with('\\') => (line, ""),
            _ => (line, "\r\n"),
        };
        unescape(line.as_bytes(), &mut bytes);
        bytes.extend(end.as_bytes());
    }
    bytes
}

/// What a line of a case stands for.
pub fn unescape(mut line: &[u8], bytes: &mut Vec<u8>) {
    let mut times = 1;
    while let Some((&first, rest)) = line.split_first() {
        line = rest;
        let byte = match (first, line) {
            (b'\\', [b'{', ..]) => {
                let end = line.iter().position(|byte| *byte == b'}').unwrap();
                let count = std::str::from_utf8(&line[1..end]).unwrap();
                times = count.parse().unwrap();
                line = &line[end + 1..];
                continue;
            }
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                line = &line[3..];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            (b'\\', [letter, ..]) => {
                line = &line[1..];
                match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'v' => 0xb,
                    b'0' => 0,
                    b'\\' => b'\\',
                    other => panic!("\\{} is no escape", char::from(*other)),
                }
            }
            _ => first,
        };
        bytes.extend(std::iter::repeat_n(byte, times));
        times = 1;
    }
}
