//! `gateway.toml`, parsed into a [`Config`] that is right by construction.
//!
//! The file types are strict: an unknown key, a duplicate, an unused upstream, two routes that clash are
//! errors with file, line, column and a suggestion. Everything above this module works with [`Config`] only.

mod certificates;
mod files;
mod item;
mod keys;
mod listeners;
mod load;
mod log;
mod mysql;
mod plain;
pub mod protected;
mod report;
mod routes;
pub mod secret;
mod secrets;
mod signing;
mod site;
pub mod sql;
#[cfg(test)]
mod tests;
mod traffic;
mod transport;
mod tree;
mod trusted;
mod tunnels;
mod upstream_tls;
mod upstreams;
mod value;

use std::{cell::RefCell, ffi::OsString, fs, path::Path, path::PathBuf, time::Duration};

use chrono_tz::Tz;
use ed25519_dalek::{SigningKey, VerifyingKey};
use http::HeaderName;
use sha2::{Digest, Sha256};
use toml::de::DeTable;

pub use self::{
    certificates::{Certificate, Certificates, Names},
    files::Fingerprint,
    listeners::{Address, HTTPS, Listener},
    log::{Access, Field, Log},
    protected::Protected,
    report::{Position, Problem, Remark},
    secret::Secret,
    traffic::{FieldChange, Rate, RateBy, Redirect, RouteLimits},
    transport::{Balance, Health, Protocol, Server, ServerAddress},
    trusted::Trusted,
    upstream_tls::Tls,
};
use self::{
    files::Files,
    report::Report,
    tree::{Context, Table},
};
use crate::path::{EncodedSlashes, Prefix};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first 12 hex digits of the file's SHA-256, as `sha256sum` prints them.
    pub digest: String,
    /// `watch`: a changed file is put into force without being asked.
    pub watch: bool,
    /// `writes`: `false` turns every accepted change into `session-not-saved`.
    pub writes: bool,
    /// `shutdown_grace`: how long requests and writes under way may take after SIGTERM.
    pub shutdown_grace: Duration,
    /// `drain_delay`: how long connections are still taken after SIGTERM, when `/readyz` says no already.
    pub drain_delay: Duration,
    /// `[[listener]]`.
    pub listeners: Vec<Listener>,
    /// `[health] address`.
    pub health: Option<Address>,
    /// `[admin] address`: the status page, for this machine only.
    pub admin: Option<Address>,
    /// `[health] jwks`: the path of the public keys; `None` without `[gateway] signing`.
    pub jwks: Option<String>,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[limits]`.
    pub limits: Limits,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[log]`.
    pub log: Log,
    /// `[django]`.
    pub django: Django,
    /// `[upstream.X]`, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`, in the order of the file.
    pub routes: Vec<Route>,
}

/// How [`Config::load`] reads a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Neither environment variables nor files of secrets need to be there; placeholders stand in for them.
    /// Such a configuration is for checking only.
    pub without_secrets: bool,
}

/// A configuration, and what it does not fail for.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What one should know about it, in the order of the file.
    pub remarks: Vec<Remark>,
    /// Of all that it was made from.
    pub fingerprint: Fingerprint,
}

/// What came of reading a configuration.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Of all that was read, good or bad.
    pub fingerprint: Fingerprint,
    /// The configuration, or every problem.
    pub result: Result<Loaded, Vec<Problem>>,
}

