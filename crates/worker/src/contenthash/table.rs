//! What one layer holds, as far as digests are concerned: every path with the digest of its header, and of its
//! content where somebody needed that. A layer never changes, so its table is made once and kept with it.
//!
//! Layers have millions of paths. So a table is a list of [records](super::form) in a [`Spool`], of which only a short one is in memory,
//! and is read in order. Every some records a block begins, which can be read without what is before it: a search looks at the
//! beginnings of blocks.

use std::cmp::Ordering;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use kiln_spool::Spool;

use super::form::{Entry, damaged, first_path};
use super::record::{Record, path_order};
use crate::encode::Hash;

/// The paths of a layer in [`path_order`].
#[derive(Debug)]
pub struct LayerTable {
    /// Changed only where there is room for content.
    records: RwLock<Spool>,
    /// Where each block begins.
    blocks: Blocks,
    length: u64,
    /// Holds more than what is kept with the layer.
    unsaved: AtomicBool,
    blocks_ahead: u64,
}

/// Offsets, of eight bytes each.
#[derive(Debug)]
pub(super) struct Blocks(pub(super) Spool);

impl Blocks {
    pub(super) const BYTES: u64 = 8;

    pub(super) fn append(&mut self, offset: u64) -> io::Result<()> {
        self.0.append(&offset.to_le_bytes())
    }

    fn count(&self) -> u64 {
        self.0.len() / Self::BYTES
    }

    /// Where the block begins; where the last one ends, if there is none with this number.
    fn offset(&self, number: u64, end: u64) -> io::Result<u64> {
        if number >= self.count() {
            return Ok(end);
        }
        let mut bytes = [0; Self::BYTES as usize];
        self.0.read_at(number * Self::BYTES, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl LayerTable {
    /// Of records in their order, which begin anew at each block.
    pub(super) fn new(mut records: Spool, mut blocks: Blocks, length: u64, blocks_ahead: u64) -> LayerTable {
        records.shrink_to_fit();
        blocks.0.shrink_to_fit();
        let (records, unsaved) = (RwLock::new(records), AtomicBool::new(true));
        LayerTable { records, blocks, length, unsaved, blocks_ahead }
    }

    /// How many paths there are.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<LayerTable>() + self.spool().memory_bytes() + self.blocks.0.memory_bytes()
    }

    /// Begins at the first path that is not before `path`, if there is one.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(super) fn cursor(&self, path: &[u8]) -> io::Result<Option<Cursor<'_>>> {
        let mut cursor = Cursor {
            table: self,
            // The last block that begins before the path: those in the others are before it, or after one of this.
            block: self.blocks_before(path)?.saturating_sub(1),
            ahead: 1,
            input: Vec::new(),
            used: 0,
            end: 0,
            entry: Entry::default(),
        };
        while cursor.advance()? {
            if path_order(cursor.entry.path(), path) != Ordering::Less {
                return Ok(Some(cursor));
            }
        }
        Ok(None)
    }

    /// How many blocks begin with `path` or one before it.
    fn blocks_before(&self, path: &[u8]) -> io::Result<u64> {
        // The first block is right if no other one is.
        let (mut low, mut high) = (1, self.blocks.count().max(1));
        let spool = self.spool();
        let mut buffer = Vec::new();
        while low < high {
            let middle = low.midpoint(high);
            let first = self.first_of(&spool, middle, &mut buffer)?;
            if path_order(first, path) == Ordering::Greater {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    fn first_of<'a>(&self, spool: &'a Spool, block: u64, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        /// Most paths are shorter.
        const PATH_BYTES: usize = 256;
        let offset = self.blocks.offset(block, spool.len())?;
        if let Some(all) = spool.as_slice() {
            let from =
                usize::try_from(offset).ok().and_then(|offset| all.get(offset..)).ok_or_else(damaged)?;
            return first_path(from)?.map_err(|_| damaged());
        }
        let mut wanted = PATH_BYTES;
        loop {
            let there = (spool.len() - offset).min(wanted as u64) as usize;
            buffer.resize(there, 0);
            spool.read_at(offset, buffer)?;
            match first_path(buffer)? {
                Err(needed) if there == wanted => wanted = needed,
                Err(_) => return Err(damaged()),
                Ok(_) => break,
            }
        }
        first_path(buffer)?.map_err(|_| damaged())
    }

    /// A file's content digest, which is known.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(super) fn content(&self, room: u64) -> io::Result<Hash> {
        let mut hash = Hash::default();
        self.spool().read_at(room, &mut hash)?;
        Ok(hash)
    }

    /// Remembers a file's content digest, where [`Cursor::room`] said.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(super) fn set_content(&self, room: u64, hash: &Hash) -> io::Result<()> {
        let mut spool = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = Hash::default();
        spool.read_at(room, &mut before)?;
        if before != *hash {
            spool.write_at(room, hash)?;
            self.unsaved.store(true, Memory::Release);
        }
        Ok(())
    }

    /// Whether there is something to save; the caller does it.
    pub fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Memory::AcqRel)
    }

    fn spool(&self) -> RwLockReadGuard<'_, Spool> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a table, and what is said there. It may miss content that comes while it is read.
