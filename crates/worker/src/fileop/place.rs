//! Where things go: parents that are made on the way, and names in folders.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use kiln_layer::Meta;
use rustix::io::Errno;

use super::error::FileError;
use super::owner::Owner;
use super::target::{Attributes, Target, TargetDir, show};
use crate::error::PathError;

/// Seconds and nanoseconds.
pub type Time = (i64, u32);

/// A name in an existing folder, or the root itself.
#[derive(Clone)]
pub enum Place {
    Root,
    In(Arc<TargetDir>, OsString),
}

impl Place {
    /// `path`, which has no links in it but perhaps at its end. `op` names the call in the error.
    ///
    /// # Errors
    /// `ENOENT` or `ENOTDIR` when its parent is no folder.
    pub fn at(target: &Target, path: &[OsString], op: &'static str) -> Result<Place, FileError> {
        let Some((name, parents)) = path.split_last() else { return Ok(Place::Root) };
        match target.dir(parents)? {
            Some(dir) => Ok(Place::In(dir, name.clone())),
            None => {
                let errno = if target.stat(parents)?.is_some() { Errno::NOTDIR } else { Errno::NOENT };
                Err(PathError::new(op, shown(path), errno).into())
            }
        }
    }
}

/// `path` as messages have it.
pub fn shown(path: &[OsString]) -> String {
    show(&path.iter().collect::<std::path::PathBuf>())
}

/// Makes the folder `path` and those above it that are missing, and gives back what it made, from the outside in.
/// `mode` is that of all of them; without `owner` they are root's.
///
/// # Errors
/// A component that is no folder, and what the file system says.
pub fn make_dirs(
    target: &Target,
    path: &[OsString],
    mode: u32,
    owner: Option<Owner>,
    mtime: Option<Time>,
) -> Result<Vec<Arc<TargetDir>>, FileError> {
    let mut dir = target.root().clone();
    let mut made = Vec::new();
    for (depth, name) in path.iter().enumerate() {
        let fail = |errno| PathError::new("mkdir", shown(&path[..=depth]), errno);
        dir = match dir.lookup(target, name).map_err(fail)? {
            Some(found) if found.meta().is_dir() => dir.open_dir(target, name, &found).map_err(fail)?,
            Some(_) => {
                let errno = if depth + 1 == path.len() { Errno::NOTDIR } else { Errno::EXIST };
                return Err(fail(if made.is_empty() { Errno::NOTDIR } else { errno }).into());
            }
            None => {
                let new = dir.mkdir(target, name).map_err(fail)?;
                let Owner { uid, gid } = owner.unwrap_or_default();
                new.set_own_attributes(target, &Attributes { uid, gid, mode: mode & 0o777, mtime }, &[])
                    .map_err(fail)?;
                made.push(new.clone());
                new
            }
        };
    }
    Ok(made)
}

/// Sets the time of folders from [`make_dirs`] again, which changed when things came into them.
pub fn settle_dirs(target: &Target, made: &[Arc<TargetDir>], mtime: Option<Time>) -> Result<(), FileError> {
    let Some(mtime) = mtime else { return Ok(()) };
    for dir in made.iter().rev() {
        dir.set_own_mtime(target, mtime)
            .map_err(|errno| PathError::new("chtimes", dir.shown(None), errno))?;
    }
    Ok(())
}

/// What is at `name`, if anything.
pub fn meta_of(target: &Target, dir: &TargetDir, name: &OsStr) -> Result<Option<Meta>, FileError> {
    let found = dir.lookup(target, name).map_err(|errno| FileError::Stat {
        path: dir.shown(Some(name)),
        source: PathError::new("lstat", dir.shown(Some(name)), errno),
    })?;
    Ok(found.map(|found| found.meta().clone()))
}
