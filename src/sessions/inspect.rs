//! A closer look at one session than a request takes, for the commands that explain. Nothing here writes.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Derived, Known, Login, Resolved, Sessions};
use crate::{
    django::{self, Account, Seal, Standing, Unreadable, Verify},
    json,
    session::{Session, SessionKey},
    store::{Fault, Freshness, LookupError, RowData},
};

/// A row, looked into.
#[derive(Debug)]
pub struct Look {
    /// When it ends, or has ended.
    pub expire_date: DateTime<Utc>,
    /// Bytes of `session_data`; `None` where the database did not send it.
    pub stored: Option<usize>,
    /// Whose signature it bears.
    pub seal: Option<Seal>,
    /// What it holds.
    pub session: Result<Session, Unreadable>,
}

/// The login in a session, and what has become of it.
#[derive(Debug)]
pub struct LoginState {
    /// `_auth_user_id`.
    pub user_id: String,
    /// `_auth_user_backend`.
    pub backend: String,
    /// Whether it is one of the site's backends: a login by any other is none.
    pub is_by_own_backend: bool,
    /// The user's row; `None` where there is none, or where it is not read (`verify = "off"`).
    pub user: Option<UserState>,
    /// What Django's `get_user` makes of it.
    pub standing: Standing,
}

/// What of a user decides on a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserState {
    /// Whether the user satisfies `[django.user] where`.
    pub is_active: bool,
    /// Whether `_auth_user_hash` fits the password; `None` where that is not asked (`verify = "active-only"`).
    pub hash_fits: Option<bool>,
}

impl Sessions {
    /// Looks into the row of a key, also where it has expired; `None` where there is none. Asks the database over
    /// a connection of its own.
    ///
    /// # Errors
    ///
    /// Why the database did not answer.
    pub async fn look_into(&self, key: SessionKey) -> Result<Option<Look>, Fault> {
        let site = &self.0;
        let Some(row) = site.store.even_expired(key).await? else {
            return Ok(None);
        };
        let text = match &row.data {
            RowData::Text(text) => Some(text),
            RowData::TooLarge | RowData::Malformed => None,
        };
        Ok(Some(Look {
            expire_date: row.expire_date,
            stored: text.map(|text| text.len()),
            seal: text.and_then(|text| site.codec.seal(text)),
            session: site.decode(&row),
        }))
    }

    /// The login that a session claims, whichever backend has made it; `None` where it claims none.
    ///
    /// # Errors
    ///
    /// The database did not answer.
    pub async fn login_state(&self, session: &Session) -> Result<Option<LoginState>, LookupError> {
        let site = &self.0;
        let Some(login) = django::login(session) else {
            return Ok(None);
        };
        let is_by_own_backend = site.settings.backends.contains(&login.backend);
        let verify = site.settings.verify;
        let key = match verify {
            Verify::Off => None,
            Verify::User | Verify::ActiveOnly => site.store.user_key(&login.user_id)?,
        };
        let row = match key {
            Some(key) => {
                let user = site
                    .store
                    .user(key, false, Freshness::Exact, site.store.deadline())
                    .await?;
                user.map(|user| user.row)
            }
            None => None,
        };
        let standing = match (is_by_own_backend, verify) {
            (false, _) => Standing::Anonymous,
            (true, Verify::Off) => Standing::LoggedIn,
            (true, _) => {
                let account = row.as_ref().map(|row| Account {
                    password: &row.password,
                    is_active: row.is_active,
                });
                login.standing(&site.settings, &site.auth, account)
            }
        };
        let hash_fits = |password: &str| {
            let hash = login.hash.as_ref();
            hash.is_some_and(|hash| site.auth.verify(password, hash))
        };
        let user = row.map(|row| UserState {
            is_active: row.is_active,
            hash_fits: (verify == Verify::User).then(|| hash_fits(&row.password)),
        });
        Ok(Some(LoginState {
            user_id: login.user_id,
            backend: login.backend,
            is_by_own_backend,
            user,
            standing,
        }))
    }

    /// What [`Sessions::resolve`] would say of a session in which nothing is but a login of this user, made just
    /// now by the first of the site's backends. There is no such row; `id` is spelt as in `_auth_user_id`.
    ///
    /// # Errors
    ///
    /// The database did not answer.
    pub async fn as_user(&self, id: &str, details: bool) -> Result<Resolved, LookupError> {
        let site = &self.0;
        let until = site.store.deadline();
        let mut session = Session::empty();
        let mut set = |name: &str, value: &str| {
            let mut quoted = String::new();
            json::quote(&mut quoted, value);
            session.set(name, &quoted);
        };
        set("_auth_user_id", id);
        if let Some(backend) = site.settings.backends.first() {
            set("_auth_user_backend", backend);
        }
        if site.settings.verify == Verify::User
            && let Some(key) = site.store.user_key(id)?
            && let Some(user) = site.store.user(key, false, Freshness::Exact, until).await?
        {
            set("_auth_user_hash", &site.auth.sign(&user.row.password));
        }
        let (now, age) = (Utc::now(), site.settings.cookie.age);
        let age = TimeDelta::from_std(age).unwrap_or_default();
        let expire_date = now.checked_add_signed(age).unwrap_or(now);
        let login = site.login_of(&session);
        let derived = Derived::new("".into(), session, login);
        let user = match site.login(&derived, None, details, until).await? {
            Login::User(user) => Some(user),
            Login::Nobody | Login::WrongHash => None,
        };
        Ok(Resolved::Known(Box::new(Known {
            session: derived.session.clone(),
            expire_date,
            user,
            derived: None,
        })))
    }
}