impl Config {
    /// Reads a configuration file; `env` looks up environment variables. Relative paths in the file start
    /// at its folder.
    ///
    /// # Errors
    /// Every problem, in the order of the file: what is not TOML ends the reading at once, all else is
    /// collected.
    pub fn load(
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Result<Loaded, Vec<Problem>> {
        Self::read(path, env, options).result
    }

    /// [`load`](Self::load), and what tells whether another reading would be the same.
    pub fn read(
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Reading {
        let unread = |found: Option<&[u8]>, sentence: String| {
            let files = Files::default();
            files.note(path, found);
            let problem = Problem {
                file: path.display().to_string(),
                position: None,
                sentence,
                suggestion: None,
            };
            Reading {
                fingerprint: files.fingerprint(),
                result: Err(vec![problem]),
            }
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return unread(None, format!("cannot be read: {error}")),
        };
        match String::from_utf8(bytes) {
            Ok(text) => Self::read_text(&text, path, env, options),
            Err(error) => unread(Some(error.as_bytes()), "is not UTF-8".to_owned()),
        }
    }

    /// [`load`](Self::load) for a text that is already here; `path` says where relative paths start, and is
    /// named in messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Result<Loaded, Vec<Problem>> {
        Self::read_text(text, path, env, options).result
    }

    fn read_text(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Reading {
        let report = Report::new(path, text);
        let files = Files::default();
        files.note(path, Some(text.as_bytes()));
        let tree = match DeTable::parse(text) {
            Ok(tree) => tree,
            Err(error) => {
                syntax(&report, text, &error);
                return Reading {
                    fingerprint: files.fingerprint(),
                    result: Err(report.finish().0),
                };
            }
        };
        let context = Context {
            report,
            env,
            folder: path.parent().unwrap_or(Path::new("")),
            without_secrets: options.without_secrets,
            env_names: RefCell::default(),
            files,
        };
        let config = load::read(&Table::top(&context, &keys::TOP, tree.get_ref()));
        let fingerprint = context.files.fingerprint();
        let (problems, remarks) = context.report.finish();
        let result = match config {
            Some(mut config) if problems.is_empty() => {
                config.digest = digest(text);
                Ok(Loaded {
                    config,
                    remarks,
                    fingerprint,
                })
            }
            _ => Err(problems),
        };
        Reading {
            fingerprint,
            result,
        }
    }
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reports what is not TOML. The parser's own text would quote the line, which may hold a secret.
fn syntax(report: &Report<'_>, text: &str, error: &toml::de::Error) {
    let span = error.span().unwrap_or_default();
    let key = text.get(span.clone()).unwrap_or_default();
    if error.message() == "duplicate key" && key == "django" {
        return report.problem(
            Some(span.start),
            "there is one Django site in a process",
            None,
        );
    }
    if error.message().starts_with("duplicate key") {
        return report.problem(Some(span.start), format!("{key:?} is given twice"), None);
    }
    let quotes = error.message().starts_with("string values must be quoted");
    let sentence = match quotes {
        true => "text must be quoted".to_owned(),
        false => format!("this is not TOML: {}", error.message()),
    };
    report.problem(Some(span.start), sentence, None);
}

/// `[gateway]`.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The `iss` claim.
    pub issuer: String,
    /// Peers whose `X-Forwarded-*` count, and whose PROXY protocol headers do.
    pub trusted_proxies: Trusted,
    /// Origins (`https://host[:port]`, lower-case) that may send cross-site requests.
    pub trusted_origins: Vec<String>,
    /// `signing`: signs the tokens of upstreams with `algorithm = "EdDSA"`.
    pub signing: Option<Signing>,
    /// `published`: keys that are published beside the one of `signing`, and sign nothing here.
    pub published: Vec<Published>,
    /// `sid_key`: what `sid` and `rev` are derived from; `None` is `[django] secret_key`.
    pub sid_key: Option<Secret>,
}

/// `[gateway] signing`. `Debug` of a key pair shows its public half only.
#[derive(Clone, Debug)]
pub struct Signing {
    /// `kid`.
    pub kid: String,
    /// `private_key`: Ed25519.
    pub private_key: SigningKey,
}

/// One of `[gateway] published`.
#[derive(Clone, Debug)]
pub struct Published {
    /// `kid`.
    pub kid: String,
    /// `public_key`: Ed25519.
    pub public_key: VerifyingKey,
}

/// `[limits]`. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head.
    pub request_head: usize,
    /// Most request header fields.
    pub request_fields: usize,
    /// Largest request body; `None` is the spelled-out `"unlimited"`.
    pub request_body: Option<u64>,
    /// Most requests that are served at the same time.
    pub in_flight: usize,
    /// Most client connections at once.
    pub connections: usize,
    /// Most connections of one client address at once; `None` for no such limit.
    pub connections_per_address: Option<usize>,
    /// Most requests under way on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Largest `session_data` that is read from the database.
    pub session_data: usize,
    /// Largest session JSON, after inflation.
    pub session_json: usize,
    /// Largest session JSON that is written.
    pub session_write: usize,
    /// Most changes of one session that wait for each other.
    pub session_queue: usize,
    /// Most lookups that wait for a database connection.
    pub lookup_queue: usize,
}

/// `[timeouts]`, also per upstream and per route where those set one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// A request head, from its first byte to its last.
    pub head: Duration,
    /// A client connection between two requests.
    pub idle: Duration,
    /// A client that takes no byte of its answer.
    pub send: Duration,
    /// A request body without a byte.
    pub body_progress: Duration,
    /// Connecting to an upstream.
    pub connect: Duration,
    /// An upstream's response head.
    pub response_head: Duration,
    /// An upstream's response body without a byte.
    pub response_idle: Duration,
    /// A tunnel without a byte in either direction.
    pub tunnel_idle: Duration,
}

