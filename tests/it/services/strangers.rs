//! Whose requests a package refuses, in each framework: everything that did not come through the gateway.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Framework, Service, setup};
use crate::support::{
    Answer, Ask, Database, Django, Engine, Gateway, Release, Served as _, Upstream, eventually,
    gateway::Setup, reply, token,
};

#[test]
fn starlette_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Starlette);
}

#[test]
fn fastapi_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::FastApi);
}

#[test]
fn aiohttp_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Aiohttp);
}

#[test]
fn flask_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Flask);
}

#[test]
fn node_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Node);
}

#[test]
fn express_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Express);
}

#[test]
fn fastify_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Fastify);
}

#[test]
fn go_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Go);
}

#[test]
fn axum_refuses_what_did_not_come_through_the_gateway() {
    refuses(Framework::Axum);
}

#[test]
fn each_language_checks_tokens_by_published_keys() {
    let frameworks = [
        Framework::Flask,
        Framework::Node,
        Framework::Go,
        Framework::Axum,
    ];
    for framework in frameworks {
        let database = Database::empty(Engine::Sqlite);
        let django = Django::start(Release::V52, &database);
        let signer =
            setup(&database, &django, &Service::start(framework)).signing("gateway-1", [7; 32]);
        // The key is published by whoever has it.
        let public = signer.clone().eddsa_upstream("app", &django).start();
        let jwks = public.health().get("/.well-known/jwks.json").send().json();
        let keys = json!({"gateway-1": jwks["keys"][0]["x"]});
        let service = Service::knowing(framework, "XSESSION_PUBLIC_KEYS", &keys);
        let gateway = signer.eddsa_upstream("app", &service).start();
        let answer = gateway.get("/session").send();
        assert_eq!(
            answer.status,
            200,
            "{framework:?}: {}",
            service.process.output()
        );
        assert_eq!(answer.json()["session"], json!({}));
    }
}

fn refuses(framework: Framework) {
    let service = &Service::start(framework);
    let tokens = Tokens::new();
    let get = || service.get("/session");

    // What is asked of the service itself, such as a check of its health, needs none.
    assert_eq!(service.get("/healthz").send().text(), "ok");
    refused(service, &get(), "missing");
    refused(service, &get().field("X-Session", "nonsense"), "malformed");
    let good = tokens.of("app", "GET", "/session");
    let twice = get().field("X-Session", &good).field("X-Session", &good);
    let answer = twice.send();
    assert_eq!(answer.status, 401, "{}", answer.text());
    refused(
        service,
        &get().field("X-Session", &tokens.of("other", "GET", "/session")),
        "kid",
    );
    refused(
        service,
        &get().field("X-Session", &tokens.of("foreign", "GET", "/session")),
        "audience",
    );
    refused(
        service,
        &get().field("X-Session", &tokens.of("stranger", "GET", "/session")),
        "issuer",
    );
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let turned = match signature.as_bytes()[0] {
        b'A' => "B",
        _ => "A",
    };
    let forged = format!("{signed}.{turned}{}", &signature[1..]);
    refused(service, &get().field("X-Session", &forged), "signature");

    // A token that somebody has seen is good for reading ...
    let answer = get().field("X-Session", &good).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // ... and for the very request that it was made for.
    let post = |path: &str, token: &str| service.post(path).field("X-Session", token).body("1");
    let token = tokens.of("app", "POST", "/set/a%3Ab?c=d%20e");
    let answer = post("/set/a%3Ab?c=d%20e", &token).send();
    assert_ne!(
        answer.status,
        401,
        "{}\n{}",
        answer.text(),
        service.process.output()
    );
    for path in ["/set/a%3Ab?c=d", "/set/other?c=d%20e", "/set/a:b?c=d%20e"] {
        refused(service, &post(path, &token), "request");
    }
    refused(
        service,
        &post("/set/a%3Ab?c=d%20e", &token).host("evil.test"),
        "request",
    );
}

/// A 401 that tells strangers nothing, and a line in the log that says why.
#[track_caller]
fn refused(service: &Service, ask: &Ask, why: &str) -> Answer {
    let before = service.process.output().len();
    let answer = ask.send();
    assert_eq!(answer.status, 401, "{why}: {}", answer.text());
    eventually("the log says why", || {
        let log = service.process.output();
        log.get(before..)?
            .to_lowercase()
            .contains(why)
            .then_some(())
    });
    answer
}

/// Gateways whose services tell which tokens they get.
struct Tokens {
    gateways: BTreeMap<&'static str, (Upstream, Gateway)>,
}

impl Tokens {
    fn new() -> Self {
        let spy = || {
            Upstream::with(|seen| {
                let token = seen.field("x-session").unwrap_or_default();
                reply(200).field("X-Token", token)
            })
        };
        let alone = |lines: &dyn Fn(Setup, &Upstream) -> Setup| {
            let spy = spy();
            let database = Database::sqlite();
            let setup = lines(Gateway::over(&database), &spy);
            (spy, setup.owning(database).start())
        };
        let of = |name: &'static str| {
            let route = format!("path = '/'\nupstream = '{name}'");
            alone(&move |setup, spy| setup.upstream(name, spy).route(&route))
        };
        // With the secret of "app", but for another service.
        let foreign = alone(&|setup, spy| {
            let (kid, secret) = (token::kid("app"), token::secret("app"));
            let keys = format!("keys = [{{ kid = '{kid}', secret = {{ env = 'APP_KEY' }} }}]");
            let lines = format!("servers = ['{}']\n{keys}", spy.address());
            setup
                .line("upstream.foreign", &lines)
                .env("APP_KEY", &secret)
                .route("path = '/'\nupstream = 'foreign'")
        });
        // Of another gateway that has the same key.
        let stranger = alone(&|setup, spy| {
            setup
                .replace("gateway", "issuer = 'https://elsewhere.test'")
                .upstream("app", spy)
                .route("path = '/'\nupstream = 'app'")
        });
        Self {
            gateways: BTreeMap::from([
                ("app", of("app")),
                ("other", of("other")),
                ("foreign", foreign),
                ("stranger", stranger),
            ]),
        }
    }

    /// A token of this gateway for a request.
    fn of(&self, gateway: &str, method: &str, target: &str) -> String {
        let (_, gateway) = &self.gateways[gateway];
        let answer = gateway.ask(method, target).body("").send();
        answer.field("x-token").unwrap().to_owned()
    }
}
