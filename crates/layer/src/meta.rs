//! What `stat` says about one file, in plain integers.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat};

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket; no archive carries one.
    Socket,
}

impl FileKind {
    /// What a directory's listing or a mode says; `None` where it does not say.
    pub(crate) fn from_type(file_type: FileType) -> Option<Self> {
        match file_type {
            FileType::RegularFile => Some(FileKind::File),
            FileType::Directory => Some(FileKind::Dir),
            FileType::Symlink => Some(FileKind::Symlink),
            FileType::CharacterDevice => Some(FileKind::CharDevice),
            FileType::BlockDevice => Some(FileKind::BlockDevice),
            FileType::Fifo => Some(FileKind::Fifo),
            FileType::Socket => Some(FileKind::Socket),
            FileType::Unknown => None,
        }
    }
}

/// A file's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The kind.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits only (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// Its nanoseconds.
    pub mtime_ns: u32,
    /// A device's major number.
    pub rdev_major: u32,
    /// A device's minor number.
    pub rdev_minor: u32,
    /// The file system that holds it.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
}

impl Meta {
    /// From `stat`'s answer.
    #[allow(clippy::unnecessary_cast, reason = "these fields' types differ from one processor to the next")]
    pub fn from_stat(stat: &Stat) -> Self {
        let kind = FileKind::from_type(FileType::from_raw_mode(stat.st_mode)).unwrap_or(FileKind::File);
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime_s: stat.st_mtime as i64,
            mtime_ns: stat.st_mtime_nsec as u32,
            rdev_major: rustix::fs::major(stat.st_rdev),
            rdev_minor: rustix::fs::minor(stat.st_rdev),
            dev: stat.st_dev,
            ino: stat.st_ino,
            nlink: stat.st_nlink as u64,
            blocks: stat.st_blocks as u64,
        }
    }

    /// `lstat` of a name in a directory.
    pub fn at(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Self> {
        rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Self::from_stat(&stat))
    }

    /// `fstat`.
    pub fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        rustix::fs::fstat(file).map(|stat| Self::from_stat(&stat))
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }
}

/// How much a tree takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes; a file with several names in the tree counts once.
    pub bytes: u64,
    /// Files, directories and the like; counted the same way.
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}
