//! The services behind: which server takes a request, over which connection.

mod balance;
mod connect;
pub mod decode;
mod health;
mod http1;
mod http2;
mod keep;
mod pool;
mod resolve;
mod rest;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::{body::Incoming, upgrade::OnUpgrade};

pub use self::{
    balance::Affinity,
    connect::Unsent,
    server::{SendError, Server, Unanswered},
};
use self::{
    decode::Framing,
    keep::Task,
    pool::Pool,
    rest::Rest,
    server::{Entry, Lease},
};
use crate::{
    body::{Body, Watch},
    config::{self, Protocol, ServerAddress},
    telemetry::metrics::Metrics,
};

/// One configured upstream.
#[derive(Debug)]
pub struct Upstream {
    /// Its name; the `aud` of its tokens.
    pub name: String,
    /// What goes out as Host where the client's does not, before a server is chosen.
    host: String,
    is_http2: bool,
    pool: Arc<Pool>,
    task: OnceLock<Task>,
}

/// What is known of a server, for people.
#[derive(Clone, Debug)]
pub struct Status {
    /// As the file has it.
    pub server: String,
    /// `IP:port` or `unix:PATH`; empty for a name without an address.
    pub address: String,
    /// Whether it is asked.
    pub is_available: bool,
    /// Requests and tunnels that it is busy with.
    pub in_flight: usize,
    /// Connections that were opened to it and to the other addresses of its name.
    pub opened: u64,
    /// How often it, or another address of its name, was left out.
    pub left_out: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Upstream {
    /// Takes the servers from the configuration. Those that `previous` has, too, keep their connections, their health
    /// and their counts. Connects when the first request comes.
    pub fn new(config: &config::Upstream, previous: Option<&Self>, metrics: &Metrics) -> Self {
        Self::with(config, previous, metrics, resolve::system())
    }

    fn with(
        config: &config::Upstream,
        previous: Option<&Self>,
        metrics: &Metrics,
        resolver: resolve::Resolver,
    ) -> Self {
        let previous = previous.map(|previous| &*previous.pool);
        let host = config.servers.first().map(config::Server::host);
        Self {
            name: config.name.clone(),
            host: host.unwrap_or_default().to_owned(),
            is_http2: config.protocol == Protocol::Http2,
            pool: Arc::new(Pool::new(config, previous, metrics, resolver)),
            task: OnceLock::new(),
        }
    }

    /// Starts what goes on beside the requests: names are looked up, servers checked, and tried again where they
    /// could not be reached. It ends with this. Must be called in a runtime, and before the first request.
    pub fn start(&self) {
        self.task.get_or_init(|| keep::start(self.pool.clone()));
    }

    /// Whether its servers speak HTTP/2, which has no `Upgrade`.
    pub fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// The name of the first server, as a Host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Which server takes a request: not `not`, if there is another one. `None` if none may be asked.
    pub async fn choose(
        &self,
        affinity: Affinity<'_>,
        not: Option<&Arc<Server>>,
        within: Duration,
    ) -> Option<Arc<Server>> {
        let picked = self.pool.pick(affinity, not);
        if picked.is_some() || !self.pool.servers().is_empty() {
            return picked;
        }
        self.pool.first_look(within).await;
        self.pool.pick(affinity, not)
    }

    /// A server could not be reached: its name may have other addresses by now.
    pub async fn doubt(&self, server: &Arc<Server>, within: Duration) {
        self.pool.doubt(server, within).await;
    }

    /// A request got no answer from a server that counts.
    pub fn no_answer(&self, server: &Arc<Server>, cause: &str) {
        server.no_answer(cause, !self.pool.has_other(server));
    }

    /// All servers as they are now; a name without an address has a row, too.
    pub fn servers(&self) -> Vec<Status> {
        let servers = self.pool.servers();
        let rows = self.pool.entries.iter().flat_map(|entry| {
            let own = servers
                .iter()
                .filter(|server| Arc::ptr_eq(&server.entry, entry));
            let mut rows: Vec<Status> = own.map(|server| status(server)).collect();
            if rows.is_empty() {
                rows.push(status_of_name(entry));
            }
            rows
        });
        rows.collect()
    }
}

fn status(server: &Server) -> Status {
    Status {
        address: server.target.to_string(),
        is_available: server.is_available(),
        in_flight: server.in_flight(),
        last_error: server.last_error(),
        ..status_of_name(&server.entry)
    }
}

fn status_of_name(entry: &Entry) -> Status {
    Status {
        server: entry.name.clone(),
        address: String::new(),
        is_available: false,
        in_flight: 0,
        opened: entry.metrics.connections.get(),
        left_out: entry.metrics.turns_for_the_worse.get(),
        last_error: None,
    }
}

/// Connects to each address of each server and sends nothing: the server's name, and why it cannot be reached.
pub async fn try_servers(config: &config::Upstream) -> Vec<(String, Option<String>)> {
    let (within, metrics) = (config.timeouts.connect, Metrics::default());
    let mut tried = Vec::new();
    for server in &config.servers {
        let entry = Entry::new(config, server, &metrics);
        let targets = match &server.address {
            ServerAddress::Ip(address) => Ok(vec![connect::Target::Tcp(*address)]),
            ServerAddress::Unix(path) => Ok(vec![connect::Target::Unix(path.clone())]),
            ServerAddress::Name { host, port } => resolve::look_up(&resolve::system(), host, *port)
                .await
                .map(|found| found.into_iter().map(connect::Target::Tcp).collect()),
        };
        let targets = match targets {
            Ok(targets) => targets,
            Err(error) => {
                let error = format!("its name cannot be looked up: {error}");
                tried.push((server.name.clone(), Some(error)));
                continue;
            }
        };
        let several = targets.len() > 1;
        for target in targets {
            let name = match several {
                true => format!("{} ({target})", server.name),
                false => server.name.clone(),
            };
            let connected = entry.transport.connect(&target, within).await;
            tried.push((name, connected.err().map(|error| error.to_string())));
        }
    }
    tried
}

/// A server's answer, and the connection that the rest of it comes on, which goes back when it was read.
#[derive(Debug)]
pub struct Answered {
    /// The head of the answer.
    pub response: Response<()>,
    lease: Lease,
    rest: Coming,
}

/// The body of an answer.
#[derive(Debug)]
enum Coming {
    Wire {
        framing: Framing,
        begun: Bytes,
        is_kept: bool,
    },
    Hyper(Incoming),
}

impl Answered {
    fn of_wire(lease: Lease, answer: wire::Answer) -> Self {
        Self {
            response: answer.response,
            lease,
            rest: Coming::Wire {
                framing: answer.framing,
                begun: answer.begun,
                is_kept: answer.is_kept,
            },
        }
    }

