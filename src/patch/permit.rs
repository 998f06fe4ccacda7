//! Whether a route grants what a patch asks for.

use std::time::Duration;

use thiserror::Error;

use super::{Expiry, Patch, shown};
use crate::{
    config::{Grants, Protected, Writable},
    django::SESSION_EXPIRY,
};

/// Most keys that one sentence lists.
const LISTED: usize = 8;

/// What the route does not grant, and the line to add to it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotGranted {
    /// The route grants nothing at all, so not even an extension.
    #[error("this route may not change the session; give it, for example, writable = [\"cart\"]")]
    Nothing,
    /// Keys to set or remove; here as a TOML list.
    #[error("these keys are not writable on this route; add to it: writable = [{0}]")]
    Keys(String),
    /// Keys under which Django or its packages keep authority; here as a TOML list.
    #[error(
        "these keys are protected; if this route must write them, add to it: unsafe_writable = [{0}]"
    )]
    Protected(String),
    /// `_session_expiry` as a key. Django answers 500 to values it does not expect there.
    #[error("the key \"_session_expiry\" is written by \"expiry\" only")]
    SessionExpiry,
    /// An act: `cycle`, `flush` or `expiry`.
    #[error("this route may not use \"{0}\"; add to it: may = [\"{0}\"]")]
    Act(&'static str),
    /// A longer life than the site gives its sessions.
    #[error("\"expiry\" may be at most SESSION_COOKIE_AGE, which is {0} seconds")]
    TooLong(u64),
}

impl Patch {
    /// Checks the patch against a route's grants. `cookie_age` is SESSION_COOKIE_AGE, the longest
    /// `"expiry"`.
    ///
    /// # Errors
    ///
    /// [`NotGranted`]: nothing of it may be carried out.
    pub fn permitted(
        &self,
        grants: &Grants,
        protected: &Protected,
        cookie_age: Duration,
    ) -> Result<(), NotGranted> {
        let keys = || {
            self.set
                .iter()
                .map(|(key, _)| key)
                .chain(&self.del)
                .map(String::as_str)
        };
        if keys().any(|key| key == SESSION_EXPIRY) {
            return Err(NotGranted::SessionExpiry);
        }
        let missing: Vec<&str> = keys()
            .filter(|key| !is_writable(grants, protected, key))
            .collect();
        let (unsafe_keys, plain): (Vec<&str>, Vec<&str>) =
            missing.into_iter().partition(|key| protected.contains(key));
        if !unsafe_keys.is_empty() {
            return Err(NotGranted::Protected(list(&unsafe_keys)));
        }
        if !plain.is_empty() {
            return Err(NotGranted::Keys(list(&plain)));
        }
        for (asked, granted, act) in [
            (self.cycle, grants.cycle, "cycle"),
            (self.flush, grants.flush, "flush"),
            (self.expiry.is_some(), grants.expiry, "expiry"),
        ] {
            if asked && !granted {
                return Err(NotGranted::Act(act));
            }
        }
        if matches!(self.expiry, Some(Expiry::Seconds(seconds)) if seconds > cookie_age.as_secs()) {
            return Err(NotGranted::TooLong(cookie_age.as_secs()));
        }
        if grants.is_empty() {
            return Err(NotGranted::Nothing);
        }
        Ok(())
    }
}

fn is_writable(grants: &Grants, protected: &Protected, key: &str) -> bool {
    match &grants.writable {
        Writable::AllButProtected(unsafe_writable) => {
            !protected.contains(key) || unsafe_writable.iter().any(|name| name == key)
        }
        Writable::Only(names) => names.iter().any(|name| name == key),
    }
}

fn list(keys: &[&str]) -> String {
    let mut names: Vec<String> = keys.iter().take(LISTED).map(|key| shown(key)).collect();
    if keys.len() > LISTED {
        names.push("...".into());
    }
    names.join(", ")
}
