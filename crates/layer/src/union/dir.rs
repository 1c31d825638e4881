//! One directory of a union: the handles of the layer directories that make it up.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::node::Entry;
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, Format};

/// How many handles a union keeps open between calls.
const CACHED_HANDLES_MAX: usize = 512;

pub(super) const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A fifo must not keep waiting whoever opens it.
pub(super) const FILE_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

#[derive(Debug)]
pub(super) struct Dir {
    /// Where in the union.
    pub path: PathBuf,
    /// The topmost first.
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    /// Which layer, 0 being the lowest.
    pub layer: usize,
    pub fd: OwnedFd,
}

impl Dir {
    pub(super) fn open_roots<P: AsRef<Path>>(dirs_bottom_up: &[P]) -> Result<Self> {
        let mut parts = Vec::with_capacity(dirs_bottom_up.len());
        for (layer, dir) in dirs_bottom_up.iter().enumerate().rev() {
            let fd = rustix::fs::open(dir.as_ref(), DIR_FLAGS, Mode::empty())
                .map_err(Error::io("open layer directory", dir))?;
            parts.push(Part { layer, fd });
        }
        Ok(Self { path: PathBuf::new(), parts })
    }

    /// What `name` is here: which part has it.
    pub(super) fn find(&self, name: &OsStr) -> Result<Option<(usize, Meta)>> {
        for (index, part) in self.parts.iter().enumerate() {
            match Meta::at(&part.fd, name) {
                Ok(meta) if overlay::is_whiteout(&meta) => return Ok(None),
                Ok(meta) => return Ok(Some((index, meta))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("look up", self.path.join(name))(error)),
            }
        }
        Ok(None)
    }

    /// The union of the directories called `name`; `None` where there is nothing or no directory.
    pub(super) fn open_child(&self, name: &OsStr, format: &Format) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let mut parts = Vec::new();
        for part in &self.parts {
            let fd = match rustix::fs::openat(&part.fd, name, DIR_FLAGS, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                // No directory: hides what is below.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(Error::io("open directory", path)(error)),
            };
            let opaque =
                overlay::is_opaque(fd.as_fd(), format).map_err(Error::io("read attributes of", &path))?;
            parts.push(Part { layer: part.layer, fd });
            if opaque {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Self { path, parts }))
    }

    /// Opens the file `name`, if that needs no look at what hides it.
    pub(super) fn open_file(&self, name: &OsStr) -> Option<File> {
        for part in &self.parts {
            match rustix::fs::openat(&part.fd, name, FILE_FLAGS, Mode::empty()) {
                Ok(fd) => return Some(fd.into()),
                Err(Errno::NOENT) => {}
                // A whiteout is a device that nothing drives.
                Err(_) => return None,
            }
        }
        None
    }

    /// Everything in it, sorted by name.
    pub(super) fn entries(self: &Arc<Self>) -> Result<Vec<Entry>> {
        let mut found: Vec<(OsString, usize, Option<FileKind>)> = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            let failed = |error: Errno| Error::io("read directory", &self.path)(error);
            for entry in rustix::fs::Dir::read_from(&part.fd).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let kind = match FileKind::from_type(entry.file_type()) {
                    // It may be a whiteout, or the file system does not say.
                    None | Some(FileKind::CharDevice) => match Meta::at(&part.fd, name) {
                        Ok(meta) if overlay::is_whiteout(&meta) => None,
                        Ok(meta) => Some(meta.kind),
                        Err(error) => return Err(Error::io("look up", self.path.join(name))(error)),
                    },
                    kind => kind,
                };
                found.push((name.to_owned(), index, kind));
            }
        }
        // Of equal names the topmost part's holds.
        found.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        found.dedup_by(|later, first| later.0 == first.0);
        let entry = |(name, part, kind): (_, _, Option<_>)| {
            kind.map(|kind| Entry { dir: Arc::clone(self), part, name, kind })
        };
        Ok(found.into_iter().filter_map(entry).collect())
    }
}

/// Directories used lately, bounded by the handles they hold.
#[derive(Debug, Default)]
pub(super) struct Cache {
    dirs: HashMap<PathBuf, Arc<Dir>>,
    order: VecDeque<PathBuf>,
    handles: usize,
}

impl Cache {
    pub(super) fn get(&self, path: &Path) -> Option<Arc<Dir>> {
        self.dirs.get(path).cloned()
    }

    pub(super) fn put(&mut self, dir: &Arc<Dir>) {
        if dir.parts.len() > CACHED_HANDLES_MAX / 4 {
            return;
        }
        if self.dirs.insert(dir.path.clone(), Arc::clone(dir)).is_none() {
            self.handles += dir.parts.len();
            self.order.push_back(dir.path.clone());
        }
        while self.handles > CACHED_HANDLES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(dir) = self.dirs.remove(&oldest) {
                self.handles -= dir.parts.len();
            }
        }
    }
}
