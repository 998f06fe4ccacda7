//! The cases of HTTP/1.1.

use std::{fmt::Write as _, sync::Mutex};

use super::{
    format::{self, Case, Outcome},
    recorder::{Recorder, Told},
};
use crate::support::{Answer, Connection, Database, Gateway, Served};

/// Follows each case on its connection, where there still is one.
pub const SECOND: &str = "GET /second HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";

/// Gateways that share the cases: some of these wait for a deadline.
const GATEWAYS: usize = 4;

const FILES: [(&str, &str); 3] = [
    ("framing", include_str!("framing.txt")),
    ("fields", include_str!("fields.txt")),
    ("targets", include_str!("targets.txt")),
];

/// All cases.
pub fn cases() -> Vec<Case> {
    FILES
        .iter()
        .flat_map(|(_, text)| format::read(text))
        .collect()
}

#[test]
fn edge_9_and_13_no_request_reaches_the_upstream_in_another_way_than_the_gateway_saw_it() {
    let cases = cases();
    assert!(cases.len() >= 150, "{}", cases.len());
    let observed = Mutex::new(vec![Outcome::default(); cases.len()]);
    let failures = Mutex::new(String::new());
    std::thread::scope(|scope| {
        for first in 0..GATEWAYS {
            let (cases, observed, failures) = (&cases, &observed, &failures);
            scope.spawn(move || {
                let app = Recorder::start();
                let gateway = gateway(&app);
                for (place, case) in cases.iter().enumerate().skip(first).step_by(GATEWAYS) {
                    let (outcome, wrong) = run(&gateway, &app, case);
                    if outcome != case.outcome || !wrong.is_empty() {
                        let text = format::written(case, &outcome);
                        let mut failures = failures.lock().unwrap();
                        let _ = writeln!(failures, "{text}{wrong}");
                    }
                    observed.lock().unwrap()[place] = outcome;
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let mut observed = observed.into_inner().unwrap();
    for (name, text) in FILES {
        let cases = format::read(text);
        let rest = observed.split_off(cases.len());
        format::keep(name, &cases, &observed);
        observed = rest;
    }
    assert!(failures.is_empty(), "what happened instead:\n{failures}");
}

/// A gateway before this upstream, which does not wait long for what does not come.
pub fn gateway(app: &impl Served) -> Gateway {
    let database = Database::sqlite();
    Gateway::before(&database, app)
        .line("timeouts", "head = '1s'\nbody_progress = '1s'\nidle = '2s'")
        .line("limits", "request_body = '32KiB'")
        .route("path = '/kept/'\nupstream = 'app'\nencoded_slashes = 'keep'")
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'")
        .route("path = '/strip/'\nupstream = 'app'\nstrip_prefix = '/strip/'")
        .start()
}

/// Sends a case and what follows it, and gives every answer up to the end of the connection.
pub fn answers(gateway: &Gateway, case: &Case) -> Vec<Answer> {
    let mut connection = Connection::open(gateway.address());
    // The gateway may answer and close before it has read all of it.
    let _ = connection.write(&[&case.bytes[..], SECOND.as_bytes()].concat());
    let is_head = case.bytes.starts_with(b"HEAD ");
    let mut answers: Vec<Answer> = Vec::new();
    loop {
        let mut answered = answers.iter().filter(|answer| answer.status >= 200);
        let method = match answered.next() {
            None if is_head => "HEAD",
            _ => "GET",
        };
        let Ok(head) = connection.any_head() else {
            return answers;
        };
        let Ok(answer) = connection.rest_of(head, method) else {
            return answers;
        };
        answers.push(answer);
    }
}

/// What becomes of a case, and what of that must never be.
fn run(gateway: &Gateway, app: &Recorder, case: &Case) -> (Outcome, String) {
    app.forget();
    let before = counted(gateway);
    let answers = answers(gateway, case);
    let finals: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status >= 200)
        .collect();
    let own = finals
        .iter()
        .filter(|answer| answer.code().is_some())
        .count();
    let is_passed = |answer: &&&Answer| answer.status == 200 && answer.code().is_none();
    let passed: Vec<String> = finals
        .iter()
        .filter(is_passed)
        .map(|answer| answer.text())
        .collect();

    // Whether a request whose body breaks off has reached the upstream by then is left to chance; it is none there.
    let whole: Vec<Told> = app.seen().into_iter().filter(|told| told.whole).collect();
    let outcome = Outcome {
        answers: answers.iter().map(shown).collect(),
        seen: whole.iter().map(|told| told.line.clone()).collect(),
    };
    let mut wrong = String::new();
    // An answer to HEAD has no body to tell the target in.
    let is_for = |(answer, told): (&String, &Told)| *answer == told.target || told.method == "HEAD";
    if whole.len() != passed.len() || !passed.iter().zip(&whole).all(is_for) {
        wrong.push_str("the upstream saw other requests than were answered for\n");
    }
    if outcome
        .seen
        .iter()
        .any(|line| line.starts_with("MALFORMED"))
    {
        wrong.push_str("the upstream cannot read it\n");
    }
    if finals.len() - own - passed.len() > 1 {
        wrong.push_str("hyper answers by itself only at the end\n");
    }
    let counts = counted(gateway) - before;
    if counts != own + passed.len() {
        let _ = writeln!(wrong, "the gateway counted {counts} requests");
    }
    (outcome, wrong)
}

fn shown(answer: &Answer) -> String {
    match answer.code() {
        Some(code) => format!("{} {code}", answer.status),
        None => answer.status.to_string(),
    }
}

/// How many requests the gateway has counted, over all routes.
pub fn counted(gateway: &Gateway) -> usize {
    let text = gateway.health().get("/metrics").send().text();
    let count = |line: &str| -> Option<usize> {
        let line = line.strip_prefix("session_gateway_requests_total{")?;
        line.rsplit(' ').next()?.parse().ok()
    };
    text.lines().filter_map(count).sum()
}
