//! The recipes of docs/recipes.md, as they stand there: the real software behind the gateway, and a real Django site
//! whose users are known to it by a plain header.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Answer, Ask, Database, Django, Engine, Gateway, Process, Release, Served as _,
    docs::{block, blocks, put},
    eventually, free_address, from_tests_run,
    gateway::ended,
};

const PAGE: &str = "recipes.md";

/// Software of a recipe, running.
struct Software {
    /// The gateway's part of the recipe, with the place where it runs here.
    recipe: String,
    /// The header by which it knows the user.
    header: &'static str,
    /// A request that tells who it thinks is asking, and how.
    method: &'static str,
    path: &'static str,
    who: fn(&Answer) -> Option<String>,
    /// Where it listens, as curl takes it, and what it has there without the gateway.
    direct: Vec<String>,
    _process: Process,
    _folder: TempDir,
}

/// The software behind a gateway, beside a Django site with the users alice and bob.
struct Scene {
    software: Software,
    gateway: Gateway,
    django: Django,
    database: Database,
}

impl Scene {
    fn of(software: Software) -> Self {
        let database = Database::empty(Engine::Sqlite);
        let django = Django::start(Release::V52, &database);
        let gateway = Gateway::over(&database)
            .line("django", "release = '5.2'")
            .django("django", &django)
            .route("path = '/'\nupstream = 'django'\nsession = 'pass'")
            .documented(&software.recipe)
            .start();
        Self {
            software,
            gateway,
            django,
            database,
        }
    }

    /// Logs in with Django, through the gateway.
    fn login(&self, name: &str) -> String {
        let target = format!("/login/?username={name}&password={name}");
        self.gateway.post(&target).send().new_session().unwrap()
    }

    fn ask(&self) -> Ask {
        self.gateway
            .ask(self.software.method, self.software.path)
            .field("Accept", "*/*")
    }

    /// Who it thinks is asking.
    #[track_caller]
    fn who(&self, ask: &Ask) -> Option<String> {
        let answer = ask.send();
        assert_eq!(answer.code(), None, "{}", answer.text());
        (self.software.who)(&answer)
    }

    /// What it answers to somebody who comes past the gateway, with these header fields.
    fn past_the_gateway(&self, fields: &[&str]) -> (String, String) {
        let mut command = Command::new("curl");
        command.args(["-s", "-X", self.software.method, "-w", "\n%{http_code}"]);
        for field in fields {
            command.args(["-H", field]);
        }
        let output = ended(command.args(&self.software.direct));
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }

    /// What every recipe promises.
    fn keeps_its_promises(&self) {
        let (alice, bob) = (self.login("alice"), self.login("bob"));
        let is = |name: &str| Some(name.to_owned());
        assert_eq!(self.who(&self.ask().session(&alice)), is("alice"));
        assert_eq!(self.who(&self.ask().session(&bob)), is("bob"));

        // A client says that it is alice.
        let header = self.software.header;
        for name in [
            header.to_owned(),
            header.to_uppercase().replace('-', "_"),
            header.replace('-', "."),
            "Remote-User".to_owned(),
            "REMOTE_USER".to_owned(),
        ] {
            let ask = || self.ask().field(&name, "alice");
            assert_eq!(self.who(&ask().session(&bob)), is("bob"), "{name}");
            ask().send().is_error(401, "login-required");
        }
        // The header is what counts there: so nobody else may reach it.
        let (_, told) = self.past_the_gateway(&[&format!("{header}: mallory")]);
        assert!(told.contains("mallory"), "{told}");

        // Another name counts at the next request, and one that cannot stand in a header is nobody's.
        let rename = |name: &str| {
            let sql =
                format!("UPDATE auth_user SET username = '{name}' WHERE username LIKE 'bob%'");
            self.database.execute(&sql);
        };
        rename("bob2");
        assert_eq!(self.who(&self.ask().session(&bob)), is("bob2"));
        rename("bob\u{e9}");
        let refused = self.ask().session(&bob).send();
        refused.is_error(502, "bad-plain-header");

        // A logout in Django is one everywhere.
        let out = self.gateway.post("/logout/").session(&alice).send();
        assert_eq!(out.status, 200, "{}", out.text());
        assert_eq!(self.django.user(&alice), None);
        let answer = self.ask().session(&alice).send();
        answer.is_error(401, "login-required");
    }

