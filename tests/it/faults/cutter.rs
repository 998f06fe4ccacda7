//! A relay before a database that cuts the connection of a write at a chosen message.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use crate::support::Database;

/// Where at a message the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// The server never sees it.
    Before,
    /// The server gets it, and finds the client gone.
    During,
    /// The server answers it, and the answer is lost.
    After,
}

/// The relay. It closes when this is dropped.
pub struct Cutter {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    armed: Option<Armed>,
    fired: bool,
    closed: bool,
}

struct Armed {
    cut: Cut,
    /// The message of the client at which to cut; the one that begins the write is 0.
    place: usize,
    /// The connection that has begun a write, and its messages since.
    engaged: Option<(usize, usize)>,
    /// What happens before the client learns of it.
    meanwhile: Box<dyn FnOnce() + Send>,
}

impl Cutter {
    pub fn before(database: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::<Mutex<Plan>>::default();
        let (server, shared) = (server_of(database.url()).to_owned(), plan.clone());
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                if shared.lock().unwrap().closed {
                    return;
                }
                if let Ok(server) = TcpStream::connect(&server) {
                    relay(number, client, server, &shared);
                }
            }
        });
        Self { address, plan }
    }

    /// The database's address by way of this relay.
    pub fn url(&self, database: &Database) -> String {
        let url = database.url();
        url.replace(server_of(url), &self.address.to_string())
    }

    /// Cuts the next write.
    pub fn arm(&self, cut: Cut, place: usize) {
        self.arm_with(cut, place, || {});
    }

    /// Cuts the next write; then, before the client learns of it, this happens.
    pub fn arm_with(&self, cut: Cut, place: usize, meanwhile: impl FnOnce() + Send + 'static) {
        let mut plan = self.plan.lock().unwrap();
        plan.fired = false;
        plan.armed = Some(Armed {
            cut,
            place,
            engaged: None,
            meanwhile: Box::new(meanwhile),
        });
    }

    /// Whether the write was cut. From now on none is.
    pub fn disarm(&self) -> bool {
        let mut plan = self.plan.lock().unwrap();
        plan.armed = None;
        plan.fired
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.plan.lock().unwrap().closed = true;
        let _ = TcpStream::connect(self.address);
    }
}

/// `host:port` of a database's address.
fn server_of(url: &str) -> &str {
    let (_, rest) = url.rsplit_once('@').unwrap();
    rest.split_once('/').map_or(rest, |(server, _)| server)
}

/// Copies both ways. The client sends a message and waits for its answer, so what one read gives is one.
fn relay(number: usize, client: TcpStream, server: TcpStream, plan: &Arc<Mutex<Plan>>) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let shared = plan.clone();
    // Set while the answer to the last message is to be lost.
    let lost = Arc::new(Mutex::new(None::<Box<dyn FnOnce() + Send>>));
    let losing = lost.clone();
    // Held while something happens of which the client is to learn only afterwards.
    let meanwhile_gate = Arc::new(Mutex::new(()));
    let gate = meanwhile_gate.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let message = &buffer[..length];
            let Some((cut, meanwhile)) = shared.lock().unwrap().cut(number, message) else {
                if to.write_all(message).is_err() {
                    break;
                }
                continue;
            };
            if cut == Cut::After {
                *losing.lock().unwrap() = Some(meanwhile);
                let _ = to.write_all(message);
                continue;
            }
            let _held = gate.lock().unwrap();
            if cut == Cut::During {
                // However fast the server is: an answer would leave a broken connection to the next write, which then
                // breaks twice.
                *losing.lock().unwrap() = Some(Box::new(|| ()));
                let _ = to.write_all(message);
            }
            // The server first: it lets go of its locks when the client is gone.
            let _ = to.shutdown(Shutdown::Both);
            meanwhile();
            break;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (server, client);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if let Some(meanwhile) = lost.lock().unwrap().take() {
                let _ = from.shutdown(Shutdown::Both);
                meanwhile();
                break;
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _held = meanwhile_gate.lock().unwrap();
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Whether a message is of a statement that replaces a row on PostgreSQL: its text, or its values (`Bind`), which
/// hold the row.
fn is_swap(message: &[u8]) -> bool {
    let has_text = message.windows(11).any(|part| part == b"SKIP LOCKED");
    has_text || (message.first() == Some(&b'B') && message.len() > 400)
}

impl Plan {
    /// Whether this message of this connection is the one.
    fn cut(&mut self, number: usize, message: &[u8]) -> Option<(Cut, Box<dyn FnOnce() + Send>)> {
        let armed = self.armed.as_mut()?;
        let begins = |word: &[u8]| message.windows(word.len()).any(|part| part == word);
        let place = match &mut armed.engaged {
            Some((engaged, place)) if *engaged == number => {
                *place += 1;
                *place
            }
            Some(_) => return None,
            None if begins(b"BEGIN") || begins(b"START TRANSACTION") || is_swap(message) => {
                armed.engaged = Some((number, 0));
                0
            }
            None => return None,
        };
        if place != armed.place {
            return None;
        }
        self.fired = true;
        let armed = self.armed.take()?;
        Some((armed.cut, armed.meanwhile))
    }
}
