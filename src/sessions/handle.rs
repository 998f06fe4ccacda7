//! One visitor's session: read when it is asked for, changed name by name.

mod contents;
mod expiry;
mod write;

use std::{collections::BTreeMap, fmt, sync::atomic::AtomicBool};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, header};

use super::{Changed, CurrentUser, Error, Known, Resolved, Sessions};
use crate::{django::cookie, session::SessionKey};

/// One visitor's session, by the rules of Django's `SessionBase`
/// (`django/contrib/sessions/backends/base.py`).
///
/// It is lazy: nothing is read until [`load`](Self::load). Then it is read and changed like a dict, and
/// [`save`](Self::save) stores what was changed:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let site = session_gateway::sample::Site::new().await?;
/// # let sessions = site.sessions().await?;
/// # let cookie = site.log_in().await?;
/// let mut session = sessions.get(Some(&cookie));
/// session.load().await?;
///
/// let visits = session.get::<u64>("visits")?.unwrap_or(0);
/// session.insert("visits", visits + 1)?;
/// assert!(session.save().await?);
/// assert_eq!(session.key(), Some(cookie.as_str()));
/// # Ok(())
/// # }
/// ```
///
/// A save writes the names that this value has changed, under the row's lock, and keeps what others have
/// changed in the meantime. Django itself saves a session as a whole.
///
/// Dropping the future of a [`save`](Self::save), [`cycle_key`](Self::cycle_key) or [`flush`](Self::flush) does
/// not stop it: the transaction is carried to its end.
pub struct Session {
    sessions: Sessions,
    state: State,
    /// Whether the request bore a session cookie, of whatever value.
    had_cookie: bool,
    /// What was changed since the contents were read or saved, by name.
    edits: BTreeMap<String, Edit>,
    accessed: AtomicBool,
    /// What the browser is to be told.
    told: Changed,
}

enum State {
    /// Nobody has asked the database yet.
    Unread(Offered),
    /// There is no row that could be this visitor's.
    Nobody,
    /// There is a row, but its login does not fit the user any more: this is nobody.
    LoggedOut(SessionKey),
    /// Read, or stored.
    Known(SessionKey, Box<Known>),
}

/// What the request has in its session cookie.
enum Offered {
    Key(Option<SessionKey>),
    /// Several, and the settings refuse that.
    Several,
    /// None: it is asked what a login of this user would be. No row has the key.
    User(SessionKey, Box<str>),
}

struct Edit {
    /// Its place among the edits: names come in the order in which they were set.
    place: usize,
    /// Canonical JSON; `None` removes the name.
    value: Option<String>,
}

impl Sessions {
    /// The session of a key, as the visitor's cookie has it. Nothing is read until it is asked for.
    ///
    /// A text that is no key, and a key that no live row has, is a session without key and contents: it is never
    /// adopted, and the first save gives it a random key of its own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// let mut session = sessions.get(Some("0123456789abcdefghijklmnopqrstuv"));
    /// session.load().await?;
    /// assert_eq!(session.key(), None);
    ///
    /// session.insert("language", "fr")?;
    /// session.save().await?;
    /// assert_ne!(session.key(), Some("0123456789abcdefghijklmnopqrstuv"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, key: Option<&str>) -> Session {
        let parsed = key.and_then(|key| SessionKey::parse(key.as_bytes()));
        self.of_cookie(parsed, key.is_some())
    }

    /// The session of the visitor who sent these header fields, by Django's rules for cookies: of several
    /// session cookies the last counts (`django/http/cookie.py`, `parse_cookie`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// # let key = site.log_in().await?;
    /// let request = http::Request::get("/")
    ///     .header("Cookie", format!("theme=dark; sessionid={key}"))
    ///     .body(())?;
    /// let mut session = sessions.for_request(request.headers());
    /// session.load().await?;
    /// assert_eq!(session.user()?.map(|user| user.id.as_str()), Some("1"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_request(&self, headers: &HeaderMap) -> Session {
        let settings = &self.settings().cookie;
        let fields = headers.get_all(header::COOKIE).iter();
        let found = cookie::find(&settings.name, fields.map(HeaderValue::as_bytes));
        let key = found.value.as_deref().and_then(SessionKey::parse);
        let mut session = self.of_cookie(key, found.count > 0);
        if found.count > 1 && settings.refuse_duplicate {
            session.state = State::Unread(Offered::Several);
        }
        session
    }

    /// The session of a key that was found in a cookie.
    pub(crate) fn of_cookie(&self, key: Option<SessionKey>, had_cookie: bool) -> Session {
        self.offered(Offered::Key(key), had_cookie)
    }

    /// The session that a login of this user would have: [`Sessions::as_user`], under a key that no row has.
    pub(crate) fn of_user(&self, key: SessionKey, user: &str) -> Session {
        self.offered(Offered::User(key, user.into()), true)
    }

    fn offered(&self, offered: Offered, had_cookie: bool) -> Session {
        Session {
            sessions: self.clone(),
            state: State::Unread(offered),
            had_cookie,
            edits: BTreeMap::new(),
            accessed: AtomicBool::new(false),
            told: Changed::Nothing,
        }
    }
}

