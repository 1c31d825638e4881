//! Following symlinks inside a union, as a process whose root it is would.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::{Node, Union};
use crate::error::{Error, Result};

/// How many symlinks a path may lead through, as upstream allows.
const LINKS_MAX: usize = 255;

/// Where a path really leads.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The path with no symlink, `.` or `..` in it; what does not exist is kept as it was written.
    pub path: PathBuf,
    /// What is there.
    pub node: Option<Node>,
}

pub(super) fn resolve(union: &Union, path: &Path, follow_last: bool) -> Result<Resolved> {
    let mut todo = VecDeque::new();
    queue_front(&mut todo, path);
    let mut at = PathBuf::new();
    let mut node = union.root()?;
    let mut links = 0;
    while let Some(step) = todo.pop_front() {
        match step {
            Step::Root => {
                at = PathBuf::new();
                node = union.root()?;
            }
            Step::Up => {
                // Above the root is the root.
                at.pop();
                node = union.lookup(&at)?;
            }
            Step::Down(name) => {
                at.push(&name);
                node = match node {
                    Some(_) => union.lookup(&at)?,
                    None => None,
                };
                let Some(found) = &node else { continue };
                if !found.meta.is_symlink() || (todo.is_empty() && !follow_last) {
                    continue;
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(Error::Resolve { path: path.to_owned(), reason: "too many symbolic links" });
                }
                let target = found.read_link()?;
                at.pop();
                node = union.lookup(&at)?;
                queue_front(&mut todo, &target);
            }
        }
    }
    Ok(Resolved { path: at, node })
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

fn queue_front(todo: &mut VecDeque<Step>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::RootDir => todo.push_front(Step::Root),
            Component::ParentDir => todo.push_front(Step::Up),
            Component::Normal(name) => todo.push_front(Step::Down(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}
