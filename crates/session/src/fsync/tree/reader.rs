//! Reading the list of the transfer before, beside the one that is written.

use std::cmp::Ordering;
use std::io::BufRead;
use std::sync::Arc;

use kiln_spool::{Reader, Spool, Spools};

use super::entry::{self, Place};
use super::{TreeEntry, TreeError, VERSION};
use crate::fsync::lists::Places;
use crate::fsync::order::compare_paths;

/// Reads a stored tree from its beginning, beside paths that come in the same order.
#[derive(Debug)]
pub(in crate::fsync) struct TreeReader {
    reader: Reader<Arc<Spool>>,
    /// What was passed over.
    others: Places,
}

impl TreeReader {
    /// No bytes at all are an empty tree.
    pub(in crate::fsync) fn new(stored: Arc<Spool>) -> Result<Self, TreeError> {
        let others = Places::new(stored.spools());
        let mut reader = Reader::new(stored, 0);
        match reader.ahead(1)?.first() {
            None => {}
            Some(&VERSION) => reader.consume(1),
            Some(_) => return Err(TreeError::Invalid),
        }
        Ok(Self { reader, others })
    }

    /// Nothing was there.
    pub(in crate::fsync) fn empty(spools: &Spools) -> Self {
        Self { reader: Reader::new(Arc::new(spools.spool()), 0), others: Places::new(spools) }
    }

    /// The entry at `path`. Paths are asked for in their order; what lies between two of them is left to [`TreeReader::take_other`].
    pub(in crate::fsync) fn take(&mut self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        loop {
            let Some(raw) = entry::next(&mut self.reader)? else { return Ok(None) };
            let length = raw.length;
            match compare_paths(raw.path()?, path) {
                Ordering::Greater => return Ok(None),
                Ordering::Equal => {
                    let entry = raw.decode()?;
                    self.reader.consume(length);
                    return Ok(Some(entry));
                }
                Ordering::Less => self.pass(length)?,
            }
        }
    }

    /// The last one of those that nobody asked for is taken off the list.
    pub(in crate::fsync) fn take_other(&mut self) -> Result<Option<TreeEntry>, TreeError> {
        self.pass_all()?;
        self.others.pop()?.map(|place| self.at(place)).transpose()
    }

    /// Those that nobody asked for.
    pub(super) fn others(&mut self) -> Result<impl Iterator<Item = Result<TreeEntry, TreeError>>, TreeError> {
        self.pass_all()?;
        Ok(self.others.iter().map(|place| self.at(place?)))
    }

    fn at(&self, place: Place) -> Result<TreeEntry, TreeError> {
        entry::at(self.reader.spool(), place, &mut Vec::new())?.decode()
    }

    /// Nobody asks for anything any more.
    fn pass_all(&mut self) -> Result<(), TreeError> {
        while let Some(length) = entry::next(&mut self.reader)?.map(|raw| raw.length) {
            self.pass(length)?;
        }
        Ok(())
    }

    /// Nobody asked for the next entry, which has `length` bytes.
    fn pass(&mut self, length: usize) -> Result<(), TreeError> {
        self.others.push(self.reader.offset())?;
        self.reader.consume(length);
        Ok(())
    }
}