    fn of_hyper(lease: Lease, response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            response: Response::from_parts(parts, ()),
            lease,
            rest: Coming::Hyper(body),
        }
    }

    /// Which server it was, as the file has it.
    pub fn server(&self) -> &str {
        &self.lease.server().entry.name
    }

    /// The response with its body as it will be streamed to the client; at its end the connection becomes idle,
    /// unless the request's body is still under way then: nobody wants it any more, so it ends with the connection.
    pub fn into_response(self, idle: Duration, request: Option<Arc<Watch>>) -> Response<Body> {
        let Self {
            response,
            lease,
            rest,
        } = self;
        let body = match rest {
            Coming::Wire {
                framing,
                begun,
                is_kept,
            } => Rest::body(lease, framing, begun, is_kept, idle),
            Coming::Hyper(body) => Body::response(body, idle, move || {
                if request.is_none_or(|request| request.has_finished()) {
                    lease.give_back();
                }
            }),
        };
        let mut response = response.map(|()| body);
        // The version is that of the sender, and the sender is now this gateway (RFC 9110, section 2.5).
        *response.version_mut() = Version::HTTP_11;
        response
    }

    /// Makes a tunnel of the connection after a 101: the answer's head, what becomes the connection itself, and
    /// what must be held as long as the tunnel lives. Without a 101 the second one fails when it is awaited.
    pub fn into_tunnel(self) -> (Response<()>, OnUpgrade, InFlight) {
        let Self {
            mut response,
            lease,
            ..
        } = self;
        let upgrade = hyper::upgrade::on(&mut response);
        (response, upgrade, InFlight { _lease: lease })
    }
}

/// Something that a server is still busy with. Its connection serves no other request.
#[derive(Debug)]
pub struct InFlight {
    _lease: Lease,
}

/// A request that is ready to be sent to a server.
pub type Outgoing = Request<Body>;

/// Whether a request can go over a connection without a task of its own: it has no body, and asks for no other protocol.
pub fn is_plain(request: &Outgoing) -> bool {
    wire::Wire::can_send(request)
}
