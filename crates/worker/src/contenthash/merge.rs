//! Several tables, read in the order of their paths.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::sync::Arc;

use super::record::path_order;
use super::table::{Cursor, LayerTable};

/// Goes through tables, of which later ones lie above earlier ones.
pub(super) struct Merge<'a> {
    /// In front the one that comes next.
    heads: BinaryHeap<Box<Head<'a>>>,
    /// Whose record was given out.
    current: Option<Box<Head<'a>>>,
}

struct Head<'a> {
    cursor: Cursor<'a>,
    layer: usize,
}

impl Ord for Head<'_> {
    /// The greatest is the first in the order of paths, of equal ones the topmost.
    fn cmp(&self, other: &Self) -> Ordering {
        path_order(other.cursor.path(), self.cursor.path()).then(self.layer.cmp(&other.layer))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}

impl<'a> Merge<'a> {
    /// Begins at the first path that is not before `path`.
    pub(super) fn new(tables: &'a [Arc<LayerTable>], path: &[u8]) -> io::Result<Merge<'a>> {
        let mut heads = BinaryHeap::with_capacity(tables.len());
        for (layer, table) in tables.iter().enumerate() {
            if let Some(cursor) = table.cursor(path)? {
                heads.push(Box::new(Head { cursor, layer }));
            }
        }
        Ok(Merge { heads, current: None })
    }

    /// The next path as the topmost table has it, and which one that is. `below` gets what tables below that have there, from the top.
    pub(super) fn next(
        &mut self,
        mut below: impl FnMut(&Cursor<'_>, usize),
    ) -> io::Result<Option<(&Cursor<'a>, usize)>> {
        if let Some(mut head) = self.current.take()
            && head.cursor.advance()?
        {
            self.heads.push(head);
        }
        let Some(top) = self.heads.pop() else { return Ok(None) };
        while let Some(mut lower) = self.heads.peek_mut()
            && lower.cursor.path() == top.cursor.path()
        {
            below(&lower.cursor, lower.layer);
            if !lower.cursor.advance()? {
                PeekMut::pop(lower);
            }
        }
        self.current = Some(top);
        Ok(self.current())
    }

    /// What [`Merge::next`] gave last.
    pub(super) fn current(&self) -> Option<(&Cursor<'a>, usize)> {
        self.current.as_ref().map(|head| (&head.cursor, head.layer))
    }
}
