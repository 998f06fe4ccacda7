//! The stand-in for the Django site: it logs one user in and out, writing the rows that
//! `django.contrib.auth` writes. A real Django checks a password first.

use std::{path::PathBuf, sync::Arc};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    page,
    web::{self, Answer},
};
use crate::{
    config::Config,
    django::{self, AuthHash, Codec, Expiry, Settings, cookie, sqlite_text},
    json,
    session::{Session, SessionKey},
};

/// The one user's primary key, as the session names it.
const USER: &str = "1";

const USER_ID: &str = "_auth_user_id";
const BACKEND: &str = "_auth_user_backend";
const HASH: &str = "_auth_user_hash";

/// What the stand-in knows of its settings.py.
pub(super) struct Site {
    database: PathBuf,
    settings: Settings,
    codec: Codec,
    auth: AuthHash,
}

impl Site {
    /// A site on the database that the gateway reads, with the same settings.
    pub(super) fn new(config: &Config, database: PathBuf) -> Self {
        let settings = Settings::from(config);
        Self {
            codec: Codec::new(&settings),
            auth: AuthHash::new(&settings),
            database,
            settings,
        }
    }

    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let post = parts.method == Method::POST;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        match parts.uri.path() {
            "/accounts/login/" if reads => {
                let next = safe_next(web::field(
                    parts.uri.query().unwrap_or_default().as_bytes(),
                    "next",
                ));
                web::html(StatusCode::OK, page::login(&next))
            }
            "/accounts/login/" | "/accounts/logout/" if post && is_foreign(headers) => {
                let said = "This form was sent by another site.";
                web::sentence(StatusCode::FORBIDDEN, headers, said)
            }
            "/accounts/login/" if post => {
                let form = web::form(body).await.unwrap_or_default();
                self.log_in(&parts, &safe_next(web::field(&form, "next")))
                    .await
            }
            "/accounts/logout/" if post => self.log_out(&parts).await,
            "/accounts/login/" => web::wrong_method(headers, "GET, HEAD, POST"),
            "/accounts/logout/" => web::wrong_method(headers, "POST"),
            _ => web::sentence(
                StatusCode::NOT_FOUND,
                headers,
                "There are /accounts/login/ and /accounts/logout/.",
            ),
        }
    }

    async fn log_in(&self, parts: &Parts, next: &str) -> Answer {
        let now = Utc::now();
        match self.write_login(self.key(&parts.headers), now).await {
            Ok((key, expiry)) => {
                let set = cookie::set(&self.settings.cookie, &key, expiry.lifetime, now);
                with_cookie(web::redirect(StatusCode::FOUND, next), set)
            }
            Err(sentence) => {
                web::sentence(StatusCode::INTERNAL_SERVER_ERROR, &parts.headers, &sentence)
            }
        }
    }

    async fn log_out(&self, parts: &Parts) -> Answer {
        match self.delete(self.key(&parts.headers)).await {
            Ok(()) => {
                let delete = cookie::delete(&self.settings.cookie);
                with_cookie(web::redirect(StatusCode::FOUND, "/"), delete)
            }
            Err(error) => {
                let sentence = format!("Nobody was logged out: {error}.");
                web::sentence(StatusCode::INTERNAL_SERVER_ERROR, &parts.headers, &sentence)
            }
        }
    }

    /// The session key in the cookie, which passes through the gateway on this route.
    fn key(&self, headers: &HeaderMap) -> Option<SessionKey> {
        let fields = headers
            .get_all(header::COOKIE)
            .iter()
            .map(HeaderValue::as_bytes);
        let found = cookie::find(&self.settings.cookie.name, fields);
        SessionKey::parse(&found.value?)
    }

    /// `login` (django/contrib/auth/__init__.py) and the save of the session middleware, in one transaction:
    /// the data of a visitor who was not logged in goes on under a new key (`cycle_key`), another user's is
    /// forgotten (`flush`), and the same user's stays where it is.
    async fn write_login(
        &self,
        old: Option<SessionKey>,
        now: DateTime<Utc>,
    ) -> Result<(SessionKey, Expiry), String> {
        let failed = |error: sqlx::Error| format!("Nobody was logged in: {error}.");
        let mut connection = self.connect().await.map_err(failed)?;
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)?;
        let user = sqlx::query_scalar("SELECT password FROM auth_user WHERE id = ? AND is_active");
        let password: Option<String> = user
            .bind(USER)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
        let Some(password) = password else {
            return Err(format!(
                "The database has no active user with the id {USER}, whom the demo logs in."
            ));
        };
        let hash = self.auth.sign(&password);

        let mut session = Session::empty();
        let mut key = None;
        if let Some(old) = old {
            let row = sqlx::query_scalar(
                "SELECT session_data FROM django_session WHERE session_key = ? AND expire_date > ?",
            );
            let row: Option<String> = row
                .bind(old.as_str())
                .bind(sqlite_text(now, Tz::UTC))
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed)?;
            // As in Django, what cannot be read is an empty session.
            let kept = row
                .and_then(|row| self.codec.decode(&row).ok())
                .unwrap_or_default();
            let is_same_user = kept.string(USER_ID).as_deref() == Some(USER)
                && kept
                    .string(HASH)
                    .is_some_and(|kept| self.auth.verify(&password, &kept));
            if is_same_user {
                key = Some(old);
            }
            if is_same_user || !kept.contains(USER_ID) {
                session = kept;
            }
            sqlx::query("DELETE FROM django_session WHERE session_key = ?")
                .bind(old.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        let backend = self
            .settings
            .backends
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        for (name, value) in [(USER_ID, USER), (BACKEND, backend), (HASH, hash.as_str())] {
            session.set(name, &quote(value));
        }

        let key = match key {
            Some(key) => key,
            None => {
                SessionKey::random().map_err(|error| format!("Nobody was logged in: {error}."))?
            }
        };
        let expiry = django::expiry(&session, &self.settings, now)
            .map_err(|error| format!("Nobody was logged in: {error}."))?;
        sqlx::query(
            "INSERT INTO django_session (session_key, session_data, expire_date) VALUES (?, ?, ?)",
        )
        .bind(key.as_str())
        .bind(self.codec.encode(&session, now))
        .bind(sqlite_text(expiry.date, Tz::UTC))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        // `update_last_login` (django/contrib/auth/models.py).
        sqlx::query("UPDATE auth_user SET last_login = ? WHERE id = ?")
            .bind(sqlite_text(now, Tz::UTC))
            .bind(USER)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok((key, expiry))
    }

    /// `logout`: the session is forgotten as a whole (`flush`).
    async fn delete(&self, key: Option<SessionKey>) -> Result<(), sqlx::Error> {
        let Some(key) = key else { return Ok(()) };
        let mut connection = self.connect().await?;
        let delete = sqlx::query("DELETE FROM django_session WHERE session_key = ?");
        delete.bind(key.as_str()).execute(&mut connection).await?;
        connection.close().await
    }

    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(&self.database)
            .create_if_missing(false);
        SqliteConnection::connect_with(&options).await
    }
}

fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    json::quote(&mut quoted, text);
    quoted
}

/// As Django answers where the session was used: never from a cache.
fn with_cookie(mut answer: Answer, cookie: HeaderValue) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Whether a page of another site has sent this. Django has its CSRF token for that.
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| site != b"same-origin" && site != b"none")
}

/// Where to go after the login: a path on this host, or `/`. A browser takes `//` and `/\` for another host,
/// and leaves out tabs and line ends before it looks.
fn safe_next(next: Option<String>) -> String {
    next.filter(|next| {
        next.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    })
    .filter(|next| next.starts_with('/') && !next.starts_with("//"))
    .unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::demo::{Ports, folder::Folder};

    async fn site(folder: &Folder) -> Site {
        folder.fill().await.unwrap();
        let config = folder
            .configure(Ports {
                gateway: 1,
                health: 2,
                shop: 3,
                site: 4,
            })
            .unwrap();
        Site::new(&config, folder.database())
    }

    async fn rows(site: &Site) -> Vec<(String, String)> {
        let mut connection = site.connect().await.unwrap();
        let rows = sqlx::query_as("SELECT session_key, session_data FROM django_session");
        rows.fetch_all(&mut connection).await.unwrap()
    }

    async fn insert(site: &Site, session: &str) -> SessionKey {
        let (key, session) = (
            SessionKey::random().unwrap(),
            Session::parse(session.into()).unwrap(),
        );
        let insert = sqlx::query("INSERT INTO django_session VALUES (?, ?, '9999-01-01 00:00:00')");
        insert
            .bind(key.as_str())
            .bind(site.codec.encode(&session, Utc::now()))
            .execute(&mut site.connect().await.unwrap())
            .await
            .unwrap();
        key
    }

    #[tokio::test]
    async fn a_login_keeps_the_cart_under_a_new_key() {
        let folder = Folder::open(None).unwrap();
        let site = site(&folder).await;
        let old = insert(&site, r#"{"cart":["a"]}"#).await;
        let (key, _) = site.write_login(Some(old), Utc::now()).await.unwrap();
        let rows = rows(&site).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].0, key.as_str());
        assert_ne!(key, old);
        let session = site.codec.decode(&rows[0].1).unwrap();
        assert_eq!(session.raw("cart"), Some("[\"a\"]"));
        assert_eq!(session.string(USER_ID).as_deref(), Some("1"));
        assert_eq!(session.string(HASH).map(|hash| hash.len()), Some(64));

        // The same user again: the same key. Then the row goes.
        let again = site.write_login(Some(key), Utc::now()).await.unwrap();
        assert_eq!(again.0, key);
        site.delete(Some(key)).await.unwrap();
        assert!(self::rows(&site).await.is_empty());
    }

    #[tokio::test]
    async fn a_login_forgets_the_data_of_another_user() {
        let folder = Folder::open(None).unwrap();
        let site = site(&folder).await;
        let old = insert(&site, r#"{"_auth_user_id":"2","secret":1}"#).await;
        let (key, _) = site.write_login(Some(old), Utc::now()).await.unwrap();
        let rows = rows(&site).await;
        assert_eq!(rows.len(), 1);
        assert_ne!(key, old);
        assert!(!site.codec.decode(&rows[0].1).unwrap().contains("secret"));
    }

    #[test]
    fn the_way_back_is_a_path_on_this_host() {
        for good in ["/", "/members/", "/members/?a=1&b=//x"] {
            assert_eq!(safe_next(Some(good.to_owned())), good);
        }
        for bad in [
            "",
            "members/",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/a b",
            "https://x",
            "/\u{e9}",
        ] {
            assert_eq!(safe_next(Some(bad.to_owned())), "/", "{bad:?}");
        }
        assert_eq!(safe_next(None), "/");
    }
}