    /// Another user in the same browser, which still has the cookies that the software has set for the first one.
    fn goes_by_the_header_and_not_by_its_own_cookies(&self, login: &str, cookie: &str) {
        let (alice, bob) = (self.login("alice"), self.login("bob"));
        let answer = self.gateway.get(login).session(&alice).send();
        let cookies = answer.all("set-cookie");
        let own = cookies.iter().find(|set| set.starts_with(cookie));
        let own = own.unwrap_or_else(|| panic!("{cookie} in {cookies:?}"));
        let own = own.split(';').next().unwrap();
        let both = format!("sessionid={bob}; {own}");
        assert_eq!(
            self.who(&self.ask().field("Cookie", &both)),
            Some("bob".to_owned())
        );
    }
}

fn program(name: &str) -> Command {
    let python = PathBuf::from(from_tests_run("SG_TEST_RECIPES"));
    Command::new(python.with_file_name(name))
}

/// Writes a block of the page into a folder.
fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    shown(&path)
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Runs a command line of the page, with the programs of the recipes, in this folder.
fn shell(folder: &TempDir, line: &str) -> Process {
    let python = PathBuf::from(from_tests_run("SG_TEST_RECIPES"));
    let path = format!(
        "{}:{}",
        shown(python.parent().unwrap()),
        std::env::var("PATH").unwrap()
    );
    // The program takes the place of the shell, so that it is the one that is ended.
    let (variables, command) = match line.split_once(' ') {
        Some((variable, rest)) if variable.contains('=') => (variable, rest),
        _ => ("", line),
    };
    Process::start(
        Command::new("sh")
            .args(["-c", &format!("{variables} exec {command}")])
            .current_dir(folder.path())
            .env("PATH", path)
            .env("HOME", folder.path())
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )
}

/// The text between two others.
fn between(text: &str, start: &str, end: &str) -> Option<String> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0.to_owned())
}

fn radicale() -> Software {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let data = shown(&folder.path().join("collections"));
    let settings = block(PAGE, "Radicale", "ini");
    let settings = put(&settings, "127.0.0.1:5232", &address.to_string());
    let settings = put(&settings, "/var/lib/radicale/collections", &data);
    let settings = write(&folder, "config", &settings);
    let process = Process::start(
        program("radicale")
            .args(["--config", &settings])
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    );
    eventually("radicale listens", || TcpStream::connect(address).ok());
    let recipe = block(PAGE, "Radicale", "toml");
    Software {
        recipe: put(&recipe, "127.0.0.1:5232", &address.to_string()),
        header: "X-Remote-User",
        method: "PROPFIND",
        path: "/calendar/",
        who: |answer| {
            let principal = "<current-user-principal><href>/calendar/";
            between(&answer.text(), principal, "/<")
        },
        direct: vec![format!("http://{address}/")],
        _process: process,
        _folder: folder,
    }
}

fn datasette() -> Software {
    let folder = tempfile::tempdir().unwrap();
    let socket = shown(&folder.path().join("http.sock"));
    let plugin = block(PAGE, "Datasette", "python");
    write(&folder, "plugins/who.py", &plugin);
    write(&folder, "metadata.json", &block(PAGE, "Datasette", "json"));
    let empty = "import sqlite3; sqlite3.connect('sales.db').execute('create table orders(id)')";
    let made = ended(program("python").args(["-c", empty]).current_dir(&folder));
    assert!(made.status.success());
    let line = block(PAGE, "Datasette", "sh");
    let line = put(&line, "/run/datasette/http.sock", &socket);
    let process = shell(&folder, &line);
    process.wait_for("Uvicorn running on unix socket");
    let recipe = block(PAGE, "Datasette", "toml");
    Software {
        recipe: put(&recipe, "/run/datasette/http.sock", &socket),
        header: "X-Datasette-User",
        method: "GET",
        path: "/data/-/actor.json",
        who: |answer| answer.json()["actor"]["id"].as_str().map(ToOwned::to_owned),
        direct: by_socket(&socket, "/data/-/actor.json"),
        _process: process,
        _folder: folder,
    }
}

