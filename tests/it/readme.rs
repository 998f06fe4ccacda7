//! The README's snippets, run as they stand: its configuration, its services in Python and Node, and the commands for a
//! site of one's own. Only ports are other ones, so that nothing else is in the way.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Database, Django, Engine, Gateway, Process, Release, SECRET_KEY, Served as _, eventually,
    free_address, from_tests_run,
    gateway::{ended, program},
};

const README: &str = include_str!("../../README.md");

/// The block of code in a language that contains a text.
fn block(language: &str, text: &str) -> String {
    let start = format!("```{language}\n");
    let blocks = README.split(&start).skip(1);
    let mut blocks = blocks.filter_map(|block| Some(block.split_once("```")?.0));
    let found = blocks.find(|block| block.contains(text));
    found
        .unwrap_or_else(|| panic!("no {language} with {text:?}"))
        .to_owned()
}

/// The README's site: a folder with its secrets and its gateway.toml, a Django, and the gateway.
struct Site {
    database: Database,
    django: Django,
    gateway: Gateway,
    service: Process,
}

impl Site {
    /// With this service, which is started in the folder and listens where it is told.
    fn start(service: impl Fn(&Path, SocketAddr) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        std::fs::create_dir(&secrets).unwrap();
        std::fs::write(secrets.join("django_secret_key"), SECRET_KEY).unwrap();
        let lines = block("sh", "session_gateway_config");
        let line = lines.lines().find(|line| line.contains("key new")).unwrap();
        let words = line.split('#').next().unwrap().split_whitespace();
        let made = ended(program().args(words.skip(1)).current_dir(folder.path()));
        assert!(made.status.success(), "{made:?}");
        let database = Database::empty(Engine::Sqlite);
        let django = Django::start(Release::V52, &database);
        let address = free_address();
        let service = Process::start(&mut service(folder.path(), address));
        eventually("the service listens", || {
            TcpStream::connect(address).ok().map(|_| ())
        });
        let text = block("toml", "[upstream.orders]");
        for known in ["127.0.0.1:3001", "127.0.0.1:8000"] {
            assert!(text.contains(known), "{known}");
        }
        let text = text
            .replace("127.0.0.1:3001", &address.to_string())
            .replace("127.0.0.1:8000", &django.address().to_string());
        let ports = "[[listener]]\naddress = '127.0.0.1:0'\n[health]\naddress = '127.0.0.1:0'\n";
        let file = folder.path().join("gateway.toml");
        std::fs::write(file, format!("{text}\n{ports}")).unwrap();
        let mut command = program();
        command.arg("run").env("DATABASE_URL", database.url());
        let gateway = Gateway::start_with(folder, command);
        Self {
            database,
            django,
            gateway,
            service,
        }
    }

    /// What the README says that it does.
    fn walk(&self) {
        let page = self
            .gateway
            .get("/orders/")
            .field("Sec-Fetch-Mode", "navigate");
        let answer = page.send();
        assert_eq!(answer.status, 302);
        let login = answer.field("location").unwrap();
        assert!(login.starts_with("/accounts/login/?next="), "{login}");

        let answer = self
            .gateway
            .post("/login/?username=alice&password=alice")
            .send();
        let key = answer.new_session().unwrap();
        let orders = || self.gateway.get("/orders/").session(&key).send();
        let answer = orders();
        assert_eq!(answer.status, 200, "{}", self.service.output());
        assert_eq!(answer.json(), json!({"user": "1", "cart": []}));
        for (item, cart) in [("book", json!(["book"])), ("cup", json!(["book", "cup"]))] {
            let add = self.gateway.post(&format!("/orders/add/{item}"));
            let answer = add.session(&key).send();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json(), cart);
            assert_eq!(orders().json()["cart"], cart);
            assert_eq!(self.django.session(&key)["cart"], cart);
        }
        assert!(self.database.data(&key).is_some());
    }
}

