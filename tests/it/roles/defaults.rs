//! Roles whose defaults for transactions are not PostgreSQL's.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Ends, Restless, tells_user};
use crate::support::{Database, Gate, Gateway, PATIENCE, Served as _, Upstream, eventually, reply};

/// What `ALTER ROLE ... SET` may have given a role.
const DEFAULTS: [&[(&str, &str)]; 4] = [
    &[("default_transaction_isolation", "serializable")],
    &[("default_transaction_isolation", "repeatable read")],
    &[
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
    ],
    &[
        ("default_transaction_isolation", "repeatable read"),
        ("idle_in_transaction_session_timeout", "1ms"),
    ],
];

#[test]
fn a_committed_logout_is_seen_whatever_the_roles_defaults() {
    for (number, settings) in DEFAULTS.into_iter().enumerate() {
        let site = Database::postgres();
        let role = Role::new(&site, &format!("reader_{number}"), settings);
        let other = site.login(json!({}));
        let app = tells_user();
        let gateway = patient(Gateway::before(&role.site, &app)).start();
        let mut visitor = Restless::new(&site, &gateway);
        let (done, written) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let ends = Ends(&done);
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let change = json!({"set": {"number": written.load(Ordering::SeqCst)}});
                    let ask = gateway.post("/").session(&other).body(change.to_string());
                    ask.send().is_upstreams(200);
                    written.fetch_add(1, Ordering::SeqCst);
                }
            });
            for turn in 0..250 {
                visitor.turn(&format!("{settings:?}, turn {turn}"));
            }
            drop(ends);
        });
        assert!(written.load(Ordering::SeqCst) > 20);
        role.holds_nothing(&format!("{settings:?}"));
    }
}

#[test]
fn patches_all_arrive_whatever_the_roles_defaults() {
    const PATCHES: usize = 32;
    for (number, settings) in DEFAULTS.into_iter().enumerate() {
        let site = Database::postgres();
        let role = Role::new(&site, &format!("writer_{number}"), settings);
        let key = site.login(json!({"kept": "é"}));
        let gate = Gate::default();
        let held = gate.clone();
        let app = Upstream::with(move |seen| {
            held.pass();
            let name = seen.target.trim_start_matches('/');
            reply(200).set(&json!({"set": {name: true}}).to_string())
        });
        let setup = patient(Gateway::before(&role.site, &app));
        let gateways = [setup.start(), setup.start()];
        std::thread::scope(|scope| {
            for number in 0..PATCHES {
                let (gateway, key) = (&gateways[number % 2], &key);
                scope.spawn(move || {
                    let answer = gateway.get(&format!("/key{number}")).session(key).send();
                    answer.is_upstreams(200);
                });
            }
            gate.wait_for(PATCHES);
            gate.open();
        });
        let session = site.read(&key).unwrap();
        assert_eq!(
            (&session["kept"], &session["_auth_user_id"]),
            (&json!("é"), &json!("1"))
        );
        let missing: Vec<_> = (0..PATCHES)
            .filter(|number| session[format!("key{number}")] != Value::Bool(true))
            .collect();
        assert!(missing.is_empty(), "{settings:?}: {missing:?} are missing");
        role.holds_nothing(&format!("{settings:?}"));
    }
}

/// A role with defaults of its own, which may do what docs/operations.md says.
pub struct Role<'a> {
    admin: &'a Database,
    /// The same database, as this role.
    pub site: Database,
}

impl<'a> Role<'a> {
    pub fn new(admin: &'a Database, name: &str, settings: &[(&str, &str)]) -> Self {
        let name = format!("{name}_{}", std::process::id());
        admin.execute(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'of-the-role';
             GRANT SELECT (id, password, is_active) ON auth_user TO {name};
             GRANT SELECT, INSERT, UPDATE, DELETE ON django_session TO {name}"
        ));
        for (setting, value) in settings {
            admin.execute(&format!("ALTER ROLE {name} SET {setting} = '{value}'"));
        }
        let (_, server) = admin.url().split_once('@').unwrap();
        let site = Database::of(&format!("postgres://{name}:of-the-role@{server}"));
        for (setting, value) in settings {
            let now = format!("SELECT current_setting('{setting}')");
            assert_eq!(site.query(&now), [*value], "{setting}");
        }
        Self { admin, site }
    }

    /// While nobody asks, no connection is in a transaction or holds a snapshot, and all are still there.
    fn holds_nothing(&self, what: &str) {
        let all = "SELECT pid::text FROM pg_stat_activity
                   WHERE application_name = 'session-gateway' AND datname = current_database()";
        let in_transaction =
            format!("{all} AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)");
        eventually("all transactions have ended", || {
            self.admin.query(&in_transaction).is_empty().then_some(())
        });
        let before = self.admin.query(all);
        assert!(!before.is_empty());
        // Longer than the roles' shortest timeout.
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(
            self.admin.query(all),
            before,
            "{what}: connections were ended"
        );
    }
}

/// This is about what is read and stored, on machines that may be slow.
fn patient(setup: crate::support::gateway::Setup) -> crate::support::gateway::Setup {
    setup.line("django", &format!("deadline = '{}s'", PATIENCE.as_secs()))
}
