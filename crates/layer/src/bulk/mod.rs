//! Large files, written and read once, front to back, past the page cache.
//!
//! An archive of hundreds of megabytes that goes through the page cache costs more there than everything else that is
//! done with it: a page to find, to fill and to write back for each 4 KiB, and what other programs had in memory gives
//! way. So large files go to the disk from a few buffers (`O_DIRECT`), by a thread of their own while others compute.
//! Where the file system cannot, or the disk turns out to be so slow that memory in between helps, the rest goes the
//! usual way. Small files always do.

mod buffer;
mod cached;
mod read;
mod write;

pub use read::BulkReader;
pub use write::BulkWriter;

/// Bytes that go to or come from the disk at once.
const PIECE_BYTES: usize = 1 << 20;

/// Pieces on their way to the disk. With the one being filled they are all the memory that a file takes.
const PIECES_WAITING: usize = 3;

/// From this offset on files are large.
const DIRECT_FROM_BYTES: u64 = 8 << 20;

#[cfg(test)]
mod tests;