pub(super) struct Cursor<'a> {
    table: &'a LayerTable,
    /// Comes next into `input`.
    block: u64,
    /// Blocks to be read then.
    ahead: u64,
    /// Some blocks, of which `used` bytes are read; they end at `end` in the table's records.
    input: Vec<u8>,
    used: usize,
    end: u64,
    entry: Entry,
}

impl Cursor<'_> {
    /// Goes to the next path. False: there is none.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        if self.used == self.input.len() && !self.fill()? {
            return Ok(false);
        }
        let mut rest = &self.input[self.used..];
        self.entry.read(&mut rest)?;
        self.used = self.input.len() - rest.len();
        Ok(true)
    }

    /// Reads some blocks: one if nothing else is wanted, more with each that is.
    fn fill(&mut self) -> io::Result<bool> {
        let blocks = &self.table.blocks;
        if self.block >= blocks.count() {
            return Ok(false);
        }
        let after = (self.block + self.ahead).min(blocks.count());
        let spool = self.table.spool();
        let start = blocks.offset(self.block, spool.len())?;
        self.end = blocks.offset(after, spool.len())?;
        let length = self.end.checked_sub(start).and_then(|length| usize::try_from(length).ok());
        self.input.resize(length.ok_or_else(damaged)?, 0);
        spool.read_at(start, &mut self.input)?;
        self.used = 0;
        self.block = after;
        self.ahead = (self.ahead * 2).min(self.table.blocks_ahead);
        Ok(true)
    }

    /// What is said here.
    pub(super) fn record(&self) -> Record<'_> {
        self.entry.record()
    }

    /// The path here.
    pub(super) fn path(&self) -> &[u8] {
        self.entry.path()
    }

    /// For [`LayerTable::set_content`], of a file.
    pub(super) fn room(&self) -> u64 {
        // A record of a file ends with it.
        self.end - (self.input.len() - self.used + size_of::<Hash>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::TableBuilder;
    use super::super::record::RecordKind;
    use super::super::scratch::{Bounds, Scratch};
    use super::*;

    fn of(records: impl IntoIterator<Item = (String, Option<Hash>)>, scratch: &Scratch) -> LayerTable {
        let mut builder = TableBuilder::new(scratch);
        for (path, content) in records {
            let (kind, header) = (RecordKind::File, &[1; 32]);
            let record = Record { path: path.as_bytes(), kind, header, content: content.as_ref() };
            builder.push(&record).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_path_takes_little_memory() {
        let files = (0..20_000).map(|number| (format!("some/folder/file-{number:05}"), Some([7; 32])));
        let table = of(files, &Scratch::new(std::path::Path::new("/nowhere")));
        assert!(table.memory_bytes() < 20_000 * 50, "{}", table.memory_bytes());
    }

    #[test]
    fn a_long_one_has_a_bounded_part_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path());
        let path = |number: u32| format!("{:02}/{number:06}", number / 10_000);
        let table = of((0..200_000).map(|number| (path(number), None)), &scratch);
        assert!(table.memory_bytes() < 400_000, "{}", table.memory_bytes());
        for number in (0..200_000).step_by(777) {
            let cursor = table.cursor(path(number).as_bytes()).unwrap().unwrap();
            assert_eq!((cursor.path(), cursor.record().content), (path(number).as_bytes(), None));
            table.set_content(cursor.room(), &[3; 32]).unwrap();
        }
        let mut cursor = table.cursor(b"").unwrap().unwrap();
        let (mut length, mut known) = (1, u32::from(cursor.record().content.is_some()));
        while cursor.advance().unwrap() {
            assert_eq!(cursor.path(), path(length).as_bytes());
            length += 1;
            known += u32::from(cursor.record().content == Some(&[3; 32]));
        }
        assert_eq!((length, known), (200_000, 200_000_u32.div_ceil(777)));
    }

    #[test]
    fn a_disk_that_is_full_is_an_error() {
        let mut bounds = Bounds::default();
        bounds.spool.short_bytes_max = 100;
        let scratch = Scratch::bounded(std::path::Path::new("/nowhere"), bounds);
        let mut builder = TableBuilder::new(&scratch);
        let header = &[1; 32];
        let mut push =
            |path: &[u8]| builder.push(&Record { path, kind: RecordKind::File, header, content: None });
        push(b"a").unwrap();
        let error = push(b"b").unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("No such file"), "{error}");
    }
}
