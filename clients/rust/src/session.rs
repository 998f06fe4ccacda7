//! The session that a handler sees.

mod changes;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::changes::CannotSend;
use self::changes::Changes;
use crate::{Error, Withheld, error::shown, token::Claims, value};

/// The visitor's Django session, as it came with the request and with what the handler has changed since.
///
/// It is in the extensions of every request that the layer lets through. Clones are the same session.
///
/// ```
/// use session_gateway_upstream::Session;
///
/// fn add_to_cart(request: &http::Request<()>) -> Result<usize, Box<dyn std::error::Error>> {
///     let session = request.extensions().get::<Session>().ok_or("no layer")?;
///     let mut cart: Vec<String> = session.get("cart")?.unwrap_or_default();
///     cart.push("book".to_owned());
///     session.only_if_unchanged()?; // The visitor gets a 409 if somebody else was faster.
///     session.insert("cart", &cart)?;
///     Ok(cart.len())
/// }
/// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mod.rs")); }
/// # let sent = support::sent(r#"{"cart":["pen"]}"#, |request| { add_to_cart(request).unwrap(); });
/// # assert_eq!(sent.as_deref(), Some(r#"{"if":"R-1","set":{"cart":["pen","book"]}}"#));
/// ```
///
/// Values are copied out and in, so a list is changed by reading it, changing it and inserting it
/// ([`update`](Self::update) does that). A value that equals the one that came is no change.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    claims: Claims,
    changes: Mutex<Changes>,
}

impl Session {
    pub(crate) fn new(claims: Claims) -> Self {
        Self(Arc::new(Inner {
            claims,
            changes: Mutex::default(),
        }))
    }

    fn claims_of(&self) -> &Claims {
        &self.0.claims
    }

    /// Nothing in here can be left half done by a panic.
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who it is.
impl Session {
    fn check_visitor(&self) -> Result<(), Error> {
        match self.withheld() {
            Some(withheld) if !withheld.knows_visitor() => Err(Error::Withheld(withheld)),
            _ => Ok(()),
        }
    }

    /// The primary key of the Django user who sent this request; `None` if nobody is logged in.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`]: the gateway does not know either. That is not "nobody".
    pub fn user_id(&self) -> Result<Option<&str>, Error> {
        self.check_visitor()?;
        Ok(self.claims_of().sub.as_deref())
    }

    /// The claim `user`: the columns of the user's row that the route asks for. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`]: it may be withheld with the contents. [`Error::Type`].
    pub fn user<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.check_visitor()?;
        match (self.claims_of().user.as_deref(), self.withheld()) {
            (Some(user), _) => read("user", user).map(Some),
            (None, Some(withheld)) => Err(Error::Withheld(withheld)),
            (None, None) => Ok(None),
        }
    }

    /// What stands for the session. It is not the cookie, and it differs for each service.
    pub fn sid(&self) -> Option<&str> {
        self.claims_of().sid.as_deref()
    }

    /// The version of what came.
    pub fn rev(&self) -> Option<&str> {
        self.claims_of().rev.as_deref()
    }

    /// When the session ends; `None` where no session is known.
    pub fn expire_date(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.claims_of().session_exp?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// Why the contents did not come, if they did not.
    pub fn withheld(&self) -> Option<Withheld> {
        self.claims_of().withheld()
    }

    /// All claims of the token.
    ///
    /// # Errors
    ///
    /// [`Error::Type`].
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read("claims", &self.claims_of().text)
    }
}

/// The contents, as a dict: what came, with what was changed since.
impl Session {
    /// The value of a name; `None` where there is none.
    ///
    /// Numbers come out as `T` holds them: a `serde_json::Value` rounds what no double and no 64-bit integer holds.
    /// A `Box<serde_json::value::RawValue>` and [`get_raw`](Self::get_raw) keep every digit.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`]: unknown is not empty. [`Error::Type`].
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let raw = self.get_raw(name)?;
        raw.map(|raw| read(name, &raw)).transpose()
    }

    /// The JSON of a name's value, as Django spelt it; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`].
    pub fn get_raw(&self, name: &str) -> Result<Option<String>, Error> {
        let value = self.changes().get(self.claims_of(), name);
        value.map_err(Error::Withheld)
    }

    /// Whether there is a value of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`].
    pub fn contains(&self, name: &str) -> Result<bool, Error> {
        Ok(self.get_raw(name)?.is_some())
    }

    /// The number of names.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`].
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.iter()?.len())
    }

    /// Whether there is no name.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// The names, those that were added at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`].
    pub fn keys(&self) -> Result<impl ExactSizeIterator<Item = String> + use<>, Error> {
        Ok(self.iter()?.map(|(name, _)| name))
    }

    /// The names and their values' JSON, in the same order: a copy.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`].
    pub fn iter(&self) -> Result<impl ExactSizeIterator<Item = (String, String)> + use<>, Error> {
        let all = self.changes().all(self.claims_of());
        Ok(all.map_err(Error::Withheld)?.into_iter())
    }
}

/// Changes. They go out with the response of this request, and the gateway stores them before the visitor sees it.
///
/// # Errors
///
/// Of all: [`Error::Closed`] after the response has begun, and [`Error::Withheld`] where the gateway does not know
/// whose session it is.
impl Session {
    /// Makes a change, unless it would come to nothing.
    fn change<R>(&self, change: impl FnOnce(&mut Changes, &Claims) -> R) -> Result<R, Error> {
        self.check_visitor()?;
        let mut changes = self.changes();
        if changes.is_closed() {
            return Err(Error::Closed);
        }
        Ok(change(&mut changes, self.claims_of()))
    }

