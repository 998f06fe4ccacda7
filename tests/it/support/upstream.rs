//! An upstream on a plain socket: it keeps exactly what it received and answers exactly what a test says.

use std::{
    io::{BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::Value;

use super::{
    PATIENCE, Served,
    http::{all, body, fields, head_lines},
    token,
};

/// A request as it came off the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name)
    }

    /// The value of a field that is there at most once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.all(name);
        assert!(
            found.len() <= 1,
            "{name} is there {} times: {found:?}",
            found.len()
        );
        found.first().copied()
    }

    /// The claims of its one token, which is for the upstream `app` and for this very request.
    #[track_caller]
    pub fn claims(&self) -> Value {
        let claims = token::claims(self.field("x-session").expect("X-Session"), "app");
        let host = self.field("host").expect("Host");
        assert_eq!(
            claims["req"],
            token::req(&self.method, host, &self.target),
            "req"
        );
        claims
    }

    /// The name of the upstream's user, if one is logged in.
    pub fn user(&self) -> Option<String> {
        self.claims()["sub"].as_str().map(ToOwned::to_owned)
    }
}

/// A running upstream. It closes when this is dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    handler: Mutex<Arc<Handler>>,
    connections: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
}

impl Upstream {
    /// Answers 200 until told otherwise.
    pub fn start() -> Self {
        Self::with(|_| reply(200).body("ok"))
    }

    /// The same on a port that is given.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Self::accept(
            listener,
            Arc::new(|_| reply(200).body("ok")),
            serve_or_give_up,
        )
    }

    /// Answers each request with what `handler` says; it may wait in there.
    pub fn with(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(handler), serve_or_give_up)
    }

    /// The same without keeping what it has seen, for many requests.
    pub fn forgetful(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(handler), |stream, shared| {
            let _ = serve(stream, shared, false);
        })
    }

    /// Does with each connection what `handler` says.
    pub fn raw(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(|_| reply(200)), move |stream, _| handler(stream))
    }

    fn listen(
        handler: Arc<Handler>,
        each: impl Fn(TcpStream, &Shared) + Send + Sync + 'static,
    ) -> Self {
        Self::accept(TcpListener::bind("127.0.0.1:0").unwrap(), handler, each)
    }

    fn accept(
        listener: TcpListener,
        handler: Arc<Handler>,
        each: impl Fn(TcpStream, &Shared) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            handler: Mutex::new(handler),
            connections: AtomicUsize::new(0),
            streams: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let each = Arc::new(each);
        let upstream = Self {
            address,
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                shared.streams.lock().unwrap().extend(stream.try_clone());
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, each) = (Arc::clone(&shared), Arc::clone(&each));
                std::thread::spawn(move || each(stream, &shared));
            }
        });
        upstream
    }

    /// Answers this from now on.
    pub fn answers(&self, reply: Reply) {
        self.answers_with(move |_| reply.clone());
    }

    /// Answers with what `handler` says from now on.
    pub fn answers_with(&self, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.shared.handler.lock().unwrap() = Arc::new(handler);
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen()
            .pop()
            .expect("a request has reached the upstream")
    }

    /// Forgets the requests so far and gives them.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Served for Upstream {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A connection that breaks is nothing to complain about: the gateway may close it.
fn serve_or_give_up(stream: TcpStream, shared: &Shared) {
    let _ = serve(stream, shared, true);
}

fn serve(stream: TcpStream, shared: &Shared, keeps: bool) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let seen = receive(&mut reader)?;
        if keeps {
            shared.seen.lock().unwrap().push(seen.clone());
        }
        let handler = Arc::clone(&shared.handler.lock().unwrap());
        let reply = handler(&seen);
        if reply.closes {
            // The end comes in one packet with the answer: who has it never takes the connection for an idle one.
            rustix::net::sockopt::set_tcp_cork(&writer, true)?;
        }
        writer.write_all(&reply.bytes(&seen.method))?;
        if reply.closes {
            return writer.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Reads one request.
fn receive(reader: &mut BufReader<TcpStream>) -> std::io::Result<Seen> {
    let lines = head_lines(reader)?;
    let words: Vec<_> = lines[0].split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(std::io::Error::other(format!(
            "not a request line: {}",
            lines[0]
        )));
    };
    let fields = fields(&lines[1..]);
    let body = body(reader, &fields)?.unwrap_or_default();
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Seen {
        method,
        target,
        fields,
        body: body.bytes,
        trailers: body.trailers,
    })
}

/// An answer to be sent.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    raw: Option<Vec<u8>>,
    closes: bool,
}

/// An answer with this status, no body yet.
pub fn reply(status: u16) -> Reply {
    Reply {
        status,
        fields: Vec::new(),
        body: Vec::new(),
        raw: None,
        closes: false,
    }
}

impl Reply {
    /// Just these bytes; then the connection closes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            raw: Some(bytes.into()),
            closes: true,
            ..reply(0)
        }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A change of the session.
    pub fn set(self, change: &str) -> Self {
        self.field("X-Session-Set", change)
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn bytes(&self, method: &str) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 204 && self.status != 304 {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        // Each character is one byte, so that a test can send any.
        let mut bytes: Vec<u8> = head.chars().map(|c| c as u8).collect();
        if method != "HEAD" && self.status != 204 && self.status != 304 {
            bytes.extend(&self.body);
        }
        bytes
    }
}

/// Holds requests inside an upstream until the test lets them go.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    waiting: usize,
    open: bool,
}

impl Gate {
    /// For the upstream: waits here until the gate is open.
    pub fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        changed.notify_all();
        let _ = changed.wait_timeout_while(state, PATIENCE, |state| !state.open);
    }

    /// For the test: waits until this many requests have come to the gate.
    #[track_caller]
    pub fn wait_for(&self, requests: usize) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        let (_state, result) = changed
            .wait_timeout_while(state, PATIENCE, |state| state.waiting < requests)
            .unwrap();
        assert!(
            !result.timed_out(),
            "{requests} requests have not come to the gate"
        );
    }

    /// For the test: lets all go.
    pub fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }
}
