//! The request-time errors: one code each, with its status.

use http::StatusCode;

/// Why the gateway answered in the upstream's place. The code is stable: clients may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The request breaks a rule of HTTP or of this gateway; the detail names the rule.
    BadRequest,
    /// Two session cookies, where the configuration says `duplicate = "refuse"`.
    AmbiguousCookie,
    /// The route needs a session or a login.
    LoginRequired,
    /// Logged in, but not as somebody whom the route asks for.
    NotAllowed,
    /// Another site's page sent this request (the cross-site guard).
    CrossSiteRequest,
    /// No route matches the host and path.
    NoRoute,
    /// CONNECT, TRACE or TRACK.
    MethodRefused,
    /// The request body is over `limits.request_body`.
    BodyTooLarge,
    /// A `Transfer-Encoding` other than exactly `chunked`.
    TransferEncoding,
    /// No connection to the upstream.
    UpstreamUnreachable,
    /// The upstream's answer is not one that can be passed on.
    UpstreamBadResponse,
    /// The upstream's answer did not come in time.
    UpstreamTimeout,
    /// More work is waiting than the limits allow.
    Overloaded,
    /// The session database did not answer a lookup; the upstream was not called.
    SessionStoreUnavailable,
    /// A row is there, but it cannot be verified, and the route or the change needs it.
    SessionUnreadable,
    /// A value cannot stand in a route's plain header; the upstream was not called.
    BadPlainHeader,
    /// The upstream's `X-Session-Set` is not one that can be carried out.
    BadSessionSet,
    /// The session would grow over `limits.session_write`.
    SessionTooLarge,
    /// `"if"` names a revision that is no longer there.
    SessionChanged,
    /// The session was deleted while the upstream worked.
    SessionGone,
    /// Another writer held the row, or too many changes of this session were waiting.
    SessionBusy,
    /// The change could not be stored; nothing is.
    SessionNotSaved,
    /// The connection broke while the change was committed, and somebody else wrote since.
    SessionOutcomeUnknown,
}

impl Code {
    /// The stable name, as in `X-Gateway-Error` and the problem's `code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::AmbiguousCookie => "ambiguous-cookie",
            Self::LoginRequired => "login-required",
            Self::NotAllowed => "not-allowed",
            Self::CrossSiteRequest => "cross-site-request",
            Self::NoRoute => "no-route",
            Self::MethodRefused => "method-refused",
            Self::BodyTooLarge => "body-too-large",
            Self::TransferEncoding => "transfer-encoding",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamBadResponse => "upstream-bad-response",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Overloaded => "overloaded",
            Self::SessionStoreUnavailable => "session-store-unavailable",
            Self::SessionUnreadable => "session-unreadable",
            Self::BadPlainHeader => "bad-plain-header",
            Self::BadSessionSet => "bad-session-set",
            Self::SessionTooLarge => "session-too-large",
            Self::SessionChanged => "session-changed",
            Self::SessionGone => "session-gone",
            Self::SessionBusy => "session-busy",
            Self::SessionNotSaved => "session-not-saved",
            Self::SessionOutcomeUnknown => "session-outcome-unknown",
        }
    }

    /// The status it is answered with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::AmbiguousCookie => StatusCode::BAD_REQUEST,
            Self::LoginRequired => StatusCode::UNAUTHORIZED,
            Self::NotAllowed | Self::CrossSiteRequest => StatusCode::FORBIDDEN,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::SessionChanged | Self::SessionGone | Self::SessionBusy => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SessionUnreadable | Self::SessionNotSaved | Self::SessionOutcomeUnknown => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamUnreachable
            | Self::UpstreamBadResponse
            | Self::BadPlainHeader
            | Self::BadSessionSet
            | Self::SessionTooLarge => StatusCode::BAD_GATEWAY,
            Self::Overloaded | Self::SessionStoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
