//! Services that are written with the packages of `clients/`, one in each framework: the gateway and a real Django
//! site before them, and the same walk for all.

mod packages;
mod strangers;
mod walk;

use std::{net::SocketAddr, process::Command};

use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Database, Django, Engine, Gateway, ISSUER, Process, Release, Served,
    from_tests_run, gateway::Setup, token,
};

/// A framework for which there is a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framework {
    Starlette,
    FastApi,
    Aiohttp,
    Flask,
    Node,
    Express,
    Fastify,
    Go,
    Axum,
}

impl Framework {
    /// The program of its package that serves what the walk asks for.
    fn command(self) -> Command {
        let root = env!("CARGO_MANIFEST_DIR");
        let with = |program: String, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(root);
            command
        };
        let python = |name| {
            let service = "clients/python/tests/service.py";
            let mut command = with(from_tests_run("SG_TEST_UPSTREAMS_PYTHON"), &[service, name]);
            command
                .env("PYTHONPATH", format!("{root}/clients/python/src"))
                .env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        let node = |name| {
            let folder = from_tests_run("SG_TEST_UPSTREAMS_NODE");
            let service = format!("{folder}/test/service.js");
            with("node".to_owned(), &[&service, name])
        };
        match self {
            Self::Starlette => python("starlette"),
            Self::FastApi => python("fastapi"),
            Self::Aiohttp => python("aiohttp"),
            Self::Flask => python("flask"),
            Self::Node => node("http"),
            Self::Express => node("express"),
            Self::Fastify => node("fastify"),
            Self::Go => with(from_tests_run("SG_TEST_UPSTREAMS_GO"), &[]),
            Self::Axum => with(from_tests_run("SG_TEST_UPSTREAMS_RUST"), &[]),
        }
    }
}

/// A running service.
struct Service {
    address: SocketAddr,
    process: Process,
}

impl Service {
    fn start(framework: Framework) -> Self {
        let keys = json!({token::kid("app"): token::secret("app")});
        Self::knowing(framework, "XSESSION_KEYS", &keys)
    }

    /// It knows these keys only.
    fn knowing(framework: Framework, variable: &str, keys: &Value) -> Self {
        let mut command = framework.command();
        command
            .env(
                "XSESSION_KEYS",
                json!({"unused": token::secret("unused")}).to_string(),
            )
            .env("XSESSION_AUDIENCE", "app")
            .env("XSESSION_ISSUER", ISSUER)
            .env(variable, keys.to_string());
        let process = Process::start(&mut command);
        Self {
            address: process.address_after("listening on "),
            process,
        }
    }
}

impl Served for Service {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A Django site, a service, and the gateway before both.
struct Scene {
    database: Database,
    django: Django,
    service: Service,
    gateway: Gateway,
}

impl Scene {
    fn start(framework: Framework) -> Self {
        let database = Database::empty(Engine::Sqlite);
        let django = Django::start(Release::V52, &database);
        let service = Service::start(framework);
        let gateway = setup(&database, &django, &service).start();
        Self {
            database,
            django,
            service,
            gateway,
        }
    }

    /// Logs alice in at Django, and gives her session key.
    fn login(&self) -> String {
        let answer = self
            .gateway
            .post("/site/login/?username=alice&password=alice")
            .send();
        answer.new_session().unwrap()
    }

    /// A request of hers to the service.
    fn post(&self, key: &str, path: &str, body: &Value) -> Ask {
        self.gateway.post(path).session(key).body(body.to_string())
    }

    /// The same, answered with 200.
    #[track_caller]
    fn done(&self, key: &str, path: &str, body: &Value) -> Answer {
        let answer = self.post(key, path, body).send();
        assert_eq!(
            answer.status,
            200,
            "{path}: {}\n{}",
            answer.text(),
            self.service.process.output()
        );
        answer
    }

    /// What the service sees.
    #[track_caller]
    fn seen(&self, key: Option<&str>) -> Value {
        let answer = self.gateway.get("/session").maybe_session(key).send();
        assert_eq!(
            answer.status,
            200,
            "{}\n{}",
            answer.text(),
            self.service.process.output()
        );
        answer.json()
    }

    /// What Django sees.
    fn django(&self, key: &str) -> Value {
        self.django.session(key)
    }
}

fn setup(database: &Database, django: &Django, service: &Service) -> Setup {
    Gateway::over(database)
        .line("django", "release = '5.2'")
        .django("site", django)
        .upstream("app", service)
        .route("path = '/site/'\nupstream = 'site'\nsession = 'pass'\nstrip_prefix = '/site'")
        .route(
            "path = '/'\nupstream = 'app'\nuser = ['username']\nwritable = '*'\nmay = ['cycle', 'flush', 'expiry']",
        )
}