/// `[django]`: what the site's settings.py says.
#[derive(Clone, Debug)]
pub struct Django {
    /// `database`.
    pub database: Database,
    /// `secret_key`: Django's SECRET_KEY.
    pub secret_key: Secret,
    /// `secret_key_fallbacks`: SECRET_KEY_FALLBACKS.
    pub secret_key_fallbacks: Vec<Secret>,
    /// `release`: the site's Django release, as (major, minor).
    pub release: (u8, u8),
    /// `engine`: SESSION_ENGINE.
    pub engine: Engine,
    /// `table`: the session table.
    pub table: String,
    /// `salt`: the signing salt of the session store's class.
    pub salt: String,
    /// `time_zone`: the zone of moments that are stored without an offset. `None`: UTC, and texts without an
    /// offset in `_session_expiry` are not read.
    pub time_zone: Option<Tz>,
    /// `verify`: what of a login is checked against the user table.
    pub verify: Verify,
    /// `backends`: AUTHENTICATION_BACKENDS.
    pub backends: Vec<String>,
    /// `[django.user]`.
    pub user: User,
    /// `max_staleness`: how old an answer may be; zero for none from before its question.
    pub max_staleness: Duration,
    /// `deadline`: how long a lookup or a change may take.
    pub deadline: Duration,
    /// `connections`: for lookups.
    pub connections: usize,
    /// `write_connections`: for changes.
    pub write_connections: usize,
    /// `pooler = "transaction"`: connections lead to another PostgreSQL server with each transaction.
    pub pooled: bool,
    /// `replica = "accepted"`: answers of standbys and read-only servers count, however old they are.
    pub accept_replica: bool,
    /// The built-in protected names and `protected`.
    pub protected: Protected,
    /// `expire_at_browser_close`: SESSION_EXPIRE_AT_BROWSER_CLOSE.
    pub expire_at_browser_close: bool,
    /// `save_every_request`: SESSION_SAVE_EVERY_REQUEST.
    pub save_every_request: bool,
    /// `[django.cookie]`.
    pub cookie: Cookie,
}

/// SESSION_ENGINE, of those that keep sessions in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `"db"`: in the table only.
    Db,
    /// `"cached_db"`: in a cache, which Django reads first, and in the table. Nothing may be written: Django would
    /// not see it, and would still serve a session that is gone from the table.
    CachedDb,
}

/// Which database `[django] database` names. The address is a secret: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// `postgres://...` or `postgresql://...`
    Postgres(Secret),
    /// `mysql://...` or `mariadb://...`
    MySql(Secret),
    /// `sqlite:PATH`; relative to the configuration file's folder.
    Sqlite(PathBuf),
}

/// `verify`: what of a login is checked against the user table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The user exists, satisfies `where`, and `_auth_user_hash` fits the password.
    User,
    /// The user exists and satisfies `where`: for projects with a `get_session_auth_hash` of their own.
    ActiveOnly,
    /// Nothing: the session's word is taken. The user table is not read.
    Off,
}

/// `[django.user]`: AUTH_USER_MODEL's table. All names are plain identifiers.
#[derive(Clone, Debug)]
pub struct User {
    /// `table`.
    pub table: String,
    /// `key`: the primary key's column.
    pub key: String,
    /// `password`: the password column.
    pub password: String,
    /// `where`: an SQL condition on the row; `None` is `is_active`, where there is such a column.
    pub condition: Option<String>,
    /// `groups`: the membership table and the group table.
    pub groups: (String, String),
}

/// `[django.cookie]`: SESSION_COOKIE_*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// SESSION_COOKIE_NAME.
    pub name: String,
    /// SESSION_COOKIE_AGE.
    pub age: Duration,
    /// SESSION_COOKIE_DOMAIN.
    pub domain: Option<String>,
    /// SESSION_COOKIE_PATH.
    pub path: String,
    /// SESSION_COOKIE_SECURE.
    pub secure: bool,
    /// SESSION_COOKIE_HTTPONLY.
    pub httponly: bool,
    /// SESSION_COOKIE_SAMESITE.
    pub samesite: SameSite,
    /// `duplicate = "refuse"`: two session cookies are a 400.
    pub refuse_duplicate: bool,
}

/// SESSION_COOKIE_SAMESITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `"Lax"`.
    Lax,
    /// `"Strict"`.
    Strict,
    /// `"None"`: the attribute is sent with the value None.
    None,
    /// `"omit"`: SESSION_COOKIE_SAMESITE = False; the attribute is not sent.
    Omit,
}

