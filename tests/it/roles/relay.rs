//! An address that leads now to one server and then to another, as a virtual address or a DNS name does.

use std::{
    collections::HashMap,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// A TCP relay. It closes when this is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The port that new connections are led to; `None` is closed.
    target: Mutex<Option<u16>>,
    /// How many connections each port has had.
    led: Mutex<HashMap<u16, usize>>,
}

impl Relay {
    /// A relay to a port of this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(Some(port)),
            led: Mutex::default(),
        });
        let led = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(port) = *led.target.lock().unwrap() else {
                    return;
                };
                *led.led.lock().unwrap().entry(port).or_default() += 1;
                // Nobody there: the client sees a connection that closes.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                    join(client, server);
                }
            }
        });
        Self { address, shared }
    }

    /// Leads new connections here from now on. Those that are open stay where they are.
    pub fn leads_to(&self, port: u16) {
        *self.shared.target.lock().unwrap() = Some(port);
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections were led to this port.
    pub fn led(&self, port: u16) -> usize {
        let led = self.shared.led.lock().unwrap();
        led.get(&port).copied().unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        *self.shared.target.lock().unwrap() = None;
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Copies in both directions until one side closes.
fn join(client: TcpStream, server: TcpStream) {
    for (mut from, mut to) in [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, client),
    ] {
        let _ = from.set_nodelay(true);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
