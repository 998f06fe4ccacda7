//! Sites whose sessions are in a table of their own: the packages django-user-sessions and django-qsessions, with
//! the tables that their migrations make, and tables with names that need quotes.

use serde_json::{Value, json};

use crate::support::{
    Database, Django, Engine, Gateway, Release, Served as _, Upstream, gateway::Setup, reply,
};

/// A package with a session engine.
struct Package {
    app: &'static str,
    table: &'static str,
    /// The column that only Django fills.
    filled: &'static str,
}

const USER_SESSIONS: Package = Package {
    app: "user_sessions",
    table: "user_sessions_session",
    filled: "last_activity",
};

const QSESSIONS: Package = Package {
    app: "qsessions",
    table: "qsessions_session",
    filled: "updated_at",
};

#[test]
fn rows_of_django_user_sessions_are_read_and_changed_but_not_created() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::MariaDb] {
        walk(&Site::start(&USER_SESSIONS, engine));
    }
}

#[test]
fn rows_of_django_qsessions_are_read_and_changed_but_not_created() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::MariaDb] {
        walk(&Site::start(&QSESSIONS, engine));
    }
}

fn walk(site: &Site) {
    what_django_writes_is_read(site);
    what_the_upstream_changes_django_reads(site);
    what_needs_a_new_row_is_refused_and_changes_nothing(site);
    a_logout_counts_on_both_sides(site);
    the_start_says_what_will_be_refused(site);
}

fn what_django_writes_is_read(site: &Site) {
    let key = site.log_in();
    assert_eq!(site.claims(&key)["sub"], "1");
    site.django.post("/set/?cart=[1,2]").session(&key).send();
    assert_eq!(site.claims(&key)["session"], json!({"cart": [1, 2]}));
    site.django.post("/del/?cart").session(&key).send();
    assert_eq!(site.claims(&key)["session"], json!({}));
    let nobody = site.claims("0123456789abcdefghijklmnopqrstuv");
    assert_eq!(nobody.get("sid"), None::<&Value>);
}

