//! How long a session lives.

use chrono::{DateTime, SubsecRound, Utc};

use super::Session;
use crate::{
    django::{self, Lifetime, SESSION_EXPIRY},
    sessions::Error,
};

/// How long it lives.
impl Session {
    /// Django's `set_expiry`: so many seconds after each save; `Some(0)`: until the browser closes; `None`: by the
    /// site's settings. It is stored by [`save`](Self::save), but alone it makes no new session.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// let mut session = sessions.get(None);
    /// session.load().await?;
    /// assert_eq!(session.expiry_age()?, 14 * 24 * 60 * 60);
    ///
    /// session.set_expiry(Some(300))?;
    /// assert_eq!(session.expiry_age()?, 300);
    /// session.set_expiry(Some(0))?;
    /// assert!(session.expires_at_browser_close()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Expiry`]: it would end after the year 9999. [`Error::NotLoaded`].
    pub fn set_expiry(&mut self, seconds: Option<u64>) -> Result<(), Error> {
        let value = seconds.map(|seconds| seconds.to_string());
        self.edit_expiry(value)
    }

    /// `set_expiry` with a point in time, which no save moves. Django has stored it as text since 4.1.
    ///
    /// # Errors
    ///
    /// [`Error::Expiry`]: an earlier release, or a year that Django does not know. [`Error::NotLoaded`].
    pub fn set_expiry_at(&mut self, end: DateTime<Utc>) -> Result<(), Error> {
        let text = django::iso_text(end, self.sessions.settings().time_zone);
        self.edit_expiry(Some(format!("\"{text}\"")))
    }

    /// Django's `get_expiry_age`: how many seconds a session that is saved now will live.
    ///
    /// # Errors
    ///
    /// [`Error::Expiry`]: Django itself fails on what the session holds. [`Error::NotLoaded`].
    pub fn expiry_age(&self) -> Result<i64, Error> {
        // Python's clock has microseconds.
        let now = Utc::now().trunc_subsecs(6);
        let expiry = self.expiry(now)?;
        Ok(match expiry.lifetime {
            Lifetime::Seconds(seconds) => seconds,
            Lifetime::Browser => (expiry.date - now).num_seconds(),
        })
    }

    /// Django's `get_expire_at_browser_close`.
    ///
    /// # Errors
    ///
    /// As [`expiry_age`](Self::expiry_age).
    pub fn expires_at_browser_close(&self) -> Result<bool, Error> {
        Ok(self.expiry(Utc::now())?.lifetime == Lifetime::Browser)
    }

    fn expiry(&self, now: DateTime<Utc>) -> Result<django::Expiry, Error> {
        let member = self.get_raw(SESSION_EXPIRY)?;
        Ok(django::expiry_of(member, self.sessions.settings(), now)?)
    }

    fn edit_expiry(&mut self, value: Option<String>) -> Result<(), Error> {
        django::expiry_of(value.as_deref(), self.sessions.settings(), Utc::now())?;
        self.edit(SESSION_EXPIRY, value)
    }
}
