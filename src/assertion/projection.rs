//! Which part of a session an upstream is sent.

use thiserror::Error;

use crate::{
    config::{Forward, Protected, protected::NEVER_FORWARDED},
    session::{MemberRef, Session},
};

/// A forwarded member holds NaN or Infinity, a lone surrogate, a number beyond a double or nesting
/// over 60: verifiers would refuse the whole token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a forwarded member of the session is JSON for Python only")]
pub struct NotPortable;

/// The `session` member: the forwarded names and their values, byte for byte as Django wrote them,
/// in its order.
///
/// [`Forward::AllButProtected`] leaves protected names out. A list may name them, but for
/// [`NEVER_FORWARDED`]: those are left out whatever is configured.
///
/// # Errors
///
/// [`NotPortable`], for forwarded members only. Then nothing is told: half a session can lack the
/// member that matters.
pub fn project(
    session: &Session,
    forward: &Forward,
    protected: &Protected,
) -> Result<String, NotPortable> {
    let mut out = String::with_capacity(session.json_len());
    out.push('{');
    for member in session
        .members()
        .filter(|member| is_forwarded(member, forward, protected))
    {
        if !member.portable {
            return Err(NotPortable);
        }
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(member.raw_name);
        out.push(':');
        out.push_str(member.raw_value);
    }
    out.push('}');
    Ok(out)
}

fn is_forwarded(member: &MemberRef<'_>, forward: &Forward, protected: &Protected) -> bool {
    if NEVER_FORWARDED
        .iter()
        .any(|name| *name.as_bytes() == *member.name)
    {
        return false;
    }
    match forward {
        // A lone surrogate matches no pattern that can be configured, so what it is replaced by
        // does not matter.
        Forward::AllButProtected => !protected.contains(&String::from_utf8_lossy(&member.name)),
        Forward::Only(names) => names.iter().any(|name| *name.as_bytes() == *member.name),
    }
}
