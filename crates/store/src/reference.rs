//! Refs: ordered lists of layers.

use std::fmt;
use std::sync::Arc;

use crate::id::RefId;
use crate::layers::LayerHandle;

/// An ordered list of layers, the lowest first; holding it keeps them all. Cheap to clone; lists with a common
/// beginning share it.
#[derive(Clone, Default)]
pub struct Ref {
    node: Option<Arc<Node>>,
}

/// A list that is not empty, as memory has it.
pub(crate) struct Node {
    row: i64,
    parent: Ref,
    layer: LayerHandle,
    depth: usize,
}

impl Ref {
    /// The list of no layers.
    pub fn scratch() -> Self {
        Self { node: None }
    }

    pub(crate) fn extend(parent: &Self, layer: LayerHandle, row: i64) -> Self {
        let depth = parent.depth() + 1;
        Self { node: Some(Arc::new(Node { row, parent: parent.clone(), layer, depth })) }
    }

    pub(crate) fn of(node: Arc<Node>) -> Self {
        Self { node: Some(node) }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// Whether it has no layer.
    pub fn is_scratch(&self) -> bool {
        self.node.is_none()
    }

    /// Its name in the store; scratch has none.
    pub fn id(&self) -> Option<RefId> {
        self.row().map(RefId)
    }

    pub(crate) fn row(&self) -> Option<i64> {
        self.node.as_ref().map(|node| node.row)
    }

    /// How many layers.
    pub fn depth(&self) -> usize {
        self.node.as_ref().map_or(0, |node| node.depth)
    }

    /// The topmost layer.
    pub fn top(&self) -> Option<&LayerHandle> {
        self.node.as_ref().map(|node| &node.layer)
    }

    /// The list without its topmost layer; scratch's parent is scratch.
    pub fn parent(&self) -> Self {
        self.node.as_ref().map_or_else(Self::scratch, |node| node.parent.clone())
    }

    /// All layers, the lowest first.
    pub fn layers(&self) -> Vec<LayerHandle> {
        let mut layers = Vec::with_capacity(self.depth());
        let mut at = self;
        while let Some(node) = &at.node {
            layers.push(node.layer.clone());
            at = &node.parent;
        }
        layers.reverse();
        layers
    }

    /// The row of each list that this one begins with, itself last.
    pub(crate) fn rows(&self) -> Vec<i64> {
        let mut rows = Vec::with_capacity(self.depth());
        let mut at = self;
        while let Some(node) = &at.node {
            rows.push(node.row);
            at = &node.parent;
        }
        rows.reverse();
        rows
    }

    /// The first `depth` layers.
    pub fn prefix(&self, depth: usize) -> Self {
        let mut at = self.clone();
        while at.depth() > depth {
            at = at.parent();
        }
        at
    }

    /// Whether this list begins with all of `other`.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.prefix(other.depth()) == *other
    }
}

/// The same list of layers of the same store.
impl PartialEq for Ref {
    fn eq(&self, other: &Self) -> bool {
        self.row() == other.row()
    }
}

impl Eq for Ref {}

impl std::hash::Hash for Ref {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.row().hash(state);
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.layers().iter().map(LayerHandle::id)).finish()
    }
}

/// A long list is taken apart in a loop: dropped the plain way each layer would nest one call deeper.
impl Drop for Node {
    fn drop(&mut self) {
        let mut next = self.parent.node.take();
        while let Some(node) = next {
            next = match Arc::try_unwrap(node) {
                Ok(mut node) => node.parent.node.take(),
                Err(_) => None,
            };
        }
    }
}
