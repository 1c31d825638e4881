//! Transfers of metadata: what is there, without contents but for exceptions.

use kiln_proto::fsutil_types as wire;
use kiln_proto::prost::Message;
use kiln_spool::Spools;

use super::error::SyncError;
use super::lists::list_error;
use super::stat::FileStat;
use super::tree::{TreeEntry, TreeError, TreeWriter};
use crate::patterns::PatternMatcher;

/// The file at the top that lists everything: for each file the length (4 bytes, little endian) and the encoded `fsutil.types.Stat`.
pub const METADATA_FILE: &str = ".fsutil-metadata";

/// Most bytes that the list may have.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// Pieces in which the list is written.
const PIECE_BYTES: usize = 64 << 10;

/// Sorts files into those that are made and those that are only listed.
pub(super) struct MetadataOnly {
    except: PatternMatcher,
    list: TreeWriter,
    /// Bytes of the list as the file has it.
    length: u64,
    spools: Spools,
    /// Directories above the last file that were not made yet, outermost first.
    parents: Vec<FileStat>,
}

impl MetadataOnly {
    pub(super) fn new(except: PatternMatcher, spools: &Spools) -> Self {
        let list = TreeWriter::new(spools, false);
        Self { except, list, length: 0, spools: spools.clone(), parents: Vec::new() }
    }

    /// What has to be made now: nothing, or the file after directories above it that were not made yet.
    pub(super) fn take(&mut self, stat: FileStat) -> Result<Vec<FileStat>, SyncError> {
        if stat.path == METADATA_FILE {
            return Ok(Vec::new());
        }
        self.length += 4 + wire::Stat::from(stat.clone()).encoded_len() as u64;
        if self.length > LIST_BYTES_MAX {
            return Err(SyncError::protocol("metadata list is too long"));
        }
        let (_, stat) = self.list.push(stat).map_err(|error| list_error(&self.spools, error.into()))?;

        self.parents
            .retain(|parent| stat.path.strip_prefix(&parent.path).is_some_and(|rest| rest.starts_with('/')));
        if self.except.matches_or_parent_matches(&stat.path) {
            let mut wanted = std::mem::take(&mut self.parents);
            wanted.push(stat);
            Ok(wanted)
        } else {
            if stat.is_dir() {
                self.parents.push(stat);
            }
            Ok(Vec::new())
        }
    }

    /// What was listed at `path`.
    pub(super) fn get(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        self.list.get(path)
    }

    /// How many bytes the list has.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Gives the list's bytes.
    pub(super) fn write(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        let mut piece = Vec::new();
        self.list.each_stat(|stat| {
            piece.extend((stat.len() as u32).to_le_bytes());
            piece.extend_from_slice(stat);
            if piece.len() < PIECE_BYTES {
                return Ok(());
            }
            take(&piece)?;
            piece.clear();
            Ok(())
        })?;
        take(&piece)
    }
}
