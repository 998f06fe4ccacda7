//! What loading a configuration has to say: problems, which fail it, and remarks, which do not.

use std::{cell::RefCell, fmt, path::Path};

/// One sentence about one place of the configuration file.
///
/// `Display` is `gateway.toml:12:5: unknown key "bakcends" in [django]; did you mean "backends"?`. It never
/// holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Where in the file; `None` is the file as a whole.
    pub position: Option<Position>,
    /// What is wrong.
    pub sentence: String,
    /// What may mend it.
    pub suggestion: Option<String>,
}

/// Something that is not wrong, but that one should know. `check --strict` fails on it.
pub type Remark = Problem;

/// A place in a text file. Both count from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.sentence)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Collects what is found while one file is read.
pub(super) struct Report<'a> {
    file: String,
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
    remarks: RefCell<Vec<Remark>>,
}

impl<'a> Report<'a> {
    /// A report on this file with this text.
    pub(super) fn new(file: &Path, text: &'a str) -> Self {
        let file = file.display().to_string();
        Self {
            file,
            text,
            problems: RefCell::default(),
            remarks: RefCell::default(),
        }
    }

    /// Adds a problem at this byte offset of the text; `None` is the file as a whole.
    pub(super) fn problem(
        &self,
        at: Option<usize>,
        sentence: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.problems
            .borrow_mut()
            .push(self.finding(at, sentence.into(), suggestion));
    }

    /// Adds a remark at this byte offset. It says that it is one: `check` prints both.
    pub(super) fn remark(&self, at: Option<usize>, sentence: impl fmt::Display) {
        self.remarks
            .borrow_mut()
            .push(self.finding(at, format!("remark: {sentence}"), None));
    }

    /// The line of a byte offset, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.position(at).line
    }

    /// The problems and the remarks, each in the order of the file.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Remark>) {
        let (mut problems, mut remarks) = (self.problems.into_inner(), self.remarks.into_inner());
        problems.sort_by_key(|problem| problem.position);
        remarks.sort_by_key(|remark| remark.position);
        (problems, remarks)
    }

    fn finding(&self, at: Option<usize>, sentence: String, suggestion: Option<String>) -> Problem {
        let position = at.map(|at| self.position(at));
        Problem {
            file: self.file.clone(),
            position,
            sentence: one_line(sentence),
            suggestion: suggestion.map(one_line),
        }
    }

    fn position(&self, at: usize) -> Position {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..]
                .chars()
                .filter(|c| *c != '\u{feff}')
                .count()
                + 1,
        }
    }
}

/// The text with escapes for control characters, which a path or a word of the file may hold.
fn one_line(text: String) -> String {
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

/// `did you mean "X"?` with the nearest of the names, if one is near enough to be a slip of the same word.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance =
        |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let allowed = (name.chars().count() / 3).max(1);
    let (distance, nearest) = known
        .into_iter()
        .map(|other| (distance(other), other))
        .min()?;
    (distance <= allowed).then(|| did_you_mean(nearest))
}

/// `did you mean "X"?`
pub(super) fn did_you_mean(text: &str) -> String {
    format!("did you mean {text:?}?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_one_line_whatever_a_path_holds() {
        let report = Report::new(Path::new("gateway.toml"), "a = 1");
        let sentence = "a\n2026 ERROR \u{1b}[31m\u{85} caf\u{e9} cannot be read";
        report.problem(Some(0), sentence, Some("did you mean a\tb?".to_owned()));
        let (problems, _) = report.finish();
        assert_eq!(
            problems[0].to_string(),
            "gateway.toml:1:1: a\\n2026 ERROR \\u{1b}[31m\\u{85} caf\u{e9} cannot be read; did you mean a\\tb?"
        );
    }
}
