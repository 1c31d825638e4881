//! The difference of two unions as a new layer directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::Mode;

use crate::diff::same;
use crate::error::{Error, Result};
use crate::overlay;
use crate::tree::{self, CopyHow};
use crate::union::{Node, Union};

/// Fills the empty layer directory `dir` so that `dir` on top of `lower` shows what `upper` shows. Files are linked
/// from the upper layers where `how` says so, never changed.
pub fn write_diff(lower: &Union, upper: &Union, dir: &Path, how: CopyHow) -> Result<()> {
    let root = rustix::fs::open(dir, tree::OPEN_DIR, Mode::empty())
        .map_err(Error::io("open layer directory", dir))?;
    Diff { lower, upper, how }.directory(root.as_fd(), Path::new(""), true)
}

/// Fills the empty directory `dir` with all that `union` shows, as plain files without overlayfs' marks.
pub fn write_copy(union: &Union, dir: &Path, how: CopyHow) -> Result<()> {
    write_diff(&Union::empty(), union, dir, how)
}

struct Diff<'a> {
    lower: &'a Union,
    upper: &'a Union,
    how: CopyHow,
}

impl Diff<'_> {
    /// Fills one directory. `merged`: what the lower side has here shows through if nothing is done about it.
    fn directory(&self, dir: BorrowedFd<'_>, path: &Path, merged: bool) -> Result<()> {
        let is_dir =
            |union: &Union| Ok::<_, Error>(union.lookup(path)?.is_some_and(|node| node.meta.is_dir()));
        let above = if is_dir(self.upper)? { self.upper.read_dir(path)? } else { Vec::new() };
        let below = if merged && is_dir(self.lower)? { self.lower.read_dir(path)? } else { Vec::new() };
        let mut below = below.into_iter().peekable();
        for node in above {
            while let Some(gone) = below.next_if(|gone| gone.name() < node.name()) {
                self.removal(dir, &gone)?;
            }
            let twin = below.next_if(|twin| twin.name() == node.name());
            self.entry(dir, &node, twin)?;
        }
        below.try_for_each(|gone| self.removal(dir, &gone))
    }

    fn entry(&self, dir: BorrowedFd<'_>, node: &Node, twin: Option<Node>) -> Result<()> {
        let name = node.name();
        let unchanged = match &twin {
            Some(twin) => same::same(twin, node)?,
            None => false,
        };
        if !node.meta.is_dir() {
            if !unchanged {
                tree::copy_node(node, dir, name, self.how, self.upper.format())?;
            }
            return Ok(());
        }
        let merged = twin.is_some_and(|twin| twin.meta.is_dir());
        tree::copy_node(node, dir, name, CopyHow::Copy, self.upper.format())?;
        let sub = rustix::fs::openat(dir, name, tree::OPEN_DIR, Mode::empty())
            .map_err(Error::io("open directory", &node.path))?;
        self.directory(sub.as_fd(), &node.path, merged)?;
        if unchanged && tree::names(sub.as_fd()).map_err(Error::io("read directory", &node.path))?.is_empty()
        {
            drop(sub);
            return tree::remove_all(dir, name).map_err(Error::io("remove", &node.path));
        }
        // What was put in has changed its time.
        tree::copy_attributes(node, dir, name, self.upper.format())
    }

    fn removal(&self, dir: BorrowedFd<'_>, gone: &Node) -> Result<()> {
        let name: &OsStr = gone.name();
        overlay::make_whiteout(dir, name).map_err(Error::io("remove", &gone.path))
    }
}