/// `[upstream.X]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// X: also the `aud` claim.
    pub name: String,
    /// `servers` with their `weights`, at least one.
    pub servers: Vec<Server>,
    /// `balance`.
    pub balance: Balance,
    /// `protocol`.
    pub protocol: Protocol,
    /// `tls`: `None` for none.
    pub tls: Option<Tls>,
    /// `health`: `None` where servers are not asked.
    pub health: Option<Health>,
    /// `resolve_every`: from one look at a server's name to the next.
    pub resolve_every: Duration,
    /// `django = true`: this is the Django site itself; `session = "pass"` routes need it.
    pub django: bool,
    /// `algorithm`.
    pub algorithm: Algorithm,
    /// `keys`: the first signs. None with [`Algorithm::EdDsa`].
    pub keys: Vec<Key>,
    /// `host = "upstream"`: the server's own name goes out as Host instead of the client's.
    pub own_host: bool,
    /// `max_header_bytes`: largest `X-Session`.
    pub max_header_bytes: usize,
    /// `token_ttl`: `exp - iat`.
    pub token_ttl: Duration,
    /// `timeouts` with this upstream's own filled in.
    pub timeouts: Timeouts,
}

/// `algorithm`: how an upstream's tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// With the first of its `keys`, a secret that it shares with the gateway.
    Hs256,
    /// With `[gateway] signing`; the upstream has the public key.
    EdDsa,
}

/// One of an upstream's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `kid`.
    pub kid: String,
    /// At least 32 bytes.
    pub secret: Secret,
}

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where in the file it stands (line of `[[route]]`), for messages.
    pub line: usize,
    /// `host`: lower-case, without port and final dot; `None` is any host.
    pub host: Option<String>,
    /// `path`.
    pub prefix: Prefix,
    /// Its place in [`Config::routes`].
    pub place: usize,
    /// `upstream` or `redirect`.
    pub target: Target,
    /// `session`.
    pub session: SessionMode,
    /// `require`.
    pub require: Require,
    /// `groups`: a user must be in one of them; empty for no such rule.
    pub groups: Vec<String>,
    /// `user`.
    pub user: UserClaims,
    /// `plain_headers`.
    pub plain_headers: Vec<PlainHeader>,
    /// `forward`.
    pub forward: Forward,
    /// `writable`, `may`, `unsafe_writable`.
    pub grants: Grants,
    /// `on_anonymous = "login-page"` and its `login_url`; `None` is `"401"`.
    pub login_url: Option<String>,
    /// `on_store_error = "forward"`.
    pub forward_on_store_error: bool,
    /// `cross_site = "allow"`.
    pub allow_cross_site: bool,
    /// `cache = "upstream"`: leave the upstream's caching fields alone.
    pub upstream_cache: bool,
    /// `strip_prefix`.
    pub strip_prefix: Option<Prefix>,
    /// `encoded_slashes`.
    pub encoded_slashes: EncodedSlashes,
    /// `request_headers`.
    pub request_headers: Vec<FieldChange>,
    /// `response_headers`.
    pub response_headers: Vec<FieldChange>,
    /// `rate`.
    pub rates: Vec<Rate>,
    /// `limits` with what holds otherwise filled in.
    pub limits: RouteLimits,
    /// `upgrades`: the protocols for which a request may leave HTTP; lower-case.
    pub upgrades: Vec<String>,
    /// `recheck` and `recheck_grace`.
    pub recheck: Recheck,
    /// `timeouts` with the upstream's and this route's own filled in.
    pub timeouts: Timeouts,
}

/// Who serves a route.
#[derive(Clone, Debug)]
pub enum Target {
    /// `upstream`: an index into [`Config::upstreams`].
    Upstream(usize),
    /// `redirect`: nobody here.
    Redirect(Redirect),
}

/// How it is looked whether those who have a stream open may still have it.
#[derive(Clone, Copy, Debug)]
pub struct Recheck {
    /// `recheck`: how often; `None` is `"off"`.
    pub every: Option<Duration>,
    /// Whether the file says so; then every answer is looked after, and whatever the route needs.
    pub is_explicit: bool,
    /// `recheck_grace`: how long a stream goes on while the database does not answer.
    pub grace: Duration,
}

/// `session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMode {
    /// Resolve it and hand it on, signed.
    Read,
    /// No lookup; a token that says so.
    Off,
    /// For Django itself: cookies go through unchanged, no token.
    Pass,
}

