//! The services behind: which server takes a request, over which connection.

mod connect;
mod socket;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, Version};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use self::connect::Lease;
pub use self::connect::{Sent, Server, Unsent};
use crate::{
    body::{Body, Watch},
    config,
};

/// One configured upstream.
#[derive(Debug)]
pub struct Upstream {
    /// Its name; the `aud` of its tokens.
    pub name: String,
    servers: Vec<Arc<Server>>,
    next: AtomicUsize,
}

impl Upstream {
    /// Takes the servers from the configuration. Connects when the first request comes.
    pub fn new(config: &config::Upstream) -> Self {
        Self {
            name: config.name.clone(),
            servers: config
                .servers
                .iter()
                .map(|server| Arc::new(Server::new(server)))
                .collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// The next server in turn. One that could not be reached a moment ago is passed over, if there is another.
    pub fn pick(&self) -> Option<&Arc<Server>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(self.servers.len())?;
        let in_turn = || self.servers[first..].iter().chain(&self.servers[..first]);
        in_turn()
            .find(|server| !server.is_passed_over())
            .or_else(|| in_turn().next())
    }
}

/// A connection that has answered, and goes back when the answer was read.
#[derive(Debug)]
pub struct Answered {
    lease: Lease,
    /// The upstream's response.
    pub response: Response<Incoming>,
}

impl Answered {
    /// The response with its body as it will be streamed to the client; at its end the connection becomes idle,
    /// unless the request's body is still under way then: nobody wants it any more, so it ends with the connection.
    pub fn into_response(self, idle: Duration, request: Option<Arc<Watch>>) -> Response<Body> {
        let Self { lease, response } = self;
        let mut response = response.map(|body| {
            Body::response(body, idle, move || {
                if request.is_none_or(|request| request.has_finished()) {
                    lease.give_back();
                }
            })
        });
        // The version is that of the sender, and the sender is now this gateway (RFC 9110, section 2.5).
        *response.version_mut() = Version::HTTP_11;
        response
    }

    /// Makes a tunnel of the connection after a 101: the answer's head, what becomes the connection itself, and
    /// what must be held as long as the tunnel lives. Without a 101 the second one fails when it is awaited.
    pub fn into_tunnel(self) -> (Response<()>, OnUpgrade, InFlight) {
        let Self {
            lease,
            mut response,
        } = self;
        let upgrade = hyper::upgrade::on(&mut response);
        (response.map(drop), upgrade, InFlight { _lease: lease })
    }
}

/// Something that a server is still busy with. Its connection serves no other request.
#[derive(Debug)]
pub struct InFlight {
    _lease: Lease,
}

/// A request that is ready to be sent to a server.
pub type Outgoing = Request<Body>;
