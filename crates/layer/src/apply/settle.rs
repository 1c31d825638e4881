//! What could not be unpacked without the layers below, once these are there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::Lean;
use super::tree::Tree;
use super::write::{Maker, Team};
use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::overlay::Format;
use crate::tree;
use crate::union::Union;

/// Settles what an archive left open: gives implied parents the attributes of the directory below (or moves their
/// content to where a symlink below leads), and makes hard links to files below, which are copied up for it.
pub fn settle(dir: &Path, leans: &[Lean], lower: &Union, format: &Format) -> Result<()> {
    let maker = Maker::new(*format);
    let (team, _) = Team::new(&maker, 0);
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut tree = Tree::open(dir, *format, Some(lower), true, &maker, &team)?;
    let root = rustix::fs::open(dir, tree::OPEN_DIR, rustix::fs::Mode::empty())
        .map_err(Error::io("open layer directory", dir))?;
    for lean in leans {
        let Lean::Parent(path) = lean else { continue };
        // A parent that was moved took its children along.
        if moved.iter().any(|(from, _)| path.starts_with(from)) {
            continue;
        }
        match lower.lookup(path)? {
            Some(node) if node.meta.is_dir() => tree.set_attributes(path, tree::entry_of(&node)?)?,
            Some(node) if node.meta.is_symlink() => {
                let target = lower.resolve(path, true)?.path;
                if target.starts_with(path) {
                    continue;
                }
                let target = tree.resolve(&target, path)?;
                let to = tree.handle(&target)?;
                merge(root.as_fd(), path.as_os_str(), to.fd.as_fd()).map_err(Error::io("move", path))?;
                moved.push((path.clone(), target));
            }
            _ => {}
        }
    }
    for lean in leans {
        let Lean::Link { path, target } = lean else { continue };
        let path = match moved
            .iter()
            .find_map(|(from, to)| path.strip_prefix(from).ok().map(|rest| to.join(rest)))
        {
            Some(path) => path,
            None => path.clone(),
        };
        let node = lower.resolve(target, false)?.node;
        let entry = match node {
            Some(node) => tree::entry_of(&node)?,
            // A link to another link of this layer.
            None => crate::tar::Entry::new(crate::tar::EntryKind::HardLink, &path),
        };
        tree.hard_link(&path, target, &entry)?;
    }
    tree.finish()?;
    Ok(())
}

/// Moves all that is in `from/name` into `to`, into directories that are there already, over files; removes `name`.
fn merge(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let source = tree::open_beneath(from, Path::new(name))?;
    for name in tree::names(source.as_fd())? {
        let over = |flags| rustix::fs::renameat_with(&source, &name, to, &name, flags);
        match over(RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => {
                done?;
                continue;
            }
        }
        let (ours, theirs) = (Meta::at(&source, &name)?, Meta::at(to, &name)?);
        if ours.is_dir() && theirs.is_dir() {
            let target = tree::open_beneath(to, Path::new(&name))?;
            merge(source.as_fd(), &name, target.as_fd())?;
        } else {
            tree::remove_all(to, &name)?;
            over(RenameFlags::empty())?;
        }
    }
    rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)
}
