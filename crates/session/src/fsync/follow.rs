//! What links on wanted paths lead to: a build that copies a link's target needs both.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::beneath::file_error;
use super::error::SyncError;
use super::local_dir::LocalDir;
use crate::patterns::{clean, match_component};

/// Paths that are looked at, at most: patterns and links multiply.
const STEPS_MAX: usize = 100_000;

/// The paths, wildcards included, and all that links on them lead to inside the directory, sorted. None: the top itself.
pub(super) fn follow(dir: &LocalDir, paths: &[String]) -> Result<Option<Vec<String>>, SyncError> {
    let mut resolver = Resolver { dir, resolved: BTreeSet::new(), steps: 0 };
    for path in paths {
        resolver.add(path)?;
    }
    Ok(without_nested(resolver.resolved.into_iter().collect()))
}

/// Leaves out what is below another path of the list. None: the list has the top.
pub(super) fn without_nested(paths: Vec<String>) -> Option<Vec<String>> {
    let mut out: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths {
        if path == "." {
            return None;
        }
        let nested = out
            .last()
            .is_some_and(|last| path.strip_prefix(last.as_str()).is_some_and(|r| r.starts_with('/')));
        if !nested {
            out.push(path);
        }
    }
    Some(out)
}

struct Resolver<'a> {
    dir: &'a LocalDir,
    resolved: BTreeSet<String>,
    steps: usize,
}

impl Resolver<'_> {
    /// Adds a path. A list of what is left to do, not recursion: links may go in circles, which ends when nothing new comes.
    fn add(&mut self, path: &str) -> Result<(), SyncError> {
        let mut pending = vec![relative(path)];
        while let Some(path) = pending.pop() {
            let mut current = String::new();
            let mut rest = path.as_str();
            loop {
                self.steps += 1;
                if self.steps > STEPS_MAX {
                    return Err(SyncError::Limit { what: "links", limit: STEPS_MAX as u64 });
                }
                let (name, after) = rest.split_once('/').unwrap_or((rest, ""));
                current = if current.is_empty() { name.to_string() } else { format!("{current}/{name}") };
                rest = after;
                let targets = self.targets(&current, true)?;
                if (rest.is_empty() || targets.is_some()) && self.resolved.contains(&current) {
                    break;
                }
                if let Some(targets) = targets {
                    self.resolved.insert(current);
                    pending.extend(
                        targets.into_iter().rev().map(|target| relative(&format!("{target}/{rest}"))),
                    );
                    break;
                }
                if rest.is_empty() {
                    self.resolved.insert(current);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Where the link at `path`, or the links that its last name as a pattern matches, lead. None: there are none.
    fn targets(&mut self, path: &str, wildcards: bool) -> Result<Option<Vec<String>>, SyncError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if wildcards && has_wildcards(name) {
            let entries = match std::fs::read_dir(self.place(parent)) {
                Ok(entries) => entries,
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(file_error("read", parent, error)),
            };
            let mut targets = Vec::new();
            for entry in entries {
                let entry = entry.map_err(|error| file_error("read", parent, error))?;
                let Ok(entry) = entry.file_name().into_string() else { continue };
                if match_component(name, &entry) != Some(true) {
                    continue;
                }
                let path = if parent.is_empty() { entry } else { format!("{parent}/{entry}") };
                targets.extend(self.targets(&path, false)?.unwrap_or_default());
            }
            targets.sort();
            return Ok((!targets.is_empty()).then_some(targets));
        }
        if path == "." {
            return Ok(None);
        }
        match std::fs::read_link(self.place(path)) {
            Ok(target) => {
                let Some(target) = target.to_str() else { return Ok(None) };
                Ok(Some(vec![if target.starts_with('/') {
                    target.into()
                } else {
                    format!("{parent}/{target}")
                }]))
            }
            // Not there, or no link.
            Err(error) if is_absent(&error) || error.kind() == std::io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(file_error("readlink", path, error)),
        }
    }

    fn place(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

/// Seen from the top, as if that were the root.
fn relative(path: &str) -> String {
    match clean(&format!("/{path}")).trim_start_matches('/') {
        "" => ".".into(),
        path => path.into(),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn has_wildcards(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}
