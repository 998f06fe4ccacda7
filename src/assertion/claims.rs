//! The claims of an assertion, in the order in which they are written.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::json;

/// What one request to one upstream is told.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    /// The gateway's `issuer`.
    pub iss: &'a str,
    /// The upstream's name.
    pub aud: &'a str,
    /// Now, in Unix seconds.
    pub iat: i64,
    /// How long the token is good, in seconds.
    pub ttl: u64,
    /// [`jti()`], new for each try at an upstream.
    pub jti: &'a str,
    /// [`req()`] of the request as it goes out.
    pub req: &'a str,
    /// Who is calling.
    pub visitor: Visitor<'a>,
}

/// Who is calling, as far as the gateway may say.
#[derive(Clone, Copy)]
pub enum Visitor<'a> {
    /// Nobody: no session cookie, or none that names a live row. The session is empty.
    Nobody,
    /// A known session, logged in or not.
    Known(Known<'a>),
    /// Nobody knows.
    Withheld(Withheld),
}

/// A known session.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// [`super::Opaque::sid`].
    pub sid: &'a str,
    /// When the row expires, in Unix seconds.
    pub session_exp: i64,
    /// The logged-in user's primary key.
    pub sub: Option<&'a str>,
    /// The `user` member: a JSON object, ASCII, for routes that ask for one.
    pub user: Option<&'a str>,
    /// The session's contents.
    pub contents: Contents<'a>,
}

/// What is told of a known session's contents.
#[derive(Clone, Copy)]
pub enum Contents<'a> {
    /// These.
    Told {
        /// The `session` member: [`super::project`].
        session: &'a str,
        /// Its version: [`super::Opaque::rev`].
        rev: &'a str,
    },
    /// A value among them is JSON for Python only, so that verifiers would refuse the token.
    NotJson,
}

/// Why not even `sid` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The route does not read sessions.
    Off,
    /// A row exists but cannot be verified.
    Unreadable,
    /// The database is away, and the route is configured to go on without it.
    Unavailable,
}

impl Withheld {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unreadable => "unreadable",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What is left out of a token that would be too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Nothing.
    Nothing,
    /// The session's contents.
    Session,
    /// The user's columns and groups too.
    User,
}

impl Claims<'_> {
    /// The JSON of the claims: ASCII, without blanks. `rev` stays where the contents are left out: a patch may
    /// still be made conditional on what was not told.
    pub fn payload(&self, left_out: LeftOut) -> String {
        let mut out = self.common();
        match &self.visitor {
            Visitor::Nobody => out.push_str(",\"session\":{}"),
            Visitor::Withheld(why) => member(&mut out, "withheld", why.as_str()),
            Visitor::Known(known) => known.write(&mut out, left_out),
        }
        out.push('}');
        out
    }

    /// Whether a token without this is smaller than with it.
    pub(super) fn has(&self, part: LeftOut) -> bool {
        let Visitor::Known(known) = &self.visitor else {
            return false;
        };
        match part {
            LeftOut::Nothing => false,
            LeftOut::Session => matches!(known.contents, Contents::Told { .. }),
            LeftOut::User => known.user.is_some(),
        }
    }

    /// The object's beginning, up to `req`.
    fn common(&self) -> String {
        let told = match self.visitor {
            Visitor::Known(Known { contents, user, .. }) => {
                let session = match contents {
                    Contents::Told { session, .. } => session.len(),
                    Contents::NotJson => 0,
                };
                session + user.map_or(0, str::len)
            }
            _ => 0,
        };
        // The other claims come to 300 bytes with names and values of usual length.
        let mut out = String::with_capacity(told + 384);
        out.push_str("{\"iss\":");
        json::quote(&mut out, self.iss);
        member(&mut out, "aud", self.aud);
        number(&mut out, "iat", self.iat);
        number(&mut out, "exp", self.iat.saturating_add_unsigned(self.ttl));
        member(&mut out, "jti", self.jti);
        member(&mut out, "req", self.req);
        out
    }
}

impl Known<'_> {
    fn write(&self, out: &mut String, left_out: LeftOut) {
        member(out, "sid", self.sid);
        if let Contents::Told { rev, .. } = self.contents {
            member(out, "rev", rev);
        }
        number(out, "session_exp", self.session_exp);
        if let Some(sub) = self.sub {
            member(out, "sub", sub);
        }
        if let (Contents::Told { session, .. }, LeftOut::Nothing) = (self.contents, left_out) {
            raw_member(out, "session", session);
        }
        if let (Some(user), LeftOut::Nothing | LeftOut::Session) = (self.user, left_out) {
            raw_member(out, "user", user);
        }
        match (self.contents, left_out) {
            (Contents::NotJson, _) => member(out, "withheld", "not_json"),
            (Contents::Told { .. }, LeftOut::Nothing) => {}
            (Contents::Told { .. }, _) => member(out, "withheld", "too_large"),
        }
    }
}

fn raw_member(out: &mut String, name: &str, json: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(json);
}

fn member(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    json::quote(out, value);
}

fn number(out: &mut String, name: &str, value: i64) {
    raw_member(out, name, itoa::Buffer::new().format(value));
}

/// A new `jti`: 128 random bits, base64url.
pub fn jti() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

/// The `req` claim: which request a token belongs to, as the upstream gets it.
///
/// A hash, so that a long URL does not stand in the request twice, nor a secret in it.
pub fn req(method: &str, host: &str, target: &str) -> String {
    let mut hash = Sha256::new();
    for part in [method, " ", host, " ", target] {
        hash.update(part);
    }
    URL_SAFE_NO_PAD.encode(hash.finalize())
}
