//! One file with all that belongs to it: copying, linking, removing.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::apply_times as times;
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, Format};
use crate::tar::{Entry, EntryKind};
use crate::union::Node;

pub(crate) const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What one `copy_file_range` is asked to copy at most.
const COPY_BYTES: usize = 128 << 20;

/// How a file gets to its new place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyHow {
    /// A further name of the same file, where the file system allows it; else a copy. Only for files that nobody will
    /// ever write to again.
    Link,
    /// A copy that shares blocks with the original where the file system can do that.
    Copy,
}

/// Makes `name` in `dir` (where it must not exist) what `node` is, with owner, mode, time and attributes. A directory
/// comes without its content.
pub fn copy_node(
    node: &Node,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    how: CopyHow,
    format: &Format,
) -> Result<()> {
    if how == CopyHow::Link && !node.meta.is_dir() {
        match rustix::fs::linkat(node.holder(), node.name(), dir, name, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            // Another file system, too many links, or links to others' files forbidden.
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {}
            Err(error) => return Err(Error::io("link", &node.path)(error)),
        }
    }
    let failed = |error: Errno| Error::io("create", &node.path)(error);
    let mode = Mode::from_raw_mode(node.meta.mode & 0o777);
    match node.meta.kind {
        FileKind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = rustix::fs::openat(dir, name, flags, mode).map_err(failed)?;
            let from = node.open()?;
            copy_content(from.as_fd(), to.as_fd(), node.meta.size).map_err(Error::io("copy", &node.path))?;
        }
        FileKind::Dir => rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(failed)?,
        FileKind::Symlink => rustix::fs::symlinkat(node.read_link()?, dir, name).map_err(failed)?,
        FileKind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0).map_err(failed)?,
        FileKind::Socket => rustix::fs::mknodat(dir, name, FileType::Socket, mode, 0).map_err(failed)?,
        FileKind::CharDevice | FileKind::BlockDevice => {
            let kind = if node.meta.kind == FileKind::CharDevice {
                FileType::CharacterDevice
            } else {
                FileType::BlockDevice
            };
            let device = rustix::fs::makedev(node.meta.rdev_major, node.meta.rdev_minor);
            rustix::fs::mknodat(dir, name, kind, mode, device).map_err(failed)?;
        }
    }
    copy_attributes(node, dir, name, format)
}

/// Gives `name` in `dir` the owner, mode, attributes and time of `node`.
pub fn copy_attributes(node: &Node, dir: BorrowedFd<'_>, name: &OsStr, format: &Format) -> Result<()> {
    let meta = &node.meta;
    let path = overlay::proc_path(dir, name);
    let owner = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    match rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::INVAL | Errno::PERM) if format.owner_xattr => {
            if meta.is_file() || meta.is_dir() {
                let value = format!("{}:{}", meta.uid, meta.gid);
                rustix::fs::lsetxattr(&path, overlay::OWNER_XATTR, value.as_bytes(), XattrFlags::empty())
                    .map_err(Error::io("keep owner of", &node.path))?;
            }
        }
        done => done.map_err(Error::io("set owner of", &node.path))?,
    }
    if !meta.is_symlink() {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())
            .map_err(Error::io("set mode of", &node.path))?;
    }
    for (key, value) in node.xattrs()? {
        match rustix::fs::lsetxattr(&path, key.as_os_str(), &value, XattrFlags::empty()) {
            // What this file system or user cannot have (security labels and the like) stays behind.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(Error::io("set attributes of", &node.path)(error)),
        }
    }
    rustix::fs::utimensat(dir, name, &times(meta.mtime_s, meta.mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::io("set time of", &node.path))
}

