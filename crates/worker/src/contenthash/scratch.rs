//! How much of long lists is in memory, and where the rest of them is.

use std::path::Path;
use std::sync::Arc;

use kiln_spool::{Spool, Spools};

/// Where lists go that are too long for memory, and which are.
#[derive(Clone, Debug)]
pub struct Scratch {
    spools: Spools,
    pub(super) bounds: Bounds,
}

/// What is in memory at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Lists of bytes: those of tables, and of what was picked.
    pub(super) spool: kiln_spool::Bounds,
    /// Records that are read one after the other to find one; a search looks at the first of each such block.
    pub(super) block_records: usize,
    /// A block with so many bytes ends, however few records it has.
    pub(super) block_bytes: usize,
    /// Blocks that a pass reads at once.
    pub(super) blocks_ahead: u64,
    /// Bytes of records that wait to be brought into their order.
    pub(super) sort_bytes: usize,
    /// Parts of a table, each in order, that wait to become one.
    pub(super) runs: usize,
    /// Files that wait for being read, and the bytes of their paths.
    pub(super) unread_files: usize,
    pub(super) unread_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // Some 40,000 files, whose names are half of that. The end of a longer list is of no use: nothing is changed there.
            spool: kiln_spool::Bounds { short_bytes_max: 2 << 20, tail_bytes_max: 128 << 10 },
            // About a microsecond's work.
            block_records: 64,
            block_bytes: 8 << 10,
            blocks_ahead: 16,
            sort_bytes: 4 << 20,
            runs: 16,
            unread_files: 4096,
            unread_bytes: 1 << 20,
        }
    }
}

impl Scratch {
    /// Files without a name are made in `dir`, should any be needed.
    pub fn new(dir: impl Into<Arc<Path>>) -> Scratch {
        Scratch::bounded(dir, Bounds::default())
    }

    pub(super) fn bounded(dir: impl Into<Arc<Path>>, bounds: Bounds) -> Scratch {
        Scratch { spools: Spools::new(dir).with_bounds(bounds.spool), bounds }
    }

    /// Makes lists that are memory while they are short.
    pub fn spools(&self) -> &Spools {
        &self.spools
    }

    pub(super) fn spool(&self) -> Spool {
        self.spools.spool()
    }
}
