//! examples/shop, as its README says: one command starts Django, four services and the gateway, and a visitor
//! with a browser finds one session in all of them.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{Ask, Process, from_tests_run, gateway::ended, process::signal};

const SERVICES: [&str; 4] = ["starlette", "aiohttp", "express", "go"];

#[test]
fn a_visitor_finds_one_session_in_django_and_four_services_and_changes_it_in_each() {
    let mut shop = Shop::start();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let walk = repository.join("tests/clients/shop.py");
    let pictures = repository.join("target/shop/pictures");
    let visitor = Process::start(
        Command::new(from_tests_run("SG_TEST_CLIENTS"))
            .arg(walk)
            .arg(from_tests_run("SG_TEST_CHROMIUM"))
            .arg(format!("http://{}", shop.address))
            .arg(pictures),
    );
    for step in [
        "logged in",
        "changed in Django",
        "changed in Starlette",
        "changed in aiohttp",
        "changed in Express",
        "changed in Go",
        "pictures taken",
        "emptied everywhere",
        "nothing changed by others",
        "logged out of Django",
        "logged out of Starlette",
        "logged out of aiohttp",
        "logged out of Express",
        "logged out of Go",
    ] {
        visitor.wait_for(step);
    }
    shop.process.signal("INT");
    assert_eq!(shop.process.wait().code(), Some(0), "Ctrl-C is no error");
    shop.nothing_is_left();
}

#[test]
fn a_service_asked_past_the_gateway_refuses() {
    let shop = Shop::start();
    for service in SERVICES {
        let target = format!("/{service}/");
        for method in ["GET", "POST"] {
            let answer = Ask::new(shop.servers[service], method, &target).send();
            assert_eq!(answer.status, 401, "{method} {target}: {}", answer.text());
        }
        let refused = fs::read_to_string(shop.log(service)).unwrap();
        assert!(refused.to_lowercase().contains("x-session"), "{refused}");
    }
}

#[test]
fn a_post_that_is_no_form_changes_nothing() {
    let shop = Shop::start();
    for service in SERVICES {
        let target = format!("/{service}/");
        let answer = Ask::new(shop.address, "POST", &target)
            .host(&shop.address.to_string())
            .send();
        assert_eq!(answer.status, 303, "{target}: {}", answer.text());
    }
}

#[test]
fn only_its_user_can_read_keys_and_sessions() {
    let shop = Shop::start();
    let mut files = vec![shop.data.path().join("db.sqlite3")];
    for name in SERVICES.into_iter().chain(["django"]) {
        files.push(shop.data.path().join("keys").join(name));
    }
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn when_one_ends_everything_ends_and_it_is_said_which() {
    let mut shop = Shop::start();
    signal(shop.process_of("express"), "KILL");
    assert_eq!(shop.process.wait().code(), Some(1));
    shop.process
        .wait_for("express ended by SIGKILL, so everything ends");
    shop.nothing_is_left();
}

#[test]
fn a_machine_with_python_alone_has_the_shop_without_what_it_cannot_run() {
    let only_python = programs(&["sh", "dirname", "python3"]);
    let shop = Shop::start_with(
        run()
            .args(["--gateway", env!("CARGO_BIN_EXE_session-gateway")])
            .env("PATH", only_python.path()),
    );
    shop.process
        .wait_for("express is left out: node is missing: apt install nodejs");
    shop.process
        .wait_for("go is left out: go is missing: apt install golang-go");
    for (target, status, text) in [
        ("/", 200, "This page comes from"),
        ("/starlette/", 200, "This page comes from"),
        ("/aiohttp/", 200, "This page comes from"),
        ("/express/", 503, "node is missing"),
        ("/go/", 503, "go is missing"),
    ] {
        let answer = Ask::new(shop.address, "GET", target)
            .host(&shop.address.to_string())
            .send();
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(answer.text().contains(text), "{target}: {}", answer.text());
    }
}

#[test]
fn the_gateway_is_built_from_this_source() {
    // A cargo that leaves in its folder what the test's own has built already.
    let path = programs(&[
        "sh", "dirname", "python3", "ln", "mkdir", "node", "npm", "go",
    ]);
    let target = tempfile::tempdir().unwrap();
    let cargo = path.path().join("cargo");
    let program = env!("CARGO_BIN_EXE_session-gateway");
    let script = format!(
        "#!/bin/sh\necho cargo $*\nmkdir $CARGO_TARGET_DIR/release\n\
         ln -s {program} $CARGO_TARGET_DIR/release/session-gateway\n"
    );
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, Permissions::from_mode(0o755)).unwrap();
    let shop = Shop::start_with(
        run()
            .env("PATH", path.path())
            .env("CARGO_TARGET_DIR", target.path()),
    );
    shop.process.wait_for("cargo build --release --locked");
    let answer = Ask::new(shop.address, "GET", "/")
        .host(&shop.address.to_string())
        .send();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn what_the_shop_cannot_do_without_is_said_in_a_sentence() {
    let nothing = programs(&["sh", "dirname"]);
    let output = ended(run().env("PATH", nothing.path()));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "examples/shop/run: python3 is missing: apt install python3 python3-venv\n"
    );
    let no_cargo = programs(&["sh", "dirname", "python3"]);
    let folder = tempfile::tempdir().unwrap();
    let output = ended(
        run()
            .env("PATH", no_cargo.path())
            .arg("--folder")
            .arg(folder.path()),
    );
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("examples/shop/run: cargo is missing: ") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_gateway_that_is_not_there_is_said_before_anything_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let output = ended(
        run()
            .args(["--gateway", "target/none/session-gateway", "--folder"])
            .arg(folder.path()),
    );
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "examples/shop/run: there is no program target/none/session-gateway\n"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_others_have_made_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python");
    fs::create_dir(&python).unwrap();
    fs::write(python.join("keep.txt"), "kept").unwrap();
    let output = ended(
        run()
            .args(["--prepare", "--gateway", "none", "--folder"])
            .arg(folder.path()),
    );
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("/python is there and was not made by this program"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(python.join("keep.txt")).unwrap(), "kept");
}