fn by_socket(socket: &str, path: &str) -> Vec<String> {
    let url = format!("http://shop.test{path}");
    vec!["--unix-socket".to_owned(), socket.to_owned(), url]
}

fn trac() -> Software {
    let folder = tempfile::tempdir().unwrap();
    let socket = shown(&folder.path().join("http.sock"));
    let project = shown(&folder.path().join("trac"));
    let made =
        ended(program("trac-admin").args([&project, "initenv", "Shop", "sqlite:db/trac.db"]));
    assert!(made.status.success());
    let site = block(PAGE, "REMOTE_USER", "python") + &block(PAGE, "Trac", "python");
    write(&folder, "trac_site.py", &put(&site, "/srv/trac", &project));
    let line = block(PAGE, "Trac", "sh");
    let process = shell(&folder, &put(&line, "/run/trac/http.sock", &socket));
    process.wait_for("Booting worker");
    let recipe = block(PAGE, "Trac", "toml");
    Software {
        recipe: put(&recipe, "/run/trac/http.sock", &socket),
        header: "X-Gateway-User",
        method: "GET",
        path: "/trac/about",
        who: |answer| {
            let name = "logged in as <span class=\"trac-author-user\">";
            between(&answer.text(), name, "<")
        },
        direct: by_socket(&socket, "/trac/about"),
        _process: process,
        _folder: folder,
    }
}

/// What the page leaves out: the rest of a site, which tells who is logged in.
const WIKI: &str = r#"
import sys

def who(request):
    from django.http import JsonResponse
    user = request.user
    return JsonResponse({
        "user": user.username or None,
        "path": request.path,
        "is_staff": user.is_staff,
        "has_password": bool(user.password) if user.username else None,
    })

def serve():
    import waitress
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    call_command("migrate", verbosity=0)
    server = waitress.create_server(get_wsgi_application(), listen="127.0.0.1:0", threads=4)
    print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()
"#;

const WIKI_SETTINGS: &str = r#"
SECRET_KEY = "of-the-second-site"
ROOT_URLCONF = "wiki_urls"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "wiki.sqlite3"}}
"#;

fn wiki() -> Software {
    let folder = tempfile::tempdir().unwrap();
    let heading = "Another Django site";
    let mut python = blocks(PAGE, heading);
    python.retain(|(language, _)| language == "python");
    let [(_, middleware), (_, settings)] = &python[..] else {
        panic!("{python:?}")
    };
    let log_out = block(PAGE, "Before you begin", "python");
    write(&folder, "wiki.py", &format!("{middleware}{log_out}{WIKI}"));
    write(
        &folder,
        "wiki_settings.py",
        &format!("{settings}{WIKI_SETTINGS}"),
    );
    let urls = "from django.urls import path\nimport wiki\n\
                urlpatterns = [path('', wiki.who), path('out/', wiki.LogOut.as_view(next_page='/'))]\n";
    write(&folder, "wiki_urls.py", urls);
    let process = Process::start(
        Command::new(Release::V52.python())
            .args([
                "-c",
                "import django; django.setup(); import wiki; wiki.serve()",
            ])
            .current_dir(&folder)
            .env("DJANGO_SETTINGS_MODULE", "wiki_settings")
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    );
    let address = process.address_after("listening on ");
    let recipe = block(PAGE, heading, "toml");
    Software {
        recipe: put(&recipe, "127.0.0.1:8002", &address.to_string()),
        header: "X-Gateway-User",
        method: "GET",
        path: "/wiki/",
        who: |answer| answer.json()["user"].as_str().map(ToOwned::to_owned),
        direct: vec![format!("http://{address}/")],
        _process: process,
        _folder: folder,
    }
}

