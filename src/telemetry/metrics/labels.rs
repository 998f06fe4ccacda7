//! The labels of metrics that have a few values, known beforehand.

use std::fmt;

use http::StatusCode;

use crate::error::Code;

/// One label of a metric: a few values that are known beforehand.
pub trait Label: Copy + PartialEq + fmt::Debug + 'static {
    /// Its name.
    const NAME: &'static str;

    /// Each value and how it is spelt.
    const VALUES: &'static [(Self, &'static str)];
}

/// What was found out about a session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There is no live row.
    Missing,
    /// A session.
    Known,
    /// A session whose login does not fit the password any more.
    LoggedOut,
    /// A row that cannot be verified.
    Unverifiable,
    /// The database did not answer.
    Unavailable,
    /// Too many lookups were waiting.
    Overloaded,
}

impl Label for Lookup {
    const NAME: &'static str = "result";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Missing, "missing"),
        (Self::Known, "known"),
        (Self::LoggedOut, "logged_out"),
        (Self::Unverifiable, "unverifiable"),
        (Self::Unavailable, "unavailable"),
        (Self::Overloaded, "overloaded"),
    ];
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stored.
    Saved,
    /// The session was deleted.
    Deleted,
    /// Nothing had to be written.
    Nothing,
    /// The row had gone.
    Gone,
    /// `"if"` did not fit.
    Changed,
    /// The row cannot be verified.
    Unreadable,
    /// The session would grow over its limit.
    TooLarge,
    /// Somebody else held the row.
    Busy,
    /// Nothing is stored.
    NotSaved,
    /// Nobody can say.
    Unknown,
}

impl Label for Change {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Saved, "saved"),
        (Self::Deleted, "deleted"),
        (Self::Nothing, "nothing"),
        (Self::Gone, "gone"),
        (Self::Changed, "changed"),
        (Self::Unreadable, "unreadable"),
        (Self::TooLarge, "too_large"),
        (Self::Busy, "busy"),
        (Self::NotSaved, "not_saved"),
        (Self::Unknown, "unknown"),
    ];
}

/// Whether a cache had what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It had.
    Hit,
    /// It had not.
    Miss,
}

impl Label for Cached {
    const NAME: &'static str = "result";
    const VALUES: &'static [(Self, &'static str)] = &[(Self::Hit, "hit"), (Self::Miss, "miss")];
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 1xx: another protocol was agreed on.
    Informational,
    /// 2xx.
    Successful,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx, and statuses that nobody has defined.
    ServerError,
    /// The client left before the head of the answer.
    Left,
}

impl Class {
    /// The class of an answer; `None` is a client that left before.
    pub fn of(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16() / 100) {
            None => Self::Left,
            Some(1) => Self::Informational,
            Some(2) => Self::Successful,
            Some(3) => Self::Redirection,
            Some(4) => Self::ClientError,
            Some(_) => Self::ServerError,
        }
    }
}

impl Label for Class {
    const NAME: &'static str = "class";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Informational, "1xx"),
        (Self::Successful, "2xx"),
        (Self::Redirection, "3xx"),
        (Self::ClientError, "4xx"),
        (Self::ServerError, "5xx"),
        (Self::Left, "left"),
    ];
}

impl Label for Code {
    const NAME: &'static str = "code";
    const VALUES: &'static [(Self, &'static str)] = Code::ALL;
}

/// Why a header field of a client was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// It has a name that only the gateway may set.
    Reserved,
    /// Its name is another spelling of such a name, or of one that is never spelt otherwise.
    Alias,
    /// It is a proxy's word, and the peer is not a trusted proxy.
    Forwarding,
    /// `Connection` names it.
    Nominated,
}

impl Label for Scrubbed {
    const NAME: &'static str = "reason";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Reserved, "reserved"),
        (Self::Alias, "alias"),
        (Self::Forwarding, "forwarding"),
        (Self::Nominated, "nominated"),
    ];
}

/// Why a token does not tell the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The route does not read sessions.
    Off,
    /// The row cannot be verified.
    Unreadable,
    /// The database did not answer, and the route goes on without it.
    Unavailable,
    /// The token would be larger than the upstream takes.
    TooLarge,
    /// A value of the session is not one that strict JSON can hold.
    NotJson,
}

