//! What a format must offer to be compressed block by block, each block by any thread.

use std::io;

/// A format whose stream is a sequence of independent blocks.
pub(crate) trait Codec: Send + Sync {
    /// Plain bytes a block takes, the last one excepted. Fixed for a format: it decides the bytes that come out.
    fn block_bytes(&self) -> usize;

    /// What a thread needs to compress blocks, one after the other.
    fn worker(&self) -> io::Result<Box<dyn Worker>>;

    /// The stream of no bytes at all.
    fn empty(&self) -> io::Result<Vec<u8>>;
}

/// Compresses blocks. What comes out for one depends on nothing but its own plain bytes.
pub(crate) trait Worker: Send {
    /// Replaces what is in `packed` by the block.
    fn compress(&mut self, plain: &[u8], packed: &mut Vec<u8>) -> io::Result<()>;
}