    /// Sets a name to what serde makes of a value. What equals the value that came is no change, and is fine also
    /// where it could not be stored.
    ///
    /// # Errors
    ///
    /// [`Error::Value`]: neither NaN nor infinity, no number that no double can hold, no U+0000, no name twice in
    /// one object, at most 30 objects and arrays inside each other. [`Error::Protected`]: names that begin with `_`.
    pub fn insert(&self, name: &str, value: impl Serialize) -> Result<(), Error> {
        check_name(name)?;
        let broken = |rule| Error::Value {
            name: shown(name),
            rule,
        };
        let (json, node) = value::to_json(&value).map_err(broken)?;
        self.change(|changes, claims| changes.insert(claims, name, &json, &node))?
            .map_err(broken)
    }

    /// Removes a name. One that is not there is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Protected`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        self.change(|changes, claims| changes.remove(claims, name))
    }

    /// Reads a value, or the default of its type, lets a function change it, and inserts it.
    ///
    /// ```
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mod.rs")); }
    /// # fn change(session: &session_gateway_upstream::Session) -> Result<(), session_gateway_upstream::Error> {
    /// session.update("cart", |cart: &mut Vec<String>| cart.push("book".to_owned()))?;
    /// # Ok(())
    /// # }
    /// # let sent = support::sent("{}", |request| change(request.extensions().get().unwrap()).unwrap());
    /// # assert_eq!(sent.as_deref(), Some(r#"{"set":{"cart":["book"]}}"#));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert).
    pub fn update<T, R>(&self, name: &str, change: impl FnOnce(&mut T) -> R) -> Result<R, Error>
    where
        T: Default + DeserializeOwned + Serialize,
    {
        let mut value: T = self.get(name)?.unwrap_or_default();
        let result = change(&mut value);
        self.insert(name, value)?;
        Ok(result)
    }

    /// Removes every name that is there, or none.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`] also where only the contents are unknown. [`Error::Protected`] where a name is there that
    /// begins with `_`.
    pub fn clear(&self) -> Result<(), Error> {
        self.change(|changes, claims| {
            let all = changes.all(claims).map_err(Error::Withheld)?;
            all.iter().try_for_each(|(name, _)| check_name(name))?;
            for (name, _) in &all {
                changes.remove(claims, name);
            }
            Ok(())
        })?
    }

    /// Destroys the session, as a logout does, and what was changed before. What is inserted afterwards goes into a
    /// fresh session with a new key. [`user_id`](Self::user_id) still says who sent this request.
    ///
    /// # Errors
    ///
    /// Those of all changes.
    pub fn flush(&self) -> Result<(), Error> {
        self.change(|changes, _| changes.flush())
    }

    /// Gives the session a new key and keeps its data. Do this when the visitor gets more rights.
    ///
    /// # Errors
    ///
    /// Those of all changes.
    pub fn cycle_key(&self) -> Result<(), Error> {
        self.change(|changes, _| changes.cycle_key())
    }

    /// Django's `set_expiry`: so many seconds after each save; `Some(0)`: until the browser closes; `None`: by the
    /// site's settings.
    ///
    /// # Errors
    ///
    /// Those of all changes.
    pub fn set_expiry(&self, seconds: Option<u64>) -> Result<(), Error> {
        self.change(|changes, _| changes.set_expiry(seconds))
    }

    /// Extends the session, also if nothing else is changed.
    ///
    /// # Errors
    ///
    /// Those of all changes.
    pub fn touch(&self) -> Result<(), Error> {
        self.change(|changes, _| changes.touch())
    }

    /// Makes the change depend on nobody else having changed what came with this request. Otherwise the client gets
    /// a 409 from the gateway.
    ///
    /// Where there is no session it does nothing: what is inserted goes into a fresh one, which nobody else can have
    /// changed.
    ///
    /// # Errors
    ///
    /// [`Error::Withheld`] also where there is a session whose version did not come.
    pub fn only_if_unchanged(&self) -> Result<(), Error> {
        if let (None, Some(withheld)) = (self.rev(), self.withheld()) {
            return Err(Error::Withheld(withheld));
        }
        self.change(|changes, _| changes.only_if_unchanged())
    }

    /// Whether there is something to send.
    pub fn modified(&self) -> bool {
        self.changes().modified()
    }
}

/// The end of the response's head.
impl Session {
    /// Ends the session: every later change is an error.
    pub(crate) fn close(&self) {
        self.changes().close();
    }

    /// Ends the session, and gives the value for `X-Session-Set`, if there is one.
    pub(crate) fn finish(&self) -> Result<Option<String>, CannotSend> {
        let mut changes = self.changes();
        changes.close();
        changes.header(self.rev())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.starts_with('_') {
        return Err(Error::Protected(shown(name)));
    }
    if name.contains('\0') {
        return Err(Error::Value {
            name: shown(name),
            rule: "the name has U+0000",
        });
    }
    Ok(())
}

/// serde_json's own error would show the value.
fn read<T: DeserializeOwned>(name: &str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|_| Error::Type(shown(name)))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(redacted)")
    }
}
