//! Making a table. Records that come in the order of their paths are written down as they come. Others are gathered, sorted when
//! they are many, and these parts become one in the end.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use kiln_spool::Spool;
use rustix::io::Errno;

use super::form::{Room, TooLong, Writer};
use super::merge::Merge;
use super::record::{Record, RecordKind, order_after, path_order, shared_len};
use super::scratch::{Bounds, Scratch};
use super::table::{Blocks, LayerTable};
use crate::encode::Hash;
use crate::error::PathError;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A folder cannot be looked into, or a name is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A list is too long for memory, and the state folder does not take it.
    #[error("failed to keep a list of files in the state folder")]
    Spool(#[from] io::Error),
}

impl TableError {
    /// The path, or where it leads, is longer than those of files are.
    pub(super) fn too_long(record: &Record<'_>) -> impl FnOnce(TooLong) -> TableError {
        let path = record.path;
        move |_| {
            let path = format!("/{}", String::from_utf8_lossy(path));
            PathError::new("lstat", path, Errno::NAMETOOLONG).into()
        }
    }
}

/// Gathers the paths of a layer, in any order; it takes less when that is theirs.
#[derive(Debug)]
pub struct TableBuilder {
    scratch: Scratch,
    ordered: Ordered,
    /// What came after something had come out of order, and is not in `runs`.
    waiting: Batch,
    /// Each in order; of equal paths a later one holds.
    runs: Vec<Arc<LayerTable>>,
}

impl TableBuilder {
    /// Nothing so far.
    pub fn new(scratch: &Scratch) -> TableBuilder {
        let (ordered, waiting) = (Ordered::new(scratch), Batch::default());
        TableBuilder { scratch: scratch.clone(), ordered, waiting, runs: Vec::new() }
    }

    /// Adds a path. Of several that are equal the last one holds.
    ///
    /// # Errors
    /// Paths and link targets from 65,536 bytes on; what the state folder says.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), TableError> {
        if self.waiting.is_empty() && self.runs.is_empty() && self.ordered.push(record)? {
            return Ok(());
        }
        self.waiting.push(record)?;
        if self.waiting.bytes() > self.scratch.bounds.sort_bytes { self.put_away() } else { Ok(()) }
    }

    /// Adds all that was added to `batch`.
    ///
    /// # Errors
    /// As [`TableBuilder::push`].
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), TableError> {
        batch.records().try_for_each(|record| self.push(&record))
    }

    /// The table of all that was added.
    ///
    /// # Errors
    /// What the state folder says.
    pub fn finish(mut self) -> Result<LayerTable, TableError> {
        if self.waiting.is_empty() && self.runs.is_empty() {
            return Ok(self.ordered.finish());
        }
        if !self.waiting.is_empty() {
            self.put_away()?;
        }
        self.join()?;
        let only = self.runs.pop().expect("joined to one");
        Ok(Arc::into_inner(only).expect("held by nobody else"))
    }

    /// Makes a run of what waits.
    fn put_away(&mut self) -> Result<(), TableError> {
        if !self.ordered.is_empty() {
            let first = std::mem::replace(&mut self.ordered, Ordered::new(&self.scratch));
            self.runs.push(Arc::new(first.finish()));
        }
        let mut run = Ordered::new(&self.scratch);
        self.waiting.sort();
        for record in self.waiting.records() {
            run.push(&record)?;
        }
        self.waiting = Batch::default();
        self.runs.push(Arc::new(run.finish()));
        if self.runs.len() >= self.scratch.bounds.runs { self.join() } else { Ok(()) }
    }

    /// Makes one run of all.
    fn join(&mut self) -> Result<(), TableError> {
        if self.runs.len() == 1 {
            return Ok(());
        }
        let mut joined = Ordered::new(&self.scratch);
        let mut merge = Merge::new(&self.runs, b"")?;
        while let Some((cursor, _)) = merge.next(|_, _| {})? {
            joined.push(&cursor.record())?;
        }
        drop(merge);
        self.runs = vec![Arc::new(joined.finish())];
        Ok(())
    }
}

/// Writes records in order.
#[derive(Debug)]
pub(super) struct Ordered {
    records: Spool,
    blocks: Blocks,
    length: u64,
    writer: Writer,
    /// The last path.
    path: Vec<u8>,
    /// In the last block.
    block_records: usize,
    block_start: u64,
    /// One record.
    buffer: Vec<u8>,
    bounds: Bounds,
}

