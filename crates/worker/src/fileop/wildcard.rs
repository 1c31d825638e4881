//! Expands the wildcards of a path against what is there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_layer::union::Union;

use super::error::FileError;
use super::target::{Target, TargetDir, show};
use crate::error::PathError;
use crate::glob::{Glob, split_wildcards};
use crate::path;

/// The paths of `union` that `pattern`, a rooted path, matches, in their order; the path itself when it has no
/// wildcards. Links on the way to the first wildcard are followed, those below are not.
///
/// # Errors
/// A leading part that does not exist.
pub fn expand(union: &Union, pattern: &str, follow_links: bool) -> Result<Vec<String>, FileError> {
    let (fixed, rest) = split_wildcards(pattern);
    if rest.is_empty() {
        return Ok(vec![pattern.to_owned()]);
    }
    let base = union.resolve(fixed.trim_start_matches('/'), follow_links)?;
    if base.node.is_none() && !base.path.as_os_str().is_empty() {
        return Err(PathError::new("lstat", show(&base.path), rustix::io::Errno::NOENT).into());
    }
    let Some(levels) = levels(&rest) else { return Ok(Vec::new()) };
    if base.node.as_ref().is_some_and(|node| !node.meta.is_dir()) || base.node.is_none() {
        return Ok(Vec::new());
    }
    let mut found: Vec<PathBuf> = vec![base.path];
    for (depth, level) in levels.iter().enumerate() {
        let last = depth + 1 == levels.len();
        let mut next = Vec::new();
        for dir in found {
            for node in union.read_dir(&dir)? {
                if level.matches(&node.name().to_string_lossy()) && (last || node.meta.is_dir()) {
                    next.push(node.path);
                }
            }
        }
        found = next;
    }
    Ok(found.iter().map(|path| show(path)).collect())
}

/// The same in the layer being written; links are not followed at the end of the leading part.
pub fn expand_target(target: &Target, pattern: &str) -> Result<Vec<String>, FileError> {
    let (fixed, rest) = split_wildcards(pattern);
    if rest.is_empty() {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut base = target.resolve(&path::dir(&fixed))?;
    if fixed != "/" {
        base.push(OsString::from(path::base(&fixed)));
    }
    let Some(levels) = levels(&rest) else { return Ok(Vec::new()) };
    let Some(dir) = target.dir(&base)? else {
        if target.stat(&base)?.is_none() {
            return Err(PathError::new("lstat", fixed, rustix::io::Errno::NOENT).into());
        }
        return Ok(Vec::new());
    };
    let mut found: Vec<(PathBuf, Option<Arc<TargetDir>>)> = vec![(base.iter().collect(), Some(dir))];
    for (depth, level) in levels.iter().enumerate() {
        let last = depth + 1 == levels.len();
        let mut next = Vec::new();
        for (path, dir) in found {
            let Some(dir) = dir else { continue };
            for (name, entry) in
                dir.entries(target).map_err(|errno| PathError::new("open", show(&path), errno))?
            {
                if !level.matches(&name.to_string_lossy()) {
                    continue;
                }
                let fail = |errno| PathError::new("open", show(&path.join(&name)), errno);
                let is_dir = entry.meta().is_dir();
                let below = if is_dir && !last {
                    Some(dir.open_dir(target, &name, &entry).map_err(fail)?)
                } else {
                    None
                };
                if last || is_dir {
                    next.push((path.join(&name), below));
                }
            }
        }
        found = next;
    }
    Ok(found.iter().map(|(path, _)| show(Path::new(path))).collect())
}

/// One pattern a level; a malformed one matches nothing, as in BuildKit.
fn levels(rest: &str) -> Option<Vec<Glob>> {
    rest.split('/').map(|level| Glob::new(level).ok()).collect()
}
