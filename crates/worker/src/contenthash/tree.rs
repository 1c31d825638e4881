//! The tables of a ref's layers, seen as one tree.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::table::{LayerTable, Record, RecordKind, is_below, path_order};
use crate::encode::{Encoder, Hash};

/// Links followed in one path before it counts as a loop; the kernel's and BuildKit's bound.
const LINKS_MAX: usize = 255;

/// Paths of a ref, in [`path_order`], each with the record of the topmost layer that has it.
#[derive(Debug)]
pub struct Tree {
    /// Lowest first.
    tables: Vec<Arc<LayerTable>>,
    nodes: Vec<Node>,
}

/// A path's place: which layer, which record there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub layer: u32,
    pub record: u32,
}

/// More than [`LINKS_MAX`] links in one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many links")]
pub struct TooManyLinks;

impl Tree {
    /// The tree that `tables`, lowest first, make.
    pub fn new(tables: Vec<Arc<LayerTable>>) -> Tree {
        let mut nodes = Vec::new();
        for (layer, table) in tables.iter().enumerate() {
            nodes = stack(&tables, nodes, table, u32::try_from(layer).expect("layers are few"));
        }
        Tree { tables, nodes }
    }

    pub fn record(&self, index: usize) -> Record<'_> {
        let node = self.nodes[index];
        self.tables[node.layer as usize].record(node.record as usize)
    }

    fn path(&self, node: Node) -> &[u8] {
        self.tables[node.layer as usize].path(node.record as usize)
    }

    pub fn node(&self, index: usize) -> Node {
        self.nodes[index]
    }

    pub fn table(&self, layer: u32) -> &Arc<LayerTable> {
        &self.tables[layer as usize]
    }

    pub fn tables(&self) -> &[Arc<LayerTable>] {
        &self.tables
    }

    /// Place of `path`, which is relative and clean.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.nodes.binary_search_by(|node| path_order(self.path(*node), path)).ok()
    }

    /// The places of everything below the folder at `index`.
    pub fn below(&self, index: usize) -> Range<usize> {
        let dir = self.record(index).path;
        let rest = &self.nodes[index + 1..];
        let count = rest.partition_point(|node| is_below(self.path(*node), dir));
        index + 1..index + 1 + count
    }

    /// Resolves a rooted path through the links of the tree; the last component only if `follow_last`. What does not
    /// exist stays lexical.
    ///
    /// # Errors
    /// [`TooManyLinks`] for a loop.
    pub fn resolve(&self, path: &str, follow_last: bool) -> Result<Option<usize>, TooManyLinks> {
        let relative = path.trim_matches('/').as_bytes();
        if let Some(index) = self.find(relative)
            && (!follow_last || !matches!(self.record(index).kind, RecordKind::Symlink { .. }))
        {
            return Ok(Some(index));
        }
        let mut pending: Vec<Cow<'_, [u8]>> = components(relative).map(Cow::Borrowed).collect();
        pending.reverse();
        let mut current: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let mut next = current.clone();
            if &*component == b".." {
                next.truncate(next.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
            } else {
                if !next.is_empty() {
                    next.push(b'/');
                }
                next.extend_from_slice(&component);
            }
            let link = self.find(&next).and_then(|index| match self.record(index).kind {
                RecordKind::Symlink { target } if follow_last || !pending.is_empty() => Some(target),
                _ => None,
            });
            let Some(target) = link else {
                current = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(TooManyLinks);
            }
            let start = pending.len();
            pending.extend(components(target).map(|part| Cow::Owned(part.to_vec())));
            pending[start..].reverse();
            if target.first() == Some(&b'/') {
                current.clear();
            }
        }
        Ok(self.find(&current))
    }

    /// Digest of one path: header and content for a file, header only for everything else. `None` while the content
    /// of a file is not known.
    pub fn own_digest(&self, index: usize) -> Option<Hash> {
        let record = self.record(index);
        if record.kind != RecordKind::File {
            return Some(*record.header);
        }
        let mut encoder = Encoder::new("kiln.content.file.v1");
        encoder.hash(record.header).hash(record.content?);
        Some(encoder.finish())
    }

    /// Digest of a path with all that is below it. `None` while some content is not known.
    pub fn deep_digest(&self, index: usize) -> Option<Hash> {
        if !self.record(index).is_dir() {
            return self.own_digest(index);
        }
        // Open folders from the outside in; a folder is closed, and told to the one around it, when the first path
        // that is not in it comes.
        let mut open: Vec<(usize, Encoder)> = Vec::new();
        let begin = |index: usize| {
            let mut encoder = Encoder::new("kiln.content.dir.v1");
            encoder.hash(self.record(index).header);
            (index, encoder)
        };
        let close_one = |open: &mut Vec<(usize, Encoder)>| {
            let (inner, encoder) = open.pop().expect("called with a folder open");
            let digest = encoder.finish();
            if let Some((_, outer)) = open.last_mut() {
                outer.bytes(name_of(self.record(inner).path)).hash(&digest);
            }
            digest
        };
        open.push(begin(index));
        for child in self.below(index) {
            let record = self.record(child);
            while open.len() > 1
                && open.last().is_some_and(|(dir, _)| !is_below(record.path, self.record(*dir).path))
            {
                close_one(&mut open);
            }
            if record.is_dir() {
                open.push(begin(child));
            } else {
                let digest = self.own_digest(child)?;
                let (_, encoder) = open.last_mut().expect("the outermost folder stays open");
                encoder.bytes(name_of(record.path)).hash(&digest);
            }
        }
        loop {
            let digest = close_one(&mut open);
            if open.is_empty() {
                return Some(digest);
            }
        }
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Puts the layer `upper` on the nodes of the layers below it.
fn stack(tables: &[Arc<LayerTable>], lower: Vec<Node>, upper: &LayerTable, layer: u32) -> Vec<Node> {
    let path_of = |node: &Node| tables[node.layer as usize].path(node.record as usize);
    let mut merged = Vec::with_capacity(lower.len() + upper.len());
    let mut lower = lower.into_iter().peekable();
    // Below this path nothing of the lower layers shows.
    let mut hidden: Option<&[u8]> = None;
    for (index, record) in upper.records().enumerate() {
        while let Some(node) = lower.next_if(|node| path_order(path_of(node), record.path) == Ordering::Less)
        {
            if !hidden.is_some_and(|dir| is_below(path_of(&node), dir)) {
                merged.push(node);
            }
        }
        lower.next_if(|node| path_of(node) == record.path);
        let replaces = !matches!(record.kind, RecordKind::Dir { opaque: false });
        if replaces && !hidden.is_some_and(|dir| is_below(record.path, dir)) {
            hidden = Some(record.path);
        }
        if record.kind != RecordKind::Whiteout {
            let record = u32::try_from(index).expect("a layer has less than four billion paths");
            merged.push(Node { layer, record });
        }
    }
    merged.extend(lower.filter(|node| !hidden.is_some_and(|dir| is_below(path_of(node), dir))));
    merged
}
