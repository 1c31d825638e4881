//! The tar format: reading what anyone wrote, writing what everyone reads.

mod field;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use header::{Entry, EntryKind};
pub use reader::{Chunks, Reader};
pub use sparse::Segment;
pub use writer::Writer;

/// Everything in an archive comes in records of this size.
pub const RECORD_BYTES: usize = 512;
