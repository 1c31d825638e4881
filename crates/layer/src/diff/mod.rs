//! Writing a layer directory, or a whole union, as an archive.
//!
//! The archive of a layer is one walk of its directory, in the order of names, with what containerd's writer records:
//! pax format, whole seconds, no user names, directories before their content and only if they differ from the one
//! below (or hold something that does), a `.wh.` entry for each removed name that the layers below do have. An opaque
//! directory is written out as the removals that it amounts to.

mod emit;
pub(crate) mod same;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, WHITEOUT_PREFIX};
use crate::tree;
use crate::union::{Node, Union};
use emit::{Emitter, Source};

/// What goes into headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// Times later than this (seconds since 1970) become this.
    pub epoch: Option<i64>,
    /// `user.` attributes are written too, not only file capabilities.
    pub user_xattrs: bool,
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffSummary {
    /// Entries written.
    pub entries: u64,
    /// Of which removals.
    pub whiteouts: u64,
}

/// Writes the archive of the layer in `dir`, which lies on top of `lower`.
///
/// # Errors
/// Besides I/O: a directory that was renamed by reference ([`Error::Redirect`]), a file that changes while it is read.
pub fn write_layer(dir: &Path, lower: &Union, out: impl Write, options: &DiffOptions) -> Result<DiffSummary> {
    let root = rustix::fs::open(dir, tree::OPEN_DIR, Mode::empty())
        .map_err(Error::io("open layer directory", dir))?;
    // The layer alone, without what lies below: knows its format.
    let layer = Union::open(&[dir], lower.format())?;
    let emitter = Emitter::new(out, *options, *lower.format());
    let mut walk = Walk { lower, layer, emitter, parents: Vec::new() };
    let opaque =
        overlay::is_opaque(root.as_fd(), lower.format()).map_err(Error::io("read attributes of", "/"))?;
    walk.directory(root.as_fd(), Path::new(""), opaque)?;
    walk.emitter.finish()
}

/// Writes everything that `union` shows, the root itself left out.
pub fn write_union(union: &Union, out: impl Write, options: &DiffOptions) -> Result<DiffSummary> {
    let mut emitter = Emitter::new(out, *options, *union.format());
    for node in union.walk("")?.skip(1) {
        let node = node?;
        emitter.emit(&node.path, &node.meta, &Source { dir: node.holder(), name: node.name() })?;
    }
    emitter.finish()
}

/// A directory on the way down, written before the first thing in it is.
struct Parent {
    path: PathBuf,
    name: OsString,
    meta: Meta,
    holder: OwnedFd,
    written: bool,
}

struct Walk<'a, W: Write> {
    lower: &'a Union,
    layer: Union,
    emitter: Emitter<W>,
    parents: Vec<Parent>,
}

impl<W: Write> Walk<'_, W> {
    /// Everything in a directory. `opaque`: nothing below shows through it.
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &Path, opaque: bool) -> Result<()> {
        let failed = |error: rustix::io::Errno| Error::io("read directory", path)(error);
        let mut names: Vec<(OsString, bool)> =
            tree::names(dir).map_err(failed)?.into_iter().map(|name| (name, true)).collect();
        if opaque && self.lower.lookup(path)?.is_some_and(|node| node.meta.is_dir()) {
            for node in self.lower.read_dir(path)? {
                names.push((node.name().to_owned(), false));
            }
        }
        // Of two of a name the one of this layer comes first and stays.
        names.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        names.dedup_by(|later, first| later.0 == first.0);
        for (name, here) in names {
            let at = path.join(&name);
            if here {
                self.entry(dir, &name, &at, opaque)?;
            } else {
                self.removal(path, &name)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &OsStr, at: &Path, opaque: bool) -> Result<()> {
        let Some(node) = self.layer.lookup(at)? else {
            // A whiteout. Without something to remove it says nothing.
            if self.lower.lookup(at)?.is_some() {
                self.removal(at.parent().unwrap_or(Path::new("")), name)?;
            }
            return Ok(());
        };
        if node.meta.kind == FileKind::Socket {
            return Ok(());
        }
        let below = self.lower.lookup(at)?;
        let changed = match &below {
            Some(below) => !same::same(below, &node)?,
            None => true,
        };
        if !node.meta.is_dir() {
            if changed {
                self.parents()?;
                self.emitter.emit(at, &node.meta, &Source { dir, name })?;
            }
            return Ok(());
        }
        let failed = |error: rustix::io::Errno| Error::io("open directory", at)(error);
        let sub = rustix::fs::openat(dir, name, tree::OPEN_DIR, Mode::empty()).map_err(failed)?;
        let format = self.lower.format();
        let attributes = |result: std::io::Result<bool>| result.map_err(Error::io("read attributes of", at));
        if attributes(overlay::has_redirect(sub.as_fd(), format))? {
            return Err(Error::Redirect { path: at.to_owned() });
        }
        let opaque = opaque || attributes(overlay::is_opaque(sub.as_fd(), format))?;
        let holder = rustix::io::dup(dir).map_err(failed)?;
        let Node { meta, .. } = node;
        self.parents.push(Parent {
            path: at.to_owned(),
            name: name.to_owned(),
            meta,
            holder,
            written: false,
        });
        if changed {
            self.parents()?;
        }
        self.directory(sub.as_fd(), at, opaque)?;
        self.parents.pop();
        Ok(())
    }

    fn removal(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        self.parents()?;
        let mut marked = WHITEOUT_PREFIX.to_vec();
        marked.extend_from_slice(name.as_encoded_bytes());
        self.emitter.removal(parent.join(tree::path_of(marked)))
    }

    /// Writes the directories on the way down that were not written yet.
    fn parents(&mut self) -> Result<()> {
        for parent in self.parents.iter_mut().filter(|parent| !parent.written) {
            parent.written = true;
            let source = Source { dir: parent.holder.as_fd(), name: &parent.name };
            self.emitter.emit(&parent.path, &parent.meta, &source)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
