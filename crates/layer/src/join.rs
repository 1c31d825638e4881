//! Layers that lie directly upon each other as one layer directory, with all that they say of what is below them.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, Format};
use crate::tree::{self, CopyHow};
use crate::union::{Node, Union};

/// Fills the empty layer directory `dir` with what the layers say together, the lowest first: it can be mounted in their place. Files are
/// linked, so the layers' own must never be written to, nor those in `dir`.
pub fn write_join<P: AsRef<Path>>(dirs_bottom_up: &[P], dir: &Path, format: &Format) -> Result<()> {
    let target = rustix::fs::open(dir, tree::OPEN_DIR, Mode::empty())
        .map_err(Error::io("open layer directory", dir))?;
    for layer in dirs_bottom_up {
        let union = Union::open(&[layer], format)?;
        let root = union.root()?.ok_or_else(|| gone(Path::new("/")))?;
        Join { layer: &union, format }.directory(root.holder(), Path::new(""), target.as_fd())?;
        take_attributes(&root, target.as_fd(), OsStr::new("."), format)?;
    }
    Ok(())
}

fn gone(path: &Path) -> Error {
    Error::io("look up", path)(Errno::NOENT)
}

/// One layer on its way into the directory that has those below it already.
struct Join<'a> {
    layer: &'a Union,
    format: &'a Format,
}

impl Join<'_> {
    fn directory(&self, from: BorrowedFd<'_>, path: &Path, to: BorrowedFd<'_>) -> Result<()> {
        for name in tree::names(from).map_err(Error::io("read directory", path))? {
            let path = path.join(&name);
            let meta = Meta::at(from, &name).map_err(Error::io("look up", &path))?;
            if meta.is_dir() {
                self.sub_directory(from, &path, &name, to)?;
                continue;
            }
            tree::remove_all(to, &name).map_err(Error::io("replace", &path))?;
            if overlay::is_whiteout(&meta) {
                overlay::make_whiteout(to, &name).map_err(Error::io("remove", &path))?;
            } else {
                tree::copy_node(&self.node(&path)?, to, &name, CopyHow::Link, self.format)?;
            }
        }
        Ok(())
    }

    fn sub_directory(
        &self,
        from: BorrowedFd<'_>,
        path: &Path,
        name: &OsStr,
        to: BorrowedFd<'_>,
    ) -> Result<()> {
        let failed = |error: Errno| Error::io("open directory", path)(error);
        let sub = rustix::fs::openat(from, name, tree::OPEN_DIR, Mode::empty()).map_err(failed)?;
        let there = match Meta::at(to, name) {
            Ok(meta) => Some(meta.kind),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(Error::io("look up", path)(error)),
        };
        let hides =
            overlay::is_opaque(sub.as_fd(), self.format).map_err(Error::io("read attributes of", path))?;
        let goes_on = there == Some(FileKind::Dir) && !hides;
        if !goes_on {
            tree::remove_all(to, name).map_err(Error::io("replace", path))?;
            // Its attributes come when its content is complete.
            rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(Error::io("create", path))?;
        }
        let made = rustix::fs::openat(to, name, tree::OPEN_DIR, Mode::empty()).map_err(failed)?;
        // What was in its way hid what is below all of these layers, and so does what comes in its place.
        if !goes_on && (hides || there.is_some()) {
            overlay::set_opaque(made.as_fd(), self.format).map_err(Error::io("mark", path))?;
        }
        self.directory(sub.as_fd(), path, made.as_fd())?;
        take_attributes(&self.node(path)?, to, name, self.format)
    }

    fn node(&self, path: &Path) -> Result<Node> {
        self.layer.lookup(path)?.ok_or_else(|| gone(path))
    }
}

/// Gives the directory `name` the attributes of `node`, and none that an earlier layer had.
fn take_attributes(node: &Node, dir: BorrowedFd<'_>, name: &OsStr, format: &Format) -> Result<()> {
    let path: PathBuf = overlay::proc_path(dir, name);
    let failed = |error: Errno| Error::io("read attributes of", &node.path)(error);
    if format.owner_xattr {
        remove_xattr(&path, OsStr::new(overlay::OWNER_XATTR))
            .map_err(Error::io("set owner of", &node.path))?;
    }
    let wanted: Vec<OsString> = node.xattrs()?.into_iter().map(|(key, _)| key).collect();
    for (key, _) in crate::union::list_xattrs(&path).map_err(failed)? {
        if !wanted.contains(&key) {
            remove_xattr(&path, &key).map_err(Error::io("set attributes of", &node.path))?;
        }
    }
    tree::copy_attributes(node, dir, name, format)
}

fn remove_xattr(path: &Path, key: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::lremovexattr(path, key) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