/// Reading from the database.
impl Session {
    /// Reads the session, unless that was done before.
    ///
    /// The row is from a snapshot of the database that was taken after this call. The user is looked up with it
    /// ([`user`](Self::user)).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and [`Error::Overloaded`]: nobody knows who this is. [`Error::Unreadable`]: there is
    /// a row that cannot be verified. None of them may be taken for "nobody". [`Error::AmbiguousCookie`].
    pub async fn load(&mut self) -> Result<&mut Self, Error> {
        if matches!(self.state, State::Unread(_)) {
            return self.reload().await;
        }
        Ok(self)
    }

    /// Reads the session again. What was changed and not saved is forgotten.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// # let key = site.log_in().await?;
    /// let (mut ours, mut theirs) = (sessions.get(Some(&key)), sessions.get(Some(&key)));
    /// ours.load().await?;
    /// theirs.load().await?.insert("language", "fr")?;
    /// theirs.save().await?;
    ///
    /// assert!(!ours.contains("language")?);
    /// ours.reload().await?;
    /// assert_eq!(ours.get("language")?, Some("fr".to_owned()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). Nothing is forgotten then.
    pub async fn reload(&mut self) -> Result<&mut Self, Error> {
        let details = !self.sessions.0.user_columns.is_empty() || self.sessions.0.reads_groups;
        self.read(details).await
    }

    /// Reads the session; with `details`, the columns and groups of its user too.
    pub(crate) async fn read(&mut self, details: bool) -> Result<&mut Self, Error> {
        let key = match &self.state {
            State::Unread(Offered::Several) => return Err(Error::AmbiguousCookie),
            State::Unread(Offered::Key(key)) => *key,
            State::Unread(Offered::User(key, _)) => Some(*key),
            State::Nobody => None,
            State::LoggedOut(key) | State::Known(key, _) => Some(*key),
        };
        let resolved = match (key, &self.state) {
            (Some(key), State::Unread(Offered::User(_, user))) => {
                let imagined = Box::pin(self.sessions.as_user(user, details));
                Some((key, imagined.await?))
            }
            (Some(key), _) => Some((key, self.sessions.resolve(key, details).await?)),
            (None, _) => None,
        };
        self.state = match resolved {
            None | Some((_, Resolved::Missing)) => State::Nobody,
            Some((key, Resolved::LoggedOut)) => State::LoggedOut(key),
            Some((key, Resolved::Known(known))) => State::Known(key, known),
            Some((_, Resolved::Unverifiable(why))) => return Err(Error::Unreadable(why)),
        };
        self.edits.clear();
        Ok(self)
    }

    /// What was read or stored; `None` for nobody, and before [`load`](Self::load).
    pub(crate) fn known(&self) -> Option<(&SessionKey, &Known)> {
        match &self.state {
            State::Known(key, known) => Some((key, known)),
            State::Unread(_) | State::Nobody | State::LoggedOut(_) => None,
        }
    }
}

/// Who it is.
impl Session {
    /// Whether it was read, and its login does not fit the user any more.
    pub(crate) fn is_logged_out(&self) -> bool {
        matches!(self.state, State::LoggedOut(_))
    }

    /// The session key: the cookie's value. `None` where no row has it, and before [`load`](Self::load).
    ///
    /// Whoever knows it is this visitor: it belongs into no log.
    pub fn key(&self) -> Option<&str> {
        self.known().map(|(key, _)| key.as_str())
    }

    /// When the row expires, as it was read or stored; `None` where there is none.
    pub fn expire_date(&self) -> Option<DateTime<Utc>> {
        self.known().map(|(_, known)| known.expire_date)
    }

    /// Who is logged in, by Django's rules (`django/contrib/auth/__init__.py`, `get_user`): a backend of the
    /// site's settings, a user who is there and active, and a password that is still the one of the login. It is
    /// as of [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn user(&self) -> Result<Option<&CurrentUser>, Error> {
        self.contents()?;
        Ok(self.known().and_then(|(_, known)| known.user.as_ref()))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Unread(_) => "unread",
            State::Nobody => "nobody",
            State::LoggedOut(_) => "logged out",
            State::Known(..) => "known",
        };
        write!(
            f,
            "Session({state}, {} changes, redacted)",
            self.edits.len()
        )
    }
}

#[cfg(test)]
mod tests;
