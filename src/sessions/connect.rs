//! Opening a site's sessions from a program, without a gateway's configuration.

use std::{
    fmt,
    future::{Future, IntoFuture},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use chrono_tz::Tz;

use super::{Error, Sessions, Site};
use crate::{
    config::{Database, Limits, Protected, Secret, sql},
    django::{Settings, Verify},
    store::{Options, Store, UnderWay, UserOptions},
};

/// The longest that a logout may take to count.
const MOST_STALENESS: Duration = Duration::from_secs(60);

/// How the sessions of a site are opened. Made by [`Sessions::connect`]; awaited, it connects.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let site = session_gateway::sample::Site::new().await?;
/// # let (url, settings) = (site.url(), site.settings());
/// use std::time::Duration;
///
/// use session_gateway::Sessions;
///
/// let sessions = Sessions::connect(url, settings)
///     .table("django_session")
///     .user_columns(["username", "email"])
///     .deadline(Duration::from_millis(500))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is opened until it is awaited"]
pub struct Connect {
    url: Secret,
    settings: Settings,
    table: String,
    user: User,
    protected: Vec<String>,
    max_staleness: Duration,
    deadline: Duration,
    patience: Duration,
    connections: usize,
    write_connections: usize,
    pooled: bool,
    accept_replica: bool,
    session_write: usize,
}

struct User {
    table: String,
    key: String,
    password: String,
    condition: Option<String>,
    columns: Vec<String>,
    groups: Option<(String, String)>,
}

impl Sessions {
    /// Opens the sessions of a Django site: `postgres://user:password@host:5432/name` or `sqlite:PATH`, and what
    /// its settings.py says. The options of [`Connect`] have Django's defaults.
    ///
    /// The connections live on the Tokio runtime that it is awaited on.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use session_gateway::{Release, Sessions, Settings};
    ///
    /// let mut settings = Settings::new(std::env::var("SECRET_KEY")?.as_str());
    /// settings.release = Release(5, 2);
    /// settings.cookie.secure = true;
    /// let sessions = Sessions::connect(&std::env::var("DATABASE_URL")?, settings).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Awaited, it waits for the database. [`Error::Refused`]: that says no, or there is no such table.
    /// [`Error::Unreachable`]: it does not answer in time ([`Connect::patience`]). [`Error::Settings`]: an
    /// address or an option that cannot be right. [`Error::NoRuntime`].
    pub fn connect(url: &str, settings: Settings) -> Connect {
        Connect {
            url: Secret::from(url),
            settings,
            table: "django_session".to_owned(),
            user: User {
                table: "auth_user".to_owned(),
                key: "id".to_owned(),
                password: "password".to_owned(),
                condition: None,
                columns: Vec::new(),
                groups: None,
            },
            protected: Vec::new(),
            max_staleness: Duration::ZERO,
            deadline: Duration::from_secs(2),
            patience: Duration::from_secs(10),
            connections: 2,
            write_connections: 8,
            pooled: false,
            accept_replica: false,
            session_write: Limits::default().session_write,
        }
    }
}

impl Connect {
    /// The session table, with its schema where there is one: `django_session`.
    pub fn table(mut self, name: &str) -> Self {
        name.clone_into(&mut self.table);
        self
    }

    /// The table of AUTH_USER_MODEL: `auth_user`. It is not read with [`Verify::Off`].
    pub fn user_table(mut self, name: &str) -> Self {
        name.clone_into(&mut self.user.table);
        self
    }

    /// The user table's primary key: `id`.
    pub fn user_key(mut self, column: &str) -> Self {
        column.clone_into(&mut self.user.key);
        self
    }

    /// The user table's password column: `password`. It is not read with [`Verify::ActiveOnly`].
    pub fn user_password(mut self, column: &str) -> Self {
        column.clone_into(&mut self.user.password);
        self
    }

    /// Who may be logged in, as an SQL condition on the user's row. By default `is_active`, where there is such
    /// a column.
    pub fn user_where(mut self, condition: &str) -> Self {
        self.user.condition = Some(condition.to_owned());
        self
    }

    /// Columns of the user table that [`CurrentUser::get`](super::CurrentUser::get) is to know. None by default.
    pub fn user_columns<'a>(mut self, columns: impl IntoIterator<Item = &'a str>) -> Self {
        self.user.columns = columns.into_iter().map(str::to_owned).collect();
        self
    }

    /// Reads the names of the user's groups, for [`CurrentUser::groups`](super::CurrentUser::groups). Django's
    /// own tables are `auth_user_groups` and `auth_group`. By default they are not read.
    pub fn user_groups(mut self, memberships: &str, groups: &str) -> Self {
        self.user.groups = Some((memberships.to_owned(), groups.to_owned()));
        self
    }

    /// More names that only `unsafe_insert` and `unsafe_remove` write; `*` stands for any run of characters.
    pub fn protect<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Self {
        self.protected = patterns.into_iter().map(str::to_owned).collect();
        self
    }

    /// How old what is read may be: by default nothing is older than the question. With a bound of up to a minute,
    /// rows that were read are good for that long, and so a logout elsewhere may count only after it.
    /// [`Session::save`](super::handle::Session::save) is always computed from the row as it is.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.max_staleness = bound;
        self
    }

    /// How long a lookup or a change may take: 2 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long to wait for the database at the start: 10 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Connections for lookups: 2, which answer whole batches.
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// Most connections for changes: 8. SQLite has one writer.
    pub fn write_connections(mut self, count: usize) -> Self {
        self.write_connections = count;
        self
    }

    /// The address leads to a PgBouncer in transaction mode, or to another pooler that changes servers between
    /// transactions.
    pub fn pooled_by_transaction(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// Believes answers of standbys and read-only servers, however old they are. By default only the primary is
    /// believed.
    pub fn accept_replica(mut self) -> Self {
        self.accept_replica = true;
        self
    }

    /// The largest session that is written, in bytes of JSON: 64 KiB.
    pub fn session_write(mut self, bytes: usize) -> Self {
        self.session_write = bytes;
        self
    }

    async fn open(mut self) -> Result<Sessions, Error> {
        let url = str::from_utf8(self.url.expose()).unwrap_or_default();
        let database = Database::parse(url, Path::new(""))
            .map_err(|sentence| Error::Settings(sentence.to_owned()))?;
        if self.settings.secret_key.is_empty() {
            return Err(Error::Settings("the SECRET_KEY is empty".to_owned()));
        }
        if self.max_staleness > MOST_STALENESS {
            let sentence = "max_staleness is at most a minute".to_owned();
            return Err(Error::Settings(sentence));
        }
        if self.user.condition.is_some() {
            self.settings.own_user_rule = true;
        }
        let options = self.options()?;
        let metrics = options.metrics.clone();
        let store = Store::open(&database, options)?;
        store.first_contact(self.patience).await?;
        if !store.state().was_contacted() {
            let cause = store.state().cause();
            let cause = cause.unwrap_or_else(|| "it did not answer in time".to_owned());
            return Err(Error::Unreachable(cause));
        }
        Ok(Sessions(Arc::new(Site {
            protected: Protected::new(self.protected),
            user_columns: self.user.columns.into(),
            reads_groups: self.user.groups.is_some(),
            session_write: self.session_write,
            ..Site::new(self.settings, Arc::new(store), metrics)
        })))
    }

    /// Names become SQL, so they are checked as those of a configuration file.
    fn options(&self) -> Result<Options, Error> {
        let user = &self.user;
        let columns = user.columns.iter().map(|column| sql::column(column));
        let groups = user.groups.as_ref().map(|(memberships, groups)| {
            Ok::<_, String>((sql::table(memberships)?, sql::table(groups)?))
        });
        let users = || {
            Ok::<_, String>(UserOptions {
                table: sql::table(&user.table)?,
                key: sql::column(&user.key)?,
                password: match self.settings.verify {
                    Verify::User => Some(sql::column(&user.password)?),
                    Verify::ActiveOnly | Verify::Off => None,
                },
                condition: user.condition.as_deref().map(sql::condition).transpose()?,
                columns: columns.collect::<Result<_, _>>()?,
                groups: groups.transpose()?,
                // No header limits what a program is told.
                told_bytes: self.settings.session_data,
            })
        };
        let options = || {
            let limits = Limits::default();
            Ok::<_, String>(Options {
                table: sql::table(&self.table)?,
                time_zone: self.settings.time_zone.unwrap_or(Tz::UTC),
                deadline: self.deadline,
                connections: self.connections.max(1),
                write_connections: self.write_connections.max(1),
                pooled: self.pooled,
                accept_replica: self.accept_replica,
                max_staleness: self.max_staleness,
                metrics: Arc::default(),
                under_way: UnderWay::default(),
                session_data: self.settings.session_data,
                lookup_queue: limits.lookup_queue,
                session_queue: limits.session_queue,
                users: match self.settings.verify {
                    Verify::Off => None,
                    Verify::User | Verify::ActiveOnly => Some(users()?),
                },
            })
        };
        options().map_err(Error::Settings)
    }
}

impl IntoFuture for Connect {
    type Output = Result<Sessions, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