/// `require`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// Everybody.
    Anyone,
    /// A known session, logged in or not.
    Session,
    /// A logged-in user.
    Login,
    /// A logged-in user with `is_staff`.
    Staff,
    /// A logged-in user with `is_superuser`.
    Superuser,
}

/// `user`: what an upstream is told of the logged-in user.
#[derive(Clone, Debug, Default)]
pub struct UserClaims {
    /// Columns of the user table.
    pub columns: Vec<String>,
    /// The names of the user's groups.
    pub groups: bool,
}

/// One of `plain_headers`.
#[derive(Clone, Debug)]
pub struct PlainHeader {
    /// Letters, digits and hyphens only.
    pub name: HeaderName,
    /// What it says.
    pub source: PlainSource,
}

/// What a plain header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainSource {
    /// `"sub"`: the user's primary key.
    Sub,
    /// `"sid"`.
    Sid,
    /// `"user.COLUMN"`.
    User(String),
    /// `"session.NAME"`, a name that the route forwards.
    Session(String),
}

impl Route {
    /// Its name in metrics and in the access log: host and path, as in `shop.example/orders/` or `/`.
    pub fn name(&self) -> String {
        let (host, path) = (self.host.as_deref().unwrap_or_default(), &self.prefix);
        let end = if path.is_root() { "" } else { "/" };
        format!("{host}{path}{end}")
    }

    /// Whether serving this route takes more of the user than that there is one.
    pub fn reads_user(&self) -> bool {
        self.require.column().is_some()
            || self.reads_groups()
            || !self.user.columns.is_empty()
            || self.plain_columns().next().is_some()
    }

    /// The columns of the user table that `plain_headers` name.
    fn plain_columns(&self) -> impl Iterator<Item = &String> {
        let sources = self.plain_headers.iter().map(|header| &header.source);
        sources.filter_map(|source| match source {
            PlainSource::User(column) => Some(column),
            _ => None,
        })
    }

    fn reads_groups(&self) -> bool {
        self.user.groups || !self.groups.is_empty()
    }
}

impl Require {
    /// The column of the user table that must be true.
    pub fn column(self) -> Option<&'static str> {
        match self {
            Self::Anyone | Self::Session | Self::Login => None,
            Self::Staff => Some("is_staff"),
            Self::Superuser => Some("is_superuser"),
        }
    }
}

impl Config {
    /// The columns of the user table that some route needs, each once, sorted.
    pub fn user_columns(&self) -> Vec<String> {
        let required = self
            .routes
            .iter()
            .filter_map(|route| route.require.column());
        let told = self.routes.iter().flat_map(|route| &route.user.columns);
        let plain = self.routes.iter().flat_map(Route::plain_columns);
        let told = told.chain(plain).cloned();
        let mut columns: Vec<String> = required.map(str::to_owned).chain(told).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The names of all plain headers, each once.
    pub fn plain_header_names(&self) -> Vec<HeaderName> {
        let headers = self.routes.iter().flat_map(|route| &route.plain_headers);
        let mut names: Vec<HeaderName> = headers.map(|header| header.name.clone()).collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names
    }

    /// Whether some route needs the user's groups.
    pub fn reads_groups(&self) -> bool {
        self.routes.iter().any(Route::reads_groups)
    }
}

/// `forward`: which of the session's names the upstream gets.
#[derive(Clone, Debug)]
pub enum Forward {
    /// `"*"`: all but the protected names.
    AllButProtected,
    /// These.
    Only(Vec<String>),
}

/// What an upstream may change on a route.
#[derive(Clone, Debug)]
pub struct Grants {
    /// `writable` and `unsafe_writable`.
    pub writable: Writable,
    /// `may` has `"cycle"`.
    pub cycle: bool,
    /// `may` has `"flush"`.
    pub flush: bool,
    /// `may` has `"expiry"`.
    pub expiry: bool,
}

/// Which names may be set and deleted.
#[derive(Clone, Debug)]
pub enum Writable {
    /// `"*"`: all but the protected names, and these of `unsafe_writable`.
    AllButProtected(Vec<String>),
    /// These (with `unsafe_writable` among them).
    Only(Vec<String>),
}

impl Grants {
    /// Whether a change that is granted can need a new row: a first `set`, or a new key.
    pub fn may_insert(&self) -> bool {
        !matches!(&self.writable, Writable::Only(names) if names.is_empty()) || self.cycle
    }

    /// Whether the route grants nothing at all.
    pub fn is_empty(&self) -> bool {
        let Writable::Only(names) = &self.writable else {
            return false;
        };
        names.is_empty() && !self.cycle && !self.flush && !self.expiry
    }
}
