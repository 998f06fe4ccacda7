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
    /// The certificate of the connection is not for the host that is asked for.
    MisdirectedRequest,
    /// More header fields than `limits.request_fields`.
    TooManyFields,
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
    /// No server of the upstream may be asked: none can be reached, or their checks fail.
    NoServer,
    /// This client has asked too often (`rate`).
    RateLimited,
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
    /// Every code, with its name.
    pub const ALL: &'static [(Self, &'static str)] = &[
        Self::BadRequest.with_name(),
        Self::AmbiguousCookie.with_name(),
        Self::LoginRequired.with_name(),
        Self::NotAllowed.with_name(),
        Self::CrossSiteRequest.with_name(),
        Self::NoRoute.with_name(),
        Self::MethodRefused.with_name(),
        Self::MisdirectedRequest.with_name(),
        Self::TooManyFields.with_name(),
        Self::BodyTooLarge.with_name(),
        Self::TransferEncoding.with_name(),
        Self::UpstreamUnreachable.with_name(),
        Self::UpstreamBadResponse.with_name(),
        Self::UpstreamTimeout.with_name(),
        Self::Overloaded.with_name(),
        Self::NoServer.with_name(),
        Self::RateLimited.with_name(),
        Self::SessionStoreUnavailable.with_name(),
        Self::SessionUnreadable.with_name(),
        Self::BadPlainHeader.with_name(),
        Self::BadSessionSet.with_name(),
        Self::SessionTooLarge.with_name(),
        Self::SessionChanged.with_name(),
        Self::SessionGone.with_name(),
        Self::SessionBusy.with_name(),
        Self::SessionNotSaved.with_name(),
        Self::SessionOutcomeUnknown.with_name(),
    ];

    const fn with_name(self) -> (Self, &'static str) {
        (self, self.as_str())
    }

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
            Self::MisdirectedRequest => "misdirected-request",
            Self::TooManyFields => "too-many-fields",
            Self::BodyTooLarge => "body-too-large",
            Self::TransferEncoding => "transfer-encoding",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamBadResponse => "upstream-bad-response",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Overloaded => "overloaded",
            Self::NoServer => "no-server",
            Self::RateLimited => "rate-limited",
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
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::SessionChanged | Self::SessionGone | Self::SessionBusy => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SessionUnreadable | Self::SessionNotSaved | Self::SessionOutcomeUnknown => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamUnreachable
            | Self::UpstreamBadResponse
            | Self::BadPlainHeader
            | Self::BadSessionSet
            | Self::SessionTooLarge => StatusCode::BAD_GATEWAY,
            Self::Overloaded | Self::NoServer | Self::SessionStoreUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn the_codes_that_are_documented_are_all_there_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
        let text = fs::read_to_string(path).unwrap();
        let start = text.find("\n## Error codes\n").unwrap();
        let rows = text[start..].lines().filter_map(|line| {
            let (code, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((code.to_owned(), rest.get(..3)?.parse::<u16>().ok()?))
        });
        let documented: BTreeSet<_> = rows.collect();
        let all = Code::ALL.iter();
        let all: BTreeSet<_> = all
            .map(|(code, name)| ((*name).to_owned(), code.status().as_u16()))
            .collect();
        assert_eq!(documented, all);
        assert_eq!(all.len(), Code::ALL.len());
    }
}
