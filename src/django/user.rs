//! A user's primary key, as a session spells it and as the column of the user table holds it.

use std::fmt;

use uuid::Uuid;

use super::integer_key;

/// Longest text key, in characters: what Django's own fields and the databases' indexes hold.
const LONGEST_TEXT: usize = 255;

/// What the key column of the user table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `AutoField`, `BigAutoField` and their kin.
    Integer,
    /// `UUIDField`: a native column, or 32 hexadecimal digits.
    Uuid,
    /// `CharField`.
    Text,
}

/// The primary key of a user. Equal keys are equal values of the column, however a session spells them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserKey {
    /// Of an integer column.
    Integer(i64),
    /// Of a UUID column.
    Uuid(Uuid),
    /// Of a text column. Compared byte for byte, also where the database's collation would not.
    Text(Box<str>),
}

impl UserKey {
    /// The key that `_auth_user_id` names in a column of this kind, by Django's `to_python`; `None` for what
    /// no such column can hold, which is no user.
    pub fn parse(kind: KeyKind, id: &str) -> Option<Self> {
        match kind {
            KeyKind::Integer => integer_key(id).map(Self::Integer),
            KeyKind::Uuid => uuid_key(id).map(Self::Uuid),
            KeyKind::Text => {
                let is_storable = !id.contains('\0') && id.chars().nth(LONGEST_TEXT).is_none();
                is_storable.then(|| Self::Text(id.into()))
            }
        }
    }

    /// What kind of column it is a key of.
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Integer(_) => KeyKind::Integer,
            Self::Uuid(_) => KeyKind::Uuid,
            Self::Text(_) => KeyKind::Text,
        }
    }
}

/// A UUID as Python's `uuid.UUID(hex)` takes it (CPython `Lib/uuid.py`): without `urn:` and `uuid:`, braces
/// around it and all hyphens, 32 hexadecimal digits are left.
fn uuid_key(id: &str) -> Option<Uuid> {
    // Longer than any spelling that somebody uses.
    if id.len() > 64 {
        return None;
    }
    let digits = id.replace("urn:", "").replace("uuid:", "");
    let digits = digits.trim_matches(['{', '}']).replace('-', "");
    let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| Uuid::try_parse(&digits).ok()).flatten()
}

impl fmt::Display for UserKey {
    /// Django's `str(user.pk)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(key) => key.fmt(f),
            Self::Uuid(key) => key.hyphenated().fmt(f),
            Self::Text(key) => f.write_str(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_the_column_can_hold() {
        let parse = |kind, id: &str| UserKey::parse(kind, id).map(|key| key.to_string());
        assert_eq!(parse(KeyKind::Integer, " +4_2 ").as_deref(), Some("42"));
        assert_eq!(parse(KeyKind::Integer, "abc"), None);
        assert_eq!(parse(KeyKind::Integer, "9223372036854775808"), None);
        let uuid = "5f0c1ce0-7f3a-4a8e-9d55-1d5cf14a3a54";
        for spelling in [
            uuid.to_owned(),
            uuid.to_uppercase(),
            uuid.replace('-', ""),
            format!("{{{uuid}}}"),
            format!("{{{}}}", uuid.replace('-', "")),
            format!("urn:uuid:{uuid}"),
            uuid.replace("4a8e-", "4-a8e"),
        ] {
            assert_eq!(parse(KeyKind::Uuid, &spelling).as_deref(), Some(uuid));
        }
        for other in [
            "42",
            "",
            &uuid[1..],
            &format!(" {uuid}"),
            &uuid.replace('5', "g"),
        ] {
            assert_eq!(parse(KeyKind::Uuid, other), None, "{other}");
        }
        assert_eq!(parse(KeyKind::Uuid, &"-".repeat(1 << 20)), None);
        assert_eq!(parse(KeyKind::Text, "Alice ").as_deref(), Some("Alice "));
        assert_eq!(parse(KeyKind::Text, "a\0"), None);
        assert_eq!(parse(KeyKind::Text, &"a".repeat(256)), None);
    }
}
