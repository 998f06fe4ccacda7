//! Listening sockets that are open already: systemd's, and those of the gateway that this one follows. Opening them
//! anew instead would drop the connections that wait in them.
//!
//! A gateway hands its sockets over a Unix socket (SCM_RIGHTS), with one line of JSON that names them in their order:
//! `{"version":1,"sockets":["127.0.0.1:8080"]}`. Each name is the address as it was configured. Other members are for
//! later versions, which must be understood by this one: a gateway may be followed by an older one too.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Weak},
};

use listenfd::ListenFd;
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use super::listen::Listener;
use crate::config::Address;

/// The one version that there is.
const VERSION: u32 = 1;

/// Linux passes no more in one message (SCM_MAX_FD).
const MOST: usize = 253;

/// More is not such a line: 253 addresses of 107 bytes fit.
const LONGEST_LINE: u64 = 64 * 1024;

/// Open sockets, by their addresses.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, Listener)>,
    /// Whether each of them must be wanted.
    all: bool,
}

#[derive(Deserialize, Serialize)]
struct Names {
    version: u32,
    sockets: Vec<String>,
}

impl Inherited {
    /// What systemd has opened and passed on (sd_listen_fds(3)). Within a runtime.
    ///
    /// # Errors
    ///
    /// One of them is no listening stream socket.
    pub fn from_systemd(mut passed: ListenFd) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for place in 0..passed.len() {
            let tcp = passed.take_tcp_listener(place);
            let socket: Option<OwnedFd> = match tcp {
                Ok(socket) => socket.map(OwnedFd::from),
                Err(_) => passed.take_unix_listener(place)?.map(OwnedFd::from),
            };
            let Some(socket) = socket else { continue };
            let listener = Listener::take_over(socket)?;
            let address = listener
                .address()
                .ok_or_else(|| io::Error::other("a socket that systemd has opened has no path"))?;
            sockets.push((address.to_string(), listener));
        }
        Ok(Self { sockets, all: true })
    }

    /// What another gateway hands over. Within a runtime.
    ///
    /// # Errors
    ///
    /// It hands over something else, or in a way that this version does not know.
    pub fn receive(mut from: &UnixStream) -> io::Result<Self> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut line = vec![0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(
            from,
            &mut [IoSliceMut::new(&mut line)],
            &mut ancillary,
            flags,
        )?;
        line.truncate(received.bytes);
        let mut sockets = Vec::<OwnedFd>::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                sockets.extend(passed);
            }
        }
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            if line.len() as u64 > LONGEST_LINE {
                return Err(io::Error::other("the list of sockets does not end"));
            }
            from.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let names: Names = serde_json::from_slice(&line)?;
        if names.version != VERSION || names.sockets.len() != sockets.len() {
            return Err(io::Error::other(
                "the gateway that runs hands its sockets over in a way that this one does not know",
            ));
        }
        let listeners = sockets.into_iter().map(Listener::take_over);
        let sockets = names.sockets.into_iter().zip(listeners);
        let sockets: Result<_, io::Error> = sockets
            .map(|(name, listener)| Ok((name, listener?)))
            .collect();
        Ok(Self {
            sockets: sockets?,
            all: false,
        })
    }

    /// The socket of an address, if it is open.
    pub fn take(&mut self, address: &Address) -> Option<Listener> {
        let address = address.to_string();
        let mut sockets = self.sockets.iter();
        let place = sockets.position(|(name, _)| *name == address)?;
        Some(self.sockets.remove(place).1)
    }

    /// The address of a socket that systemd has opened and nobody has taken. Its clients would wait for ever.
    pub fn forgotten(&self) -> Option<&str> {
        let first = self.sockets.first().filter(|_| self.all);
        first.map(|(name, _)| name.as_str())
    }
}

/// The sockets of a running server, for the one that follows it. They stay the server's, and close with it.
#[derive(Clone, Debug)]
pub struct Handles(pub(super) Vec<(String, Weak<Listener>)>);

impl Handles {
    /// Hands them over.
    ///
    /// # Errors
    ///
    /// The other side does not take them, or there are too many.
    pub fn send(&self, mut to: &UnixStream) -> io::Result<()> {
        let open = self.0.iter();
        let open: Vec<(&String, Arc<Listener>)> = open
            .filter_map(|(name, listener)| Some((name, listener.upgrade()?)))
            .collect();
        if open.len() > MOST {
            return Err(io::Error::other(
                "more than 253 sockets cannot be handed over",
            ));
        }
        let names = Names {
            version: VERSION,
            sockets: open.iter().map(|(name, _)| (*name).clone()).collect(),
        };
        let mut line = serde_json::to_vec(&names)?;
        line.push(b'\n');
        let sockets: Vec<BorrowedFd<'_>> =
            open.iter().map(|(_, listener)| listener.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("the sockets do not fit into a message"));
        }
        let sent = sendmsg(
            to,
            &[IoSlice::new(&line)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        to.write_all(&line[sent..])
    }

    /// From now on the files of Unix sockets are the other process's.
    pub fn leave_files(&self) {
        for (_, listener) in &self.0 {
            if let Some(listener) = listener.upgrade() {
                listener.leave_file();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listen;

    #[tokio::test]
    async fn sockets_are_handed_over_by_the_addresses_that_were_configured() {
        let folder = tempfile::tempdir().unwrap();
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let unix = Address::Unix(folder.path().join("http.sock"));
        let opened: Vec<(Address, Arc<Listener>)> = [&any, &unix, &any]
            .map(|address| (address.clone(), Arc::new(listen::bind(address).unwrap())))
            .into();
        let handles = opened.iter();
        let handles = Handles(
            handles
                .map(|(address, listener)| (address.to_string(), Arc::downgrade(listener)))
                .collect(),
        );
        let (here, there) = UnixStream::pair().unwrap();
        handles.send(&here).unwrap();
        handles.leave_files();
        let mut inherited = Inherited::receive(&there).unwrap();
        assert_eq!(inherited.forgotten(), None);
        for (address, listener) in &opened {
            let taken = inherited.take(address).unwrap();
            assert_eq!(taken.address(), listener.address());
        }
        assert!(inherited.take(&any).is_none());
        drop(opened);
        assert!(folder.path().join("http.sock").exists());
        // What is closed is not handed over.
        handles.send(&here).unwrap();
        assert!(Inherited::receive(&there).unwrap().take(&unix).is_none());
    }

    #[tokio::test]
    async fn another_version_of_the_message_is_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"{\"version\":2,\"sockets\":[],\"more\":1}\n")
            .unwrap();
        assert!(Inherited::receive(&there).is_err());
        here.write_all(b"{\"version\":1,\"sockets\":[],\"more\":1}\n")
            .unwrap();
        assert!(Inherited::receive(&there).is_ok());
        here.write_all(b"{\"version\":1,\"sockets\":[\"127.0.0.1:1\"]}\n")
            .unwrap();
        assert!(
            Inherited::receive(&there).is_err(),
            "a name without a socket"
        );
    }
}
