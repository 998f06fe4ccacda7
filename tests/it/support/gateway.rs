//! The gateway itself: the compiled program with a `gateway.toml` of the test's own.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use super::{Database, ISSUER, Process, SECRET_KEY, Served, eventually, schema, token};

/// A running gateway.
pub struct Gateway {
    address: SocketAddr,
    health: Health,
    pub process: Process,
    folder: TempDir,
    _database: Option<Arc<Database>>,
}

/// Its health address.
pub struct Health(SocketAddr);

impl Gateway {
    /// A gateway over this database: add upstreams and routes, then start it.
    pub fn over(database: &Database) -> Setup {
        Setup::new(database.url())
    }

    /// A gateway over this database with one upstream `app` for all paths, which may do everything.
    pub fn before(database: &Database, app: &impl Served) -> Setup {
        Self::over(database).upstream("app", app).route(
            "path = '/'
             upstream = 'app'
             writable = '*'
             may = ['cycle', 'flush', 'expiry']",
        )
    }

    /// The same with an empty database of its own.
    pub fn alone(app: &impl Served) -> Setup {
        let database = Database::sqlite();
        let setup = Self::before(&database, app);
        Setup {
            database: Some(Arc::new(database)),
            ..setup
        }
    }

    /// Starts what is configured in a folder, with an address for health, and waits until it listens.
    pub fn start_with(folder: TempDir, mut command: Command) -> Self {
        let file = folder.path().join("gateway.toml");
        let process = Process::start(command.arg("--config").arg(file));
        let address = process.address_after("listening on ");
        let health = Health(process.address_after("health on "));
        Self {
            address,
            health,
            process,
            folder,
            _database: None,
        }
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// Writes its configuration anew, sends SIGHUP and waits for what becomes of it: whether it is in force.
    pub fn reload(&self, setup: &Setup) -> bool {
        setup.write(self.folder.path());
        self.hang_up()
    }

    /// Sends SIGHUP and waits for what becomes of it: whether the file is in force.
    pub fn hang_up(&self) -> bool {
        let (applied, refused) = self.reloads();
        self.process.signal("HUP");
        eventually("the reload is over", || {
            let now = self.reloads();
            (now != (applied, refused)).then_some(now.1 == refused)
        })
    }

    /// How many reloads were applied, and how many refused.
    pub fn reloads(&self) -> (u64, u64) {
        let text = self.health.get("/metrics").send().text();
        let count = |outcome: &str| {
            let start = format!("session_gateway_reloads_total{{outcome=\"{outcome}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap().parse().unwrap()
        };
        (count("done"), count("refused"))
    }

    /// All addresses on which it serves clients, when there are so many.
    pub fn addresses(&self, count: usize) -> Vec<String> {
        eventually("it listens", || {
            let log = self.log();
            let lines = log
                .lines()
                .filter_map(|line| line.split_once("listening on "));
            let found: Vec<String> = lines.map(|(_, address)| address.to_owned()).collect();
            (found.len() == count).then_some(found)
        })
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

impl Served for Gateway {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Served for Health {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

/// A configuration that is being written.
#[derive(Clone)]
pub struct Setup {
    top: String,
    listener: String,
    /// What else is said of listeners.
    listener_lines: String,
    sections: BTreeMap<String, String>,
    routes: Vec<String>,
    /// What stands after all that.
    more: String,
    environment: BTreeMap<String, OsString>,
    arguments: Vec<String>,
    /// Where the database is this configuration's own.
    database: Option<Arc<Database>>,
}

impl Setup {
    /// A configuration for the database at `url`.
    pub fn new(url: &str) -> Self {
        Self {
            top: String::new(),
            listener: "127.0.0.1:0".to_owned(),
            listener_lines: String::new(),
            sections: BTreeMap::new(),
            routes: Vec::new(),
            more: String::new(),
            environment: BTreeMap::new(),
            arguments: Vec::new(),
            database: None,
        }
        .line("health", "address = '127.0.0.1:0'")
        .line("gateway", &format!("issuer = '{ISSUER}'"))
        .line("django", "database = { env = 'DATABASE_URL' }")
        .line("django", "secret_key = { env = 'DJANGO_SECRET_KEY' }")
        .line("django.cookie", "")
        .env("DATABASE_URL", url)
        .env("DJANGO_SECRET_KEY", SECRET_KEY)
    }

    /// Adds a line before all sections.
    pub fn top(mut self, line: &str) -> Self {
        self.top.push_str(&format!("{line}\n"));
        self
    }

    /// Adds a line to a section.
    pub fn line(mut self, section: &str, line: &str) -> Self {
        self.sections
            .entry(section.to_owned())
            .or_default()
            .push_str(&format!("{line}\n"));
        self
    }

    /// Writes a section anew.
    pub fn replace(mut self, section: &str, lines: &str) -> Self {
        self.sections
            .insert(section.to_owned(), format!("{lines}\n"));
        self
    }

    /// Listens here.
    pub fn listen(mut self, address: &str) -> Self {
        self.listener = address.to_owned();
        self
    }

    /// Adds lines to the listener; more `[[listener]]` may follow in them.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener_lines.push_str(&format!("{lines}\n"));
        self
    }

    /// Adds an upstream with a key of its own.
    pub fn upstream(self, name: &str, server: &impl Served) -> Self {
        self.upstream_at(name, server.address())
    }

    pub fn upstream_at(self, name: &str, address: SocketAddr) -> Self {
        let section = format!("upstream.{name}");
        let variable = format!("{}_KEY", name.to_uppercase());
        let key = format!(
            "keys = [{{ kid = '{}', secret = {{ env = '{variable}' }} }}]",
            token::kid(name)
        );
        self.line(&section, &format!("servers = ['{address}']"))
            .line(&section, &key)
            .env(&variable, &token::secret(name))
    }

    /// Adds or replaces an upstream whose tokens `signing` signs.
    pub fn eddsa_upstream(self, name: &str, server: &impl Served) -> Self {
        let lines = format!("servers = ['{}']\nalgorithm = 'EdDSA'", server.address());
        self.replace(&format!("upstream.{name}"), &lines)
    }

    /// Gives the gateway a signing key of its own, made from this seed.
    pub fn signing(self, kid: &str, seed: [u8; 32]) -> Self {
        let key = format!("base64:{}", BASE64_STANDARD.encode(seed));
        let line =
            format!("signing = {{ kid = '{kid}', private_key = {{ env = 'SIGNING_KEY' }} }}");
        self.line("gateway", &line).env("SIGNING_KEY", &key)
    }

    /// Adds the Django site itself.
    pub fn django(self, name: &str, server: &impl Served) -> Self {
        let section = format!("upstream.{name}");
        self.line(&section, &format!("servers = ['{}']", server.address()))
            .line(&section, "django = true")
    }

    /// Keeps this database for as long as the gateway.
    pub fn owning(mut self, database: Database) -> Self {
        self.database = Some(Arc::new(database));
        self
    }

    /// Adds a route.
    pub fn route(mut self, lines: &str) -> Self {
        self.routes.push(lines.to_owned());
        self
    }

    /// Adds upstreams and routes as they stand in the documentation: `secret = { file = "/run/secrets/NAME_key" }` is
    /// the secret of the upstream NAME.
    pub fn documented(mut self, text: &str) -> Self {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{ file = \"/run/secrets/") {
            let (name, after) = after.split_once("_key\" }").unwrap();
            let variable = format!("{}_KEY", name.to_uppercase());
            self.more
                .push_str(&format!("{before}{{ env = \"{variable}\" }}"));
            self = self.env(&variable, &token::secret(name));
            rest = after;
        }
        self.more.push_str(&format!("{rest}\n"));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a variable from the environment.
    pub fn no_env(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    pub fn secret_key(self, secret_key: &str) -> Self {
        self.env("DJANGO_SECRET_KEY", secret_key)
    }

    /// Adds an argument of `run`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The text of `gateway.toml`.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}\n[[listener]]\naddress = '{}'\n{}",
            self.top, self.listener, self.listener_lines
        );
        for (name, lines) in &self.sections {
            text.push_str(&format!("\n[{name}]\n{lines}"));
        }
        for route in &self.routes {
            text.push_str(&format!("\n[[route]]\n{route}\n"));
        }
        text + &self.more
    }

    /// Starts the gateway and waits until it listens.
    pub fn start(&self) -> Gateway {
        // Where the program takes it an editor has nothing to say.
        if std::env::var_os("SG_TEST_CLIENTS").is_some() {
            assert_eq!(schema::problem(&self.text()), None, "{}", self.text());
        }
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        let mut command = self.command("run");
        command.args(&self.arguments);
        Gateway {
            _database: self.database.clone(),
            ..Gateway::start_with(folder, command)
        }
    }

    /// Runs the gateway where it is expected to end by itself.
    pub fn fails(&self) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let file = self.write(folder.path());
        ended(
            self.command("run")
                .arg("--config")
                .arg(file)
                .args(&self.arguments),
        )
    }

    /// Writes the configuration into a folder.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let file = folder.join("gateway.toml");
        std::fs::write(&file, self.text()).unwrap();
        file
    }

    /// The program with this configuration's environment.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = program();
        command.arg(subcommand).envs(&self.environment);
        command
    }
}

/// The compiled program, or the one that `SG_TEST_GATEWAY` names.
pub fn program() -> Command {
    let named = std::env::var_os("SG_TEST_GATEWAY");
    Command::new(named.unwrap_or_else(|| env!("CARGO_BIN_EXE_session-gateway").into()))
}

/// Runs a command that ends by itself within the tests' patience.
pub fn ended(command: &mut Command) -> Output {
    let (done, output) = std::sync::mpsc::channel();
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
    };
    let stdout = read(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = read(child.stderr.take().map(|stream| Box::new(stream) as _));
    std::thread::spawn(move || done.send(child.wait().unwrap()));
    let status = output.recv_timeout(super::PATIENCE).unwrap_or_else(|_| {
        super::process::signal(id, "KILL");
        panic!("{command:?} does not end")
    });
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}
