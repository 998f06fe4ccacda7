//! `X-Session-Set`: what an upstream wants changed, from the field's bytes to the changed session.
//!
//! A field is read whole or refused whole; whether the route grants what it asks for is [`permit`].
//! What Django would lose a session over (NaN, hostile nesting, endless numbers) never gets as far
//! as a [`Patch`].

pub mod permit;

use std::{fmt, ops::Range};

use thiserror::Error;

pub use self::permit::NotGranted;
use crate::{
    django::SESSION_EXPIRY,
    json::{self, NotJson},
    session::Session,
};

/// Longest field, in bytes: more than servers commonly send, less than hurts to hold.
const MAX_BYTES: usize = 16 * 1024;

/// Most objects and arrays inside each other, the field itself counted.
const MAX_NESTING: usize = 32;

/// The same within a value, which stands two levels deep in the field.
pub const VALUE_NESTING: usize = MAX_NESTING - 2;

/// Most members of a session after a change.
const MAX_KEYS: usize = 256;

/// A field that could be read. It holds session data, so it prints as nothing.
pub struct Patch {
    /// The whole field, in canonical spelling.
    text: String,
    condition: Option<String>,
    set: Vec<(String, Range<usize>)>,
    /// Sorted, each once.
    del: Vec<String>,
    cycle: bool,
    flush: bool,
    expiry: Option<Expiry>,
}

/// `"expiry"`: Django's `set_expiry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many seconds after each save; 0: until the browser closes.
    Seconds(u64),
    /// `null`: the site's default.
    Default,
}

/// Why a field cannot be read: the member and the rule, never a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadPatch {
    /// Over 16 KiB.
    #[error("X-Session-Set is {0} bytes long; at most 16384 are taken")]
    TooLong(usize),
    /// Not UTF-8: Node's `setHeader`, for one, writes latin-1.
    #[error("X-Session-Set is not UTF-8; write what is not ASCII as \\u escapes")]
    NotUtf8,
    /// JSON, perhaps, but no object.
    #[error("X-Session-Set must be one JSON object")]
    NotObject,
    /// Not JSON, or JSON that would hurt a later reader.
    #[error("X-Session-Set cannot be read: {0}")]
    NotJson(NotJson),
    /// A misspelt member must not be a no-op.
    #[error("X-Session-Set has no member {0}; there are set, del, cycle, flush, expiry and if")]
    UnknownMember(String),
    /// A member of another type or value.
    #[error("\"{member}\" in X-Session-Set must be {expected}")]
    Type {
        /// Which member.
        member: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// `"flush"` leaves nothing that the other could work on.
    #[error("\"flush\" in X-Session-Set cannot go with \"{0}\"")]
    FlushWith(&'static str),
    /// One key to be both set and removed.
    #[error("the key {0} is in both \"set\" and \"del\" of X-Session-Set")]
    SetAndDel(String),
}

/// The changed session is over a limit; nothing may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TooLarge {
    /// Too much JSON.
    #[error("the session would be {bytes} bytes of JSON; limits.session_write is {most}")]
    Bytes {
        /// What it would be.
        bytes: usize,
        /// `limits.session_write`.
        most: usize,
    },
    /// Too many members.
    #[error("the session would have {0} keys; at most 256 are stored")]
    Keys(usize),
}

impl Patch {
    /// Reads the value of an `X-Session-Set` field.
    ///
    /// # Errors
    ///
    /// [`BadPatch`]: nothing of it may be carried out.
    pub fn parse(field: &[u8]) -> Result<Self, BadPatch> {
        if field.len() > MAX_BYTES {
            return Err(BadPatch::TooLong(field.len()));
        }
        let field = std::str::from_utf8(field).map_err(|_| BadPatch::NotUtf8)?;
        if !field.trim_matches(' ').starts_with('{') {
            return Err(BadPatch::NotObject);
        }
        let text = json::canonical(field, MAX_NESTING).map_err(BadPatch::NotJson)?;
        let members = json::scan_object(&text).map_err(BadPatch::NotJson)?;

        let (mut condition, mut set, mut del) = (None, Vec::new(), Vec::new());
        let (mut cycle, mut flush, mut expiry, mut has_del) = (false, false, None, false);
        for member in members {
            let value = &text[member.value.clone()];
            match &text[member.name.clone()] {
                "\"if\"" => condition = Some(json::string(value).ok_or(wrong("if", "a string"))?),
                "\"set\"" => set = keys_to_set(value, member.value.start)?,
                "\"del\"" => (del, has_del) = (keys_to_delete(value)?, true),
                "\"cycle\"" => cycle = only_true("cycle", value)?,
                "\"flush\"" => flush = only_true("flush", value)?,
                "\"expiry\"" => expiry = Some(Expiry::parse(value)?),
                name => {
                    return Err(BadPatch::UnknownMember(shown(
                        &json::string(name).unwrap_or_default(),
                    )));
                }
            }
        }
        if flush && cycle {
            return Err(BadPatch::FlushWith("cycle"));
        }
        if flush && has_del {
            return Err(BadPatch::FlushWith("del"));
        }
        if let Some((key, _)) = set.iter().find(|(key, _)| del.binary_search(key).is_ok()) {
            return Err(BadPatch::SetAndDel(shown(key)));
        }
        Ok(Self {
            text,
            condition,
            set,
            del,
            cycle,
            flush,
            expiry,
        })
    }

