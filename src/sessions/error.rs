//! What a program is told where something of a session does not work.

use std::borrow::Cow;

use super::Refused;
use crate::{
    django::{BadExpiry, Unreadable},
    store::{LookupError, OpenError},
};

/// Why something was not done. Each says so in a sentence, never with a key, a value or a secret in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address, a name or a setting that cannot be right.
    #[error("the sessions cannot be opened: {0}")]
    Settings(String),
    /// The connections live on the caller's Tokio runtime, and there is none.
    #[error("sessions must be opened inside a Tokio runtime")]
    NoRuntime,
    /// A definite no: no such database, table or column, or a login that is refused.
    #[error(
        "the session database said no: {0}. Check the address and the table, and that `manage.py migrate` has run"
    )]
    Refused(String),
    /// No answer. It must never be taken for "there is no session".
    #[error("the session database does not answer")]
    Unavailable,
    /// The same at the start, with the latest cause.
    #[error("the session database cannot be reached: {0}")]
    Unreachable(String),
    /// More lookups than `lookup_queue` are waiting.
    #[error("too many lookups of sessions are waiting")]
    Overloaded,
    /// The contents were asked for before they were read.
    #[error("the session was not read yet: call load().await first")]
    NotLoaded,
    /// The request has several session cookies, and the settings say to refuse that (`refuse_duplicate`).
    #[error("the request has more than one session cookie")]
    AmbiguousCookie,
    /// There is a row that cannot be verified or understood. It must never be taken for "there is no session".
    #[error("the session cannot be read: {0}")]
    Unreadable(Unreadable),
    /// The row was deleted or has expired since it was read. It is not written again: that would bring back who
    /// has logged out. [`Session::reload`](super::handle::Session::reload) begins anew.
    #[error("the session has ended since it was read, and nothing was stored")]
    SessionGone,
    /// Somebody else holds the row, or too many changes of this session are waiting.
    #[error("the session is in use elsewhere, and nothing was stored")]
    Busy,
    /// The database did not carry it out.
    #[error("the session was not saved")]
    NotSaved,
    /// The database broke off while the change was committed, and the row does not tell.
    #[error("nobody can say whether the session was saved")]
    OutcomeUnknown,
    /// The session would have more JSON than `session_write`, or more than 256 names.
    #[error("the session would grow over its limit, and nothing was stored")]
    TooLarge,
    /// A value that Django could not read back, or that would hurt a later reader.
    #[error("the value of {name} cannot be stored: {rule}")]
    Value {
        /// The name, as a quoted text.
        name: String,
        /// The rule that is broken.
        rule: Cow<'static, str>,
    },
    /// The stored value is of another type than the one asked for.
    #[error("the value of {0} is not of the type asked for")]
    Type(String),
    /// Under this name Django or one of its packages keeps authority.
    #[error(
        "the name {0} is protected: Django or one of its packages keeps authority under it; if this program must \
         write it, it says so with unsafe_insert or unsafe_remove"
    )]
    Protected(String),
    /// Django answers 500 to values that it does not expect there.
    #[error("the name \"_session_expiry\" is written by set_expiry only")]
    SessionExpiry,
    /// An end that Django could not work out, or not store.
    #[error("the session's end cannot be told: {0}")]
    Expiry(BadExpiry),
}

impl From<LookupError> for Error {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Unavailable => Self::Unavailable,
            LookupError::Overloaded => Self::Overloaded,
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Address(sentence) => Self::Settings(sentence),
            OpenError::NoRuntime => Self::NoRuntime,
            OpenError::Refused(sentence) => Self::Refused(sentence),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Gone => Self::SessionGone,
            Refused::Busy => Self::Busy,
            Refused::TooLarge => Self::TooLarge,
            Refused::Unknown => Self::OutcomeUnknown,
            // A program names no revision, and what it could not read it does not change: if the row became
            // unreadable since, its cause is in the log.
            Refused::NotSaved | Refused::Changed | Refused::Unreadable => Self::NotSaved,
        }
    }
}

impl From<BadExpiry> for Error {
    fn from(error: BadExpiry) -> Self {
        Self::Expiry(error)
    }
}