#[test]
fn the_readmes_configuration_and_python_service_work_as_they_stand() {
    let service = |folder: &Path, address: SocketAddr| {
        std::fs::write(folder.join("orders.py"), block("python", "FastAPI")).unwrap();
        assert!(README.contains("`uvicorn orders:app --port 3001`"));
        let mut command = Command::new(from_tests_run("SG_TEST_UPSTREAMS_PYTHON"));
        command
            .args(["-m", "uvicorn", "orders:app", "--port"])
            .arg(address.port().to_string())
            .current_dir(folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env(
                "PYTHONPATH",
                concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/src"),
            );
        command
    };
    Site::start(service).walk();
}

#[test]
fn the_readmes_configuration_and_node_service_work_as_they_stand() {
    let service = |folder: &Path, address: SocketAddr| {
        let modules = folder.join("node_modules");
        std::fs::create_dir(&modules).unwrap();
        let package = from_tests_run("SG_TEST_UPSTREAMS_NODE");
        symlink(&package, modules.join("session-gateway-upstream")).unwrap();
        let express = Path::new(&package).join("node_modules/express");
        symlink(express, modules.join("express")).unwrap();
        let text = block("js", "express()");
        assert!(text.contains("listen(3001,"));
        let text = text.replace("listen(3001,", &format!("listen({},", address.port()));
        std::fs::write(folder.join("orders.mjs"), text).unwrap();
        assert!(README.contains("`node orders.mjs`"));
        let mut command = Command::new("node");
        command.arg("orders.mjs").current_dir(folder);
        command
    };
    Site::start(service).walk();
}

/// A folder with programs, for a PATH.
fn programs(of: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, path) in of {
        // A virtual environment is known by the path that its Python is called by.
        let script = format!("#!/bin/sh\nexec '{path}' \"$@\"\n");
        let file = folder.path().join(name);
        std::fs::write(&file, script).unwrap();
        let mut mode = std::fs::metadata(&file).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&file, mode).unwrap();
    }
    folder
}

#[test]
fn the_readmes_commands_for_a_site_of_ones_own_lead_to_a_gateway_that_runs() {
    let doctor = block("sh", "session-gateway doctor");
    let (doctor, run) = doctor.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(run, "session-gateway run");
    let before = block("sh", "session_gateway_config") + doctor;
    let database = Database::empty(Engine::Sqlite);
    let django = Django::start(Release::V52, &database);
    let site = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/django");
    let gateway = program().get_program().to_string_lossy().into_owned();
    let python = Release::V52.python();
    let path = programs(&[("python", &python), ("session-gateway", &gateway)]);
    let folder = tempfile::tempdir().unwrap();
    symlink(
        Path::new(site).join("manage.py"),
        folder.path().join("manage.py"),
    )
    .unwrap();
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = before
        .replace("127.0.0.1:8000", &django.address().to_string())
        .replace("127.0.0.1:3001", &service.local_addr().unwrap().to_string());
    let environment = |command: &mut Command| {
        let old = std::env::var("PATH").unwrap();
        let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/django/src");
        let installed = json!({
            "INSTALLED_APPS": [
                "django.contrib.contenttypes",
                "django.contrib.auth",
                "django.contrib.sessions",
                "session_gateway_django",
            ],
            "ALLOWED_HOSTS": ["shop.example"],
        });
        command
            .env("PATH", format!("{}:{old}", path.path().display()))
            .env("PYTHONPATH", format!("{site}:{packages}"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("SITE_DATABASE", database.url())
            .env("SITE_SECRET_KEY", SECRET_KEY)
            .env("SITE_SETTINGS", installed.to_string())
            .env("DATABASE_URL", database.url())
            .env("DJANGO_SECRET_KEY", SECRET_KEY)
            .current_dir(folder.path());
    };
    let mut shell = Command::new("sh");
    environment(shell.args(["-e", "-c", &before]));
    let output = ended(&mut shell);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let file = folder.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("127.0.0.1:8080"), "{text}");
    let text = text.replace("127.0.0.1:8080", "127.0.0.1:0");
    std::fs::write(&file, text).unwrap();
    let mut run = Command::new("sh");
    environment(run.args([
        "-e",
        "-c",
        &format!("exec {run}", run = "session-gateway run"),
    ]));
    let running = Process::start(&mut run);
    let address = running.address_after("listening on ");
    let login = crate::support::Ask::new(address, "POST", "/login/?username=alice&password=alice");
    assert!(login.host("shop.example").send().new_session().is_some());
}
