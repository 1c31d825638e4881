//! Tells whoever started the daemon that it answers.

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// What whoever started the daemon waits for.
const READY: &[u8] = b"ready\n";
/// Descriptors below this are the standard streams.
const FIRST_FREE_FD: RawFd = 3;

/// Writes a word to the descriptor that was named on the command line, and tells the service manager (sd_notify(3)).
pub fn announce(ready_fd: Option<RawFd>) {
    if let Some(number) = ready_fd.filter(|number| *number >= FIRST_FREE_FD) {
        #[allow(unsafe_code)]
        // SAFETY: whoever started this process passed the descriptor for this purpose and named it on the command line;
        // nothing else here uses it. A number that is not open makes the write fail, which is all.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        if let Err(error) = std::fs::File::from(descriptor).write_all(READY) {
            tracing::warn!(%error, "the descriptor given with --ready-fd cannot be written");
        }
    }
    notify("READY=1");
}

/// Sends a state to the service manager, where there is one.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Ok(socket) = UnixDatagram::unbound()
        && let Err(error) = socket.send_to(state.as_bytes(), path)
    {
        tracing::debug!(%error, "the service manager was not told");
    }
}
