//! What a program puts into SQL by name, held to the rules of the file.

use super::value::{self, Parsed};

/// A table: `name` or `schema.name`.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub fn table(text: &str) -> Result<String, String> {
    sentence(value::table(text))
}

/// A column.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub fn column(text: &str) -> Result<String, String> {
    sentence(value::column(text))
}

/// An SQL condition, for slips and not for attacks: it is the program's own.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub fn condition(text: &str) -> Result<String, String> {
    sentence(value::condition(text))
}

fn sentence(parsed: Parsed<String>) -> Result<String, String> {
    parsed.map_err(|refused| refused.why)
}