/// Copies a file's content: by shared blocks, else inside the kernel, else by hand.
pub fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> std::io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut copied = 0;
    while copied < size {
        match rustix::fs::copy_file_range(from, None, to, None, COPY_BYTES) {
            Ok(0) => return Ok(()),
            Ok(len) => copied += len as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM)
                if copied == 0 =>
            {
                let (mut from, mut to) = (
                    std::fs::File::from(from.try_clone_to_owned()?),
                    std::fs::File::from(to.try_clone_to_owned()?),
                );
                std::io::copy(&mut from, &mut to)?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes a name and, if it is a directory, everything in it. What is gone already is no error.
pub fn remove_all(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    remove_all_telling(dir, name, &mut |_| {})
}

/// The same, telling the inode of each name below it that goes. One that has more names stays, so this is what may be free now.
pub fn remove_all_telling(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    tell: &mut dyn FnMut(u64),
) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    // Depth is bounded by what the system lets anyone make through a path; handles are held one a level.
    let sub = match rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty())?
        }
        opened => opened?,
    };
    for (name, inode) in entries(sub.as_fd())? {
        tell(inode);
        remove_all_telling(sub.as_fd(), &name, tell)?;
    }
    drop(sub);
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// The names in a directory, unsorted, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    Ok(entries(dir)?.into_iter().map(|(name, _)| name).collect())
}

/// The same, with the inode of each.
fn entries(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(OsString, u64)>> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            entries.push((name.to_owned(), entry.ino()));
        }
    }
    Ok(entries)
}

/// Opens a directory by a path that must hold no symlink and not leave `root`.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for component in path.components() {
        let std::path::Component::Normal(name) = component else { return Err(Errno::INVAL) };
        let dir = at.as_ref().map_or(root, AsFd::as_fd);
        at = Some(rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty())?);
    }
    match at {
        Some(fd) => Ok(fd),
        None => rustix::fs::openat(root, ".", OPEN_DIR, Mode::empty()),
    }
}

/// A path of these bytes.
pub(crate) fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// The archive entry that would make `node` again, with all of its attributes.
pub(crate) fn entry_of(node: &Node) -> Result<Entry> {
    let mut entry = entry_of_meta(&node.path, &node.meta);
    entry.xattrs = node.xattrs()?;
    if node.meta.is_symlink() {
        entry.link = node.read_link()?;
    }
    Ok(entry)
}

/// The entry of a directory whose attributes stay as they are.
pub(crate) fn entry_of_dir(path: &Path, meta: &Meta) -> Entry {
    entry_of_meta(path, meta)
}

pub(crate) fn entry_of_meta(path: &Path, meta: &Meta) -> Entry {
    let kind = match meta.kind {
        FileKind::Dir => EntryKind::Dir,
        FileKind::Symlink => EntryKind::Symlink,
        FileKind::CharDevice => EntryKind::CharDevice,
        FileKind::BlockDevice => EntryKind::BlockDevice,
        FileKind::Fifo => EntryKind::Fifo,
        FileKind::File | FileKind::Socket => EntryKind::File,
    };
    Entry {
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        size: if meta.is_file() { meta.size } else { 0 },
        mtime_s: meta.mtime_s,
        mtime_ns: meta.mtime_ns,
        major: meta.rdev_major,
        minor: meta.rdev_minor,
        ..Entry::new(kind, path)
    }
}

/// What a tree takes on disk.
pub fn disk_usage(dir: &Path) -> Result<crate::meta::Usage> {
    let fd = rustix::fs::open(dir, OPEN_DIR, Mode::empty()).map_err(Error::io("open", dir))?;
    let mut usage = crate::meta::Usage::default();
    let mut seen = std::collections::HashSet::new();
    add_usage(fd.as_fd(), &mut usage, &mut seen).map_err(Error::io("measure", dir))?;
    Ok(usage)
}

fn add_usage(
    dir: BorrowedFd<'_>,
    usage: &mut crate::meta::Usage,
    seen: &mut std::collections::HashSet<u64>,
) -> rustix::io::Result<()> {
    for name in names(dir)? {
        let meta = match Meta::at(dir, &name) {
            Err(Errno::NOENT) => continue,
            meta => meta?,
        };
        if meta.nlink > 1 && !meta.is_dir() && !seen.insert(meta.ino) {
            continue;
        }
        *usage += crate::meta::Usage { bytes: meta.blocks * 512, inodes: 1 };
        if meta.is_dir() {
            match rustix::fs::openat(dir, &name, OPEN_DIR, Mode::empty()) {
                Ok(sub) => add_usage(sub.as_fd(), usage, seen)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
