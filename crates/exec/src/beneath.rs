//! Paths inside a root file system: everything is resolved beneath a directory handle, symlinks included, so that nothing in
//! an image can name a file outside of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many symlinks as Linux follows in one path.
const SYMLINKS_MAX: usize = 40;
/// `openat2` asks for another try when a rename ran beside it.
const RETRIES_MAX: usize = 32;

/// A root directory.
#[derive(Debug)]
pub struct Root<Fd> {
    fd: Fd,
}

/// A path relative to the root in which no component is a symlink or `..`; empty for the root itself. Its end need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved(PathBuf);

impl Resolved {
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() { None } else { self.0.parent().map(|p| Self(p.to_owned())) }
    }

    pub fn file_name(&self) -> Option<&OsStr> {
        self.0.file_name()
    }
}

impl Root<OwnedFd> {
    pub fn open_path(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }
}

impl<Fd: AsFd> Root<Fd> {
    pub fn new(fd: Fd) -> Self {
        Self { fd }
    }

    /// Follows symlinks as a process with this root would, as far as the path exists; the rest is taken as it is.
    pub fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        let mut todo: Vec<OsString> = components(path);
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(next) = todo.pop() {
            if next == ".." {
                done.pop();
                continue;
            }
            let candidate = done.join(&next);
            match self.read_link(&Resolved(candidate.clone())) {
                Ok(target) => {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        done.clear();
                    }
                    todo.extend(components(&target));
                }
                // Not a symlink, or not there.
                Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => done = candidate,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Resolved(done))
    }

    fn read_link(&self, path: &Resolved) -> Result<PathBuf, Errno> {
        let fd = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        match rustix::fs::readlinkat(&fd, c"", Vec::new()) {
            Ok(target) => Ok(PathBuf::from(OsString::from_vec(target.into_bytes()))),
            // Asked of something else than a symlink by an empty path.
            Err(Errno::NOENT) => Err(Errno::INVAL),
            Err(e) => Err(e),
        }
    }

    /// Opens a resolved path; fails rather than follow a symlink that has appeared since.
    pub fn open_at(&self, path: &Resolved, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let name: &Path = if path.is_root() { Path::new(".") } else { path.as_path() };
        // With O_NOFOLLOW | O_PATH the last component may be a symlink: the handle is to the link itself.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve =
            if flags.contains(OFlags::NOFOLLOW) { resolve } else { resolve | ResolveFlags::NO_SYMLINKS };
        let mut result = Err(Errno::AGAIN);
        for _ in 0..RETRIES_MAX {
            result = rustix::fs::openat2(&self.fd, name, flags | OFlags::CLOEXEC, mode, resolve);
            if !matches!(result, Err(Errno::AGAIN)) {
                break;
            }
        }
        result
    }

    /// Opens a path with symlinks followed inside the root.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut result = Err(Errno::AGAIN);
        for _ in 0..RETRIES_MAX {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            result = rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
            if !matches!(result, Err(Errno::AGAIN)) {
                break;
            }
        }
        result
    }

    pub fn exists(&self, path: &Resolved) -> Result<bool, Errno> {
        match self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Makes a directory and its missing parents, each given to `owner`, and opens it.
    pub fn make_dir_all(
        &self,
        path: &Resolved,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<OwnedFd, Errno> {
        let mut done = PathBuf::new();
        let mut dir =
            self.open_at(&Resolved(done.clone()), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        for component in path.as_path().components() {
            done.push(component);
            dir = match self.open_at(&Resolved(done.clone()), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, component.as_os_str(), Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e),
                    }
                    let made = self.open_at(
                        &Resolved(done.clone()),
                        OFlags::RDONLY | OFlags::DIRECTORY,
                        Mode::empty(),
                    )?;
                    // Past the daemon's umask.
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
                    if let Some((uid, gid)) = owner {
                        chown(&made, uid, gid)?;
                    }
                    made
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }

    /// Makes an empty file unless something is there, and its missing parents.
    pub fn make_file(&self, path: &Resolved, mode: u32) -> Result<(), Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ISDIR);
        };
        let parent = self.make_dir_all(&parent, 0o755, None)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode)) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e),
        }
    }

    pub fn stat(&self, path: &Resolved) -> Result<rustix::fs::Stat, Errno> {
        let fd = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        rustix::fs::fstat(&fd)
    }

    /// Removes an empty directory or a file.
    pub fn remove(&self, path: &Resolved, is_dir: bool) -> Result<(), Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::BUSY);
        };
        let parent = self.open_at(&parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::unlinkat(&parent, name, if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() })
    }
}

fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Result<(), Errno> {
    rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))
}

/// Components of a path in reverse, without `.` and the root.
fn components(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::from_bytes(b"..").to_owned()),
        _ => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root<OwnedFd>) {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open_path(dir.path()).expect("a root");
        (dir, root)
    }

    fn resolved(root: &Root<OwnedFd>, path: &str) -> String {
        root.resolve(Path::new(path)).expect("resolves").as_path().display().to_string()
    }

    #[test]
    fn links_stay_inside() {
        let (dir, root) = root();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("/etc", dir.path().join("abs")).unwrap();
        symlink("../../../..", dir.path().join("a/up")).unwrap();
        symlink("missing/x", dir.path().join("a/dangling")).unwrap();
        symlink("loop2", dir.path().join("loop1")).unwrap();
        symlink("loop1", dir.path().join("loop2")).unwrap();
        assert_eq!(resolved(&root, "/a/b/../b"), "a/b");
        assert_eq!(resolved(&root, "/abs/passwd"), "etc/passwd");
        assert_eq!(resolved(&root, "/a/up/etc"), "etc");
        assert_eq!(resolved(&root, "/a/dangling/y"), "a/missing/x/y");
        assert_eq!(resolved(&root, "../../x"), "x");
        assert_eq!(resolved(&root, "/"), "");
        let error = root.resolve(Path::new("/loop1")).expect_err("a loop");
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn magic_links_are_refused() {
        let (dir, root) = root();
        symlink("/proc/self/root", dir.path().join("magic")).unwrap();
        assert_eq!(resolved(&root, "/magic/etc"), "proc/self/root/etc");
        let proc = Root::open_path(Path::new("/proc")).unwrap();
        assert_eq!(proc.open(Path::new("self/root/etc"), OFlags::PATH).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn makes_directories_and_files_beneath() {
        let (dir, root) = root();
        symlink("/t", dir.path().join("l")).unwrap();
        let path = root.resolve(Path::new("/l/a/b")).unwrap();
        root.make_dir_all(&path, 0o755, None).unwrap();
        assert!(dir.path().join("t/a/b").is_dir());
        root.make_file(&root.resolve(Path::new("/x/f")).unwrap(), 0o644).unwrap();
        assert!(dir.path().join("x/f").is_file());
    }
}
