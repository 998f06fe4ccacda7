//! What the gateway lets through, as real servers read it: Node's parser, and a WSGI server.

use std::process::Command;

use serde_json::Value;

use super::h1::{answers, cases, gateway};
use crate::support::{Process, Release, Served, eventually};

/// A server that prints each request as a line of JSON.
struct Parser {
    process: Process,
    address: std::net::SocketAddr,
}

impl Parser {
    fn start(command: &mut Command) -> Self {
        let process = Process::start(command.env("PYTHONDONTWRITEBYTECODE", "1"));
        let address = process.address_after("listening on ");
        Self { process, address }
    }

    /// Method, path and body of each request.
    fn requests(&self) -> Vec<String> {
        let output = self.process.output();
        let lines = output
            .lines()
            .filter_map(|line| line.strip_prefix("request "));
        let told = |line: &str| {
            let request: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| request[name].as_str().unwrap().to_owned();
            format!("{} {} {}", text("method"), text("path"), text("body"))
        };
        lines.map(told).collect()
    }
}

impl Served for Parser {
    fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upstream/reads.mjs");
const WSGI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upstream/reads.py");

#[test]
fn edge_9_node_reads_what_passes_as_the_gateway_did() {
    // Its own limit is half of the gateway's.
    let mut node = Command::new("node");
    let parser = Parser::start(node.args(["--max-http-header-size=65536", NODE]));
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
    read_alike(&parser, &known);
}

#[test]
fn edge_9_a_wsgi_server_reads_what_passes_as_the_gateway_did() {
    let parser = Parser::start(Command::new(Release::V52.python()).arg(WSGI));
    read_alike(&parser, &[]);
}

/// Sends every case that reaches an upstream, with methods that the server knows; none named is all.
fn read_alike(parser: &Parser, known: &[&str]) {
    let gateway = gateway(parser);
    let mut failures = Vec::new();
    let mut read = 0;
    for case in cases() {
        let seen = &case.outcome.seen;
        let is_known = |line: &String| {
            known
                .iter()
                .any(|method| line.split(' ').next() == Some(method))
        };
        if seen.is_empty() || !known.is_empty() && !seen.iter().all(is_known) {
            continue;
        }
        let expected: Vec<String> = seen.iter().map(|line| as_read(line)).collect();
        let answers = answers(&gateway, &case);
        let passed = answers
            .iter()
            .filter(|answer| answer.status == 200 && answer.code().is_none());
        if passed.count() != seen.len() {
            failures.push(format!("{}: {answers:?}", case.name));
        }
        // What it prints comes in its own time.
        let all = eventually("the server tells what it has read", || {
            let all = parser.requests();
            (all.len() >= read + seen.len() || !failures.is_empty()).then_some(all)
        });
        if all[read..] != expected {
            failures.push(format!(
                "{}: {:?} instead of {expected:?}",
                case.name,
                &all[read..]
            ));
        }
        read = all.len();
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(read > 200, "{read}");
}

/// Method, target and body of a line of the corpus.
fn as_read(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let body = line.split_once(" \"").map_or("", |(_, body)| {
        body.rsplit_once('"').map_or("", |(body, _)| body)
    });
    format!("{method} {target} {body}")
}
