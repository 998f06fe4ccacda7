//! The configurations of docs/fronts.md, as they stand there: real nginx and HAProxy before the gateway, and behind it.

mod server;
mod told;
mod traffic;

use std::process::Command;

use serde_json::json;

use self::server::{Front, Kind};
use crate::support::{
    Answer, Certificate, Database, Django, Engine, Gateway, Release, Reply, Seen, Served as _,
    Upstream, docs, free_address,
    gateway::{Setup, ended},
    reply,
};

const PAGE: &str = "fronts.md";

/// A front, the gateway behind it, and behind that a Django site with the users alice and bob, and a service.
struct Scene {
    front: Front,
    gateway: Gateway,
    _django: Django,
    app: Upstream,
    certificate: Certificate,
    alice: String,
}

impl Scene {
    fn start(kind: Kind) -> Self {
        Self::with(kind, &[], |setup| setup)
    }

    /// With other words in the front's configuration, and more in the gateway's.
    fn with(kind: Kind, words: &[(&str, &str)], more: impl Fn(Setup) -> Setup) -> Self {
        let database = Database::empty(Engine::Sqlite);
        let django = Django::start_with(Release::V52, &database, &settings());
        let app = Upstream::with(serve);
        let certificate = Certificate::new(&["shop.example"]);
        let setup = Gateway::over(&database)
            .listener(&kind.listener(&certificate))
            .line("gateway", &trusted())
            .line("django", "release = '5.2'")
            .line("django.cookie", "secure = true")
            .django("django", &django)
            .upstream("app", &app)
            .route("path = '/'\nupstream = 'django'\nsession = 'pass'")
            .route("path = '/app/'\nupstream = 'app'\nwritable = '*'")
            .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'");
        let gateway = more(setup).owning(database).start();
        let front = Front::start(kind, &gateway, &certificate, words);
        let mut scene = Self {
            front,
            gateway,
            _django: django,
            app,
            certificate,
            alice: String::new(),
        };
        let login = scene.curl("/login/?username=alice&password=alice", &["-X", "POST"]);
        scene.alice = login.is_upstreams(200).new_session().unwrap();
        scene
    }

    /// Asks through the front, with TLS, from 127.0.0.2.
    fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        self.front.curl(&self.certificate, path, arguments)
    }

    /// The same as alice.
    fn alice(&self, path: &str, arguments: &[&str]) -> Answer {
        let cookie = format!("sessionid={}", self.alice);
        self.curl(path, &[&["-b", cookie.as_str()], arguments].concat())
    }

    /// The site's origin.
    fn origin(&self) -> String {
        format!("https://{}", self.front.host())
    }
}

/// The line of the page.
fn trusted() -> String {
    let block = docs::block(PAGE, "The rules", "toml");
    let line = block
        .lines()
        .find(|line| line.starts_with("trusted_proxies"));
    line.unwrap().to_owned()
}

/// The site's settings as the page has them, and what sends visitors without TLS away.
fn settings() -> serde_json::Value {
    let python = docs::block(PAGE, "Django behind the gateway", "python");
    let script = "import json, sys\nnames = {}\nexec(sys.argv[1], names)\n\
                  print(json.dumps({name: value for name, value in names.items() if name.isupper()}))";
    let output = ended(Command::new(Release::V52.python()).args(["-c", script, &python]));
    let mut settings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(settings["SESSION_COOKIE_SECURE"], json!(true));
    settings["SECURE_SSL_REDIRECT"] = json!(true);
    settings["MIDDLEWARE"] = json!([
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]);
    settings
}

/// What the service answers.
fn serve(seen: &Seen) -> Reply {
    match seen.target.as_str() {
        "/app/count" => reply(200).set(r#"{"set":{"count":1}}"#).body("counted"),
        "/app/broken" => reply(503).body("the service's own"),
        _ => reply(200).body(seen.body.clone()),
    }
}

#[test]
fn the_configuration_for_routes_does_what_the_page_says() {
    let database = Database::sqlite();
    let app = Upstream::with(|_| reply(200).field("Server", "told"));
    let key = database.login(json!({}));
    let routes = docs::block(PAGE, "Fields, redirects, time limits of a route", "toml");
    let gateway = Gateway::over(&database)
        .upstream("orders", &app)
        .documented(&routes)
        .start();
    let year = Some("max-age=31536000");
    let ask = |host: &str, path: &str| gateway.get(path).host(host).session(&key).send();
    for (host, path, location) in [
        (
            "www.shop.example",
            "/a/b?c=d",
            "https://shop.example/a/b?c=d",
        ),
        (
            "shop.example",
            "/bestellungen/7?c",
            "https://shop.example/orders/7?c",
        ),
    ] {
        let answer = ask(host, path);
        assert_eq!(
            (answer.status, answer.field("location")),
            (308, Some(location))
        );
        assert_eq!(answer.field("strict-transport-security"), year);
    }
    for path in ["/orders/7", "/orders/report/2026"] {
        let answer = ask("shop.example", path);
        assert_eq!(
            answer.is_upstreams(200).field("strict-transport-security"),
            year
        );
        assert_eq!(answer.field("server"), None);
        // Also what the gateway says itself.
        let refused = gateway.get(path).host("shop.example").send();
        assert_eq!(
            (refused.status, refused.field("strict-transport-security")),
            (401, year)
        );
    }
}

#[test]
fn nginx_behind_the_gateway_knows_the_client_and_takes_a_large_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.txt"), "a page").unwrap();
    let address = free_address();
    let block = docs::block(PAGE, "nginx behind the gateway", "nginx");
    let block = docs::put(&block, "127.0.0.1:8002", &address.to_string());
    let block = docs::put(&block, "/srv/www", folder.path().to_str().unwrap());
    let block = docs::put(
        &block,
        "    location / {",
        "    location /who { return 200 \"$remote_addr\"; }\n    location / {",
    );
    let _nginx = server::nginx(&folder, &block, address);
    let database = Database::sqlite();
    let gateway = Gateway::over(&database)
        .line("gateway", "trusted_proxies = ['127.0.0.1']")
        .line("upstream.files", &format!("servers = ['{address}']"))
        .line("upstream.files", "max_header_bytes = 12000")
        .line(
            "upstream.files",
            "keys = [{ kid = 'files-1', secret = { env = 'FILES_KEY' } }]",
        )
        .env("FILES_KEY", &crate::support::token::secret("files"))
        .route("path = '/'\nupstream = 'files'\nrequire = 'login'")
        .start();
    let key = database.login(json!({"much": "x".repeat(8000)}));
    let get = |path: &str| {
        let ask = gateway.get(path).session(&key);
        ask.field("X-Forwarded-For", "203.0.113.9").send()
    };
    assert_eq!(get("/page.txt").is_upstreams(200).text(), "a page");
    assert_eq!(get("/who").is_upstreams(200).text(), "203.0.113.9");
    gateway
        .get("/page.txt")
        .send()
        .is_error(401, "login-required");
}
