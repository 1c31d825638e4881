//! Facts about one file, with the owner that it stands for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use kiln_layer::Meta;
use kiln_layer::overlay::{Format, OWNER_XATTR};
use rustix::io::Errno;

/// `name` in the folder `dir`, not following a link; `None` when there is no such name.
pub(crate) fn meta_at(
    dir: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    format: &Format,
) -> Result<Option<Meta>, Errno> {
    let name = name.into_c_str()?;
    let mut meta = match Meta::at(dir, &*name) {
        Ok(meta) => meta,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if format.owner_xattr && (meta.is_file() || meta.is_dir()) {
        let path = xattr_path(dir, name.to_bytes());
        apply_owner_xattr(&mut meta, |buffer| rustix::fs::lgetxattr(path.as_slice(), OWNER_XATTR, buffer));
    }
    Ok(Some(meta))
}

/// The open file `fd`.
pub(crate) fn meta_of(fd: impl AsFd, format: &Format) -> Result<Meta, Errno> {
    let fd = fd.as_fd();
    let mut meta = Meta::of(fd)?;
    if format.owner_xattr && (meta.is_file() || meta.is_dir()) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        apply_owner_xattr(&mut meta, |buffer| rustix::fs::getxattr(path.as_str(), OWNER_XATTR, buffer));
    }
    Ok(meta)
}

/// A daemon with a single user id can't give files away: whose they are stands in an attribute then.
fn apply_owner_xattr(meta: &mut Meta, get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) {
    let mut buffer = [0; 32];
    let Ok(length) = get(&mut buffer) else { return };
    let text = std::str::from_utf8(&buffer[..length]).ok();
    let owner = text
        .and_then(|text| text.split_once(':'))
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    if let Some((uid, gid)) = owner {
        (meta.uid, meta.gid) = (uid, gid);
    }
}

/// A path by which the xattr calls, which know no directory handles, reach `name` in `dir`: the handle's entry in
/// `/proc` is a link straight to the open folder, so nothing between here and there can be swapped.
pub(crate) fn xattr_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}
