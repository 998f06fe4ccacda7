//! The demo, as a visitor meets it: the printed commands, the page without JavaScript, and what is left
//! afterwards.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::support::{
    Answer, Ask, Process, Upstream, eventually,
    gateway::{ended, program},
};

/// The demo takes well-known ports and writes them down for later: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_printed_commands_work_when_pasted() {
    let _alone = alone();
    let mut demo = Demo::start(None);
    let commands = demo.commands();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for count in 1..=3 {
        paste(&commands[0]);
        let seen: serde_json::Value = serde_json::from_str(&paste(&commands[1])).unwrap();
        assert_eq!(seen["claims"]["session"]["count"], count, "{seen}");
    }
    demo.ends();
    let database = PathBuf::from(demo.process.wait_for("database  "));
    assert!(
        !database.exists() && !database.parent().unwrap().exists(),
        "nothing is left behind"
    );
}

#[test]
fn the_page_works_without_javascript() {
    let _alone = alone();
    let demo = Demo::start(None);
    let mut browser = Browser::new(demo.address);
    let page = browser.open("/");
    assert!(!page.contains("<script"));
    for text in ["Nobody", "It is empty", "Signature checked", "X-Session"] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    assert!(
        browser.open("/members/").contains("Log in"),
        "a members' page sends to the login page"
    );

    browser.open("/");
    assert_eq!(row(&browser.press("Count"), "count").as_deref(), Some("1"));
    assert_eq!(row(&browser.press("Count"), "count").as_deref(), Some("2"));
    assert_eq!(
        row(&browser.press("Put into the cart"), "cart").as_deref(),
        Some("[&quot;apple&quot;]")
    );
    let page = browser.press("Log in as demo");
    assert!(
        page.contains("logged in") && !page.contains("not logged in"),
        "{page}"
    );
    assert_eq!(
        row(&page, "count").as_deref(),
        Some("2"),
        "a login keeps the cart"
    );
    assert!(browser.open("/members/").contains("Log out"));

    browser.open("/");
    let before = browser.cookies["sessionid"].clone();
    let page = browser.press("New key, same data");
    assert_ne!(browser.cookies["sessionid"], before);
    assert_eq!(row(&page, "count").as_deref(), Some("2"));
    let page = browser.press("Delete the cart");
    assert_eq!(
        (row(&page, "cart"), row(&page, "count").as_deref()),
        (None, Some("2"))
    );
    let page = browser.press("Forget everything");
    assert!(
        page.contains("Nobody") && page.contains("It is empty"),
        "{page}"
    );
    assert!(!browser.cookies.contains_key("sessionid"));

    browser.press("Log in as demo");
    let page = browser.press("Log out");
    assert!(page.contains("Nobody"), "{page}");
    assert!(!browser.cookies.contains_key("sessionid"));
}

#[test]
fn ports_that_are_taken_are_passed_over_and_said() {
    let _alone = alone();
    let first = Demo::start(None);
    let mut second = Demo::start(None);
    assert_ne!(first.address, second.address);
    second
        .process
        .wait_for(&format!("is taken; using {}", second.address.port()));
    second.ends();
    assert!(
        paste(&first.commands()[1]).contains("claims"),
        "the first goes on"
    );
}

#[test]
fn what_the_demo_leaves_runs_as_it_is() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("my demo");
    let mut demo = Demo::start(Some(&data));
    let mut browser = Browser::new(demo.address);
    browser.open("/");
    browser.press("Count");
    browser.press("Log in as demo");
    demo.ends();
    assert!(data.join("db.sqlite3").exists());

    let config = data.join("gateway.toml");
    let checked = ended(
        program()
            .arg("check")
            .arg("--strict")
            .arg("--config")
            .arg(&config),
    );
    assert_eq!(
        checked.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );

    // A service of the reader's own stands where the demo's was.
    let shop = Upstream::start_at(server(&config, "shop"));
    let mut gateway = Process::start(program().arg("run").arg("--config").arg(&config));
    assert_eq!(gateway.address_after("listening on "), demo.address);
    assert_eq!(browser.open("/"), "ok");
    let payload = shop
        .last()
        .field("x-session")
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap()
        .to_owned();
    let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["session"]["count"]),
        (&"1".into(), &1.into())
    );
    gateway.signal("INT");
    assert_eq!(gateway.wait().code(), Some(0));

    let again = Demo::start(Some(&data));
    let mut browser = Browser {
        address: again.address,
        ..browser
    };
    assert_eq!(
        row(&browser.open("/"), "count").as_deref(),
        Some("1"),
        "a second demo finds what the first left"
    );
}

