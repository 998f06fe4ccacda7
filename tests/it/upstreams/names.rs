//! Names of servers.

use super::before;
use crate::support::{Served as _, Upstream};

#[test]
fn edge_24_a_name_is_resolved_and_an_address_of_it_that_is_dead_costs_no_request() {
    // localhost is 127.0.0.1 and, on most systems, ::1, where nobody listens.
    let app = Upstream::start();
    let port = app.address().port();
    let gateway = before(&format!("servers = ['localhost:{port}']")).start();
    for _ in 0..10 {
        gateway.get("/").send().is_upstreams(200);
    }
    assert_eq!(app.seen().len(), 10);

    let gateway = before("servers = ['no-such-name.invalid:80']").start();
    gateway.get("/").send().is_error(503, "no-server");
    gateway
        .process
        .wait_for("a server's name cannot be looked up");
}
