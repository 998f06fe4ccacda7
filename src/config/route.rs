//! `[[route]]` as the gateway works with it.

use std::time::Duration;

use http::HeaderName;

use super::{FieldChange, Rate, Redirect, RouteLimits, Timeouts};
use crate::path::{EncodedSlashes, Prefix};
/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where in the file it stands (line of `[[route]]`), for messages.
    pub line: usize,
    /// `host`: lower-case, without port and final dot; `None` is any host.
    pub host: Option<String>,
    /// `path`.
    pub prefix: Prefix,
    /// Its place in [`Config::routes`](super::Config::routes).
    pub place: usize,
    /// `upstream` or `redirect`.
    pub target: Target,
    /// `session`.
    pub session: SessionMode,
    /// `require`.
    pub require: Require,
    /// `groups`: a user must be in one of them; empty for no such rule.
    pub groups: Vec<String>,
    /// `user`.
    pub user: UserClaims,
    /// `plain_headers`.
    pub plain_headers: Vec<PlainHeader>,
    /// `forward`.
    pub forward: Forward,
    /// `writable`, `may`, `unsafe_writable`.
    pub grants: Grants,
    /// `on_anonymous = "login-page"` and its `login_url`; `None` is `"401"`.
    pub login_url: Option<String>,
    /// `on_store_error = "forward"`.
    pub forward_on_store_error: bool,
    /// `cross_site = "allow"`.
    pub allow_cross_site: bool,
    /// `cache = "upstream"`: leave the upstream's caching fields alone.
    pub upstream_cache: bool,
    /// `strip_prefix`.
    pub strip_prefix: Option<Prefix>,
    /// `encoded_slashes`.
    pub encoded_slashes: EncodedSlashes,
    /// `request_headers`.
    pub request_headers: Vec<FieldChange>,
    /// `response_headers`.
    pub response_headers: Vec<FieldChange>,
    /// `rate`.
    pub rates: Vec<Rate>,
    /// `limits` with what holds otherwise filled in.
    pub limits: RouteLimits,
    /// `upgrades`: the protocols for which a request may leave HTTP; lower-case.
    pub upgrades: Vec<String>,
    /// `recheck` and `recheck_grace`.
    pub recheck: Recheck,
    /// `timeouts` with the upstream's and this route's own filled in.
    pub timeouts: Timeouts,
}

/// Who serves a route.
#[derive(Clone, Debug)]
pub enum Target {
    /// `upstream`: an index into [`Config::upstreams`](super::Config::upstreams).
    Upstream(usize),
    /// `redirect`: nobody here.
    Redirect(Redirect),
}

/// How it is looked whether those who have a stream open may still have it.
#[derive(Clone, Copy, Debug)]
pub struct Recheck {
    /// `recheck`: how often; `None` is `"off"`.
    pub every: Option<Duration>,
    /// Whether the file says so; then every answer is looked after, and whatever the route needs.
    pub is_explicit: bool,
    /// `recheck_grace`: how long a stream goes on while the database does not answer.
    pub grace: Duration,
}

/// `session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMode {
    /// Resolve it and hand it on, signed.
    Read,
    /// No lookup; a token that says so.
    Off,
    /// For Django itself: cookies go through unchanged, no token.
    Pass,
}

/// `require`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// Everybody.
    Anyone,
    /// A known session, logged in or not.
    Session,
    /// A logged-in user.
    Login,
    /// A logged-in user with `is_staff`.
    Staff,
    /// A logged-in user with `is_superuser`.
    Superuser,
}

/// `user`: what an upstream is told of the logged-in user.
#[derive(Clone, Debug, Default)]
pub struct UserClaims {
    /// Columns of the user table.
    pub columns: Vec<String>,
    /// The names of the user's groups.
    pub groups: bool,
}

/// One of `plain_headers`.
#[derive(Clone, Debug)]
pub struct PlainHeader {
    /// Letters, digits and hyphens only.
    pub name: HeaderName,
    /// What it says.
    pub source: PlainSource,
}

/// What a plain header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainSource {
    /// `"sub"`: the user's primary key.
    Sub,
    /// `"sid"`.
    Sid,
    /// `"user.COLUMN"`.
    User(String),
    /// `"session.NAME"`, a name that the route forwards.
    Session(String),
}

impl Route {
    /// Its name in metrics and in the access log: host and path, as in `shop.example/orders/` or `/`.
    pub fn name(&self) -> String {
        let (host, path) = (self.host.as_deref().unwrap_or_default(), &self.prefix);
        let end = if path.is_root() { "" } else { "/" };
        format!("{host}{path}{end}")
    }

    /// Whether serving this route takes more of the user than that there is one.
    pub fn reads_user(&self) -> bool {
        self.require.column().is_some()
            || self.reads_groups()
            || !self.user.columns.is_empty()
            || self.plain_columns().next().is_some()
    }

    /// The columns of the user table that `plain_headers` name.
    pub(super) fn plain_columns(&self) -> impl Iterator<Item = &String> {
        let sources = self.plain_headers.iter().map(|header| &header.source);
        sources.filter_map(|source| match source {
            PlainSource::User(column) => Some(column),
            _ => None,
        })
    }

    pub(super) fn reads_groups(&self) -> bool {
        self.user.groups || !self.groups.is_empty()
    }
}

impl Require {
    /// The column of the user table that must be true.
    pub fn column(self) -> Option<&'static str> {
        match self {
            Self::Anyone | Self::Session | Self::Login => None,
            Self::Staff => Some("is_staff"),
            Self::Superuser => Some("is_superuser"),
        }
    }
}

/// `forward`: which of the session's names the upstream gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// `"*"`: all but the protected names.
    AllButProtected,
    /// These.
    Only(Vec<String>),
}

/// What an upstream may change on a route.
#[derive(Clone, Debug)]
pub struct Grants {
    /// `writable` and `unsafe_writable`.
    pub writable: Writable,
    /// `may` has `"cycle"`.
    pub cycle: bool,
    /// `may` has `"flush"`.
    pub flush: bool,
    /// `may` has `"expiry"`.
    pub expiry: bool,
}

/// Which names may be set and deleted.
#[derive(Clone, Debug)]
pub enum Writable {
    /// `"*"`: all but the protected names, and these of `unsafe_writable`.
    AllButProtected(Vec<String>),
    /// These (with `unsafe_writable` among them).
    Only(Vec<String>),
}

impl Grants {
    /// Whether a change that is granted can need a new row: a first `set`, or a new key.
    pub fn may_insert(&self) -> bool {
        !matches!(&self.writable, Writable::Only(names) if names.is_empty()) || self.cycle
    }

    /// Whether the route grants nothing at all.
    pub fn is_empty(&self) -> bool {
        let Writable::Only(names) = &self.writable else {
            return false;
        };
        names.is_empty() && !self.cycle && !self.flush && !self.expiry
    }
}
