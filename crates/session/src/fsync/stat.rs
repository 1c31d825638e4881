//! What is said about one file.

use std::collections::BTreeMap;

use bytes::Bytes;
use kiln_proto::fsutil_types as wire;

use super::mode::{FileKind, GoMode};

/// One file's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Relative to the transferred directory, with slashes.
    pub path: String,
    /// Kind and permissions.
    pub mode: GoMode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; 0 for directories.
    pub size: i64,
    /// Last change of the contents, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Target of a symbolic link; of a regular file: the earlier path that it is a hard link to, or empty.
    pub linkname: String,
    /// Device number: major and minor.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Bytes>,
}

impl FileStat {
    /// What the file is.
    pub fn kind(&self) -> FileKind {
        self.mode.kind()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    /// POSIX permissions (`0o7777`).
    pub fn permissions(&self) -> u32 {
        self.mode.permissions()
    }

    /// Whether it is a hard link to an earlier file.
    pub fn is_hard_link(&self) -> bool {
        !matches!(self.kind(), FileKind::Directory | FileKind::Symlink) && !self.linkname.is_empty()
    }

    /// Whether `self` is what `other` was, by metadata: contents are taken to be equal then.
    pub fn same_metadata(&self, other: &Self) -> bool {
        self.mode == other.mode
            && self.uid == other.uid
            && self.gid == other.gid
            && self.device == other.device
            && self.linkname == other.linkname
            && (self.is_dir() || (self.size == other.size && self.mtime_ns == other.mtime_ns))
            && self.xattrs == other.xattrs
    }
}

impl From<wire::Stat> for FileStat {
    fn from(stat: wire::Stat) -> Self {
        Self {
            path: stat.path,
            mode: GoMode(stat.mode),
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            mtime_ns: stat.mod_time,
            linkname: stat.linkname,
            device: (stat.devmajor as u32, stat.devminor as u32),
            xattrs: stat.xattrs,
        }
    }
}

impl From<FileStat> for wire::Stat {
    fn from(stat: FileStat) -> Self {
        Self {
            path: stat.path,
            mode: stat.mode.0,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            mod_time: stat.mtime_ns,
            linkname: stat.linkname,
            devmajor: stat.device.0.into(),
            devminor: stat.device.1.into(),
            xattrs: stat.xattrs,
        }
    }
}
