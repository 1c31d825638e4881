//! The tables of a ref's layers, seen as one tree.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use super::ContentError;
use super::merge::Merge;
use super::record::{Record, RecordKind, is_below, name_of};
use super::select::SelectError;
use super::table::{Cursor, LayerTable};
use crate::encode::{Encoder, Hash};

/// Links followed in one path before it counts as a loop; the kernel's and BuildKit's bound.
const LINKS_MAX: usize = 255;

/// Paths of a ref, in the order of their components, each with the record of the topmost layer that has it.
#[derive(Debug)]
pub struct Tree {
    /// Lowest first.
    tables: Vec<Arc<LayerTable>>,
}

/// Where the content digest of a file is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) room: u64,
}

/// More than [`LINKS_MAX`] links in one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many links")]
pub struct TooManyLinks;

impl Tree {
    /// The tree that `tables`, lowest first, make.
    pub fn new(tables: Vec<Arc<LayerTable>>) -> Tree {
        Tree { tables }
    }

    /// Lowest first.
    pub fn tables(&self) -> &[Arc<LayerTable>] {
        &self.tables
    }

    /// Goes through `path`, if it is there, and all that is below it. It is relative and clean.
    pub(super) fn walk(&self, path: &[u8]) -> io::Result<Walk<'_>> {
        // What layers have around the path may hide all that others have there.
        let mut lowest = 0;
        for dir in std::iter::successors(parent(path), |dir| parent(dir)) {
            for (layer, table) in self.tables.iter().enumerate().skip(lowest + 1) {
                if table.cursor(dir)?.is_some_and(|here| here.path() == dir && here.record().replaces()) {
                    lowest = layer;
                }
            }
        }
        let (merge, root) = (Merge::new(&self.tables, path)?, path.to_vec());
        Ok(Walk { merge, root, lowest, hidden: Vec::new(), hiding: Vec::new() })
    }

    /// What `of` finds at `path`, which is relative and clean.
    pub(super) fn at<T>(&self, path: &[u8], of: impl FnOnce(&Record<'_>) -> T) -> io::Result<Option<T>> {
        let mut walk = self.walk(path)?;
        let here = walk.next()?.filter(|here| here.record().path == path);
        Ok(here.map(|here| of(&here.record())))
    }

    /// Resolves a rooted path through the links of the tree; the last component only if `follow_last`. What does not
    /// exist stays lexical.
    ///
    /// # Errors
    /// [`TooManyLinks`] for a loop.
    pub(super) fn resolve(&self, path: &str, follow_last: bool) -> Result<Option<Vec<u8>>, ContentError> {
        let relative = path.trim_matches('/').as_bytes();
        let is_link = |record: &Record<'_>| matches!(record.kind, RecordKind::Symlink { .. });
        if self.at(relative, |record| !follow_last || !is_link(record))? == Some(true) {
            return Ok(Some(relative.to_vec()));
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
            let link = self.at(&next, |record| match record.kind {
                RecordKind::Symlink { target } if follow_last || !pending.is_empty() => Some(target.to_vec()),
                _ => None,
            })?;
            let Some(target) = link.flatten() else {
                current = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(SelectError::from(TooManyLinks).into());
            }
            let start = pending.len();
            pending.extend(components(&target).map(|part| Cow::Owned(part.to_vec())));
            pending[start..].reverse();
            if target.first() == Some(&b'/') {
                current.clear();
            }
        }
        let found = self.at(&current, |_| ())?;
        Ok(found.map(|()| current))
    }

    /// Digest of the path, which is there, with all that is below it. `None` while some content is not known.
    pub(super) fn deep_digest(&self, path: &[u8]) -> io::Result<Option<Hash>> {
        let mut walk = self.walk(path)?;
        let Some(top) = walk.next()? else { return Ok(None) };
        if !top.record().is_dir() {
            return Ok(own_digest(&top.record()));
        }
        // Open folders from the outside in; a folder is closed, and told to the one around it, when the first path
        // that is not in it comes. Each lies in the one before: the path of the last begins with those of all.
        let mut open: Vec<(usize, Encoder)> = vec![(path.len(), folder(&top.record()))];
        let mut innermost = path.to_vec();
        let close_one = |open: &mut Vec<(usize, Encoder)>, innermost: &[u8]| {
            let (length, encoder) = open.pop().expect("called with a folder open");
            let digest = encoder.finish();
            if let Some((_, outer)) = open.last_mut() {
                outer.bytes(name_of(&innermost[..length])).hash(&digest);
            }
            digest
        };
        while let Some(child) = walk.next()? {
            let record = child.record();
            while open.len() > 1
                && open.last().is_some_and(|(length, _)| !is_below(record.path, &innermost[..*length]))
            {
                close_one(&mut open, &innermost);
            }
            if record.is_dir() {
                open.push((record.path.len(), folder(&record)));
                innermost.clear();
                innermost.extend_from_slice(record.path);
            } else {
                let Some(digest) = own_digest(&record) else { return Ok(None) };
                let (_, encoder) = open.last_mut().expect("the outermost folder stays open");
                encoder.bytes(name_of(record.path)).hash(&digest);
            }
        }
        loop {
            let digest = close_one(&mut open, &innermost);
            if open.is_empty() {
                return Ok(Some(digest));
            }
        }
    }
}

