//! One entry of an archive, and the 512-byte record that begins it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::RECORD_BYTES;
use super::field::{number, text};
use super::sparse::Segment;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// One more name of an entry before it (or of a file below).
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// One entry of an archive. Names are as the archive has them, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it makes.
    pub kind: EntryKind,
    /// Its name.
    pub path: PathBuf,
    /// Where a link points.
    pub link: PathBuf,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content in the file (of a sparse file: with its holes).
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// Its nanoseconds.
    pub mtime_ns: u32,
    /// A device's major number.
    pub major: u32,
    /// A device's minor number.
    pub minor: u32,
    /// Extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// Where the stored bytes of a sparse file go; `None` for a file without holes.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry of that name with nothing else set: mode 0644 (0755 for directories), root's, of 1970.
    pub fn new(kind: EntryKind, path: impl Into<PathBuf>) -> Self {
        Self {
            kind,
            path: path.into(),
            link: PathBuf::new(),
            mode: if kind == EntryKind::Dir { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            size: 0,
            mtime_s: 0,
            mtime_ns: 0,
            major: 0,
            minor: 0,
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// The fields of a header record.
pub(super) struct Record {
    pub typeflag: u8,
    pub name: PathBuf,
    pub link: PathBuf,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: i64,
    pub major: i64,
    pub minor: i64,
}

pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

impl Record {
    /// Reads a record that is not all zero.
    pub(super) fn parse(raw: &[u8; RECORD_BYTES]) -> Result<Self, &'static str> {
        let stored = number(&raw[148..156]).ok_or("header checksum is no number")?;
        let (unsigned, signed) = checksums(raw);
        if stored != unsigned && stored != signed {
            return Err("header checksum is wrong");
        }
        let field = |range: std::ops::Range<usize>, what| number(&raw[range]).ok_or(what);
        let is_gnu = &raw[257..265] == b"ustar  \0";
        let is_ustar = &raw[257..263] == b"ustar\0";
        let mut name = text(&raw[0..100]).to_vec();
        if is_ustar {
            // star keeps times behind a shorter prefix
            let prefix = if &raw[508..512] == b"tar\0" { &raw[345..476] } else { &raw[345..500] };
            let prefix = text(prefix);
            if !prefix.is_empty() {
                name = [prefix, b"/", &name].concat();
            }
        }
        let (major, minor) = if is_gnu || is_ustar {
            (field(329..337, "device number is no number")?, field(337..345, "device number is no number")?)
        } else {
            (0, 0)
        };
        Ok(Self {
            typeflag: raw[156],
            name: path(&name),
            link: path(text(&raw[157..257])),
            mode: field(100..108, "mode is no number")?,
            uid: field(108..116, "owner is no number")?,
            gid: field(116..124, "group is no number")?,
            size: field(124..136, "size is no number")?,
            mtime: field(136..148, "time is no number")?,
            major,
            minor,
        })
    }
}

/// The sum of all bytes with the checksum's own field as blanks, taken as unsigned and (old writers) signed bytes.
pub(super) fn checksums(raw: &[u8; RECORD_BYTES]) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (index, &byte) in raw.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    (unsigned, signed)
}
