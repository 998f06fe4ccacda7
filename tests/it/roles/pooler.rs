//! `pooler = "transaction"`: through a real PgBouncer that gives each transaction another server, every answer is
//! the answer to its own question.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use serde_json::{Value, json};

use super::tells_user;
use crate::support::{
    Connection, Database, Gateway, PgBouncer, PostgresServer, Served as _, Upstream,
    database::random_key, eventually, gateway::Setup, reply, rows,
};

/// Lookups and patches in [`a_hundred_thousand_requests_are_never_mixed_up`].
const REQUESTS: usize = 100_000;

/// Clients that ask at the same time.
const CLIENTS: usize = 32;

/// Sessions of each client.
const SESSIONS: usize = 8;

/// Connections of the pooler to the server, for twenty of the gateways'.
const SERVERS: usize = 3;

/// What a pooler says that takes a connection with parameters and drops them.
const IGNORES_OPTIONS: &str = "ignore_startup_parameters = extra_float_digits,options";

#[test]
fn a_hundred_thousand_requests_are_never_mixed_up() {
    let site = Database::postgres();
    add_users(&site, CLIENTS * SESSIONS);
    let pooler = PgBouncer::before(&site, SERVERS);
    let app = Upstream::forgetful(|seen| {
        let claims = seen.claims();
        let answer = json!([
            claims["sub"],
            claims["session"]["owner"],
            claims["session"]["number"]
        ]);
        let answer = reply(200).body(answer.to_string());
        match str::from_utf8(&seen.body).unwrap() {
            "" => answer,
            change => answer.set(change),
        }
    });
    let setup =
        pooled(Gateway::before(&pooler.to(&site), &app)).argument("--log-level=info,access=off");
    let gateways = [setup.start(), setup.start()];

    let [patches, cycles, clients] = [(); 3].map(|()| AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (site, gateway, pooler) = (&site, &gateways[client % 2], &pooler);
            let (patches, cycles, clients) = (&patches, &cycles, &clients);
            scope.spawn(move || {
                let mut sessions: Vec<Session> = (0..SESSIONS)
                    .map(|number| Session::new(site, client * SESSIONS + number))
                    .collect();
                let mut browser = Connection::open(gateway.address());
                let mut random = Random(client as u64 + 1);
                for number in 0..REQUESTS / CLIENTS {
                    let session = &mut sessions[random.below(SESSIONS)];
                    match random.below(100) {
                        0 => Session::unknown().ask(gateway, &mut browser, None),
                        1 => {
                            session.ask(gateway, &mut browser, Some(json!({"cycle": true})));
                            cycles.fetch_add(1, Ordering::SeqCst);
                        }
                        2..14 => {
                            let change = json!({"set": {"number": number}});
                            session.ask(gateway, &mut browser, Some(change));
                            session.number = json!(number);
                            patches.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => session.ask(gateway, &mut browser, None),
                    }
                    if client == 0 && number % 500 == 0 {
                        clients.fetch_max(pooler.clients(site), Ordering::SeqCst);
                    }
                }
                for session in &sessions {
                    session.is_stored(site);
                }
            });
        }
    });
    println!(
        "{REQUESTS} requests, {patches:?} patches and {cycles:?} new keys in {:?}",
        began.elapsed()
    );
    assert_eq!(site.keys().len(), CLIENTS * SESSIONS);
    assert!(patches.into_inner() > REQUESTS / 10 && cycles.into_inner() > REQUESTS / 200);
    let servers = processes(&site).len();
    let clients = clients.into_inner();
    assert!(
        servers <= SERVERS && clients > 2 * SERVERS,
        "{clients} connections shared {servers} servers"
    );
}

#[test]
fn a_pooler_that_nobody_told_of_is_refused_by_name() {
    let site = Database::postgres();
    let app = tells_user();
    for (lines, why) in [
        (&[][..], "unsupported startup parameter"),
        (&["pool_mode = session"], "unsupported startup parameter"),
        (&[IGNORES_OPTIONS], "has lost the lock_timeout"),
    ] {
        let pooler = PgBouncer::with(&site, SERVERS, lines);
        let output = Gateway::before(&pooler.to(&site), &app).fails();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(why) && said.contains(r#"write pooler = "transaction" in [django]"#),
            "{said}"
        );
        // With it, both will do.
        let key = site.login(json!({}));
        let gateway = pooled(Gateway::before(&pooler.to(&site), &app)).start();
        let answer = gateway.get("/").session(&key).send();
        assert_eq!(answer.is_upstreams(200).text(), "1");
    }
}

