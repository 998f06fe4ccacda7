//! What a handler is told where something of its session does not work, and why a request was refused.

use std::fmt;

use crate::json;

/// Why the contents of a session did not come. It never means "nothing there".
///
/// With the first two the gateway knows the session: [`user_id`](crate::Session::user_id) works, and names can be
/// set and removed. With all others nobody knows who is calling, and nothing can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Withheld {
    /// The token would have been larger than `max_header_bytes`.
    TooLarge,
    /// A value that is JSON for Python only.
    NotJson,
    /// The route does not read sessions.
    Off,
    /// There is a session that the gateway cannot verify.
    Unreadable,
    /// The session database did not answer.
    Unavailable,
    /// A reason that this version does not know.
    Unknown,
}

impl Withheld {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "too_large" => Self::TooLarge,
            "not_json" => Self::NotJson,
            "off" => Self::Off,
            "unreadable" => Self::Unreadable,
            "unavailable" => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// The claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::Off => "off",
            Self::Unreadable => "unreadable",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn knows_visitor(self) -> bool {
        matches!(self, Self::TooLarge | Self::NotJson)
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something was not done with a session. Each says so in a sentence, never with a value in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gateway did not tell what was asked for. It must never be taken for "there is nothing".
    #[error("the session is withheld ({0})")]
    Withheld(Withheld),
    /// The head of the response has gone out: a change would be lost.
    #[error("the response has begun, and the session cannot be changed any more")]
    Closed,
    /// A name that begins with `_` belongs to Django.
    #[error("the name {0} is protected: names that begin with _ belong to Django")]
    Protected(String),
    /// A value, or a name, that the session cannot hold.
    #[error("the value of {name} cannot be stored: {rule}")]
    Value {
        /// The name, as a quoted text.
        name: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The value is of another type than the one asked for.
    #[error("the value of {0} is not of the type asked for")]
    Type(String),
}

/// Why a request was refused. It holds nothing of the token but names, quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Session refused ({reason}): {detail}")]
pub struct Refused {
    reason: Reason,
    detail: String,
}

impl Refused {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

/// The reasons for which requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No `X-Session`.
    Missing,
    /// More than one `X-Session` field.
    Twice,
    /// No token, or claims that are missing or of another type.
    Malformed,
    /// Another `typ`, or an `alg` that is not the one of the key.
    Algorithm,
    /// Signed with a key that is not there, or what a function gave for it is none.
    UnknownKid,
    /// The signature does not fit.
    Signature,
    /// For another service.
    Audience,
    /// From another gateway.
    Issuer,
    /// After `exp`.
    Expired,
    /// Before `iat`.
    NotYetValid,
    /// Signed for another method, host or target.
    OtherRequest,
}

impl Reason {
    /// A short name that does not change, as in the 401's `"code":"x-session-expired"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Twice => "twice",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKid => "unknown-kid",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::OtherRequest => "other-request",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with the settings of a layer, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

/// A text that a stranger may have written, quoted and cut, for a log.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", json::quoted(&text[..end])),
        None => json::quoted(text),
    }
}
