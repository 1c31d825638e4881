//! Transfers of metadata: what is there, without contents but for exceptions.

use kiln_proto::fsutil_types as wire;
use kiln_proto::prost::Message;

use super::stat::FileStat;
use crate::patterns::PatternMatcher;

/// The file at the top that lists everything: for each file the length (4 bytes, little endian) and the encoded `fsutil.types.Stat`.
pub const METADATA_FILE: &str = ".fsutil-metadata";

/// Most bytes that the list may have.
const LIST_BYTES_MAX: usize = 1 << 30;

/// Sorts files into those that are made and those that are only listed.
pub(super) struct MetadataOnly {
    except: PatternMatcher,
    list: Vec<u8>,
    /// Directories above the last file that were not made yet, outermost first.
    parents: Vec<FileStat>,
}

/// The list is too long.
pub(super) struct TooLong;

impl MetadataOnly {
    pub(super) fn new(except: PatternMatcher) -> Self {
        Self { except, list: Vec::new(), parents: Vec::new() }
    }

    /// What has to be made now: nothing, or the file after directories above it that were not made yet.
    pub(super) fn take(&mut self, stat: FileStat) -> Result<Vec<FileStat>, TooLong> {
        if stat.path == METADATA_FILE {
            return Ok(Vec::new());
        }
        let message = wire::Stat::from(stat.clone());
        let length = message.encoded_len();
        if self.list.len() + length + 4 > LIST_BYTES_MAX {
            return Err(TooLong);
        }
        self.list.extend((length as u32).to_le_bytes());
        message.encode(&mut self.list).expect("a vector grows");

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

    /// The list's bytes.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.list)
    }
}
