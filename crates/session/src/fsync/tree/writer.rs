//! Writing the list of a transfer.

use std::cmp::Ordering;
use std::sync::Arc;

use kiln_spool::{Reader, Spool, Spools};

use super::entry::{self, COMPLETE, FRESH, HAS_DIGEST, Place, SLOT};
use super::index::Index;
use super::reader::TreeReader;
use super::{ContentDigest, DIGEST_BYTES, Entries, Tree, TreeEntry, TreeError, VERSION};
use crate::fsync::error::SyncError;
use crate::fsync::lists::list_error;
use crate::fsync::mode::FileKind;
use crate::fsync::order::compare_paths;
use crate::fsync::stat::FileStat;

/// Writes a tree in order, and notes later how its files came along.
#[derive(Debug)]
pub(in crate::fsync) struct TreeWriter {
    spool: Spool,
    index: Index,
    /// Whether somebody will ask for digests.
    with_digests: bool,
    /// Of the entry that is written.
    buffer: Vec<u8>,
}

impl TreeWriter {
    /// An empty one.
    pub(in crate::fsync) fn new(spools: &Spools, with_digests: bool) -> Self {
        let (spool, index, buffer) = (spools.spool(), Index::default(), Vec::new());
        Self { spool, index, with_digests, buffer }
    }

    /// Adds a file behind all others. It is incomplete.
    pub(in crate::fsync) fn push(&mut self, stat: FileStat) -> Result<(Place, FileStat), TreeError> {
        if self.spool.is_empty() {
            self.spool.append(&[VERSION])?;
        }
        let place = self.spool.len();
        let slot = self.with_digests && stat.kind() == FileKind::Regular && !stat.is_hard_link();
        let stat = entry::encode(stat, slot, &mut self.buffer);
        self.spool.append(&self.buffer)?;
        self.index.add(place);
        Ok((place, stat))
    }

    /// Adds an entry of another tree behind all others.
    fn push_entry(&mut self, entry: TreeEntry) -> Result<(), TreeError> {
        let (place, _) = self.push(entry.stat)?;
        self.note(place, &entry.digest, entry.complete, entry.fresh)
    }

    /// The file is there as its stat says.
    pub(in crate::fsync) fn complete(
        &mut self,
        place: Place,
        digest: Option<ContentDigest>,
    ) -> Result<(), TreeError> {
        self.note(place, &digest, true, true)
    }

    /// The file is there as it was before.
    pub(in crate::fsync) fn keep(&mut self, place: Place, before: &TreeEntry) -> Result<(), TreeError> {
        self.note(place, &before.digest, true, false)
    }

    fn note(
        &mut self,
        place: Place,
        digest: &Option<ContentDigest>,
        complete: bool,
        fresh: bool,
    ) -> Result<(), TreeError> {
        let mut bytes = [0; 1 + DIGEST_BYTES];
        self.spool.read_at(place, &mut bytes[..1])?;
        let mut flags = bytes[0] & SLOT;
        if complete {
            flags |= COMPLETE;
        }
        if fresh {
            flags |= FRESH;
        }
        let mut length = 1;
        if let Some(digest) = digest
            && flags & SLOT != 0
        {
            flags |= HAS_DIGEST;
            length += DIGEST_BYTES;
            bytes[1..].copy_from_slice(digest);
        }
        bytes[0] = flags;
        Ok(self.spool.write_at(place, &bytes[..length])?)
    }

    /// The file at `path`, of those that were added.
    pub(in crate::fsync) fn get(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        self.place(path)?.map(|place| self.at(place)).transpose()
    }

    /// Where the file at `path` is noted.
    pub(in crate::fsync) fn place(&self, path: &str) -> Result<Option<Place>, TreeError> {
        self.index.find(&self.spool, path)
    }

    /// What a place's entry says.
    pub(in crate::fsync) fn at(&self, place: Place) -> Result<TreeEntry, TreeError> {
        entry::at(&self.spool, place, &mut Vec::new())?.decode()
    }

    /// All files so far, in order.
    pub(in crate::fsync) fn iter(&self) -> Entries<&Spool> {
        Entries::new(&self.spool)
    }

    /// Gives each file's stat, encoded, in order.
    pub(in crate::fsync) fn each_stat(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        let failed = |error: TreeError| list_error(self.spool.spools(), error.into());
        let mut reader = Reader::new(&self.spool, 1);
        while let Some(raw) = entry::next(&mut reader).map_err(failed)? {
            take(raw.stat)?;
            let length = raw.length;
            std::io::BufRead::consume(&mut reader, length);
        }
        Ok(())
    }

    /// Puts a file where its path belongs, in place of one that is there. No place that was given before holds any more.
    pub(in crate::fsync) fn insert(&mut self, stat: FileStat) -> Result<(), TreeError> {
        let entry = TreeEntry { stat, digest: None, complete: false, fresh: false };
        let mut merged = Self::new(self.spool.spools(), self.with_digests);
        merged.merge(self.iter(), std::iter::once(Ok(entry)))?;
        *self = merged;
        Ok(())
    }

    /// The tree.
    pub(in crate::fsync) fn finish(mut self) -> Tree {
        self.spool.shrink_to_fit();
        Tree { stored: Arc::new(self.spool), index: Arc::new(self.index) }
    }

    /// The tree, and what of the one before nobody spoke of.
    pub(in crate::fsync) fn finish_with(self, mut before: TreeReader) -> Result<Tree, TreeError> {
        let mut others = before.others()?.peekable();
        if others.peek().is_none() {
            drop(others);
            return Ok(self.finish());
        }
        let mut merged = Self::new(self.spool.spools(), self.with_digests);
        merged.merge(self.iter(), others)?;
        Ok(merged.finish())
    }

    /// Adds what both have, each in order; of two with the same path the second one.
    fn merge(
        &mut self,
        mut first: impl Iterator<Item = Result<TreeEntry, TreeError>>,
        mut second: impl Iterator<Item = Result<TreeEntry, TreeError>>,
    ) -> Result<(), TreeError> {
        let (mut a, mut b) = (first.next().transpose()?, second.next().transpose()?);
        loop {
            let order = match (&a, &b) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => compare_paths(&a.stat.path, &b.stat.path),
            };
            let entry = if order == Ordering::Less { a.take() } else { b.take() };
            self.push_entry(entry.expect("is the one that comes first"))?;
            if order != Ordering::Greater {
                a = first.next().transpose()?;
            }
            if order != Ordering::Less {
                b = second.next().transpose()?;
            }
        }
    }
}
