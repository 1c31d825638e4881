//! Messages between daemon, spawner and steps: one packet each, JSON, with descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest packet; what may be longer travels in a memory file.
const PACKET_BYTES_MAX: usize = 16 << 10;
/// Descriptors in one packet; the kernel's limit is 253.
pub const PACKET_FDS_MAX: usize = 200;

/// Identifies a process between daemon and spawner.
pub type Token = u64;

/// Daemon to spawner.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Fork a child whose side of the step socket is the first descriptor.
    Spawn {
        token: Token,
        /// `CLONE_NEW*`.
        namespaces: u64,
        /// The next descriptor is a cgroup to be born in.
        into_cgroup: bool,
        /// The next descriptor is a network namespace to be born in.
        into_network: bool,
        /// The next descriptor is a process in whose pid namespace to be born.
        into_pid_namespace_of: bool,
        /// For a new user namespace: text of `uid_map` and `gid_map`.
        id_maps: Option<(String, String)>,
    },
    Signal {
        token: Token,
        signal: i32,
    },
}

/// Spawner to daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// With a descriptor that refers to the process.
    Spawned {
        token: Token,
    },
    SpawnFailed {
        token: Token,
        what: String,
        errno: i32,
    },
    /// With its exit code, or 128 + the signal that ended it.
    Exited {
        token: Token,
        code: u32,
    },
}

/// Step to daemon, before its process is executed.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// With the terminal's other side as descriptor.
    Terminal,
    SetupFailed {
        what: String,
        errno: i32,
    },
    /// The process of the step cannot be executed: the text is the user's concern.
    ExecFailed {
        message: String,
    },
}

/// Daemon to step: head of the packets that carry its descriptors; the first of these is a memory file with the plan as
/// JSON and then the system call filter.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parcel {
    pub plan_bytes: usize,
    pub filter_bytes: usize,
    /// Descriptors in all packets together.
    pub fds: usize,
}

/// A pair of connected packet sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

pub fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > PACKET_BYTES_MAX || fds.len() > PACKET_FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map(|_| ()).map_err(io::Error::from),
        }
    }
}

/// The next message with its descriptors; `None` when the other side is closed.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
}