#[test]
fn addresses_that_are_not_the_shops_stay_in_its_configuration() {
    let script = "import sys; sys.path.insert(0, 'examples/shop'); import run; \
        print(run.with_ports('\"127.0.0.1:8081\" \"127.0.0.1:8080\"', {'gateway': 1}))";
    let output = ended(
        Command::new("python3")
            .args(["-B", "-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "\"127.0.0.1:8081\" \"127.0.0.1:1\"\n"
    );
}

/// The running example. Everything that it has started ends with it.
struct Shop {
    process: Process,
    /// The gateway's.
    address: SocketAddr,
    /// Django's and the services' own.
    servers: BTreeMap<String, SocketAddr>,
    data: TempDir,
}

impl Shop {
    /// Starts it before this test's gateway.
    fn start() -> Self {
        // By a path that is right only where the command is given.
        let program = Path::new(env!("CARGO_BIN_EXE_session-gateway"));
        Self::start_with(
            run()
                .args(["--gateway", "./session-gateway"])
                .current_dir(program.parent().unwrap()),
        )
    }

    /// Starts it on free ports with a folder of its own for what changes.
    fn start_with(command: &mut Command) -> Self {
        // It chooses its ports some time before its servers have them: two at once could choose the same.
        static STARTING: Mutex<()> = Mutex::new(());
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let data = tempfile::tempdir().unwrap();
        command
            .args(["--port", "0", "--folder"])
            .arg(from_tests_run("SG_TEST_SHOP"))
            .arg("--data")
            .arg(data.path());
        let process = Process::start(command);
        let address = process.address_after("open http://");
        drop(starting);
        let config = fs::read_to_string(data.path().join("gateway.toml")).unwrap();
        Self {
            process,
            address,
            servers: servers(&config),
            data,
        }
    }

    fn log(&self, service: &str) -> PathBuf {
        self.data.path().join(format!("logs/{service}.log"))
    }

    /// The process that serves as this service.
    fn process_of(&self, service: &str) -> u32 {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let child = children.split_whitespace().find(|child| {
            let command = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap();
            command.contains(&format!("/shop/{service}/"))
        });
        child.unwrap().parse().unwrap()
    }

    fn nothing_is_left(&self) {
        for address in self.servers.values().chain([&self.address]) {
            assert!(
                TcpStream::connect(address).is_err(),
                "{address} still listens"
            );
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["gateway", "django"].into_iter().chain(SERVICES) {
                let log = fs::read_to_string(self.log(name)).unwrap_or_default();
                eprintln!("--- log of {name} ---\n{log}");
            }
        }
        // Killed at once it could not end what it has started.
        self.process.signal("TERM");
        let command = format!("/proc/{}/cmdline", self.process.id());
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read(&command).is_ok_and(|text| !text.is_empty()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The one command.
fn run() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shop/run"))
}

/// The servers of a gateway.toml, by upstream.
fn servers(config: &str) -> BTreeMap<String, SocketAddr> {
    let config: toml::Table = config.parse().unwrap();
    let upstreams = config["upstream"].as_table().unwrap();
    upstreams
        .iter()
        .map(|(name, upstream)| {
            let server = upstream["servers"][0].as_str().unwrap();
            (name.clone(), server.parse().unwrap())
        })
        .collect()
}

/// A folder for the PATH that has just these programs.
fn programs(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        // Of Python the program itself: what is first on the PATH may be a script that needs others.
        let find = match *name {
            "python3" => "python3 -c 'import os, sys; print(os.path.realpath(sys.executable))'",
            name => &format!("command -v {name}"),
        };
        let found = Command::new("sh").args(["-c", find]).output().unwrap();
        let program = String::from_utf8(found.stdout).unwrap();
        symlink(program.trim(), folder.path().join(name)).unwrap();
    }
    folder
}