fn what_the_upstream_changes_django_reads(site: &Site) {
    let key = site.log_in();
    site.django.post("/set/?note=1&kept=1").session(&key).send();
    let others = format!(
        "SELECT coalesce(CAST(user_id AS text), '-') || coalesce(user_agent, '-') ||
            coalesce(CAST(ip AS text), '-') || CAST({} AS text)
         FROM {} WHERE session_key = '{key}'",
        site.package.filled, site.package.table
    );
    let before = site.database.query(&others);
    for (change, cookie) in [
        (
            r#"{"set":{"cart":["a"]},"del":["note"]}"#,
            "; Max-Age=1209600;",
        ),
        (r#"{"expiry":3600}"#, "; Max-Age=3600;"),
    ] {
        site.app.answers(reply(200).set(change));
        let answer = site.gateway.get("/").session(&key).send();
        assert!(
            answer
                .is_upstreams(200)
                .set_cookie()
                .unwrap()
                .contains(cookie),
            "{change}"
        );
    }
    site.app.answers(reply(200));
    assert_eq!(
        site.database.query(&others),
        before,
        "columns of others are left alone"
    );
    let session = site.django.session(&key);
    assert_eq!(
        (&session["cart"], &session["kept"]),
        (&json!(["a"]), &json!(1))
    );
    assert_eq!(session.get("note"), None);
    assert_eq!(site.django.user(&key).as_deref(), Some("1"));
}

fn what_needs_a_new_row_is_refused_and_changes_nothing(site: &Site) {
    let key = site.log_in();
    let rows = site.rows();
    for (session, change) in [
        (None, r#"{"set":{"cart":1}}"#),
        (Some(&key), r#"{"cycle":true}"#),
        (Some(&key), r#"{"cycle":true,"set":{"cart":1}}"#),
        (Some(&key), r#"{"flush":true,"set":{"cart":1}}"#),
    ] {
        site.app.answers(reply(200).set(change).body("dropped"));
        let ask = site
            .gateway
            .get("/")
            .maybe_session(session.map(String::as_str));
        let answer = ask.send();
        answer.is_error(500, "session-not-saved");
        assert_eq!(
            (answer.set_cookie(), answer.field("retry-after")),
            (None, None),
            "{change}"
        );
        assert_eq!(site.rows(), rows, "{change}");
    }
    site.app.answers(reply(200));
    assert_eq!(site.django.user(&key).as_deref(), Some("1"));
    let log = site
        .gateway
        .process
        .wait_for("a session change was not stored");
    let Package { table, filled, .. } = site.package;
    assert!(log.contains(table) && log.contains(filled), "{log}");
    assert!(
        log.contains("let Django create them, or give these columns a default"),
        "{log}"
    );
}

fn a_logout_counts_on_both_sides(site: &Site) {
    let key = site.log_in();
    site.django
        .post("/logout/")
        .session(&key)
        .send()
        .is_upstreams(200);
    assert_eq!(site.claims(&key).get("sid"), None::<&Value>);

    let key = site.log_in();
    site.app.answers(reply(200).set(r#"{"flush":true}"#));
    let answer = site.gateway.get("/").session(&key).send();
    assert!(
        answer
            .is_upstreams(200)
            .set_cookie()
            .unwrap()
            .contains("Max-Age=0")
    );
    site.app.answers(reply(200));
    assert_eq!(site.django.user(&key), None);

    let key = site.log_in();
    site.django
        .post("/user/password/?username=alice&password=alice")
        .send();
    assert_eq!(site.claims(&key).get("sid"), None::<&Value>);
}

fn the_start_says_what_will_be_refused(site: &Site) {
    let warning = "routes grant changes that will be refused";
    let log = site.gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(warning)).collect();
    let [line] = lines[..] else { panic!("{log}") };
    let Package { table, filled, .. } = site.package;
    assert!(line.contains(table) && line.contains(filled), "{line}");
    let harmless = site.setup("may = ['flush', 'expiry']").start();
    harmless.get("/").send().is_upstreams(200);
    assert!(!harmless.log().contains(warning), "{}", harmless.log());

    if site.database.engine() == Engine::Postgres {
        // What the advice comes to.
        site.database.execute(&format!(
            "ALTER TABLE {table} ALTER COLUMN {filled} SET DEFAULT now()"
        ));
        let mended = site.setup("writable = ['cart']").start();
        site.app.answers(reply(200).set(r#"{"set":{"cart":1}}"#));
        let answer = mended.get("/").send();
        let key = answer.is_upstreams(200).new_session().expect("a session");
        assert_eq!(site.django.session(&key)["cart"], 1);
        assert!(!mended.log().contains(warning), "{}", mended.log());
    }
}

/// A Django with the package, an upstream, and a gateway before it that may do everything.
struct Site {
    package: &'static Package,
    database: Database,
    django: Django,
    app: Upstream,
    gateway: Gateway,
}

impl Site {
    fn start(package: &'static Package, engine: Engine) -> Self {
        let database = Database::empty(engine);
        let app = package.app;
        let settings = json!({
            "INSTALLED_APPS": ["django.contrib.auth", "django.contrib.contenttypes", app, "shop"],
            "MIDDLEWARE": [
                format!("{app}.middleware.SessionMiddleware"),
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ],
            "SESSION_ENGINE": format!("{app}.backends.db"),
        });
        let django = Django::start_with(Release::V52, &database, &settings);
        let app = Upstream::start();
        let gateway = setup(
            package,
            &database,
            &app,
            "writable = '*'\nmay = ['cycle', 'flush', 'expiry']",
        );
        Self {
            package,
            gateway: gateway.start(),
            database,
            django,
            app,
        }
    }

    fn setup(&self, grants: &str) -> Setup {
        setup(self.package, &self.database, &self.app, grants)
    }

    fn log_in(&self) -> String {
        let login = self
            .django
            .post("/login/?username=alice&password=alice")
            .send();
        login.new_session().expect("a session")
    }

    fn claims(&self, key: &str) -> Value {
        self.gateway.get("/").session(key).send().is_upstreams(200);
        self.app.last().claims()
    }

    fn rows(&self) -> Vec<String> {
        let table = self.package.table;
        self.database.query(&format!(
            "SELECT session_key || session_data FROM {table} ORDER BY 1"
        ))
    }
}

fn setup(package: &Package, database: &Database, app: &Upstream, grants: &str) -> Setup {
    Gateway::over(database)
        .line("django", "release = '5.2'")
        .line("django", &format!("table = '{}'", package.table))
        .upstream("app", app)
        .route(&format!("path = '/'\nupstream = 'app'\n{grants}"))
}

#[test]
fn a_table_is_found_by_the_name_that_the_database_has() {
    let database = Database::postgres();
    database.execute(
        r#"CREATE SCHEMA "Shop";
           CREATE TABLE "Shop"."My_Sessions" (LIKE django_session INCLUDING ALL);
           CREATE TABLE "order" (LIKE django_session INCLUDING ALL);"#,
    );
    let app = Upstream::with(|_| reply(200).set(r#"{"set":{"a":1}}"#));
    let setup = |table: &str| {
        Gateway::before(&database, &app).line("django", &format!("table = '{table}'"))
    };
    for (table, quoted) in [
        ("Shop.My_Sessions", r#""Shop"."My_Sessions""#),
        ("order", r#""order""#),
    ] {
        let gateway = setup(table).start();
        let key = gateway.get("/").send().new_session().expect("a session");
        gateway.get("/").session(&key).send().is_upstreams(200);
        assert_eq!(app.last().claims()["session"], json!({"a": 1}));
        assert_eq!(
            database.query(&format!("SELECT session_key FROM {quoted}")),
            [key]
        );
    }
    assert!(database.keys().is_empty());
    for missing in ["shop.my_sessions", "Shop.my_sessions", "My_Sessions"] {
        let output = setup(missing).fails();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(
            printed.contains(&format!("there is no table {missing}")),
            "{printed}"
        );
    }
}
