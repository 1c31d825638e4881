//! Whether a layer's file is an unchanged copy of the one below.

use std::io::Read;

use crate::error::{Error, Result};
use crate::union::Node;

const CAPABILITY: &str = "security.capability";
const COMPARE_BYTES: usize = 64 << 10;

/// Owner, mode, kind, device number and file capabilities are equal; of what is no directory also size, time and
/// content. Content is always compared: two steps may run within one tick of the clock that files' times come from.
/// Directories' times are not looked at: they change with everything in them.
pub(crate) fn same(below: &Node, above: &Node) -> Result<bool> {
    let (a, b) = (&below.meta, &above.meta);
    if (a.dev, a.ino) == (b.dev, b.ino) {
        return Ok(true);
    }
    let attributes =
        |meta: &crate::Meta| (meta.kind, meta.mode, meta.uid, meta.gid, meta.rdev_major, meta.rdev_minor);
    if attributes(a) != attributes(b) {
        return Ok(false);
    }
    let capable = a.is_file() || a.is_dir();
    if capable && below.xattr(CAPABILITY)? != above.xattr(CAPABILITY)? {
        return Ok(false);
    }
    if a.is_dir() {
        return Ok(true);
    }
    if (a.size, a.mtime_s, a.mtime_ns) != (b.size, b.mtime_s, b.mtime_ns) {
        return Ok(false);
    }
    if a.is_symlink() {
        return Ok(below.read_link()? == above.read_link()?);
    }
    if !a.is_file() || a.size == 0 {
        return Ok(true);
    }
    same_content(below, above)
}

/// Compares two files of equal size.
pub(crate) fn same_content(a: &Node, b: &Node) -> Result<bool> {
    let (mut from_a, mut from_b) = (a.open()?, b.open()?);
    let (mut in_a, mut in_b) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let len = from_a.read(&mut in_a).map_err(Error::io("read", &a.path))?;
        if len == 0 {
            return Ok(from_b.read(&mut in_b[..1]).map_err(Error::io("read", &b.path))? == 0);
        }
        match from_b.read_exact(&mut in_b[..len]) {
            Ok(()) if in_a[..len] == in_b[..len] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(Error::io("read", &b.path)(error)),
        }
    }
}
