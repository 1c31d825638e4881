//! Makes the table of a layer from its directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kiln_layer::overlay::{Format, is_opaque, is_whiteout};
use kiln_layer::threads::Budget;
use kiln_layer::{FileKind, Meta};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::builder::{Batch, TableBuilder, TableError};
use super::record::{Record, RecordKind};
use super::scratch::Scratch;
use super::table::LayerTable;
use crate::crew;
use crate::encode::{Encoder, Hash};
use crate::error::PathError;
use crate::raw::{DIR_FLAGS, Xattr, each_name, list_xattrs, meta_at, meta_of};

/// So many bytes of records a thread gathers before it hands them on. Few folders have more.
const BATCH_BYTES: usize = 64 << 10;

/// Reads names and headers of everything in the layer directory `dir`; no file is opened.
///
/// # Errors
/// What the file system says.
pub fn scan(
    dir: &Path,
    format: &Format,
    budget: &Budget,
    scratch: &Scratch,
) -> Result<LayerTable, TableError> {
    let root = rustix::fs::openat(CWD, dir, DIR_FLAGS, Mode::empty())
        .map_err(|errno| PathError::new("open", dir.to_string_lossy(), errno))?;
    let table = Mutex::new(TableBuilder::new(scratch));
    let hand_on = |batch: &Batch| table.lock().unwrap_or_else(PoisonError::into_inner).append(batch);
    crew::run(budget, vec![Vec::new()], |path: Vec<u8>, queue| {
        let mut found = Batch::default();
        let put = |record: &Record<'_>| {
            found.push(record)?;
            if found.bytes() >= BATCH_BYTES {
                hand_on(&std::mem::take(&mut found))?;
            }
            Ok(())
        };
        scan_dir(&root, &path, format, put, |below| queue.push(below))
            .and_then(|()| Ok(hand_on(&found)?))
            .map_err(|failed| failed.at(&path))
    })?;
    table.into_inner().unwrap_or_else(PoisonError::into_inner).finish()
}

/// Why a folder has no records: a call that failed, or what else there is.
enum Failed {
    Call(Errno),
    Table(TableError),
}

impl Failed {
    fn at(self, path: &[u8]) -> TableError {
        match self {
            Failed::Call(errno) => {
                PathError::new("lstat", format!("/{}", String::from_utf8_lossy(path)), errno).into()
            }
            Failed::Table(error) => error,
        }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Failed {
        Failed::Call(errno)
    }
}

impl From<TableError> for Failed {
    fn from(error: TableError) -> Failed {
        Failed::Table(error)
    }
}

/// Records the folder `path` and the files in it; its subfolders go to `push`.
fn scan_dir(
    root: &OwnedFd,
    path: &[u8],
    format: &Format,
    mut put: impl FnMut(&Record<'_>) -> Result<(), Failed>,
    mut push: impl FnMut(Vec<u8>),
) -> Result<(), Failed> {
    let from_root = if path.is_empty() { b"." } else { path };
    let fd = rustix::fs::openat2(root, from_root, DIR_FLAGS, Mode::empty(), RESOLVE)?;
    let opaque = !path.is_empty() && is_opaque(fd.as_fd(), format).unwrap_or(false);
    let header = header_of(&meta_of(&fd, format)?, b"", &list_xattrs(fd.as_fd(), b"")?);
    let mut put =
        |path: &[u8], kind: RecordKind<'_>, header: &Hash| put(&Record { path, kind, header, content: None });
    put(path, RecordKind::Dir { opaque }, &header)?;
    each_name(fd.as_fd(), |name| {
        let Some(meta) = meta_at(fd.as_fd(), name, format)? else { return Ok(()) };
        let mut below = path.to_vec();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(name);
        if meta.is_dir() {
            push(below);
            return Ok(());
        }
        if is_whiteout(&meta) {
            return put(&below, RecordKind::Whiteout, &Hash::default());
        }
        let target = match meta.kind {
            FileKind::Symlink => rustix::fs::readlinkat(&fd, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        let header = header_of(&meta, &target, &list_xattrs(fd.as_fd(), name)?);
        let kind = match meta.kind {
            FileKind::File => RecordKind::File,
            FileKind::Symlink => RecordKind::Symlink { target: &target },
            _ => RecordKind::Special,
        };
        put(&below, kind, &header)
    })
}

/// Paths here come from walking the layer: they have no links in them.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Digest of all that makes a file what it is but its name, its times and its bytes.
pub fn header_of(meta: &Meta, link_target: &[u8], xattrs: &[Xattr]) -> Hash {
    let mut encoder = Encoder::new("kiln.content.header.v1");
    let kind = match meta.kind {
        FileKind::File => 1,
        FileKind::Dir => 2,
        FileKind::Symlink => 3,
        FileKind::CharDevice => 4,
        FileKind::BlockDevice => 5,
        FileKind::Fifo => 6,
        FileKind::Socket => 7,
    };
    // A link has no mode of its own; file systems differ in what they show.
    let mode = if meta.kind == FileKind::Symlink { 0o777 } else { meta.mode };
    encoder.u8(kind).u32(mode).u32(meta.uid).u32(meta.gid);
    let device = matches!(meta.kind, FileKind::CharDevice | FileKind::BlockDevice);
    encoder.option(device.then_some((meta.rdev_major, meta.rdev_minor)), |encoder, (major, minor)| {
        encoder.u32(major).u32(minor);
    });
    encoder.bytes(link_target);
    let counted: Vec<&Xattr> = xattrs.iter().filter(|(key, _)| counts(key.to_bytes())).collect();
    encoder.list(counted.into_iter(), |encoder, (key, value)| {
        encoder.bytes(key.to_bytes()).bytes(value);
    });
    encoder.finish()
}

/// Labels that a machine puts on its files say nothing about the content; capabilities do.
fn counts(key: &[u8]) -> bool {
    key == b"security.capability" || !(key.starts_with(b"security.") || key.starts_with(b"system."))
}

/// SHA-256 of the regular file `path` in the layer directory `root`.
pub fn hash_file(root: &OwnedFd, path: &[u8]) -> Result<Hash, Errno> {
    const BUFFER_BYTES: usize = 128 << 10;
    let fd = rustix::fs::openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
        Mode::empty(),
        RESOLVE,
    )?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    loop {
        match rustix::io::read(&fd, buffer.as_mut_slice()) {
            Ok(0) => break,
            Ok(length) => context.update(&buffer[..length]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}
