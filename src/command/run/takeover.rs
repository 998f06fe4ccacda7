//! Restart without loss: on SIGUSR2 the gateway starts its successor, hands its sockets over and leaves once the other
//! one is ready. Until then, and if the other one fails, it goes on as if nothing had been asked.
//!
//! The two speak over a socket that is the successor's standard input: sockets, then the lines `ready` and `go`.

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command},
    time::{Duration, Instant},
};

use super::signals::Fate;
use crate::server::{Handles, Inherited};

/// Tells the successor what its standard input is.
const VARIABLE: &str = "SESSION_GATEWAY_TAKES_OVER";

/// What it says when it could serve.
const READY: &[u8] = b"ready\n";

/// What it is answered: an old one that has ended meanwhile was not to be followed.
const GO: &[u8] = b"go\n";

/// How long a successor may take to become ready. It tries the database for two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the old one looks whether it is to end itself.
const LOOK: Duration = Duration::from_millis(50);

/// How long the old one may take to say what is due.
const ANSWER: Duration = Duration::from_secs(10);

/// The side that makes room: starts this program again, as it was started, from where it is now. Returns the
/// successor's process id when that is ready. Blocks.
///
/// # Errors
///
/// There is no successor, and why.
pub fn start_successor(handles: &Handles, fate: &Fate) -> Result<u32, String> {
    let (here, there) = UnixStream::pair().map_err(|error| error.to_string())?;
    let mut arguments = env::args_os();
    let program = arguments.next().ok_or("this program has no name")?;
    let mut successor = Command::new(&program)
        .args(arguments)
        .env(VARIABLE, "1")
        .stdin(OwnedFd::from(there))
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    let id = successor.id();
    let ready = handles
        .send(&here)
        .and_then(|()| wait_until_ready(&here, fate))
        .map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => "this one was asked to end meanwhile".to_owned(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                "it was not ready within a minute".to_owned()
            }
            _ => format!("it ended before it was ready ({error}); its own log says why"),
        });
    match ready {
        Ok(()) => {
            handles.leave_files();
            Ok(id)
        }
        Err(why) => {
            stop(&mut successor);
            Err(why)
        }
    }
}

/// Says `go` when the successor is ready; [`Interrupted`](io::ErrorKind::Interrupted) if this process ends meanwhile.
fn wait_until_ready(mut successor: &UnixStream, fate: &Fate) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = [0; READY.len()];
    let mut length = 0;
    while length < said.len() {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if fate.is_ending() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        successor.set_read_timeout(Some(LOOK))?;
        match successor.read(&mut said[length..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => length += more,
            Err(error) if is_nothing_yet(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if said != *READY {
        return Err(io::Error::other("it said something else than ready"));
    }
    if !fate.follow() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    successor.write_all(GO).inspect_err(|_| fate.go_on())
}

fn is_nothing_yet(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn stop(successor: &mut Child) {
    // It may have ended by itself.
    let _ = successor.kill();
    let _ = successor.wait();
}

/// The side that takes over, if this process is a successor.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// The gateway that has started this process, if one has.
    ///
    /// # Errors
    ///
    /// The standard input cannot be used.
    pub fn of_this_process() -> io::Result<Option<Self>> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Some(Self(socket.into())))
    }

    /// Its sockets. Blocks; within a runtime.
    ///
    /// # Errors
    ///
    /// It has not sent any, or in another way.
    pub fn sockets(&self) -> io::Result<Inherited> {
        self.0.set_read_timeout(Some(ANSWER))?;
        Inherited::receive(&self.0)
    }

    /// Tells it that this process could serve, and waits for its word. Blocks.
    ///
    /// # Errors
    ///
    /// It has ended, or does not wait any more.
    pub fn ready(mut self) -> io::Result<()> {
        self.0.write_all(READY)?;
        let mut said = [0; GO.len()];
        self.0.read_exact(&mut said)
    }
}
