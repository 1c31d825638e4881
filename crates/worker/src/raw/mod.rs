//! File facts that neither a path nor [`kiln_layer::union::Union`] gives: one layer's directory as it is on disk, whiteouts
//! included, and the folder that is being made into the next layer.

mod meta;
mod xattr;

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) use meta::{meta_at, meta_of, xattr_path};
pub(crate) use xattr::{Xattr, list as list_xattrs, set_what_is_possible};

/// How folders are opened: never through a link.
pub(crate) const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The names in an open folder, in the file system's order.
pub(crate) fn names(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    each_name(fd, |name| {
        names.push(name.to_vec());
        Ok::<(), Errno>(())
    })?;
    Ok(names)
}

/// Calls `each` with the names in an open folder, in the file system's order.
pub(crate) fn each_name<E: From<Errno>>(
    fd: BorrowedFd<'_>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    /// One `getdents64` call fills this; 20,000 names take about twenty.
    const BUFFER_BYTES: usize = 32 << 10;
    // A handle of its own: the position of a folder belongs to the open file, which others may be reading too.
    let fd = rustix::fs::openat(fd, c".", DIR_FLAGS, Mode::empty())?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut dir = rustix::fs::RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = dir.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(name)?;
        }
    }
    Ok(())
}
