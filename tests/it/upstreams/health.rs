//! Servers that are left out, and that come back.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use super::{before, metric, servers};
use crate::support::{Reply, Served as _, Upstream, eventually, free_address, reply};

#[test]
fn edge_24_when_all_servers_are_down_it_is_said_at_once_and_they_are_tried_on() {
    let free = free_address();
    let gateway = before(&servers(&[free])).start();
    gateway
        .get("/")
        .send()
        .is_error(502, "upstream-unreachable");
    let answer = gateway.post("/").body("hello").send();
    answer.is_error(503, "no-server");
    assert_eq!(answer.field("retry-after"), Some("1"));
    let (up, out) = ("upstream_up{", "upstream_left_out{");
    assert_eq!((metric(&gateway, up), metric(&gateway, out)), (0.0, 1.0));
    // Said once, with its cause, however many requests come.
    for _ in 0..5 {
        gateway.get("/").send().is_error(503, "no-server");
    }
    let log = gateway.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("cannot be reached"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("refused"), "{}", told[0]);

    let _back = Upstream::start_at(free);
    eventually("it serves again", || {
        let answer = gateway.get("/").send();
        (answer.status == 200).then_some(())
    });
    assert_eq!((metric(&gateway, up), metric(&gateway, out)), (1.0, 0.0));
    gateway.process.wait_for("can be reached again");
}

#[test]
fn edge_24_a_server_that_gives_no_answers_is_left_out_but_never_the_last_one() {
    let bad = Upstream::with(|_| Reply::raw(""));
    let good = Upstream::start();
    let gateway = before(&servers(&[bad.address(), good.address()])).start();
    let mut failed = 0;
    for _ in 0..40 {
        // Without a retry: each failure costs its own request.
        let answer = gateway.post("/").body("hello").send();
        failed += usize::from(answer.status != 200);
    }
    assert_eq!((failed, bad.seen().len()), (5, 5));
    gateway.process.wait_for("gives no answers and is left out");
    assert_eq!(metric(&gateway, "upstream_turns_for_the_worse_total{"), 1.0);

    let gateway = before(&servers(&[bad.address()])).start();
    for _ in 0..20 {
        let answer = gateway.post("/").body("hello").send();
        answer.is_error(502, "upstream-bad-response");
    }
}

#[test]
fn errors_of_the_application_are_no_failures_of_its_server() {
    let bad = Upstream::with(|_| reply(500));
    let good = Upstream::start();
    let gateway = before(&servers(&[bad.address(), good.address()])).start();
    for _ in 0..40 {
        gateway.get("/").send();
    }
    assert_eq!((bad.seen().len(), good.seen().len()), (20, 20));
}

#[test]
fn edge_24_a_server_whose_checks_fail_is_left_out_until_they_succeed() {
    let status = Arc::new(AtomicU16::new(200));
    let (told, good) = (status.clone(), Upstream::start());
    let sick = Upstream::with(move |seen| match seen.target.as_str() {
        "/up?a=b" => reply(told.load(Ordering::SeqCst)),
        _ => reply(200),
    });
    let health =
        "health = { path = '/up?a=b', host = 'shop.test', every = '100ms', fall = 2, rise = 3 }";
    let lines = servers(&[sick.address(), good.address()]);
    let gateway = before(&format!("{lines}\n{health}")).start();
    let checks = |server: &Upstream| {
        let seen = server.seen();
        seen.iter()
            .filter(|seen| seen.target == "/up?a=b")
            .cloned()
            .collect::<Vec<_>>()
    };
    eventually("both are checked", || {
        (checks(&sick).len() > 1 && checks(&good).len() > 1).then_some(())
    });
    let check = checks(&sick).swap_remove(0);
    assert_eq!(
        (check.method.as_str(), check.field("host")),
        ("GET", Some("shop.test"))
    );
    assert!(check.field("x-session").is_none());

    status.store(503, Ordering::SeqCst);
    eventually("it is left out", || {
        gateway.log().contains("checks fail").then_some(())
    });
    gateway.process.wait_for("the check was answered 503");
    sick.take();
    for _ in 0..10 {
        gateway.get("/").send().is_upstreams(200);
    }
    assert!(sick.seen().iter().all(|seen| seen.target == "/up?a=b"));

    status.store(302, Ordering::SeqCst);
    eventually("it is back", || {
        gateway.log().contains("checks succeed again").then_some(())
    });
    eventually("it is asked", || {
        gateway.get("/").send().is_upstreams(200);
        sick.seen()
            .iter()
            .any(|seen| seen.target == "/")
            .then_some(())
    });

    // All of them: nobody is asked, and the checks go on.
    drop(good);
    status.store(500, Ordering::SeqCst);
    eventually("nobody is left", || {
        let answer = gateway.get("/").send();
        (answer.code() == Some("no-server")).then_some(())
    });
    status.store(200, Ordering::SeqCst);
    eventually("it serves again", || {
        (gateway.get("/").send().status == 200).then_some(())
    });
}