/// Digest of one path: header and content for a file, header only for everything else. `None` while the content
/// of a file is not known.
pub(super) fn own_digest(record: &Record<'_>) -> Option<Hash> {
    if record.kind == RecordKind::File {
        record.content.map(|content| file_digest(record.header, content))
    } else {
        Some(*record.header)
    }
}

/// [`own_digest`] of a file.
pub(super) fn file_digest(header: &Hash, content: &Hash) -> Hash {
    let mut encoder = Encoder::new("kiln.content.file.v1");
    encoder.hash(header).hash(content);
    encoder.finish()
}

/// Digest of a folder, as far as it says something itself.
fn folder(record: &Record<'_>) -> Encoder {
    let mut encoder = Encoder::new("kiln.content.dir.v1");
    encoder.hash(record.header);
    encoder
}

/// Goes through a part of a tree in order.
pub(super) struct Walk<'a> {
    merge: Merge<'a>,
    /// The part is this path and what is below it.
    root: Vec<u8>,
    /// Layers below this one do not show in the whole part.
    lowest: usize,
    /// Folders around the path at hand, each within the one before, below which lower layers do not show: lengths of their paths, and the
    /// lowest layer that does.
    hiding: Vec<(usize, usize)>,
    /// The path of the last of them, with which those of the others begin.
    hidden: Vec<u8>,
}

/// A path of a tree.
pub(super) struct Here<'a> {
    cursor: &'a Cursor<'a>,
    layer: usize,
}

impl Here<'_> {
    pub(super) fn record(&self) -> Record<'_> {
        self.cursor.record()
    }

    /// Of a file.
    pub(super) fn place(&self) -> Place {
        Place { layer: self.layer, room: self.cursor.room() }
    }
}

impl Walk<'_> {
    /// The next path.
    pub(super) fn next(&mut self) -> io::Result<Option<Here<'_>>> {
        loop {
            // The topmost layer that lets nothing of lower ones show below this path.
            let mut replacing = 0;
            let below = |cursor: &Cursor<'_>, layer: usize| {
                if cursor.record().replaces() {
                    replacing = replacing.max(layer);
                }
            };
            let Some((cursor, layer)) = self.merge.next(below)? else { return Ok(None) };
            let record = cursor.record();
            if record.replaces() {
                replacing = layer;
            }
            if record.path != self.root && !is_below(record.path, &self.root) {
                return Ok(None);
            }
            while self.hiding.pop_if(|(length, _)| !is_below(record.path, &self.hidden[..*length])).is_some()
            {
            }
            let lowest = self.hiding.last().map_or(self.lowest, |(_, layer)| *layer);
            if replacing > lowest {
                self.hidden.clear();
                self.hidden.extend_from_slice(record.path);
                self.hiding.push((record.path.len(), replacing));
            }
            if layer >= lowest && record.kind != RecordKind::Whiteout {
                break;
            }
        }
        Ok(self.merge.current().map(|(cursor, layer)| Here { cursor, layer }))
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The folder that a path lies in.
fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(&path[..path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)])
}
