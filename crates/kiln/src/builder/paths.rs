//! The files of the embedded daemon.
//!
//! ```text
//! $XDG_RUNTIME_DIR/kiln/            0700; else /run/user/UID/kiln, else STATE/run
//!     ID.sock                       the daemon listens here; ID is of the state folder's path
//!     ID.lock                       held while a daemon is being started
//!     ID.version                    version of the daemon that was started last
//! STATE/                            $KILN_ROOT, else $XDG_DATA_HOME/kiln, else ~/.local/share/kiln
//!     kilnd.log                     what the daemon writes to its standard error
//!     …                             the daemon's own
//! ```

use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::error::{Context as _, Error, Result};
use crate::settings::Settings;

/// A socket's path may not be longer, with its final zero byte.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Hexadecimal digits of a state folder's id: many enough not to meet, few enough for a socket's path.
const ID_DIGITS: usize = 12;

/// Where the embedded daemon's files are. The folders exist and belong to this user.
#[derive(Clone, Debug)]
pub struct Paths {
    /// State folder.
    pub state: PathBuf,
    /// Socket.
    pub socket: PathBuf,
    /// Lock of starting.
    pub lock: PathBuf,
    /// Version of the daemon that was started last.
    pub version: PathBuf,
    /// Log.
    pub log: PathBuf,
}

impl Paths {
    /// Finds the places and makes the folders.
    pub fn prepare(settings: &Settings) -> Result<Paths> {
        let uid = rustix::process::geteuid().as_raw();
        let state = settings.state_dir().ok_or_else(|| {
            Error::environment("there is no place for Kiln's state: neither HOME nor XDG_DATA_HOME is set")
                .hint("set KILN_ROOT to a folder that you may write to")
        })?;
        let state = std::path::absolute(&state).when("find the working directory")?;
        make_private(&state, uid)
            .map_err(|error| error.hint("set KILN_ROOT to a folder that you may write to"))?;

        let id = Digest::sha256_of(state.as_os_str().as_encoded_bytes());
        let id = &id.hex()[..ID_DIGITS];
        let mut failed = None;
        for dir in settings.runtime_dirs(uid) {
            let socket = dir.join(format!("{id}.sock"));
            if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                failed.get_or_insert(Error::environment(format!(
                    "`{}` is too long for a socket",
                    socket.display()
                )));
                continue;
            }
            match usable(&dir, &state, uid) {
                Ok(()) => {
                    let file = |kind: &str| dir.join(format!("{id}.{kind}"));
                    let (lock, version) = (file("lock"), file("version"));
                    let log = state.join("kilnd.log");
                    return Ok(Paths { state, socket, lock, version, log });
                }
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        Err(failed
            .unwrap_or_else(|| Error::ours("no folder to try for the socket"))
            .hint("set XDG_RUNTIME_DIR to a folder that belongs to you alone"))
    }
}

/// A runtime folder's parent comes from the system; only below the state folder is it made.
fn usable(dir: &Path, state: &Path, uid: u32) -> Result<()> {
    if !dir.starts_with(state)
        && let Some(parent) = dir.parent()
    {
        let metadata = std::fs::metadata(parent).when(format!("use `{}`", parent.display()))?;
        check_owner(parent, &metadata, uid)?;
    }
    make_private(dir, uid)
}

/// Makes a folder that no other user may enter, or checks that it is one.
fn make_private(dir: &Path, uid: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .when(format!("create the folder `{}`", dir.display()))?;
    let metadata = std::fs::metadata(dir).when(format!("use `{}`", dir.display()))?;
    check_owner(dir, &metadata, uid)?;
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::environment(format!("others may write to `{}`", dir.display()))
            .hint(format!("chmod 700 {}", dir.display())));
    }
    Ok(())
}

fn check_owner(dir: &Path, metadata: &Metadata, uid: u32) -> Result<()> {
    if !metadata.is_dir() {
        return Err(Error::environment(format!("`{}` is not a folder", dir.display())));
    }
    if metadata.uid() != uid {
        return Err(Error::environment(format!("`{}` belongs to another user", dir.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::settings::tests::settings;

    fn prepare(home: &Path, runtime: Option<&Path>) -> Result<Paths> {
        let mut variables = vec![("HOME", home.to_str().unwrap())];
        let runtime = runtime.map(|path| path.to_str().unwrap().to_owned());
        if let Some(runtime) = &runtime {
            variables.push(("XDG_RUNTIME_DIR", runtime));
        }
        Paths::prepare(&settings(&variables))
    }

    #[test]
    fn folders_are_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let (home, runtime) = (dir.path().join("home"), dir.path().join("run"));
        std::fs::create_dir(&runtime).unwrap();
        let paths = prepare(&home, Some(&runtime)).unwrap();
        assert_eq!(paths.state, home.join(".local/share/kiln"));
        assert!(paths.socket.starts_with(runtime.join("kiln")), "{paths:?}");
        let mode = std::fs::metadata(runtime.join("kiln")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        let again = prepare(&home, Some(&runtime)).unwrap();
        assert_eq!(again.socket, paths.socket);
        let other = prepare(&dir.path().join("other"), Some(&runtime)).unwrap();
        assert_ne!(other.socket, paths.socket);
    }

    #[test]
    fn a_folder_that_others_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join(".local/share/kiln");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = prepare(dir.path(), None).unwrap_err();
        assert!(error.to_string().contains("others may write"), "{error}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(100));
        std::fs::create_dir(&long).unwrap();
        let paths = prepare(dir.path(), Some(&long)).unwrap();
        assert!(!paths.socket.starts_with(&long));
    }
}
