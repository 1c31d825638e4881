//! Handles of files, which a client gives to a daemon that runs on the same machine as the same user: the daemon writes the file, and
//! nothing crosses the session.
//!
//! A handle crosses a Unix socket of its own. The client makes one with a fresh name in the abstract namespace, and tells the name in an
//! answer of the session; the daemon connects and receives the handle. Each asks the kernel who the other one is, for everybody on the
//! machine sees such names. A daemon that runs as somebody else gets nothing and takes nothing: it may do to an open file what the client
//! may not. Nor do two meet that are on different machines or in different network namespaces. In all these cases the bytes go
//! through the session.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with, sockopt,
};

use crate::random;

/// Begins every name. Only such names are connected to, whatever a client says.
const NAME_PREFIX: &str = "kiln-handle-";

/// How long an offer holds, and how long the other one's part may take.
const WAIT: Duration = Duration::from_secs(10);

/// What the kernel says of users and groups that have no id in this namespace: two of them need not be the same.
const OVERFLOW_ID: u32 = 65534;

/// Offers a handle to a daemon on this machine, and gives the name by which it can be taken, once. Called within a runtime.
///
/// # Errors
/// This machine has no random numbers or no sockets to give.
pub(crate) fn offer(handle: OwnedFd) -> io::Result<String> {
    let name = random::name().ok_or_else(|| io::Error::other("no random numbers"))?;
    let name = format!("{NAME_PREFIX}{name}");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let given = async move {
        loop {
            let (stream, _) = listener.accept().await?;
            match give(&stream.into_std()?, &handle) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::debug!(%error, "handle not given");
                }
                given => return given,
            }
        }
    };
    tokio::spawn(async move {
        match tokio::time::timeout(WAIT, given).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "handle not given"),
            Err(_) => tracing::debug!("nobody came for a handle"),
        }
    });
    Ok(name)
}

fn give(stream: &UnixStream, handle: &OwnedFd) -> io::Result<()> {
    check_peer(stream)?;
    send(stream, handle)
}

fn send(stream: &UnixStream, handle: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handles = [handle.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&handles));
    // Nothing was sent before: there is room.
    sendmsg(stream, &[IoSlice::new(b"h")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the handle that a client offers under `name`. Blocks, but not for long.
///
/// # Errors
/// The client is not on this machine, is somebody else, or broke its word.
pub(crate) fn take(name: &str) -> io::Result<OwnedFd> {
    let well_formed = name.strip_prefix(NAME_PREFIX).is_some_and(|random| {
        random.len() == random::NAME_DIGITS && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if !well_formed {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "invalid name of a handle"));
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // Where others crowd the socket, this fails instead of waiting.
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    let stream = UnixStream::from(socket);
    check_peer(&stream)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut handles = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(handles) => Some(handles),
        _ => None,
    });
    let handle = handles.next().and_then(|mut handles| handles.next());
    let whole = received.bytes == 1 && !received.flags.contains(ReturnFlags::CTRUNC);
    handle.filter(|_| whole).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no handle came"))
}

/// Whether whoever is at the other end is this very user.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = sockopt::socket_peercred(stream)?;
    let ids = (peer.uid.as_raw(), peer.gid.as_raw());
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if ids != own || own.0 == OVERFLOW_ID || own.1 == OVERFLOW_ID {
        let text = format!("the other end is {}:{}, this one {}:{}", ids.0, ids.1, own.0, own.1);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;

    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    const OTHER_ID: u32 = 1;

    const NAME_VARIABLE: &str = "KILN_TEST_HANDLE";

    fn taken(name: String) -> io::Result<OwnedFd> {
        std::thread::spawn(move || take(&name)).join().expect("does not panic")
    }

    async fn take_beside(name: &str) -> io::Result<OwnedFd> {
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || taken(name)).await.expect("does not panic")
    }

    #[tokio::test]
    async fn a_handle_is_given_once() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let name = offer(file.into()).unwrap();
        let handle = take_beside(&name).await.unwrap();
        assert!(rustix::io::fcntl_getfd(&handle).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let mut content = String::new();
        let mut file = File::from(handle);
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        assert!(take_beside(&name).await.is_err());
    }

    /// What the test below has somebody else do; on its own it does nothing.
    #[test]
    fn part_of_somebody_else() {
        let Ok(name) = std::env::var(NAME_VARIABLE) else { return };
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        if let Ok(mut stream) = UnixStream::connect_addr(&address) {
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            assert_eq!(said, b"", "something was given");
            return;
        }
        let listener = UnixListener::bind_addr(&address).unwrap();
        println!("listens");
        // The peer may be gone before it is sent anything.
        let _ = send(&listener.accept().unwrap().0, &tempfile::tempfile().unwrap().into());
    }

    /// Needs root, to be somebody else.
    #[tokio::test]
    async fn somebody_else_gets_nothing_and_gives_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Somebody else may not come to where tests are built.
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let somebody_else = |name: &str| {
            let mut command = tokio::process::Command::new(&program);
            command.args(["--exact", "--nocapture", "handles::tests::part_of_somebody_else"]);
            command.env(NAME_VARIABLE, name).current_dir("/").uid(OTHER_ID).gid(OTHER_ID);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
            command.spawn().expect("the test's copy starts")
        };
        let name = offer(tempfile::tempfile().unwrap().into()).unwrap();
        assert!(somebody_else(&name).wait().await.unwrap().success());
        take_beside(&name).await.expect("is still there for whom it is for");

        let name = format!("{NAME_PREFIX}{:032x}", 7);
        let mut giving = somebody_else(&name);
        let mut lines = BufReader::new(giving.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("it listens first").ends_with("listens") {}
        assert_eq!(take_beside(&name).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        drop(lines);
    }

    #[test]
    fn nobody_is_connected_to_whom_the_name_does_not_show() {
        let listener =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name("kiln-other-service").unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        for name in ["kiln-other-service", "", "kiln-handle-", "kiln-handle-../../../../../../../../../../x"]
        {
            assert_eq!(take(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_client_that_sends_no_handle() {
        let name = format!("{NAME_PREFIX}{:032x}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let client = std::thread::spawn(move || {
            listener.accept().unwrap().0.write_all(b"h").unwrap();
            drop(listener.accept().unwrap());
            // More than was asked for: none of it stays open.
            let stream = listener.accept().unwrap().0;
            let file = tempfile::tempfile().unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let many = [file.as_fd(); 8];
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
            sendmsg(&stream, &[IoSlice::new(b"h")], &mut ancillary, SendFlags::empty()).unwrap();
        });
        for _ in 0..3 {
            assert_eq!(take(&name).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        client.join().unwrap();
    }
}
