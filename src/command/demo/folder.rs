//! The demo's folder: the database, the secrets and `gateway.toml`. What is there already is kept.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tempfile::TempDir;

use super::Ports;
use crate::{
    config::{Config, LoadOptions},
    sample::make_database,
};

const DATABASE: &str = "db.sqlite3";
const SECRET_KEY: &str = "secret_key";
const SHOP_KEY: &str = "shop_key";
const CONFIG: &str = "gateway.toml";
const COOKIES: &str = "cookies.txt";

/// A folder of the visitor's, or a temporary one that is removed with this value.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Folder {
    /// Makes the folder if it is not there yet.
    pub(super) fn open(data: Option<&Path>) -> Result<Self, String> {
        let Some(data) = data else {
            let made = tempfile::Builder::new()
                .prefix("session-gateway-demo-")
                .tempdir();
            let temporary =
                made.map_err(|error| format!("no temporary folder can be made: {error}"))?;
            return Ok(Self {
                path: temporary.path().to_owned(),
                temporary: Some(temporary),
            });
        };
        // The commands that are printed must work from any folder.
        let path = std::path::absolute(data).and_then(|path| make_folder(&path).map(|()| path));
        let path =
            path.map_err(|error| format!("the folder {} cannot be made: {error}", data.display()))?;
        Ok(Self {
            path,
            temporary: None,
        })
    }

    /// The database file.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where the printed commands keep their cookies.
    pub(super) fn cookie_jar(&self) -> PathBuf {
        self.path.join(COOKIES)
    }

    /// The configuration, where it stays.
    pub(super) fn kept_config(&self) -> Option<PathBuf> {
        self.temporary.is_none().then(|| self.path.join(CONFIG))
    }

    /// What is left when the demo has ended.
    pub(super) fn farewell(&self) -> String {
        match &self.temporary {
            Some(_) => "Ended; nothing is left behind.\n".to_owned(),
            None => format!(
                "Ended; the database and {CONFIG} are in {}.\n",
                self.path.display()
            ),
        }
    }

    /// Makes the secrets and the database that are not there yet.
    pub(super) async fn fill(&self) -> Result<(), String> {
        for name in [SECRET_KEY, SHOP_KEY] {
            let path = self.path.join(name);
            make_secret(&path)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        }
        let database = self.database();
        if database.exists() {
            return Ok(());
        }
        // Under another name first: a demo that is ended here must not leave half a database.
        let unfinished = self.path.join("db.sqlite3.new");
        let made = make_database(&unfinished).await;
        made.and_then(|()| fs::rename(&unfinished, &database))
            .map_err(|error| {
                format!(
                    "the database {} cannot be made: {error}",
                    database.display()
                )
            })
    }

    /// The configuration with these ports. It is written down too, but not over one that is there.
    pub(super) fn configure(&self, ports: Ports) -> Result<Config, String> {
        let (path, text) = (self.path.join(CONFIG), template(ports));
        if !path.exists() {
            fs::write(&path, &text)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        }
        let environment = |_: &str| None;
        match Config::parse(&text, &path, &environment, LoadOptions::default()) {
            Ok(loaded) => Ok(loaded.config),
            // The text is sound, so it is about one of the files beside it.
            Err(problems) => Err(problems
                .iter()
                .map(|problem| problem.sentence.as_str())
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }
}

/// Nobody else may look in: who reads a session key is that visitor.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a new secret of 256 bits, for the owner's eyes only, unless there is one.
fn make_secret(path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => writeln!(file, "{}", STANDARD.encode(bytes)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn template(ports: Ports) -> String {
    let Ports {
        gateway,
        health,
        shop,
        site,
    } = ports;
    format!(
        r#"# Written by `session-gateway demo`, and good for `session-gateway run`: put your own service and
# your own Django where the demo's were. `session-gateway check` tells what is wrong with it.

[[listener]]
address = "127.0.0.1:{gateway}"

[health]                            # /healthz and /readyz
address = "127.0.0.1:{health}"

[gateway]
issuer = "http://127.0.0.1:{gateway}"

[django]
database = "sqlite:{DATABASE}"     # DATABASES in settings.py
secret_key = {{ file = "{SECRET_KEY}" }}
release = "5.2"

[django.cookie]                     # SESSION_COOKIE_* in settings.py; these are Django's defaults
name = "sessionid"
age = "14d"
secure = false
samesite = "Lax"

[upstream.shop]                     # the service that reads X-Session
servers = ["127.0.0.1:{shop}"]
keys = [{{ kid = "demo-1", secret = {{ file = "{SHOP_KEY}" }} }}]

[upstream.site]                     # Django itself
servers = ["127.0.0.1:{site}"]
django = true

[[route]]
path = "/"
upstream = "shop"
writable = ["count", "cart"]        # the names that the shop may set and delete
may = ["cycle", "flush", "expiry"]

[[route]]
path = "/members/"
upstream = "shop"
require = "login"                   # others are sent to /accounts/login/

[[route]]
path = "/accounts/"
upstream = "site"
session = "pass"                    # Django reads its cookie itself
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports {
        gateway: 8080,
        health: 9080,
        shop: 3001,
        site: 8000,
    };

    #[tokio::test]
    async fn what_is_there_is_kept_and_the_configuration_has_no_remarks() {
        let parent = TempDir::new().unwrap();
        let path = parent.path().join("new").join("demo");
        let read = |name: &str| fs::read(path.join(name)).unwrap();
        let folder = Folder::open(Some(&path)).unwrap();
        folder.fill().await.unwrap();
        folder.configure(PORTS).unwrap();
        let before = [SECRET_KEY, SHOP_KEY, DATABASE, CONFIG].map(read);

        let folder = Folder::open(Some(&path)).unwrap();
        folder.fill().await.unwrap();
        let config = folder
            .configure(Ports {
                gateway: 8081,
                ..PORTS
            })
            .unwrap();
        assert_eq!([SECRET_KEY, SHOP_KEY, DATABASE, CONFIG].map(read), before);
        assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8081");

        let loaded = Config::load(&path.join(CONFIG), &|_| None, LoadOptions::default()).unwrap();
        assert_eq!(loaded.remarks, []);
        assert_eq!(
            loaded.config.listeners[0].address.to_string(),
            "127.0.0.1:8080"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_may_read_the_secrets() {
        use std::os::unix::fs::PermissionsExt;

        let parent = TempDir::new().unwrap();
        let path = parent.path().join("demo");
        let folder = Folder::open(Some(&path)).unwrap();
        folder.fill().await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in [SECRET_KEY, SHOP_KEY, DATABASE] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        assert_ne!(
            fs::read(path.join(SECRET_KEY)).unwrap(),
            fs::read(path.join(SHOP_KEY)).unwrap()
        );
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_one_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sentence = Folder::open(Some(&file.path().join("demo"))).unwrap_err();
        assert!(
            sentence.starts_with("the folder /") && !sentence.contains('\n'),
            "{sentence}"
        );
    }
}