#[test]
fn a_pooler_that_nobody_told_of_keeps_no_setting_of_ours_for_others() {
    let site = Database::postgres();
    let pooler = PgBouncer::with(&site, 1, &[IGNORES_OPTIONS]);
    let output = Gateway::before(&pooler.to(&site), &tells_user()).fails();
    assert_eq!(output.status.code(), Some(1));
    // The only connection to the server was the gateway's before. PgBouncer itself sets what it knows of.
    pooler.to(&site).execute(
        "DO $$ DECLARE left_over text; BEGIN \
           SELECT string_agg(name, ', ') INTO left_over FROM pg_settings WHERE source = 'session' AND name NOT IN \
             ('application_name', 'client_encoding', 'DateStyle', 'IntervalStyle', \
              'standard_conforming_strings', 'TimeZone'); \
           IF left_over IS NOT NULL THEN RAISE '% is set', left_over; END IF; \
         END $$",
    );
}

/// Everything that PostgreSQL was sent, in the order in which each of its processes received it.
#[test]
fn no_statement_is_outside_of_a_transaction() {
    let server = PostgresServer::start();
    let site = Database::in_server(&server.url());
    site.create_tables();
    server.reload_with("log_line_prefix", "%p %a ");
    server.reload_with("log_statement", "all");
    site.execute(
        "CREATE TABLE auth_group (id integer PRIMARY KEY, name varchar(150) NOT NULL);
         CREATE TABLE auth_user_groups (id integer PRIMARY KEY, user_id integer, group_id integer)",
    );
    let pooler = PgBouncer::before(&site, 1);
    let key = site.login(json!({}));
    let app = tells_user();
    let gateway = pooled(Gateway::before(&pooler.to(&site), &app))
        .line("django", "connections = 1\nwrite_connections = 1")
        .route(
            "path = '/staff/'\nupstream = 'app'\nrequire = 'staff'\nuser = ['username', 'groups']",
        )
        .start();
    let change = |key: &str, change: &str| {
        let answer = gateway.post("/").session(key).body(change).send();
        answer.is_upstreams(200).new_session()
    };
    let all = |key: &str| {
        gateway.get("/").session(key).send().is_upstreams(200);
        gateway.get("/staff/").session(key).send();
        let key = change(key, r#"{"set":{"a":1}}"#).unwrap();
        let key = change(&key, r#"{"cycle":true}"#).unwrap();
        change(&key, r#"{"expiry":99}"#);
        change(&key, r#"{"flush":true}"#);
        gateway
            .post("/")
            .body(r#"{"set":{"a":1}}"#)
            .send()
            .is_upstreams(200);
    };
    all(&key);
    // A connection that was idle is tried first.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    all(&site.login(json!({})));
    // Lookups that fail, and the search for the database that follows.
    site.execute("ALTER TABLE django_session RENAME TO away");
    for _ in 0..5 {
        gateway
            .get("/")
            .session(&key)
            .send()
            .is_error(503, "session-store-unavailable");
    }
    site.execute("ALTER TABLE away RENAME TO django_session");
    let again = site.login(json!({}));
    eventually("served again", || {
        (gateway.get("/").session(&again).send().status == 200).then_some(())
    });
    all(&again);

    // The last line may still be on its way here.
    let executed = eventually("all transactions have ended", || {
        within_transactions(&server.log())
    });
    assert!(executed > 30, "{executed} statements in\n{}", server.log());
}

/// How many statements without a name the gateway has sent, all of them inside of a transaction; `None` while one
/// is open.
fn within_transactions(log: &str) -> Option<usize> {
    let (mut open, mut executed) = (BTreeSet::new(), 0);
    let mine = log
        .lines()
        .filter_map(|line| line.split_once(" session-gateway LOG:  "));
    for (process, line) in mine {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("statement", text) if text.starts_with("BEGIN ISOLATION LEVEL READ COMMITTED") => {
                assert!(text.contains("SET LOCAL statement_timeout"), "{text}");
                assert!(open.insert(process), "a transaction in a transaction");
            }
            ("statement", "COMMIT" | "ROLLBACK") => drop(open.remove(process)),
            // The pooler's own, and what has no effect on others.
            ("statement", text) => assert!(
                text.starts_with("SET application_name") || text == "SELECT 1",
                "{text}"
            ),
            ("execute <unnamed>", text) => {
                assert!(open.contains(process), "outside of a transaction: {text}");
                executed += 1;
            }
            (other, text) => panic!("{other}: {text}"),
        }
    }
    open.is_empty().then_some(executed)
}

#[test]
fn time_limits_end_with_the_transaction_and_hold_within() {
    let site = Database::postgres();
    let pooler = PgBouncer::with(
        &site,
        1,
        &["ignore_startup_parameters = extra_float_digits"],
    );
    let through = pooler.to(&site);
    let key = site.login(json!({}));
    let app = tells_user();
    let gateway = Gateway::before(&through, &app)
        .line("django", "pooler = 'transaction'\ndeadline = '4s'")
        .start();
    let ask = || {
        gateway
            .post("/")
            .session(&key)
            .body(r#"{"set":{"a":1}}"#)
            .send()
    };
    ask().is_upstreams(200);
    site.while_locked(&key, || ask().is_error(409, "session-busy").status);
    // Another client of the same server. It speaks the simple protocol, as it has to here.
    through.open().execute(
        "DO $$ BEGIN
            ASSERT current_setting('lock_timeout') = '0', 'lock_timeout';
            ASSERT current_setting('statement_timeout') = '0', 'statement_timeout';
            ASSERT current_setting('idle_in_transaction_session_timeout') = '0', 'idle in transaction';
         END $$",
    );
    ask().is_upstreams(200);
}

#[test]
fn a_gateway_that_is_killed_in_a_patch_leaves_neither_lock_nor_change() {
    let site = Database::postgres();
    let pooler = PgBouncer::before(&site, SERVERS);
    let key = site.login(json!({"number": 0}));
    let app = tells_user();
    let setup = pooled(Gateway::before(&pooler.to(&site), &app));
    let [mut first, second] = [setup.start(), setup.start()];
    let waits = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'session-gateway' AND wait_event_type = 'Lock'";
    site.while_locked(&key, || {
        let change = first
            .post("/")
            .session(&key)
            .body(r#"{"set":{"number":1}}"#);
        let waiting = change.begin();
        eventually("the patch waits for the row", || {
            (!site.query(waits).is_empty()).then_some(())
        });
        first.process.signal("KILL");
        first.process.wait();
        drop(waiting);
    });
    let change = second
        .post("/")
        .session(&key)
        .body(r#"{"set":{"other":1}}"#);
    change.send().is_upstreams(200);
    let stored = site.read(&key).unwrap();
    assert_eq!(
        (&stored["number"], &stored["other"]),
        (&json!(0), &json!(1))
    );
    let held = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database()
                AND application_name = 'session-gateway' AND xact_start IS NOT NULL";
    eventually("no transaction is left behind", || {
        site.query(held).is_empty().then_some(())
    });
}

/// A session as its client expects it.
struct Session {
    key: String,
    user: Value,
    owner: Value,
    number: Value,
}

impl Session {
    /// Of a user of its own.
    fn new(site: &Database, number: usize) -> Self {
        let user = (number + 2).to_string();
        let owner = random_key();
        Self {
            key: site.session(&rows::login(&user, json!({"owner": owner, "number": null}))),
            user: json!(user),
            owner: json!(owner),
            number: Value::Null,
        }
    }

    /// A key that nobody has.
    fn unknown() -> Self {
        Self {
            key: random_key(),
            user: Value::Null,
            owner: Value::Null,
            number: Value::Null,
        }
    }

    /// One request: the upstream is told this session and no other.
    #[track_caller]
    fn ask(&mut self, gateway: &Gateway, browser: &mut Connection, change: Option<Value>) {
        let ask = gateway.post("/").session(&self.key);
        let ask = ask.body(change.as_ref().map(Value::to_string).unwrap_or_default());
        browser.write(&ask.bytes()).unwrap();
        let answer = browser.answer("POST");
        let told = answer.is_upstreams(200).json();
        assert_eq!(told, json!([self.user, self.owner, self.number]));
        match (answer.new_session(), change) {
            (Some(key), Some(change)) => {
                assert_eq!(key != self.key, change["cycle"] == true, "{change}");
                self.key = key;
            }
            (None, None) => {}
            (key, change) => panic!("{change:?} gave the cookie {key:?}"),
        }
    }

    fn is_stored(&self, site: &Database) {
        let stored = site.read(&self.key).unwrap();
        assert_eq!(
            (
                &stored["_auth_user_id"],
                &stored["owner"],
                &stored["number"]
            ),
            (&self.user, &self.owner, &self.number)
        );
    }
}

/// Numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// Users from 2 on, with the password of the tests.
fn add_users(site: &Database, count: usize) {
    site.execute(&format!(
        "INSERT INTO auth_user (id, password, is_superuser, username, last_name, email, is_staff, is_active,
            date_joined, first_name)
         SELECT number, '{}', false, 'user' || number, '', '', false, true, now(), ''
         FROM generate_series(2, {}) AS number",
        rows::PASSWORD,
        count + 1
    ));
}

/// The server's processes that work for the gateways.
fn processes(site: &Database) -> Vec<String> {
    site.query(
        "SELECT pid::text FROM pg_stat_activity
         WHERE application_name = 'session-gateway' AND datname = current_database()",
    )
}

fn pooled(setup: Setup) -> Setup {
    setup.line("django", "pooler = 'transaction'\ndeadline = '20s'")
}
