//! Walking a union, parents before children.

use std::sync::Arc;

use super::dir::Dir;
use super::{Entry, Node, Union};
use crate::error::Result;

/// Iterates over everything beneath a path; see [`Union::walk`].
#[derive(Debug)]
pub struct Walk {
    union: Union,
    first: Option<Node>,
    /// The entries still to come of each directory on the way down.
    stack: Vec<std::vec::IntoIter<Entry>>,
    /// The directory last given out, entered by the next call.
    enter: Option<Node>,
}

impl Walk {
    pub(super) fn new(union: Union, first: Option<Node>) -> Self {
        Self { union, first, stack: Vec::new(), enter: None }
    }

    /// Leaves out what is beneath the directory last given out.
    pub fn skip_dir(&mut self) {
        self.enter = None;
    }

    fn open(&self, node: &Node) -> Result<Option<Arc<Dir>>> {
        match node.path.file_name() {
            None => Ok(Some(Arc::clone(&self.union.shared.root))),
            Some(name) => self.union.child_dir(node.parent_dir(), name),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(node) = self.enter.take() {
            let entries = self.open(&node).and_then(|dir| match dir {
                Some(dir) => dir.entries(),
                None => Ok(Vec::new()),
            });
            match entries {
                Ok(entries) => self.stack.push(entries.into_iter()),
                Err(error) => return Some(Err(error)),
            }
        }
        let node = match self.first.take() {
            Some(node) => node,
            None => loop {
                let entries = self.stack.last_mut()?;
                match entries.next().map(|entry| entry.look(self.union.format())) {
                    Some(Ok(node)) => break node,
                    Some(Err(error)) => return Some(Err(error)),
                    None => {}
                }
                self.stack.pop();
            },
        };
        if node.meta.is_dir() {
            self.enter = Some(node.clone());
        }
        Some(Ok(node))
    }
}
