//! File system calls that never leave a directory: every path is resolved beneath its handle and through no link.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::error::SyncError;
use super::stat::FileStat;

/// Where the owner is noted if it cannot be set, `uid:gid`.
const OWNER_XATTR: &str = "user.kiln.owner";

/// Attributes with a meaning for this host's layers, which a sender must not set.
const XATTRS_REFUSED: [&str; 3] = ["trusted.overlay.", "user.overlay.", "user.kiln."];

/// What the owner of a directory needs to work in it.
const OWNER_ALL: u32 = 0o700;

/// Handles of directories that are kept open: what several threads write at once lies in few directories.
const HANDLES_MAX: usize = 8;

/// A directory below the top by its path.
type Recent = (String, Arc<OwnedFd>);

/// A directory, and handles of directories below it that were used lately. Clones share them.
#[derive(Clone)]
pub(super) struct Beneath {
    root: Arc<OwnedFd>,
    /// The one used last is last.
    recent: Arc<Mutex<Vec<Recent>>>,
}

pub(super) fn file_error(action: &'static str, path: &str, source: impl Into<io::Error>) -> SyncError {
    SyncError::File { action, path: path.to_string(), source: source.into() }
}

/// Directory and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Beneath {
    pub(super) fn new(root: Arc<OwnedFd>) -> Self {
        Self { root, recent: Arc::default() }
    }

    /// The handle of the directory that has `path`, and the name in it.
    fn parent<'a>(&self, path: &'a str) -> Result<(Arc<OwnedFd>, &'a str), SyncError> {
        let (dir, name) = split(path);
        if dir.is_empty() {
            return Ok((self.root.clone(), name));
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = recent.iter().rposition(|(known, _)| known == dir) {
            recent[position..].rotate_left(1);
            return Ok((recent[recent.len() - 1].1.clone(), name));
        }
        let fd = Arc::new(
            self.open(dir, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| file_error("open", dir, e))?,
        );
        if recent.len() == HANDLES_MAX {
            recent.remove(0);
        }
        recent.push((dir.to_string(), fd.clone()));
        Ok((fd, name))
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed meanwhile.
        loop {
            match fs::openat2(&*self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// What is at `path`; none: nothing.
    pub(super) fn kind(&self, path: &str) -> Result<Option<FileType>, SyncError> {
        let (dir, name) = self.parent(path)?;
        match fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(file_error("stat", path, error)),
        }
    }

    /// Removes whatever is at `path`. Nothing there, or something else than a directory above it, is fine.
    pub(super) fn remove_all(&self, path: &str) -> Result<(), SyncError> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Paths, not handles, are kept while going down: depth costs no file descriptors.
        let mut stack = vec![path.to_string()];
        while let Some(path) = stack.last().cloned() {
            let (dir, name) = split(&path);
            let dir = if dir.is_empty() {
                self.root.clone()
            } else {
                match self.open(dir, OFlags::PATH | OFlags::DIRECTORY) {
                    Ok(dir) => Arc::new(dir),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        stack.pop();
                        continue;
                    }
                    Err(error) => return Err(file_error("open", dir, error)),
                }
            };
            match fs::unlinkat(&*dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    stack.pop();
                    continue;
                }
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(file_error("remove", &path, error)),
            }
            match fs::unlinkat(&*dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {
                    stack.pop();
                }
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let names = self.names(&path)?;
                    stack.extend(names.iter().map(|name| format!("{path}/{name}")));
                }
                Err(error) => return Err(file_error("remove", &path, error)),
            }
        }
        Ok(())
    }

    /// Names in a directory; the empty path is the top.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>, SyncError> {
        let shown = if path.is_empty() { "." } else { path };
        let error = |error: Errno| file_error("read", shown, error);
        let handle = self.open(shown, OFlags::RDONLY | OFlags::DIRECTORY).map_err(error)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&handle).map_err(error)? {
            let entry = entry.map_err(error)?;
            // A name that cannot be sent cannot have been sent either; it cannot be told from here.
            let name = entry.file_name().to_str().map_err(|_| error(Errno::ILSEQ))?;
            if name != "." && name != ".." {
                names.push(name.to_string());
            }
        }
        Ok(names)
    }

    /// Makes a directory; its metadata is set separately. Fails with `AlreadyExists` if something is there.
    pub(super) fn mkdir(&self, path: &str) -> Result<(), SyncError> {
        let (dir, name) = self.parent(path)?;
        fs::mkdirat(&*dir, name, Mode::RWXU).map_err(|error| file_error("create directory", path, error))
    }

    pub(super) fn symlink(&self, target: &str, path: &str) -> Result<(), SyncError> {
        let (dir, name) = self.parent(path)?;
        fs::symlinkat(target, &*dir, name).map_err(|error| file_error("create symlink", path, error))
    }

    pub(super) fn mknod(&self, path: &str, kind: FileType, device: (u32, u32)) -> Result<(), SyncError> {
        let (dir, name) = self.parent(path)?;
        fs::mknodat(&*dir, name, kind, Mode::RUSR | Mode::WUSR, fs::makedev(device.0, device.1))
            .map_err(|error| file_error("create device", path, error))
    }

    /// Links `path` to the regular file `target`.
    pub(super) fn link(&self, target: &str, path: &str) -> Result<(), SyncError> {
        let (from_dir, from) = self.parent(target)?;
        let (to_dir, to) = self.parent(path)?;
        fs::linkat(&*from_dir, from, &*to_dir, to, AtFlags::empty())
            .map_err(|error| file_error("create link", path, error))
    }

    /// Makes a new file at `path`. `AlreadyExists` if something is there.
    pub(super) fn create(&self, path: &str, permissions: u32) -> Result<OwnedFd, SyncError> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // With the right permissions at once there is mostly nothing to change afterwards.
        let mode = Mode::from_raw_mode(permissions) | Mode::RUSR | Mode::WUSR;
        fs::openat(&*dir, name, flags, mode).map_err(|error| file_error("create", path, error))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), SyncError> {
        let (from_dir, from) = self.parent(from)?;
        let (to_dir, name) = self.parent(to)?;
        fs::renameat(&*from_dir, from, &*to_dir, name).map_err(|error| file_error("rename", to, error))
    }

    pub(super) fn unlink(&self, path: &str) -> Result<(), SyncError> {
        let (dir, name) = self.parent(path)?;
        fs::unlinkat(&*dir, name, AtFlags::empty()).map_err(|error| file_error("remove", path, error))
    }

    /// Owner, permissions and attributes of a directory. Its times, and permissions that keep its owner out, are for
    /// [`Beneath::finish_dir`], when nothing changes in it any more.
    pub(super) fn set_dir_metadata(&self, stat: &FileStat, chown: bool) -> Result<(), SyncError> {
        let error = |e| file_error("open", &stat.path, e);
        let fd = self.open(&stat.path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(error)?;
        set_attributes(&fd, stat, stat.permissions() | OWNER_ALL, chown)
    }

    /// Lets the owner of a directory into it until [`Beneath::finish_dir`].
    pub(super) fn open_up(&self, stat: &FileStat) -> Result<(), SyncError> {
        if stat.permissions() & OWNER_ALL == OWNER_ALL {
            return Ok(());
        }
        self.chmod(stat, stat.permissions() | OWNER_ALL)
    }

    /// The rest of a directory's metadata.
    pub(super) fn finish_dir(&self, stat: &FileStat) -> Result<(), SyncError> {
        let (dir, name) = self.parent(&stat.path)?;
        fs::utimensat(&*dir, name, &timestamps(stat.mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| file_error("set times of", &stat.path, error))?;
        if stat.permissions() & OWNER_ALL == OWNER_ALL {
            return Ok(());
        }
        self.chmod(stat, stat.permissions())
    }

    /// The parent is a handle beneath the root and the name no link: it was made or checked by this transfer.
    fn chmod(&self, stat: &FileStat, permissions: u32) -> Result<(), SyncError> {
        let (dir, name) = self.parent(&stat.path)?;
        fs::chmodat(&*dir, name, Mode::from_raw_mode(permissions), AtFlags::empty())
            .map_err(|error| file_error("chmod", &stat.path, error))
    }

    /// Owner, permissions and times of something that is neither file nor directory.
    pub(super) fn set_special_metadata(&self, stat: &FileStat, chown: bool) -> Result<(), SyncError> {
        let (dir, name) = self.parent(&stat.path)?;
        if chown {
            let owner = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
            match fs::chownat(&*dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
                // Links and devices carry no attributes of users: the owner is lost.
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(error) => return Err(file_error("chown", &stat.path, error)),
            }
        }
        if stat.kind() != super::FileKind::Symlink {
            self.chmod(stat, stat.permissions())?;
        }
        let times = timestamps(stat.mtime_ns);
        fs::utimensat(&*dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| file_error("set times of", &stat.path, error))
    }
}

/// All metadata of a regular file that was just written.
pub(super) fn set_file_metadata(fd: impl AsFd, stat: &FileStat, chown: bool) -> Result<(), SyncError> {
    set_attributes(&fd, stat, stat.permissions(), chown)?;
    fs::futimens(&fd, &timestamps(stat.mtime_ns))
        .map_err(|error| file_error("set times of", &stat.path, error))
}

/// Owner, permissions, attributes; in this order, since a change of owner drops special bits and capabilities. What is right already
/// is left alone: each change is a write to the file system's journal.
fn set_attributes(fd: impl AsFd, stat: &FileStat, permissions: u32, chown: bool) -> Result<(), SyncError> {
    let mut now = fs::fstat(&fd).map_err(|error| file_error("stat", &stat.path, error))?;
    if chown && (now.st_uid, now.st_gid) != (stat.uid, stat.gid) {
        // Special bits may be gone now.
        now.st_mode = 0;
        match fs::fchown(&fd, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid))) {
            Ok(()) => {}
            // One user id for everything: the owner is kept as a note.
            Err(Errno::PERM | Errno::INVAL) => {
                let note = format!("{}:{}", stat.uid, stat.gid);
                fs::fsetxattr(&fd, OWNER_XATTR, note.as_bytes(), XattrFlags::empty())
                    .map_err(|error| file_error("note owner of", &stat.path, error))?;
            }
            Err(error) => return Err(file_error("chown", &stat.path, error)),
        }
    }
    if now.st_mode & 0o7777 != permissions {
        fs::fchmod(&fd, Mode::from_raw_mode(permissions))
            .map_err(|error| file_error("chmod", &stat.path, error))?;
    }
    for (name, value) in &stat.xattrs {
        set_xattr(&fd, name, value);
    }
    Ok(())
}

/// Best effort, as everywhere: file systems and users differ in what they allow.
fn set_xattr(fd: impl AsFd, name: &str, value: &Bytes) {
    if XATTRS_REFUSED.iter().any(|prefix| name.starts_with(prefix)) || name.contains('\0') {
        return;
    }
    if let Err(error) = fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
        tracing::debug!(name, %error, "attribute not set");
    }
}

fn timestamps(mtime_ns: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    let time = Timespec { tv_sec: mtime_ns.div_euclid(SECOND), tv_nsec: mtime_ns.rem_euclid(SECOND) as _ };
    Timestamps { last_access: time, last_modification: time }
}