    /// The patch that a program makes. Each name comes once: with a value as [`json::canonical`] spells it, or
    /// with `None`, to be removed.
    pub fn of<'a>(changes: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Self {
        let (mut text, mut set, mut del) = (String::new(), Vec::new(), Vec::new());
        for (name, value) in changes {
            let Some(value) = value else {
                del.push(name.to_owned());
                continue;
            };
            let start = text.len();
            text.push_str(value);
            set.push((name.to_owned(), start..text.len()));
        }
        del.sort_unstable();
        Self {
            text,
            condition: None,
            set,
            del,
            cycle: false,
            flush: false,
            expiry: None,
        }
    }

    /// The patch that destroys the session.
    pub fn of_flush() -> Self {
        Self {
            flush: true,
            ..Self::of([])
        }
    }

    /// The same with a new session key.
    pub fn with_cycle(self) -> Self {
        Self {
            cycle: true,
            ..self
        }
    }

    /// `"if"`: the `rev` that must still be the session's.
    pub fn condition(&self) -> Option<&str> {
        self.condition.as_deref()
    }

    /// `"flush"`: destroy the session; with [`Self::has_set`], start a fresh one under a new key.
    pub fn flush(&self) -> bool {
        self.flush
    }

    /// `"cycle"`: a new key for the same data.
    pub fn cycle(&self) -> bool {
        self.cycle
    }

    /// Whether there is a key to set: only that makes a session where there is none. `"set":{}`
    /// counts as absent, and how long a session lives is nothing to keep one for.
    pub fn has_set(&self) -> bool {
        self.set.iter().any(|(name, _)| name != SESSION_EXPIRY)
    }

    /// `"expiry"`.
    pub fn expiry(&self) -> Option<Expiry> {
        self.expiry
    }

    /// Whether it asks for nothing but the session's extension.
    pub fn is_touch(&self) -> bool {
        let changes_data = !(self.set.is_empty() && self.del.is_empty()) || self.expiry.is_some();
        !changes_data && !self.cycle && !self.flush
    }

    /// Carries out `del`, `set` and `expiry`, in this order; whether any byte of the session's JSON
    /// changed.
    ///
    /// For `flush` the caller hands in [`Session::empty`]; `if`, `flush` and `cycle` are its
    /// business.
    pub fn apply(&self, session: &mut Session) -> bool {
        let mut changed = session.remove_all(&self.del);
        for (key, value) in &self.set {
            changed |= replace(session, key, &self.text[value.clone()]);
        }
        changed
            | match self.expiry {
                None => false,
                Some(Expiry::Default) => session.remove(SESSION_EXPIRY),
                Some(Expiry::Seconds(seconds)) => {
                    replace(session, SESSION_EXPIRY, &seconds.to_string())
                }
            }
    }
}

impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patch(redacted)")
    }
}

impl Expiry {
    fn parse(value: &str) -> Result<Self, BadPatch> {
        if value == "null" {
            return Ok(Self::Default);
        }
        // Digits only: the canonical spelling of an integer has no sign but a minus.
        let seconds = value
            .parse()
            .map_err(|_| wrong("expiry", "an integer of 0 or more, or null"))?;
        Ok(Self::Seconds(seconds))
    }
}

/// Whether a changed session may be stored: at most `bytes` of JSON (`limits.session_write`) and
/// 256 keys.
///
/// # Errors
///
/// [`TooLarge`].
pub fn limits(session: &Session, bytes: usize) -> Result<(), TooLarge> {
    if session.len() > MAX_KEYS {
        return Err(TooLarge::Keys(session.len()));
    }
    if session.json_len() > bytes {
        return Err(TooLarge::Bytes {
            bytes: session.json_len(),
            most: bytes,
        });
    }
    Ok(())
}

fn replace(session: &mut Session, key: &str, value: &str) -> bool {
    let changes = session.raw(key) != Some(value);
    if changes {
        session.set(key, value);
    }
    changes
}

/// The keys of `"set"`, and where their values stand in the whole text, of which `object` begins at
/// `start`.
fn keys_to_set(object: &str, start: usize) -> Result<Vec<(String, Range<usize>)>, BadPatch> {
    if !object.starts_with('{') {
        return Err(wrong("set", "an object"));
    }
    let members = json::scan_object(object).map_err(BadPatch::NotJson)?;
    let key = |name: Range<usize>| json::string(&object[name]).ok_or(wrong("set", "an object"));
    members
        .into_iter()
        .map(|member| {
            Ok((
                key(member.name)?,
                start + member.value.start..start + member.value.end,
            ))
        })
        .collect()
}

fn keys_to_delete(array: &str) -> Result<Vec<String>, BadPatch> {
    let expected = || wrong("del", "an array of strings");
    if !array.starts_with('[') {
        return Err(expected());
    }
    let items = json::scan_array(array).map_err(BadPatch::NotJson)?;
    let mut keys = items
        .into_iter()
        .map(|item| json::string(&array[item]).ok_or_else(expected))
        .collect::<Result<Vec<String>, BadPatch>>()?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

fn only_true(member: &'static str, value: &str) -> Result<bool, BadPatch> {
    if value == "true" {
        Ok(true)
    } else {
        Err(wrong(member, "true or absent"))
    }
}

fn wrong(member: &'static str, expected: &'static str) -> BadPatch {
    BadPatch::Type { member, expected }
}

/// A key as a message shows it: an ASCII string that TOML reads too, cut where it is long.
pub(crate) fn shown(key: &str) -> String {
    const MOST: usize = 64;
    let mut text = String::from("\"");
    for character in key.chars().take(MOST) {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => text.push_str(&format!("\\U{:08X}", u32::from(character))),
        }
    }
    text.push_str(if key.chars().nth(MOST).is_some() {
        "...\""
    } else {
        "\""
    });
    text
}

#[cfg(test)]
mod tests;
