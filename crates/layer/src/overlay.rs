//! The marks by which overlayfs says "removed" and "nothing below shows through".

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, XattrFlags};

use crate::meta::{FileKind, Meta};

/// The prefix of an archive's whiteout entries.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The prefix of an archive's entries about whiteouts themselves.
pub const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
/// The archive entry that hides what is below its directory.
pub const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Keeps `uid:gid` (decimal) of a file whose owner this user may not set.
pub const OWNER_XATTR: &str = "user.kiln.owner";

const OPAQUE_TRUSTED: &str = "trusted.overlay.opaque";
const OPAQUE_USER: &str = "user.overlay.opaque";
const REDIRECT_TRUSTED: &str = "trusted.overlay.redirect";
const REDIRECT_USER: &str = "user.overlay.redirect";

/// Where overlayfs keeps its own attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrSpace {
    /// `trusted.overlay.*`: the real root.
    #[default]
    Trusted,
    /// `user.overlay.*`, mount option `userxattr`: in a user namespace.
    User,
}

/// How layer directories of one store are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Where overlayfs' own attributes live.
    pub xattrs: XattrSpace,
    /// Owners that cannot be set are kept in [`OWNER_XATTR`] (one mapped id only) instead of being an error.
    pub owner_xattr: bool,
}

/// Whether this is overlayfs' mark for a removed name.
pub fn is_whiteout(meta: &Meta) -> bool {
    meta.kind == FileKind::CharDevice && meta.rdev_major == 0 && meta.rdev_minor == 0
}

/// Marks `name` in `dir` as removed. The name must be free.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?;
    Ok(())
}

/// Makes a directory hide what lower layers have at its place.
pub fn set_opaque(dir: BorrowedFd<'_>, format: &Format) -> io::Result<()> {
    let key = match format.xattrs {
        XattrSpace::Trusted => OPAQUE_TRUSTED,
        XattrSpace::User => OPAQUE_USER,
    };
    rustix::fs::fsetxattr(dir, key, b"y", XattrFlags::empty())?;
    Ok(())
}

/// Whether a directory (opened for reading) hides what is below.
pub fn is_opaque(dir: BorrowedFd<'_>, format: &Format) -> io::Result<bool> {
    let key = match format.xattrs {
        XattrSpace::Trusted => OPAQUE_TRUSTED,
        XattrSpace::User => OPAQUE_USER,
    };
    let mut value = [0u8; 4];
    match rustix::fs::fgetxattr(dir, key, &mut value[..]) {
        // overlayfs writes "x" where only some names beneath are whiteouts in attribute form: not opaque
        Ok(len) => Ok(&value[..len] == b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether overlayfs renamed this directory by reference (`redirect_dir`), which layers do not support.
pub fn has_redirect(dir: BorrowedFd<'_>, format: &Format) -> io::Result<bool> {
    let key = match format.xattrs {
        XattrSpace::Trusted => REDIRECT_TRUSTED,
        XattrSpace::User => REDIRECT_USER,
    };
    match rustix::fs::fgetxattr(dir, key, &mut [0u8; 0][..]) {
        Ok(len) => Ok(len > 0),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether an extended attribute is overlayfs' or ours and no part of the file that people see.
pub fn is_private_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.") || key == OWNER_XATTR.as_bytes()
}

/// A path that names `name` in the open directory `dir`, for calls that have no `*at` form.
pub(crate) fn proc_path(dir: impl AsFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    path.push(name);
    path
}

/// Reads an [`OWNER_XATTR`] value.
pub fn parse_owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}
