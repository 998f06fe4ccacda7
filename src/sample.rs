//! A Django site's database in a SQLite file: what the examples of this documentation run on, and a start for a
//! program's own tests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sqlx::{
    Connection,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};
use tempfile::TempDir;

use crate::{
    django::{AuthHash, Release, Settings},
    sessions::{Error, Sessions},
};

/// Django's tables as Django makes them, and one user.
const SCHEMA: &str = include_str!("sample/schema.sql");

/// What stands in place of the user's hashed password.
const PASSWORD: &str = "!sample";

const BACKEND: &str = "django.contrib.auth.backends.ModelBackend";

/// A site with one user, whose primary key is 1, in a temporary folder that goes with this value.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    url: String,
}

impl Site {
    /// Makes the database.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub async fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("session-gateway-sample-")
            .tempdir()?;
        let site = Self {
            url: format!("sqlite:{}", file(&folder).display()),
            folder,
        };
        make_database(&file(&site.folder)).await?;
        let password = format!("UPDATE auth_user SET password = '{PASSWORD}'");
        site.execute(password).await?;
        Ok(site)
    }

    /// Its address, for [`Sessions::connect`].
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its settings: those of a new project with Django 5.2.
    pub fn settings(&self) -> Settings {
        Settings {
            release: Release(5, 2),
            ..Settings::new("the SECRET_KEY of a sample")
        }
    }

    /// Opens its sessions.
    ///
    /// # Errors
    ///
    /// As [`Sessions::connect`].
    pub async fn sessions(&self) -> Result<Sessions, Error> {
        Sessions::connect(&self.url, self.settings()).await
    }

    /// Stores what Django's `login` stores for its user, and gives the key that the browser would have.
    ///
    /// # Errors
    ///
    /// As [`Sessions::connect`] and [`Session::save`](crate::Session::save).
    pub async fn log_in(&self) -> Result<String, Error> {
        let mut session = self.sessions().await?.get(None);
        session.load().await?;
        let hash = AuthHash::new(&self.settings()).sign(PASSWORD);
        session.unsafe_insert("_auth_user_id", "1")?;
        session.unsafe_insert("_auth_user_backend", BACKEND)?;
        session.unsafe_insert("_auth_user_hash", hash)?;
        session.save().await?;
        Ok(session.key().unwrap_or_default().to_owned())
    }

    /// Runs statements, as another program that uses the database would.
    ///
    /// # Errors
    ///
    /// The database refuses them.
    pub async fn execute(&self, sql: impl Into<String>) -> io::Result<()> {
        let options = SqliteConnectOptions::new().filename(file(&self.folder));
        let done = async {
            let mut connection = SqliteConnection::connect_with(&options).await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into()))
                .execute(&mut connection)
                .await?;
            connection.close().await
        };
        done.await.map_err(io::Error::other)
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("db.sqlite3")
}

/// Makes a SQLite file with Django's tables, in place of whatever is there. Only its owner may read it.
pub(crate) async fn make_database(path: &Path) -> io::Result<()> {
    // Made here and not by SQLite, which goes by the umask.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    let made = async {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
        transaction.commit().await?;
        connection.close().await
    };
    made.await.map_err(io::Error::other)
}
