//! A session as a dict.

use std::{borrow::Cow, sync::atomic::Ordering};

use serde::{Serialize, de::DeserializeOwned};

use super::{Edit, Offered, Session, State};
use crate::{
    django::SESSION_EXPIRY, json, patch, session::Session as SessionData, sessions::Error,
};

/// The contents, as a dict: what was read, with what was changed since.
impl Session {
    /// The value of a name; `None` where there is none.
    ///
    /// Numbers come out as `T` holds them: a `serde_json::Value` rounds what no double and no 64-bit integer
    /// holds. [`get_raw`](Self::get_raw) keeps every digit.
    ///
    /// # Errors
    ///
    /// [`Error::Type`] where the value is no `T`; NaN and lone surrogates, which Python writes, are of no type.
    /// [`Error::NotLoaded`].
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(raw) = self.get_raw(name)? else {
            return Ok(None);
        };
        // serde_json's own error would show the value.
        let value = serde_json::from_str(raw).map_err(|_| Error::Type(patch::shown(name)))?;
        Ok(Some(value))
    }

    /// The JSON of a name's value, byte for byte as Django spelt it; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn get_raw(&self, name: &str) -> Result<Option<&str>, Error> {
        let read = self.contents()?;
        Ok(match self.edits.get(name) {
            Some(edit) => edit.value.as_deref(),
            None => read.and_then(|read| read.raw(name)),
        })
    }

    /// Whether there is a value of this name.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn contains(&self, name: &str) -> Result<bool, Error> {
        Ok(self.get_raw(name)?.is_some())
    }

    /// The number of names.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.iter()?.count())
    }

    /// The names, in Python's order, those that were added since at the end. A lone surrogate in a name stands as
    /// U+FFFD.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn keys(&self) -> Result<impl Iterator<Item = Cow<'_, str>>, Error> {
        Ok(self.iter()?.map(|(name, _)| name))
    }

    /// The names and their values' JSON, in the same order.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn iter(&self) -> Result<impl Iterator<Item = (Cow<'_, str>, &str)>, Error> {
        let read = self.contents()?;
        let kept = read.into_iter().flat_map(|read| read.members());
        let kept = kept.filter_map(|member| {
            let edit = str::from_utf8(&member.name);
            let edit = edit.ok().and_then(|name| self.edits.get(name));
            let value = edit.map_or(Some(member.raw_value), |edit| edit.value.as_deref());
            Some((text(member.name), value?))
        });
        let added = self.in_order().filter_map(move |(name, value)| {
            let value = value.filter(|_| read.is_none_or(|read| !read.contains(name)))?;
            Some((Cow::Borrowed(name), value))
        });
        Ok(kept.chain(added))
    }

    /// Sets a name to what serde makes of a value. What equals the value that was read is no change.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let site = session_gateway::sample::Site::new().await?;
    /// # let sessions = site.sessions().await?;
    /// #[derive(serde::Serialize)]
    /// struct Line {
    ///     article: u32,
    ///     price: f64,
    /// }
    ///
    /// let mut session = sessions.get(None);
    /// session.load().await?;
    /// session.insert("cart", [Line { article: 7, price: 9.5 }])?;
    /// assert_eq!(session.get_raw("cart")?, Some(r#"[{"article":7,"price":9.5}]"#));
    ///
    /// // What Django could not read back, and what gives rights, is refused.
    /// assert!(session.insert("price", f64::NAN).is_err());
    /// assert!(session.insert("_auth_user_id", "1").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Value`]: the rules of `X-Session-Set`. Neither NaN nor infinity, no number that no double can
    /// hold, no U+0000, no name twice in one object, at most 30 objects and arrays inside each other.
    /// [`Error::TooLarge`]: longer than a whole session may be. [`Error::Protected`]: see
    /// [`unsafe_insert`](Self::unsafe_insert). [`Error::NotLoaded`].
    pub fn insert(&mut self, name: &str, value: impl Serialize) -> Result<(), Error> {
        self.check_name(name)?;
        self.unsafe_insert(name, value)
    }

    /// Sets a name, also one that is protected: every name that begins with `_`, those under which packages keep
    /// authority (`hijack_history`, `otp_device_id`, `account_*`, `socialaccount_*`, `mfa.*`, `*oauth*`,
    /// `*oidc*`, `wizard_*`), and the site's own ([`Connect::protect`](crate::Connect::protect)).
    ///
    /// Whoever writes `_auth_user_id` decides who somebody is. Nothing here hashes a password or checks one:
    /// leave logins to Django.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert), but for [`Error::Protected`]. [`Error::SessionExpiry`].
    pub fn unsafe_insert(&mut self, name: &str, value: impl Serialize) -> Result<(), Error> {
        let refused = |rule| Error::Value {
            name: patch::shown(name),
            rule,
        };
        if name == SESSION_EXPIRY {
            return Err(Error::SessionExpiry);
        }
        if name.contains('\0') {
            return Err(refused("U+0000 in a name".into()));
        }
        let json = json::from_value(&value, patch::VALUE_NESTING)
            .map_err(|not_json| refused(not_json.rule))?;
        if json.len() > self.sessions.0.session_write {
            return Err(Error::TooLarge);
        }
        self.edit(name, Some(json))
    }

    /// Removes a name; `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::Protected`]: see [`unsafe_remove`](Self::unsafe_remove). [`Error::NotLoaded`].
    pub fn remove(&mut self, name: &str) -> Result<bool, Error> {
        self.check_name(name)?;
        self.unsafe_remove(name)
    }

    /// Removes a name, also one that is protected. To log somebody out, use [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`Error::SessionExpiry`], [`Error::NotLoaded`].
    pub fn unsafe_remove(&mut self, name: &str) -> Result<bool, Error> {
        if name == SESSION_EXPIRY {
            return Err(Error::SessionExpiry);
        }
        let was_there = self.contains(name)?;
        self.edit(name, None)?;
        Ok(was_there)
    }

    /// Removes every name that was read or set, the login's too, as Django's `clear` does: the key stays. What
    /// others add before the save is kept. [`flush`](Self::flush) ends the session.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`].
    pub fn clear(&mut self) -> Result<(), Error> {
        let names = self.contents()?.into_iter().flat_map(|read| read.members());
        let edits = names.enumerate().filter_map(|(place, member)| {
            let name = String::from_utf8(member.name.into_owned()).ok()?;
            Some((name, Edit { place, value: None }))
        });
        self.edits = edits.collect();
        Ok(())
    }

    /// Whether something was changed that [`save`](Self::save) has not stored.
    pub fn modified(&self) -> bool {
        !self.edits.is_empty()
    }

    /// Whether the contents or the user were read or changed by the program. A response that depends on them says
    /// `Vary: Cookie`, as [`finish`](Self::finish) does.
    pub fn accessed(&self) -> bool {
        self.accessed.load(Ordering::Relaxed)
    }

    /// Whether there is neither a key nor anything in it (`SessionBase.is_empty`). Before [`load`](Self::load) a
    /// possible key counts as one.
    pub fn is_empty(&self) -> bool {
        match &self.state {
            State::Unread(Offered::Key(None)) => true,
            State::Unread(_) | State::Known(..) => false,
            State::Nobody | State::LoggedOut(_) => self.edits.is_empty(),
        }
    }

    /// What was read, for a look or a change; `None` where there was nothing.
    pub(super) fn contents(&self) -> Result<Option<&SessionData>, Error> {
        self.accessed.store(true, Ordering::Relaxed);
        match &self.state {
            State::Unread(_) => Err(Error::NotLoaded),
            State::Nobody | State::LoggedOut(_) => Ok(None),
            State::Known(_, known) => Ok(Some(&known.session)),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), Error> {
        // Its own error says more.
        if self.sessions.protected().contains(name) && name != SESSION_EXPIRY {
            return Err(Error::Protected(patch::shown(name)));
        }
        Ok(())
    }

    pub(super) fn edit(&mut self, name: &str, value: Option<String>) -> Result<(), Error> {
        let is_as_read = self.contents()?.and_then(|read| read.raw(name)) == value.as_deref();
        if is_as_read {
            self.edits.remove(name);
            return Ok(());
        }
        let place = 1 + self
            .edits
            .values()
            .map(|edit| edit.place)
            .max()
            .unwrap_or(0);
        let edit = self.edits.entry(name.to_owned());
        edit.or_insert(Edit { place, value: None }).value = value;
        Ok(())
    }

    /// What was changed, in the order in which it was.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let mut edits: Vec<_> = self.edits.iter().collect();
        edits.sort_unstable_by_key(|(_, edit)| edit.place);
        let edits = edits.into_iter();
        edits.map(|(name, edit)| (name.as_str(), edit.value.as_deref()))
    }
}

/// A name in Rust's words: what is no Unicode text stands as U+FFFD.
fn text(name: Cow<'_, [u8]>) -> Cow<'_, str> {
    match name {
        Cow::Borrowed(name) => String::from_utf8_lossy(name),
        Cow::Owned(name) => match String::from_utf8(name) {
            Ok(name) => Cow::Owned(name),
            Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        },
    }
}
