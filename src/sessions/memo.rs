//! Remembers what rows mean, so that the same bytes are verified, inflated and parsed once.
//!
//! Facts are never remembered, only derivations: an entry is used where the row just read holds, byte for
//! byte, the text that it was made from. So it cannot be stale. It belongs to one set of keys, salt and
//! formats, and goes with it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwapOption;
use quick_cache::{Weighter, sync::Cache};

use super::Told;
use crate::{
    django::Login,
    session::{Session, SessionKey},
    telemetry::metrics::CacheMetrics,
};

/// Most bytes of rows and sessions that are remembered: some ten thousand of usual size.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// A session of a usual size, in bytes of row and contents, by which the table of entries is laid out.
const USUAL_BYTES: u64 = 2048;

/// What a row's text means.
pub(super) struct Derived {
    /// The text.
    data: Arc<str>,
    /// Its contents.
    pub(super) session: Arc<Session>,
    /// The login in it, if one of the site's backends could have made it.
    pub(super) login: Option<Login>,
    /// A `password` column to which the login's hash fits: the latter is derived from it.
    password: OnceLock<Box<str>>,
    /// What an upstream was told of it last.
    pub(super) told: ArcSwapOption<Told>,
}

impl Derived {
    pub(super) fn new(data: Arc<str>, session: Session, login: Option<Login>) -> Arc<Self> {
        Arc::new(Self {
            data,
            session: Arc::new(session),
            login,
            password: OnceLock::new(),
            told: ArcSwapOption::empty(),
        })
    }

    /// The text.
    pub(super) fn text(&self) -> &Arc<str> {
        &self.data
    }

    /// Whether it was made from this text.
    pub(super) fn is_of(&self, data: &str) -> bool {
        *self.data == *data
    }

    /// Whether the hash is known to fit this `password` column.
    pub(super) fn fits(&self, password: &str) -> bool {
        self.password
            .get()
            .is_some_and(|fitting| **fitting == *password)
    }

    /// The same login fits the same password, whatever else is in the row.
    pub(super) fn succeed(&self, earlier: &Self) {
        if self.login == earlier.login
            && let Some(fitting) = earlier.password.get()
        {
            self.remember_fit(fitting);
        }
    }

    /// The hash was found to fit this `password` column.
    pub(super) fn remember_fit(&self, password: &str) {
        // The first one stays: another password would need another hash.
        let _ = self.password.set(password.into());
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derived(redacted)")
    }
}

/// The memo of one site: the latest derivation of each key, in bounded memory.
pub(super) struct Memo {
    entries: Cache<SessionKey, Arc<Derived>, ByBytes>,
}

impl Memo {
    pub(super) fn new() -> Self {
        let usual = usize::try_from(MOST_BYTES / USUAL_BYTES).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with_weighter(usual, MOST_BYTES, ByBytes),
        }
    }

    /// What the row of this key meant when it was last read. Whether it still does takes [`Derived::is_of`].
    pub(super) fn latest(&self, key: &SessionKey) -> Option<Arc<Derived>> {
        self.entries.get(key)
    }

    /// Remembers what a row means.
    pub(super) fn remember(&self, key: SessionKey, derived: Arc<Derived>) {
        self.entries.insert(key, derived);
    }

    /// Nothing is behind this key any more: its memory is better used.
    pub(super) fn forget(&self, key: &SessionKey) {
        self.entries.remove(key);
    }

    /// Tells how large it is.
    pub(super) fn measure(&self, metrics: &CacheMetrics) {
        metrics.measure(self.entries.len(), self.entries.weight());
    }
}

/// An entry weighs what it holds.
#[derive(Clone)]
struct ByBytes;

impl Weighter<SessionKey, Arc<Derived>> for ByBytes {
    fn weight(&self, _: &SessionKey, derived: &Arc<Derived>) -> u64 {
        // The contents are about as long as their JSON, of which an upstream is told all at most; the rest is a few
        // hundred bytes.
        let bytes = derived.data.len() + 2 * derived.session.json_len() + 768;
        u64::try_from(bytes).unwrap_or(MOST_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> SessionKey {
        SessionKey::parse(format!("{number:032}").as_bytes()).unwrap()
    }

    fn derived(data: &str) -> Arc<Derived> {
        Derived::new(data.into(), Session::empty(), None)
    }

    #[test]
    fn an_entry_stands_for_its_own_bytes_only() {
        let memo = Memo::new();
        memo.remember(key(1), derived("a:b:c"));
        let latest = memo.latest(&key(1)).unwrap();
        assert!(latest.is_of("a:b:c") && !latest.is_of("a:b:d") && !latest.is_of("a:b:c "));
        assert!(memo.latest(&key(2)).is_none());
        memo.remember(key(1), derived("a:b:d"));
        assert!(memo.latest(&key(1)).unwrap().is_of("a:b:d"));
        memo.forget(&key(1));
        assert!(memo.latest(&key(1)).is_none());
    }

    #[test]
    fn memory_is_bounded_however_many_sessions_there_are() {
        let memo = Memo::new();
        let large = "x".repeat(200 * 1024);
        for number in 0..1000 {
            memo.remember(key(number), derived(&large));
        }
        assert!(
            memo.entries.weight() <= MOST_BYTES,
            "{}",
            memo.entries.weight()
        );
        assert!(memo.entries.len() > 100, "{}", memo.entries.len());
    }

    #[test]
    fn a_fitting_password_is_remembered_by_its_bytes() {
        let derived = derived("a");
        assert!(!derived.fits("secret"));
        derived.remember_fit("secret");
        assert!(derived.fits("secret") && !derived.fits("secreT"));
        derived.remember_fit("other");
        assert!(derived.fits("secret") && !derived.fits("other"));
    }

    #[test]
    fn what_is_known_of_a_password_goes_on_with_its_login_only() {
        let with_hash = |hash: &str| {
            let login = Login {
                user_id: "1".into(),
                backend: "backend".into(),
                hash: Some(hash.into()),
            };
            Derived::new("a".into(), Session::empty(), Some(login))
        };
        let earlier = with_hash("x");
        earlier.remember_fit("secret");
        for (later, goes_on) in [(with_hash("x"), true), (with_hash("y"), false)] {
            later.succeed(&earlier);
            assert_eq!(later.fits("secret"), goes_on);
        }
    }
}
