//! Who gets through, and where to: the route's `require`, the cross-site guard, which route it is, what the
//! upstream is told of the way, and all of it while the database is away or replaced.

mod apart;
mod browsers;
mod cross_site;
mod login;
mod proxies;
mod routes;
mod store;

use crate::support::{Answer, Ask};

/// Adds lines as they stand on the wire.
fn with(ask: Ask, lines: &[&str]) -> Ask {
    lines.iter().fold(ask, |ask, line| {
        let (name, value) = line.split_once(':').unwrap();
        ask.field(name, value.trim_start())
    })
}

/// Asserts that caches are told that the answer depends on the visitor.
#[track_caller]
fn varies(answer: &Answer, what: &str) {
    assert_eq!(answer.field("vary"), Some("Cookie"), "{what}: {answer:?}");
}
