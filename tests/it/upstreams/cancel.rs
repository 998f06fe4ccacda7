//! A client that leaves takes its request with it.

use std::{io::Read as _, sync::mpsc};

use super::before;
use crate::support::{PATIENCE, Served as _, Upstream, eventually};

#[test]
fn edge_21_a_client_that_leaves_closes_the_connection_of_its_request() {
    let (told, hears) = mpsc::channel();
    let app = Upstream::raw(move |mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 4096];
        let _ = told.send(stream.read(&mut buffer).is_ok_and(|read| read > 0));
        // No answer: the next thing to be heard is the end.
        let _ = told.send(stream.read(&mut buffer).is_ok_and(|read| read == 0));
    });
    let gateway = before(&format!("servers = ['{}']", app.address())).start();
    let waiting = gateway.get("/").begin();
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(true));
    drop(waiting);
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(true));
    eventually("nothing is in flight", || {
        (super::metric(&gateway, "upstream_requests_in_flight{") == 0.0).then_some(())
    });
}
