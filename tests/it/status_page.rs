//! The status page: for this machine only, nothing breaks out of it, and a real browser shows it live.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::{
    Ask, Database, Gateway, Served as _, Upstream, eventually, from_tests_run,
    gateway::{Setup, ended},
    reply,
};

/// A gateway with a status page, and a visitor.
struct Watched {
    gateway: Gateway,
    app: Upstream,
    key: String,
    page: std::net::SocketAddr,
    _database: Database,
}

impl Watched {
    fn start(more: impl FnOnce(Setup) -> Setup) -> Self {
        let database = Database::sqlite();
        let key = database.login(json!({}));
        let app = Upstream::start();
        let setup = Gateway::before(&database, &app).line("admin", "address = '127.0.0.1:0'");
        let gateway =
            more(setup.route(
                "host = 'shop.test'\npath = '/orders/'\nupstream = 'app'\nrequire = 'login'",
            ))
            .start();
        let page = gateway.process.address_after("status page on ");
        Self {
            gateway,
            app,
            key,
            page,
            _database: database,
        }
    }

    fn ask(&self, target: &str) -> Ask {
        Ask::new(self.page, "GET", target).host(&self.page.to_string())
    }

    /// The texts that change, in the order of the page.
    fn texts(&self) -> Vec<String> {
        let now = self.ask("/status.json").send().json();
        let mut texts: Vec<(usize, String)> = now["texts"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(id, text)| (id[1..].parse().unwrap(), text.as_str().unwrap().to_owned()))
            .collect();
        texts.sort();
        texts.into_iter().map(|(_, text)| text).collect()
    }
}

