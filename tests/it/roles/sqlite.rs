//! SQLite's journals: what is committed is seen at once, in WAL and in rollback mode, whatever else goes on.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Ends, Restless, tells_user};
use crate::support::{Answer, Database, Gateway, Served as _};

/// How often the visitor logs out and in again in each test.
const TURNS: usize = 1000;

#[test]
fn a_committed_logout_is_seen_by_the_next_request_in_wal_mode() {
    what_is_committed_is_seen("WAL", &["PRAGMA wal_checkpoint(TRUNCATE)"]);
}

#[test]
fn a_committed_logout_is_seen_by_the_next_request_in_rollback_mode() {
    what_is_committed_is_seen("DELETE", &[]);
}

#[test]
fn a_committed_logout_is_seen_by_the_next_request_while_the_journal_mode_changes() {
    what_is_committed_is_seen(
        "DELETE",
        &[
            "PRAGMA journal_mode = WAL",
            "PRAGMA wal_checkpoint(PASSIVE)",
            "PRAGMA journal_mode = TRUNCATE",
            "PRAGMA journal_mode = WAL",
            "PRAGMA wal_checkpoint(RESTART)",
            "PRAGMA journal_mode = DELETE",
        ],
    );
}

/// Logouts and logins by turns while others read, write and leave in the middle, and an administrator does
/// `chores`.
fn what_is_committed_is_seen(journal: &str, chores: &[&str]) {
    let site = Database::sqlite();
    site.execute(&format!("PRAGMA journal_mode = {journal}"));
    let others = [(); 3].map(|()| site.login(json!({"number": 0})));
    let app = tells_user();
    let gateway = Gateway::before(&site, &app)
        .line("django", "deadline = '20s'")
        // Clients that leave cost connections to the upstream; a busy machine must not make that a 502.
        .line("timeouts", "connect = '30s'")
        .argument("--log-level=info,access=off")
        .start();
    let mut visitor = Restless::new(&site, &gateway);
    // Speed, not safety: nothing here has to survive a power cut.
    visitor.admin.execute("PRAGMA synchronous = OFF");

    let done = AtomicBool::new(false);
    let [reads, writes, left, chored] = [(); 4].map(|()| AtomicUsize::new(0));
    let goes_on = || !done.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let (gateway, ends) = (&gateway, Ends(&done));
        let [reader, writer, leaver] = &others;
        scope.spawn(|| {
            while goes_on() {
                let answer = gateway.get("/").session(reader).send();
                assert_eq!(answer.is_upstreams(200).text(), "1");
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while goes_on() {
                let number = writes.load(Ordering::SeqCst) + 1;
                write(gateway, writer, number).is_upstreams(200);
                writes.fetch_add(1, Ordering::SeqCst);
                // One write lock in the file: the visitor waits for it too.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        scope.spawn(|| {
            while goes_on() {
                // The client goes while its lookup is under way.
                drop(gateway.get("/").session(leaver).begin());
                left.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        scope.spawn(|| {
            let mut admin = site.open();
            admin.execute("PRAGMA busy_timeout = 100");
            for chore in chores.iter().cycle().take_while(|_| goes_on()) {
                // A change of the mode needs the file alone; where it has not got it, the next one may.
                chored.fetch_add(
                    usize::from(admin.try_execute(chore).is_ok()),
                    Ordering::SeqCst,
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for turn in 0..TURNS {
            visitor.turn(&format!("{journal}, turn {turn}"));
        }
        drop(ends);
    });
    let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
    assert!(count(&reads) > 100 && count(&writes) > 20 && count(&left) > 100);
    assert!(chores.is_empty() || count(&chored) > 10, "{chored:?}");
    assert_eq!(
        site.read(&others[1]).unwrap()["number"],
        count(&writes),
        "the last number that was acknowledged"
    );
    nothing_is_pinned(&site, &visitor.key);
}

/// With nobody asking, the whole file can be taken, and a checkpoint empties the log: no snapshot is held.
fn nothing_is_pinned(site: &Database, key: &str) {
    let mut admin = site.open();
    admin.execute("PRAGMA busy_timeout = 5000");
    let began = Instant::now();
    admin.execute("BEGIN EXCLUSIVE");
    admin.execute(&format!(
        "UPDATE django_session SET expire_date = expire_date WHERE session_key = '{key}'"
    ));
    admin.execute("COMMIT");
    assert!(began.elapsed() < Duration::from_secs(5));
    admin.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    let log = std::fs::metadata(format!("{}-wal", site.file().display()));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "a reader holds the log");
}

fn write(gateway: &Gateway, key: &str, number: usize) -> Answer {
    let change = json!({"set": {"number": number}}).to_string();
    gateway.post("/").session(key).body(change).send()
}
