//! Looking into refs without mounting them.

use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use kiln_layer::union::{Node, Union};
use kiln_proto::fsutil_types::Stat;
use kiln_session::fsync::{FileKind, GoMode};
use kiln_store::Ref;
use rustix::io::Errno;

use crate::Worker;
use crate::error::{Error, PathError, Result};
use crate::glob::Glob;
use crate::path;

/// Largest file that is read as a whole: what one answer over the wire can carry.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    pub offset: u64,
    pub length: u64,
}

impl Worker {
    /// A file of an unpacked ref, or part of it. Links are followed inside the ref.
    ///
    /// # Errors
    /// Nothing there, no file, too large.
    pub async fn read_file(&self, reference: &Ref, path: &str, range: Option<FileRange>) -> Result<Bytes> {
        let (union, path) = (self.store().union(reference)?, path.to_owned());
        self.blocking(move || read(&union, &path, range, FILE_BYTES_MAX)).await?
    }

    pub(crate) async fn read_whole_file(&self, reference: &Ref, path: &str, max: u64) -> Result<Bytes> {
        let (union, path) = (self.store().union(reference)?, path.to_owned());
        self.blocking(move || read(&union, &path, None, max)).await?
    }

    /// What is in a folder of an unpacked ref; with a pattern, only names that it matches.
    ///
    /// # Errors
    /// Nothing there, no folder, no pattern.
    pub async fn read_dir(&self, reference: &Ref, path: &str, include_pattern: &str) -> Result<Vec<Stat>> {
        let (union, path) = (self.store().union(reference)?, path.to_owned());
        let pattern = include_pattern.to_owned();
        self.blocking(move || list(&union, &path, &pattern)).await?
    }

    /// What is at a path of an unpacked ref. Links are followed.
    ///
    /// # Errors
    /// Nothing there.
    pub async fn stat_file(&self, reference: &Ref, path: &str) -> Result<Stat> {
        let (union, path) = (self.store().union(reference)?, path.to_owned());
        self.blocking(move || stat(&union, &path)).await?
    }
}

fn find(union: &Union, path: &str, op: &'static str) -> Result<Node> {
    let rooted = path::rooted(path);
    let found = union.resolve(rooted.trim_start_matches('/'), true).map_err(Error::Layer)?;
    match found.node {
        Some(node) => Ok(node),
        None => Err(PathError::new(op, rooted, Errno::NOENT).into()),
    }
}

pub(crate) fn read(union: &Union, path: &str, range: Option<FileRange>, max: u64) -> Result<Bytes> {
    let node = find(union, path, "open")?;
    let fail = |op| PathError::new(op, path::rooted(path), Errno::ISDIR);
    if node.meta.is_dir() {
        return Err(fail("read").into());
    }
    if !node.meta.is_file() {
        return Err(PathError::new("read", path::rooted(path), Errno::INVAL).into());
    }
    let mut file = node.open().map_err(Error::Layer)?;
    let failed = || Error::io("read", path);
    let mut length = u64::MAX;
    if let Some(range) = range {
        file.seek(SeekFrom::Start(range.offset)).map_err(failed())?;
        if range.length > 0 {
            length = range.length;
        }
    }
    let mut bytes = Vec::new();
    file.take(length.min(max + 1)).read_to_end(&mut bytes).map_err(failed())?;
    if bytes.len() as u64 > max {
        return Err(Error::Text(format!("file {path} is larger than {max} bytes")));
    }
    Ok(bytes.into())
}

pub(crate) fn list(union: &Union, path: &str, pattern: &str) -> Result<Vec<Stat>> {
    let pattern = match pattern {
        "" => None,
        pattern => Some(Glob::new(pattern).map_err(|error| Error::Text(error.to_string()))?),
    };
    let rooted = path::rooted(path);
    if rooted != "/" && !find(union, path, "open")?.meta.is_dir() {
        return Err(PathError::new("fdopendir", rooted, Errno::NOTDIR).into());
    }
    let resolved = union.resolve(rooted.trim_start_matches('/'), true).map_err(Error::Layer)?;
    let nodes = union.read_dir(&resolved.path).map_err(Error::Layer)?;
    let wanted = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(name));
    nodes
        .iter()
        .map(|node| (node, node.name().to_string_lossy().into_owned()))
        .filter(|(_, name)| wanted(name))
        .map(|(node, name)| to_stat(node, name))
        .collect()
}

pub(crate) fn stat(union: &Union, path: &str) -> Result<Stat> {
    let rooted = path::rooted(path);
    if rooted == "/" && union.root().map_err(Error::Layer)?.is_none() {
        let mode = GoMode::new(FileKind::Directory, 0o755);
        return Ok(Stat { path: "/".into(), mode: mode.0, ..Stat::default() });
    }
    let node = match rooted.as_str() {
        "/" => union.root().map_err(Error::Layer)?.expect("it was just there"),
        _ => find(union, path, "stat")?,
    };
    to_stat(&node, path::base(&rooted).to_owned())
}

fn to_stat(node: &Node, path: String) -> Result<Stat> {
    let meta = &node.meta;
    let kind = match meta.kind {
        kiln_layer::FileKind::File => FileKind::Regular,
        kiln_layer::FileKind::Dir => FileKind::Directory,
        kiln_layer::FileKind::Symlink => FileKind::Symlink,
        kiln_layer::FileKind::CharDevice => FileKind::CharDevice,
        kiln_layer::FileKind::BlockDevice => FileKind::BlockDevice,
        kiln_layer::FileKind::Fifo => FileKind::Fifo,
        kiln_layer::FileKind::Socket => FileKind::Other,
    };
    let mut linkname = String::new();
    if meta.is_symlink() {
        linkname = node.read_link().map_err(Error::Layer)?.to_string_lossy().into_owned();
    }
    let xattrs = node.xattrs().map_err(Error::Layer)?;
    Ok(Stat {
        path,
        mode: GoMode::new(kind, meta.mode).0,
        uid: meta.uid,
        gid: meta.gid,
        size: if meta.is_dir() { 0 } else { meta.size.cast_signed() },
        mod_time: meta.mtime_s.saturating_mul(1_000_000_000).saturating_add(meta.mtime_ns.into()),
        linkname,
        devmajor: meta.rdev_major.into(),
        devminor: meta.rdev_minor.into(),
        xattrs: xattrs
            .into_iter()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, Bytes::from(value))))
            .collect(),
    })
}