impl Label for Withheld {
    const NAME: &'static str = "reason";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Off, "off"),
        (Self::Unreadable, "unreadable"),
        (Self::Unavailable, "unavailable"),
        (Self::TooLarge, "too_large"),
        (Self::NotJson, "not_json"),
    ];
}

/// What became of a session whose end was due to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// It was moved.
    Moved,
    /// Another request had moved it, or the session has gone.
    Kept,
    /// It was not moved.
    Failed,
}

impl Label for Extension {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Moved, "moved"),
        (Self::Kept, "kept"),
        (Self::Failed, "failed"),
    ];
}

/// What connections to the database are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Lookups.
    Lookups,
    /// Changes.
    Changes,
}

impl Label for Pool {
    const NAME: &'static str = "pool";
    const VALUES: &'static [(Self, &'static str)] =
        &[(Self::Lookups, "lookups"), (Self::Changes, "changes")];
}

/// What is spoken with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Label for Protocol {
    const NAME: &'static str = "protocol";
    const VALUES: &'static [(Self, &'static str)] =
        &[(Self::Http1, "http1"), (Self::Http2, "http2")];
}

/// Why a connection was closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its address has `limits.connections_per_address` already.
    Address,
    /// It should have said by PROXY protocol whose it is, and did not.
    NoProxyHeader,
    /// It came to a listener with PROXY protocol from a peer that is not trusted.
    UntrustedProxy,
}

impl Label for Refused {
    const NAME: &'static str = "reason";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Address, "address"),
        (Self::NoProxyHeader, "no_proxy_header"),
        (Self::UntrustedProxy, "untrusted_proxy"),
    ];
}

/// Which deadline a connection was closed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overstayed {
    /// `timeouts.head`.
    Head,
    /// `timeouts.idle`.
    Idle,
    /// `timeouts.send`.
    Send,
}

impl Label for Overstayed {
    const NAME: &'static str = "deadline";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Head, "head"),
        (Self::Idle, "idle"),
        (Self::Send, "send"),
    ];
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// It did not end in time.
    Timeout,
    /// The client broke off.
    Left,
    /// This is not TLS.
    NotTls,
    /// No version, cipher or protocol in common.
    Incompatible,
    /// The client does not believe the certificate.
    CertificateRefused,
    /// Something else.
    Other,
}

impl Label for TlsFailure {
    const NAME: &'static str = "reason";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Timeout, "timeout"),
        (Self::Left, "left"),
        (Self::NotTls, "not_tls"),
        (Self::Incompatible, "incompatible"),
        (Self::CertificateRefused, "certificate_refused"),
        (Self::Other, "other"),
    ];
}

/// What became of an attempt to take a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It is in force.
    Done,
    /// It has mistakes; the one before stays.
    Refused,
}

impl Label for Reload {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [(Self, &'static str)] =
        &[(Self::Done, "done"), (Self::Refused, "refused")];
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnelled {
    /// Frames of RFC 6455.
    WebSocket,
    /// A protocol that a route names.
    Other,
}

impl Label for Tunnelled {
    const NAME: &'static str = "protocol";
    const VALUES: &'static [(Self, &'static str)] =
        &[(Self::WebSocket, "websocket"), (Self::Other, "other")];
}

/// What was found when the session of an open stream was looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is as it was.
    Kept,
    /// The session has ended.
    Gone,
    /// Its user may no longer do this.
    NotAllowed,
    /// Its user is another one.
    OtherUser,
    /// There was no answer.
    Unknown,
}

impl Label for Finding {
    const NAME: &'static str = "result";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Kept, "kept"),
        (Self::Gone, "gone"),
        (Self::NotAllowed, "not_allowed"),
        (Self::OtherUser, "other_user"),
        (Self::Unknown, "unknown"),
    ];
}

/// Why the gateway ended a tunnel or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing came for too long.
    Idle,
    /// The session has ended, or does not do any more.
    Revoked,
    /// Nobody could say so for too long.
    Unanswered,
    /// The process ends.
    Restart,
}

impl Label for Ended {
    const NAME: &'static str = "reason";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Idle, "idle"),
        (Self::Revoked, "revoked"),
        (Self::Unanswered, "unanswered"),
        (Self::Restart, "restart"),
    ];
}
