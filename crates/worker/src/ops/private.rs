//! Files that only the steps of one vertex get to see: secrets, in memory only, and sockets of ssh agents.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_session::daemon::Secret;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Error, Result};

/// A directory that is not on any disk.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    mounted: bool,
    next: AtomicU64,
}

/// A file in a [`PrivateDir`]; it goes when this does.
#[derive(Debug)]
pub struct PrivateFile {
    path: PathBuf,
}

/// Who may do what with a private file.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl PrivateDir {
    /// Mounts an empty file system in memory at `path`. What an earlier worker left there goes.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn new(path: PathBuf) -> Result<PrivateDir> {
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        let mounted = rustix::mount::mount("tmpfs", &path, "tmpfs", flags, c"mode=0711").is_ok();
        if !mounted {
            // Without the right to mount there are no steps either; sources may still want a socket.
            tracing::debug!(path = %path.display(), "no file system in memory for private files");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o711))
            .map_err(Error::io("change mode of", &path))?;
        Ok(PrivateDir { path, mounted, next: AtomicU64::new(0) })
    }

    /// A name that nobody has used.
    pub fn fresh_path(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A file with a secret.
    ///
    /// # Errors
    /// Secrets are not written to disk: without a file system in memory there are none.
    pub fn secret(&self, secret: &Secret, access: Access) -> Result<PrivateFile> {
        if !self.mounted {
            return Err(Error::Text(
                "unable to setup secret mount: no file system in memory could be mounted".into(),
            ));
        }
        self.file(secret.reveal(), access)
    }

    /// A file with `content`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn file(&self, content: &[u8], access: Access) -> Result<PrivateFile> {
        let file = PrivateFile { path: self.fresh_path() };
        let failed = || Error::io("write", file.path.clone());
        let mut open =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path).map_err(failed())?;
        open.write_all(content).map_err(failed())?;
        chown(&file.path, Some(access.uid), Some(access.gid)).map_err(failed())?;
        fs::set_permissions(&file.path, Permissions::from_mode(access.mode & 0o777)).map_err(failed())?;
        Ok(file)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if self.mounted {
            let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}

impl PrivateFile {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