impl Ordered {
    pub(super) fn new(scratch: &Scratch) -> Ordered {
        Ordered {
            records: scratch.spool(),
            blocks: Blocks(scratch.spool()),
            length: 0,
            writer: Writer::default(),
            path: Vec::new(),
            block_records: 0,
            block_start: 0,
            buffer: Vec::new(),
            bounds: scratch.bounds,
        }
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a record. False: it is not after the last one, and was not added.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<bool, TableError> {
        let shared = shared_len(&self.path, record.path);
        if self.length > 0 && order_after(shared, &self.path, record.path) != Ordering::Less {
            return Ok(false);
        }
        let offset = self.records.len();
        let begins = self.length == 0
            || self.block_records >= self.bounds.block_records
            || offset - self.block_start >= self.bounds.block_bytes as u64;
        if begins {
            self.writer.restart();
        }
        self.buffer.clear();
        self.writer
            .write(record, if begins { 0 } else { shared }, Room::Always, &mut self.buffer)
            .map_err(TableError::too_long(record))?;
        if begins {
            self.blocks.append(offset)?;
            (self.block_records, self.block_start) = (0, offset);
        }
        self.records.append(&self.buffer)?;
        self.path.truncate(shared);
        self.path.extend_from_slice(&record.path[shared..]);
        self.block_records += 1;
        self.length += 1;
        Ok(true)
    }

    pub(super) fn finish(self) -> LayerTable {
        LayerTable::new(self.records, self.blocks, self.length, self.bounds.blocks_ahead)
    }
}

/// Some records in memory, in any order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Header, content if there is one, path, link target, for each.
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    start: usize,
    path_len: u16,
    target_len: u16,
    kind: Kind,
    has_content: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    File,
    Dir { opaque: bool },
    Symlink,
    Special,
    Whiteout,
}

impl Batch {
    /// Adds a path.
    ///
    /// # Errors
    /// Paths and link targets from 65,536 bytes on.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), TableError> {
        let (kind, target) = match record.kind {
            RecordKind::File => (Kind::File, &b""[..]),
            RecordKind::Dir { opaque } => (Kind::Dir { opaque }, &b""[..]),
            RecordKind::Symlink { target } => (Kind::Symlink, target),
            RecordKind::Special => (Kind::Special, &b""[..]),
            RecordKind::Whiteout => (Kind::Whiteout, &b""[..]),
        };
        let len = |bytes: &[u8]| {
            u16::try_from(bytes.len()).map_err(|_| TooLong).map_err(TableError::too_long(record))
        };
        let (path_len, target_len, has_content) = (len(record.path)?, len(target)?, record.content.is_some());
        self.rows.push(Row { start: self.bytes.len(), path_len, target_len, kind, has_content });
        self.bytes.extend_from_slice(record.header);
        if let Some(content) = record.content {
            self.bytes.extend_from_slice(content);
        }
        self.bytes.extend_from_slice(record.path);
        self.bytes.extend_from_slice(target);
        Ok(())
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How much memory its records take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<Row>()
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.rows.iter().map(|row| self.record(row))
    }

    fn record(&self, row: &Row) -> Record<'_> {
        let (header, rest) =
            self.bytes[row.start..].split_first_chunk::<{ size_of::<Hash>() }>().expect("written so");
        let (content, rest) = match rest.split_first_chunk::<{ size_of::<Hash>() }>() {
            Some((content, rest)) if row.has_content => (Some(content), rest),
            _ => (None, rest),
        };
        let (path, rest) = rest.split_at(row.path_len.into());
        let kind = match row.kind {
            Kind::File => RecordKind::File,
            Kind::Dir { opaque } => RecordKind::Dir { opaque },
            Kind::Symlink => RecordKind::Symlink { target: &rest[..row.target_len.into()] },
            Kind::Special => RecordKind::Special,
            Kind::Whiteout => RecordKind::Whiteout,
        };
        Record { path, kind, header, content }
    }

    /// Brings the records in order; of those with equal paths the last one stays.
    fn sort(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        let path = |row: &Row| self.record(row).path;
        rows.sort_by(|a, b| path_order(path(a), path(b)));
        rows.reverse();
        rows.dedup_by(|a, b| path(a) == path(b));
        rows.reverse();
        self.rows = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> Scratch {
        Scratch::new(std::path::Path::new("/nowhere"))
    }

    fn table<'a>(records: impl IntoIterator<Item = (&'a str, RecordKind<'a>)>) -> LayerTable {
        let mut builder = TableBuilder::new(&scratch());
        for (path, kind) in records {
            let record = Record { path: path.as_bytes(), kind, header: &Hash::default(), content: None };
            builder.push(&record).unwrap();
        }
        builder.finish().unwrap()
    }

    fn paths(table: &LayerTable) -> Vec<String> {
        let mut paths = Vec::new();
        let mut cursor = table.cursor(b"").unwrap();
        while let Some(here) = &mut cursor {
            paths.push(String::from_utf8_lossy(here.path()).into_owned());
            if !here.advance().unwrap() {
                break;
            }
        }
        paths
    }

    #[test]
    fn a_folder_is_followed_by_what_is_in_it() {
        let table = table(["a-b", "a", "a/x", "", "a.b", "a/b/c"].map(|path| (path, RecordKind::File)));
        assert_eq!(paths(&table), ["", "a", "a/b/c", "a/x", "a-b", "a.b"]);
    }

    #[test]
    fn of_equal_paths_the_last_holds() {
        let table = table([("b", RecordKind::File), ("a", RecordKind::File), ("a", RecordKind::Whiteout)]);
        assert_eq!(table.cursor(b"a").unwrap().unwrap().record().kind, RecordKind::Whiteout);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn names_that_no_file_has_are_refused() {
        let path = "x".repeat(70_000);
        let long =
            Record { path: path.as_bytes(), kind: RecordKind::File, header: &Hash::default(), content: None };
        let link = Record { path: b"x", kind: RecordKind::Symlink { target: path.as_bytes() }, ..long };
        for record in [long, link] {
            assert!(TableBuilder::new(&scratch()).push(&record).is_err());
            assert!(Batch::default().push(&record).is_err());
        }
    }
}
