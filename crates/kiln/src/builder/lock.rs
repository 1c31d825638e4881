//! A lock between processes: whoever starts the daemon holds it, the others wait and find it running.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Context as _, Error, Result};

/// Another process may take this long to start a daemon.
const WAIT_MAX: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(5);

/// Held until it is dropped, or the process ends however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock, waiting for others.
pub async fn take(path: &Path) -> Result<Lock> {
    let what = format!("lock `{}`", path.display());
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).when(&what)?;
    let since = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK | Errno::INTR) if since.elapsed() < WAIT_MAX => {
                tokio::time::sleep(POLL).await
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::environment("another kiln has been starting the daemon for too long")
                    .hint(format!("see who holds it: fuser {}", path.display())));
            }
            Err(error) => return Err(error).when(&what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn one_holds_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let first = take(&path).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(50), take(&path)).await;
        assert!(second.is_err(), "the lock was given twice");
        drop(first);
        take(&path).await.unwrap();
    }
}
