//! EDGE of the upstreams: balancing, health, TLS, HTTP/2, Unix sockets, and what is repeated.

mod balance;
mod cancel;
mod frames;
mod health;
mod http2;
mod names;
mod peer;
mod tls;
mod trailers;

use std::net::SocketAddr;

use crate::support::{Gateway, Served, gateway::Setup, token};

/// A gateway for all paths with one upstream, `app`, that has these lines.
fn before(lines: &str) -> Setup {
    let key = format!(
        "keys = [{{ kid = '{}', secret = {{ env = 'APP_KEY' }} }}]",
        token::kid("app")
    );
    Gateway::alone(&Nowhere).replace("upstream.app", &format!("{lines}\n{key}"))
}

/// A server that `before` has in another way.
struct Nowhere;

impl Served for Nowhere {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }
}

/// A list of servers as the file has it.
fn servers(all: &[SocketAddr]) -> String {
    let all: Vec<String> = all.iter().map(|address| format!("'{address}'")).collect();
    format!("servers = [{}]", all.join(", "))
}

/// The sum of all series of a metric.
fn metric(gateway: &Gateway, start: &str) -> f64 {
    let text = gateway.health().get("/metrics").send().text();
    let start = format!("session_gateway_{start}");
    let series = text.lines().filter(|line| line.starts_with(&start));
    series
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