#[test]
fn radicale_knows_django_s_users_and_nobody_else() {
    let scene = Scene::of(radicale());
    let (alice, bob) = (scene.login("alice"), scene.login("bob"));
    let event = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20261123T080000Z\r\n\
                 DTSTART:20261124T080000Z\r\nSUMMARY:Dentist\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    // Each has a collection of his own, under the paths that the visitor sees.
    scene.who(&scene.ask().session(&alice));
    let gateway = &scene.gateway;
    let ask = |method: &str, path: &str, key: &str| {
        gateway
            .ask(method, path)
            .session(key)
            .body(event)
            .send()
            .status
    };
    assert_eq!(ask("MKCALENDAR", "/calendar/alice/private/", &bob), 403);
    let calendar = gateway.ask("MKCALENDAR", "/calendar/alice/private/");
    assert_eq!(calendar.session(&alice).send().status, 201);
    assert_eq!(ask("PUT", "/calendar/alice/private/1.ics", &alice), 201);
    let stored = gateway.get("/calendar/alice/private/1.ics");
    let stored = stored.session(&alice).send();
    assert!(stored.text().contains("Dentist"), "{}", stored.text());
    let foreign = gateway.get("/calendar/alice/private/1.ics");
    assert_eq!(foreign.session(&bob).send().status, 403);

    assert_eq!(scene.past_the_gateway(&[]).0, "403");
    scene.keeps_its_promises();
}

#[test]
fn datasette_knows_django_s_users_and_nobody_else() {
    let scene = Scene::of(datasette());
    let alice = scene.login("alice");
    let page = scene.gateway.get("/data/sales").session(&alice).send();
    assert!(
        page.is_upstreams(200)
            .text()
            .contains("\"/data/sales/orders\"")
    );
    assert_eq!(scene.past_the_gateway(&[]).0, "403");
    scene.keeps_its_promises();
}

#[test]
fn trac_knows_django_s_users_and_nobody_else() {
    let scene = Scene::of(trac());
    let (status, page) = scene.past_the_gateway(&[]);
    assert!(status == "200" && !page.contains("logged in as"), "{page}");
    // What a client sends in a header of this name is another variable.
    let (_, page) = scene.past_the_gateway(&["REMOTE_USER: alice", "Remote-User: alice"]);
    assert!(!page.contains("logged in as"), "{page}");
    scene.goes_by_the_header_and_not_by_its_own_cookies("/trac/login", "trac_auth");
    scene.keeps_its_promises();
}

#[test]
fn another_django_site_knows_the_first_ones_users_and_nobody_else() {
    let scene = Scene::of(wiki());
    let (status, page) = scene.past_the_gateway(&[]);
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!((status.as_str(), &page["user"]), ("200", &json!(null)));
    let alice = scene.login("alice");
    let page = scene.ask().session(&alice).send().json();
    assert_eq!(
        page,
        json!({"user": "alice", "path": "/wiki/", "is_staff": false, "has_password": false})
    );
    // What makes a browser forget the cookies of software that goes by them.
    let token = "x".repeat(32);
    let cookies = format!("sessionid={alice}; wiki_csrftoken={token}");
    let out = scene.gateway.post("/wiki/out/").field("Cookie", &cookies);
    let out = out.field("X-CSRFToken", &token).send();
    assert_eq!(
        (out.status, out.field("clear-site-data")),
        (302, Some("\"cookies\""))
    );
    scene.goes_by_the_header_and_not_by_its_own_cookies("/wiki/", "wiki_sessionid");
    scene.keeps_its_promises();
}

#[test]
fn every_recipe_is_a_configuration_that_is_accepted() {
    let database = Database::sqlite();
    for heading in [
        "Radicale",
        "Datasette",
        "Trac",
        "Another Django site",
        "JupyterHub",
        "pgAdmin",
        "Grafana",
        "Gitea and Forgejo",
    ] {
        let setup = Gateway::over(&database).documented(&block(PAGE, heading, "toml"));
        let folder = tempfile::tempdir().unwrap();
        let file = setup.write(folder.path());
        let output = ended(setup.command("check").arg("--config").arg(file));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{heading}: {said}");
    }
}