#[test]
fn the_page_tells_what_there_is_and_how_it_is() {
    let watched = Watched::start(|setup| setup);
    watched
        .gateway
        .get("/orders/7")
        .session(&watched.key)
        .send()
        .is_upstreams(200);
    let answer = watched.ask("/").send();
    assert_eq!(answer.status, 200);
    let text = answer.text().replace("<wbr>", "");
    for told in [
        "all is well",
        "shop.test/orders/",
        "a login",
        "no route",
        &watched.app.address().to_string(),
        "asked",
        "there",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    for changing in watched.texts() {
        assert!(!changing.contains(&watched.key));
    }
    watched.app.answers(reply(500));
    watched
        .gateway
        .get("/orders/7")
        .session(&watched.key)
        .send();
    eventually("the rate of failures", || {
        let now = watched.ask("/status.json").send().json();
        let lines = now["paths"].as_object().unwrap().values();
        lines
            .map(|line| line.as_str().unwrap())
            .any(|line| line.contains(" 1.5"))
            .then_some(())
    });
}

#[test]
fn the_page_says_what_is_wrong() {
    let database = Database::sqlite();
    let file = database.file().to_owned();
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .line("admin", "address = '127.0.0.1:0'")
        .start();
    let page = gateway.process.address_after("status page on ");
    let ask = || Ask::new(page, "GET", "/").host("localhost").send().text();
    assert!(ask().contains("all is well"));
    let key = crate::support::database::random_key();
    std::fs::remove_file(file).unwrap();
    for _ in 0..4 {
        gateway.get("/").session(&key).send();
    }
    let text = ask();
    assert!(
        text.contains("the session database is away") && text.contains("dot bad"),
        "{text}"
    );
    assert!(text.contains("there is no SQLite file"), "{text}");
}

#[test]
fn the_page_is_for_names_of_this_machine_and_asks_its_browser_for_caution() {
    let watched = Watched::start(|setup| setup);
    for host in ["evil.test", "shop.test", "10.0.0.1", "localhost.evil.test"] {
        for target in ["/", "/status.json"] {
            let answer = Ask::new(watched.page, "GET", target).host(host).send();
            assert_eq!(answer.status, 421, "{host}");
            assert!(!answer.text().contains("orders"));
        }
    }
    for host in ["localhost", "localhost:1", "127.0.0.1", "[::1]:9901"] {
        let answer = Ask::new(watched.page, "GET", "/").host(host).send();
        assert_eq!(answer.status, 200, "{host}");
        let policy = answer.field("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'sha256-",
            "style-src 'sha256-",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"));
        assert_eq!(answer.field("x-frame-options"), Some("DENY"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    }
    let post = Ask::new(watched.page, "POST", "/").host("localhost").send();
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD")));
    assert_eq!(watched.ask("/metrics").send().status, 404);
    // Not where clients are, nor where probes are.
    watched.gateway.get("/status.json").send().is_upstreams(200);
    assert_eq!(
        watched.gateway.health().get("/status.json").send().status,
        404
    );
}

#[test]
fn a_status_page_that_others_could_reach_is_a_mistake() {
    let app = Upstream::start();
    for address in ["0.0.0.0:9901", "[::]:9901", "10.0.0.1:9901"] {
        let output = Gateway::alone(&app)
            .line("admin", &format!("address = '{address}'"))
            .fails();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("is not on this machine's loopback"), "{said}");
    }
}

#[test]
fn the_page_may_be_behind_a_unix_socket() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("admin", &format!("address = 'unix:{}'", path.display()))
        .start();
    gateway.process.wait_for("status page on unix:");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.contains("session-gateway"),
        "{text}"
    );
}

/// A hostile name, as far as the configuration takes it.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";

#[test]
fn hostile_names_stay_text() {
    let watched = hostile();
    let text = watched.ask("/").send().text();
    assert!(
        text.contains("&lt;img src=x onerror=document.title=&#39;owned&#39;&gt;"),
        "{text}"
    );
    assert!(!text.contains("<img"), "{text}");
}

fn hostile() -> Watched {
    Watched::start(|setup| {
        setup
            .line(
                "upstream.evil",
                &format!("servers = [\"unix:/tmp/{HOSTILE}.sock\"]"),
            )
            .route("path = '/evil'\nupstream = 'evil'\nsession = 'off'")
    })
}

/// Runs Chromium, and gives what it has written.
fn chromium(page: &str, more: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(from_tests_run("SG_TEST_CHROMIUM"));
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ])
        .args([
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
        ])
        .args([
            "--enable-logging=stderr",
            "--log-level=0",
            "--virtual-time-budget=9000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .arg(page);
    let output = ended(&mut command);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn chromium_shows_the_page_live_and_runs_nothing_else() {
    let watched = hostile();
    for _ in 0..3 {
        watched
            .gateway
            .get("/orders/7")
            .session(&watched.key)
            .send()
            .is_upstreams(200);
    }
    let (dom, said) = chromium(&format!("http://{}/", watched.page), &["--dump-dom"]);
    let dom = dom.replace("<wbr>", "");
    // Its script has run and was answered.
    assert!(
        dom.contains("<span id=\"note\">live</span>"),
        "{dom}\n{said}"
    );
    assert!(!dom.contains("class=\"stale\""), "{dom}");
    assert!(dom.contains("<title>session-gateway</title>"), "{dom}");
    assert!(
        dom.contains("shop.test/orders/") && dom.contains("&lt;img src=x"),
        "{dom}"
    );
    assert!(!dom.contains("<img"), "{dom}");
    for refused in ["Content Security Policy", "Refused to", "Uncaught"] {
        assert!(!said.contains(refused), "{said}");
    }
}

#[test]
fn chromium_draws_it_in_light_in_dark_and_on_a_phone() {
    let watched = Watched::start(|setup| setup);
    for _ in 0..20 {
        watched
            .gateway
            .get("/orders/7")
            .session(&watched.key)
            .send()
            .is_upstreams(200);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/status-page");
    std::fs::create_dir_all(&folder).unwrap();
    let draw = |name: &str, size: &str, scheme: &str| -> PathBuf {
        let file = folder.join(format!("{name}.png"));
        let _ = std::fs::remove_file(&file);
        let screenshot = format!("--screenshot={}", file.display());
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let page = format!("http://{}/", watched.page);
        let (_, said) = chromium(
            &page,
            &[&screenshot, &format!("--window-size={size}"), &scheme],
        );
        assert!(file.exists(), "{said}");
        file
    };
    let [light, dark, phone] = [
        draw("light", "1280,1500", "1"),
        draw("dark", "1280,1500", "0"),
        draw("phone", "390,2400", "1"),
    ]
    .map(|file| std::fs::read(file).unwrap());
    for image in [&light, &dark, &phone] {
        assert!(image.starts_with(b"\x89PNG") && image.len() > 20_000);
    }
    assert_ne!(light, dark);
}