/// A running demo.
struct Demo {
    process: Process,
    address: SocketAddr,
}

impl Demo {
    fn start(data: Option<&Path>) -> Self {
        let mut command = program();
        command.arg("demo");
        if let Some(data) = data {
            command.arg("--data").arg(data);
        }
        let process = Process::start(&mut command);
        let address = process.address_after("Demo: http://");
        Self { process, address }
    }

    /// The printed curl commands.
    fn commands(&self) -> Vec<String> {
        // They are the last lines of what is printed at once.
        let lines = || -> Vec<String> {
            let output = self.process.output();
            output
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with("curl "))
                .map(str::to_owned)
                .collect()
        };
        eventually("two curl lines", || {
            Some(lines()).filter(|lines| lines.len() == 2)
        })
    }

    /// Ctrl-C.
    fn ends(&mut self) {
        self.process.signal("INT");
        assert_eq!(self.process.wait().code(), Some(0));
    }
}

/// Runs a line in a shell, as if it were pasted.
fn paste(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The value of a row of the page's table of the session.
fn row(page: &str, name: &str) -> Option<String> {
    let row = page
        .split_once(&format!("<code>{name}</code></th><td><code>"))?
        .1;
    Some(row.split_once("</code>")?.0.to_owned())
}

/// The server of an upstream in a configuration that the demo has written.
fn server(config: &Path, upstream: &str) -> SocketAddr {
    let text = std::fs::read_to_string(config).unwrap();
    let section = text
        .split_once(&format!("[upstream.{upstream}]"))
        .unwrap()
        .1;
    section
        .split_once("servers = [\"")
        .unwrap()
        .1
        .split('"')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// What a browser without JavaScript does: cookies, links, forms, redirects.
struct Browser {
    address: SocketAddr,
    cookies: BTreeMap<String, String>,
    page: String,
}

impl Browser {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            cookies: BTreeMap::new(),
            page: String::new(),
        }
    }

    /// Opens a page.
    fn open(&mut self, target: &str) -> String {
        let answer = self.send(self.ask("GET", target));
        self.arrive(answer)
    }

    /// Presses a button of the page and gives the next page.
    fn press(&mut self, label: &str) -> String {
        let forms: Vec<&str> = self.page.split("<form ").skip(1).collect();
        let form = forms
            .iter()
            .map(|form| form.split("</form>").next().unwrap_or_default());
        let form = form
            .into_iter()
            .find(|form| form.contains(&format!(">{label}</button>")));
        let form = form
            .unwrap_or_else(|| panic!("no button {label:?} in {}", self.page))
            .to_owned();
        assert!(
            form.contains("method=\"post\"") && !form.contains("<button disabled"),
            "{form}"
        );
        let action = attribute(&form, "action").unwrap();
        let fields: Vec<String> = form
            .split("<input ")
            .skip(1)
            .map(|input| {
                let [name, value] =
                    ["name", "value"].map(|name| attribute(input, name).unwrap_or_default());
                format!("{name}={}", value.replace('/', "%2F"))
            })
            .collect();
        let ask = self
            .ask("POST", &action)
            .field("Content-Type", "application/x-www-form-urlencoded")
            .field("Origin", &format!("http://{}", self.address))
            .field("Sec-Fetch-Site", "same-origin")
            .body(fields.join("&"));
        let answer = self.send(ask);
        self.arrive(answer)
    }

    fn ask(&self, method: &str, target: &str) -> Ask {
        let mut ask = Ask::new(self.address, method, target).host(&self.address.to_string());
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            ask = ask.field("Cookie", &cookies.join("; "));
        }
        ask.field("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
    }

    /// Sends it and keeps the cookies.
    fn send(&mut self, ask: Ask) -> Answer {
        let answer = ask.send();
        for cookie in answer.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }

    /// Follows redirects to a page.
    fn arrive(&mut self, mut answer: Answer) -> String {
        while (301..=303).contains(&answer.status) {
            let target = answer.field("location").unwrap().to_owned();
            answer = self.send(self.ask("GET", &target));
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.page = answer.text();
        self.page.clone()
    }
}

/// An attribute of the first tag in `html`.
fn attribute(html: &str, name: &str) -> Option<String> {
    let value = html.split_once(&format!("{name}=\""))?.1;
    Some(value.split('"').next()?.to_owned())
}
