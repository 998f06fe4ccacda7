//! `X-Session`: from the field's text to claims that may be believed.

use std::time::{Duration, SystemTime};

use crate::{
    Reason, Refused, Withheld,
    error::shown,
    json::{Member, Node, Rules},
    keys::{Keys, base64url},
};

/// The longest token, in bytes.
const MAX_TOKEN: usize = 64 * 1024;

/// Later than this no clock is, and sums do not overflow.
const MAX_TIME: i64 = 1 << 53;

const TYP: &str = "x-session.v1+jwt";

/// The claims of a token that was checked.
pub(crate) struct Claims {
    /// The payload.
    pub(crate) text: String,
    issuer: String,
    audience: String,
    /// `req`.
    pub(crate) request: String,
    issued: i64,
    expires: i64,
    pub(crate) sid: Option<String>,
    pub(crate) rev: Option<String>,
    pub(crate) sub: Option<String>,
    pub(crate) session_exp: Option<i64>,
    /// The JSON of `user`.
    pub(crate) user: Option<String>,
    /// The names of the session, in order, and the JSON of their values.
    pub(crate) session: Result<Vec<(String, String)>, Withheld>,
}

/// Whom tokens must be for, and whom from.
pub(crate) struct Expected {
    pub(crate) audience: String,
    pub(crate) issuer: String,
    pub(crate) leeway: Duration,
}

fn malformed(detail: impl Into<String>) -> Refused {
    Refused::new(Reason::Malformed, detail)
}

/// The claims of a token that one of the keys signed, and that is good now.
pub(crate) fn verify(
    token: &str,
    keys: &Keys,
    expected: &Expected,
    now: SystemTime,
) -> Result<Claims, Refused> {
    if token.len() > MAX_TOKEN {
        return Err(malformed("it is longer than 64 KiB"));
    }
    let no_jws = || malformed("it is not a compact JWS");
    let (signed, signature) = token.rsplit_once('.').ok_or_else(no_jws)?;
    let (header, payload) = signed.split_once('.').ok_or_else(no_jws)?;
    let decode = |part| base64url(part).ok_or_else(|| malformed("it is not base64url"));
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);

    let (kid, algorithm) = read_header(&header)?;
    keys.check(&kid, &algorithm, signed, &signature)?;
    let claims = Claims::read(payload)?;
    expected.accept(&claims, now)?;
    Ok(claims)
}

/// The members of a JSON object.
fn object(bytes: &[u8], rules: Rules) -> Result<Vec<Member>, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
    match Node::parse(text, rules) {
        Ok(Node::Object(members)) => Ok(members),
        Ok(_) => Err(malformed("it is not a JSON object")),
        Err(rule) => Err(malformed(format!("it cannot be read: {rule}"))),
    }
}

fn find<'a>(members: &'a [Member], name: &str) -> Option<&'a Member> {
    members.iter().find(|member| member.name == name)
}

/// `kid` and `alg`.
fn read_header(bytes: &[u8]) -> Result<(String, String), Refused> {
    let rules = Rules {
        nesting: 1,
        stored: false,
    };
    let members = object(bytes, rules)?;
    let text = |name| {
        find(&members, name)
            .and_then(|member| member.value.as_text())
            .ok_or_else(|| malformed(format!("its header has no {name}")))
    };
    let (alg, kid, typ) = (text("alg")?, text("kid")?, text("typ")?);
    // Such as "crit": what would have to be understood (RFC 7515, 4.1.11).
    if members.len() != 3 {
        return Err(malformed("its header has members that are not known"));
    }
    if typ != TYP || !matches!(alg, "HS256" | "EdDSA") {
        let detail = format!("its typ is {} and its alg {}", shown(typ), shown(alg));
        return Err(Refused::new(Reason::Algorithm, detail));
    }
    Ok((kid.to_owned(), alg.to_owned()))
}

impl Claims {
    fn read(payload: Vec<u8>) -> Result<Self, Refused> {
        let members = object(&payload, Rules::READ)?;
        let text = String::from_utf8(payload).map_err(|_| malformed("it is not UTF-8"))?;
        let wrong =
            |name: &str| malformed(format!("the claim {name} is missing or of another type"));

        let required = |name| {
            find(&members, name)
                .and_then(|member| member.value.as_text())
                .map(str::to_owned)
                .ok_or_else(|| wrong(name))
        };
        let optional = |name| match find(&members, name) {
            None => Ok(None),
            Some(member) => match member.value.as_text() {
                Some(text) if !text.is_empty() => Ok(Some(text.to_owned())),
                _ => Err(wrong(name)),
            },
        };
        let time = |name| match find(&members, name) {
            None => Ok(None),
            Some(member) => match member.value.as_integer() {
                Some(time @ 0..=MAX_TIME) => Ok(Some(time)),
                _ => Err(wrong(name)),
            },
        };
        let user = match find(&members, "user") {
            None => None,
            Some(member) if matches!(member.value, Node::Object(_)) => {
                Some(text[member.at.clone()].to_owned())
            }
            Some(_) => return Err(wrong("user")),
        };
        required("jti")?;
        let session = match (find(&members, "session"), optional("withheld")?) {
            (None, Some(withheld)) => Err(Withheld::parse(&withheld)),
            (Some(session), None) => match &session.value {
                Node::Object(data) => {
                    let data = data.iter();
                    Ok(data
                        .map(|member| (member.name.clone(), text[member.at.clone()].to_owned()))
                        .collect())
                }
                _ => return Err(wrong("session")),
            },
            _ => {
                return Err(malformed(
                    "it has both or neither of the claims session and withheld",
                ));
            }
        };
        Ok(Self {
            issuer: required("iss")?,
            audience: required("aud")?,
            request: required("req")?,
            issued: time("iat")?.ok_or_else(|| wrong("iat"))?,
            expires: time("exp")?.ok_or_else(|| wrong("exp"))?,
            sid: optional("sid")?,
            rev: optional("rev")?,
            sub: optional("sub")?,
            session_exp: time("session_exp")?,
            user,
            session,
            text,
        })
    }

    /// Why the contents did not come, if they did not.
    pub(crate) fn withheld(&self) -> Option<Withheld> {
        self.session.as_ref().err().copied()
    }
}

impl Expected {
    fn accept(&self, claims: &Claims, now: SystemTime) -> Result<(), Refused> {
        let foreign = |reason, from: &str, is: &str, wanted: &str| {
            let detail = format!("it is {from} {}, not {from} {}", shown(is), shown(wanted));
            Err(Refused::new(reason, detail))
        };
        if claims.audience != self.audience {
            return foreign(Reason::Audience, "for", &claims.audience, &self.audience);
        }
        if claims.issuer != self.issuer {
            return foreign(Reason::Issuer, "from", &claims.issuer, &self.issuer);
        }
        // Whole seconds, as the claims have them. A clock before 1970 believes nothing.
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_secs()).ok())
            .unwrap_or(i64::MIN);
        let leeway = i64::try_from(self.leeway.as_secs()).unwrap_or(0);
        if now < claims.issued - leeway {
            let early = claims.issued.saturating_sub(now);
            let detail = format!("it is good {early} s from now: compare the clocks");
            return Err(Refused::new(Reason::NotYetValid, detail));
        }
        if now > claims.expires + leeway {
            let detail = format!("it ended {} s ago", now - claims.expires);
            return Err(Refused::new(Reason::Expired, detail));
        }
        Ok(())
    }
}
