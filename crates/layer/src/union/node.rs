//! One file of a union.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::dir::{Dir, FILE_FLAGS};
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, Format};

/// A file as the union shows it. It keeps its directory's handles open.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where in the union; empty for the root.
    pub path: PathBuf,
    /// Its attributes; the owner is the kept one where the store keeps owners in an attribute.
    pub meta: Meta,
    dir: Arc<Dir>,
    part: usize,
}

impl Node {
    pub(super) fn root(root: &Arc<Dir>, format: &Format) -> Result<Option<Self>> {
        let Some(part) = root.parts.first() else { return Ok(None) };
        let mut meta = Meta::of(&part.fd).map_err(Error::io("look up", "/"))?;
        kept_owner(&part.fd, OsStr::new("."), &mut meta, format);
        Ok(Some(Self { path: PathBuf::new(), meta, dir: Arc::clone(root), part: 0 }))
    }

    pub(super) fn child(dir: &Arc<Dir>, name: &OsStr, format: &Format) -> Result<Option<Self>> {
        let Some((part, mut meta)) = dir.find(name)? else { return Ok(None) };
        kept_owner(&dir.parts[part].fd, name, &mut meta, format);
        Ok(Some(Self { path: dir.path.join(name), meta, dir: Arc::clone(dir), part }))
    }

    pub(super) fn parent_dir(&self) -> &Arc<Dir> {
        &self.dir
    }

    /// Its last name; `.` for the root.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or(OsStr::new("."))
    }

    /// Which layer shows it, 0 being the lowest.
    pub fn layer(&self) -> usize {
        self.dir.parts[self.part].layer
    }

    /// The layer's directory that holds its [name](Self::name).
    pub fn holder(&self) -> BorrowedFd<'_> {
        self.dir.parts[self.part].fd.as_fd()
    }

    /// Opens a regular file (or directory) for reading.
    pub fn open(&self) -> Result<File> {
        rustix::fs::openat(self.holder(), self.name(), FILE_FLAGS, Mode::empty())
            .map(File::from)
            .map_err(Error::io("open", &self.path))
    }

    /// Where a symlink points.
    pub fn read_link(&self) -> Result<PathBuf> {
        rustix::fs::readlinkat(self.holder(), self.name(), Vec::new())
            .map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))
            .map_err(Error::io("read link", &self.path))
    }

    /// One extended attribute.
    pub fn xattr(&self, key: &str) -> Result<Option<Vec<u8>>> {
        get_xattr(&overlay::proc_path(self.holder(), self.name()), OsStr::new(key))
            .map_err(Error::io("read attributes of", &self.path))
    }

    /// Its extended attributes, without overlayfs' and the store's own, sorted by key.
    pub fn xattrs(&self) -> Result<Vec<(OsString, Vec<u8>)>> {
        let path = overlay::proc_path(self.holder(), self.name());
        list_xattrs(&path).map_err(Error::io("read attributes of", &self.path))
    }
}

/// A name that a directory of the union shows, not looked at yet. It keeps its directory's handles open.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) dir: Arc<Dir>,
    pub(super) part: usize,
    pub(super) name: OsString,
    pub(super) kind: FileKind,
}

impl Entry {
    /// Its name in the directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Which layer shows it, 0 being the lowest.
    pub fn layer(&self) -> usize {
        self.dir.parts[self.part].layer
    }

    /// The layer's directory that holds its [name](Self::name).
    pub fn holder(&self) -> BorrowedFd<'_> {
        self.dir.parts[self.part].fd.as_fd()
    }

    /// The file with its attributes; `format` is that of the union.
    pub fn look(&self, format: &Format) -> Result<Node> {
        let path = self.dir.path.join(&self.name);
        let fd = &self.dir.parts[self.part].fd;
        let mut meta = Meta::at(fd, &self.name).map_err(Error::io("look up", &path))?;
        kept_owner(fd, &self.name, &mut meta, format);
        Ok(Node { path, meta, dir: Arc::clone(&self.dir), part: self.part })
    }
}

/// Reads one extended attribute without following a symlink.
pub(crate) fn get_xattr(path: &Path, key: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, key, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.len() < 1 << 16 => value.resize(1 << 16, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Reads all extended attributes that are not overlayfs' or the store's own.
pub(crate) fn list_xattrs(path: &Path) -> rustix::io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names = vec![0; 1024];
    let len = loop {
        match rustix::fs::llistxattr(path, &mut names[..]) {
            Ok(len) => break len,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if names.len() < 1 << 16 => names.resize(1 << 16, 0),
            Err(error) => return Err(error),
        }
    };
    let mut found = Vec::new();
    for name in names[..len].split(|&byte| byte == 0) {
        if name.is_empty() || overlay::is_private_xattr(name) {
            continue;
        }
        let name = OsStr::from_bytes(name);
        if let Some(value) = get_xattr(path, name)? {
            found.push((name.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// Puts the owner kept in the attribute in place of the one on disk.
fn kept_owner(dir: impl AsFd, name: &OsStr, meta: &mut Meta, format: &Format) {
    if !format.owner_xattr || !(meta.is_file() || meta.is_dir()) {
        return;
    }
    let path = overlay::proc_path(dir, name);
    if let Ok(Some(value)) = get_xattr(&path, OsStr::new(overlay::OWNER_XATTR))
        && let Some((uid, gid)) = overlay::parse_owner(&value)
    {
        (meta.uid, meta.gid) = (uid, gid);
    }
}
