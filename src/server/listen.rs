//! Opens listening sockets.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use socket2::{Domain, SockAddr, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use super::socket::Socket;
use crate::config::Address;

/// How many connections the kernel keeps that are not accepted yet; it takes less where `net.core.somaxconn` is.
const BACKLOG: i32 = 4096;

/// Who may connect to a Unix socket: its owner and its group.
const MODE: u32 = 0o660;

/// After so long without a byte the kernel asks whether a client is still there. A client whose machine has gone
/// without a word would otherwise keep a connection that only waits, such as one for an event stream.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    address: String,
    cause: String,
    is_taken: bool,
}

impl BindError {
    /// systemd has opened a socket that the configuration does not have.
    pub(super) fn forgotten(address: &str) -> Self {
        let cause = "systemd has opened this socket, but no [[listener]], [health] or [admin] has the address, so \
                     its clients would wait for ever. Correct ListenStream or the configuration";
        Self {
            address: address.to_owned(),
            cause: cause.to_owned(),
            is_taken: false,
        }
    }

    /// Whether another process listens there.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }
}

/// A socket on which connections come.
#[derive(Debug)]
pub enum Listener {
    /// Of an IP address.
    Tcp(TcpListener),
    /// Of a path. The file is removed when the listener is dropped, if it is this one's.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket that was opened here.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own socket there meanwhile.
    identity: (u64, u64),
    /// Whether another process listens on it.
    stays: AtomicBool,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            stays: AtomicBool::new(false),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.stays.load(Ordering::Relaxed) {
            return;
        }
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity) {
            // Nobody is left who could do more about it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Takes an open socket that already listens: from systemd, or from a gateway that makes room. Its file, if it
    /// has one, stays when the listener is dropped.
    ///
    /// # Errors
    ///
    /// It is no listening stream socket of IP or Unix addresses.
    pub fn take_over(socket: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(true)?;
        if !socket.is_listener()? {
            return Err(io::Error::other("the socket does not listen"));
        }
        match socket.domain()? {
            Domain::IPV4 | Domain::IPV6 => {
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                TcpListener::from_std(socket.into()).map(Self::Tcp)
            }
            Domain::UNIX => {
                let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
                Ok(Self::Unix(listener, None))
            }
            _ => Err(io::Error::other(
                "this is no socket of IP or Unix addresses",
            )),
        }
    }

    /// Leaves the file of a Unix socket in its place when this is dropped, because another process listens on it.
    pub fn leave_file(&self) {
        if let Self::Unix(_, Some(file)) = self {
            file.stays.store(true, Ordering::Relaxed);
        }
    }

    /// Where it listens; port 0 has become a real one.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Address::Tcp),
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok()?;
                Some(Address::Unix(address.as_pathname()?.to_owned()))
            }
        }
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// See accept(2): of one connection, or for want of file descriptors.
    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Socket::tcp(stream, peer.ip().to_canonical()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Socket::unix(stream))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// Opens a socket and closes it again.
///
/// # Errors
///
/// Why it cannot be had.
pub async fn probe(address: &Address) -> Result<(), BindError> {
    bind(address).map(drop)
}

/// Opens a socket; within a runtime.
///
/// # Errors
///
/// Why it cannot be had.
pub fn bind(address: &Address) -> Result<Listener, BindError> {
    let opened = match address {
        Address::Tcp(address) => bind_tcp(*address),
        Address::Unix(path) => bind_unix(path),
    };
    opened.map_err(|error| {
        let cause = match (error.kind(), address) {
            (io::ErrorKind::AddrInUse, _) => "another process listens there already".to_owned(),
            (io::ErrorKind::PermissionDenied, Address::Tcp(_)) => {
                "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
            }
            (io::ErrorKind::PermissionDenied, Address::Unix(_)) => {
                "permission denied: the gateway's user must be able to write its folder".to_owned()
            }
            (io::ErrorKind::NotFound, Address::Unix(_)) => "there is no such folder".to_owned(),
            (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        BindError {
            address: address.to_string(),
            cause,
            is_taken: error.kind() == io::ErrorKind::AddrInUse,
        }
    })
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The same on every machine, whatever net.ipv6.bindv6only says: an IPv6 address is IPv6.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Listener::take_over(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    // Nobody can connect before the socket listens, so nobody gets in by the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    match Listener::take_over(socket.into())? {
        Listener::Unix(listener, _) => Ok(Listener::Unix(listener, Some(file))),
        other => Ok(other),
    }
}

/// Removes what a process has left behind that was killed. A socket on which somebody listens stays, and so does
/// any other file.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("there is a file that is no socket"));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Its queue is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        Err(error) => Err(error),
    }
}

/// Says where it listens.
pub fn announce(what: &str, listener: &Listener) {
    if let Some(address) = listener.address() {
        tracing::info!("{what} on {address}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_replaces_a_stale_one_only_and_goes_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let address = Address::Unix(path.clone());
        // A process that was killed leaves its file.
        drop(StdUnixListener::bind(&path).unwrap());
        let listener = bind(&address).unwrap();
        assert_eq!(listener.address(), Some(address.clone()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(bind(&address).unwrap_err().is_taken());
        assert!(StdUnixStream::connect(&path).is_ok());
        drop(listener);
        assert!(!path.exists());

        fs::write(&path, "notes").unwrap();
        assert!(!bind(&address).unwrap_err().is_taken());
        assert_eq!(fs::read(&path).unwrap(), b"notes");
    }

    #[tokio::test]
    async fn the_socket_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let address = Address::Unix(path.clone());
        let listener = bind(&address).unwrap();
        fs::remove_file(&path).unwrap();
        let other = StdUnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());

        drop(other);
        let handed_over = bind(&address).unwrap();
        handed_over.leave_file();
        drop(handed_over);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn an_ipv6_address_is_ipv6_only() {
        // Somebody else may have the same port of IPv4, but not every time.
        let both_listen = (0..50).any(|_| {
            let six = bind(&Address::Tcp("[::]:0".parse().unwrap())).unwrap();
            let Some(Address::Tcp(address)) = six.address() else {
                panic!("no address");
            };
            bind(&Address::Tcp(([0, 0, 0, 0], address.port()).into())).is_ok()
        });
        assert!(both_listen);
    }
}
