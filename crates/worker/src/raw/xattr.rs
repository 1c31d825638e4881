//! Extended attributes of files in layers, without those that belong to overlayfs and to the store.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::meta::xattr_path;

/// Largest list of names and largest value that Linux hands out (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Name and value of an extended attribute.
pub type Xattr = (CString, Vec<u8>);

/// The attributes of `name` in `dir` that are the file's own, sorted by name; empty where the file system has none.
pub(crate) fn list(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let path = xattr_path(dir, name);
    // Nearly all files have none: a small buffer on the stack settles those with one call.
    let mut small = [0_u8; 256];
    let names = match rustix::fs::llistxattr(path.as_slice(), &mut small[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0_u8; XATTR_BYTES_MAX];
            let length = rustix::fs::llistxattr(path.as_slice(), large.as_mut_slice())?;
            large.truncate(length);
            large
        }
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for key in names.split_inclusive(|&byte| byte == 0) {
        let Ok(key) = CStr::from_bytes_with_nul(key) else { continue };
        if kiln_layer::overlay::is_private_xattr(key.to_bytes()) {
            continue;
        }
        let mut value = vec![0_u8; 256];
        let length = match rustix::fs::lgetxattr(path.as_slice(), key, value.as_mut_slice()) {
            Err(Errno::RANGE) => {
                value.resize(XATTR_BYTES_MAX, 0);
                rustix::fs::lgetxattr(path.as_slice(), key, value.as_mut_slice())
            }
            other => other,
        };
        match length {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        }
        found.push((key.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

/// Sets `attributes` on `name` in `dir`, as far as the file system takes them: what a source has and a target can't
/// have (labels, mostly) is left out, as BuildKit does when it copies.
pub(crate) fn set_what_is_possible(dir: BorrowedFd<'_>, name: &[u8], attributes: &[Xattr]) {
    if attributes.is_empty() {
        return;
    }
    let path = xattr_path(dir, name);
    for (key, value) in attributes {
        if let Err(errno) = rustix::fs::lsetxattr(path.as_slice(), key.as_c_str(), value, XattrFlags::empty())
        {
            tracing::debug!(attribute = ?key, %errno, "extended attribute not copied");
        }
    }
}
