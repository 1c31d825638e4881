//! What a format must offer to be compressed block by block, each block by any thread.

use std::io;

/// A format whose stream is a sequence of independent blocks.
pub(crate) trait Codec: Send + Sync {
    /// Plain bytes a block takes, the last one excepted. Fixed for a format: it decides the bytes that come out.
    fn block_bytes(&self) -> usize;

    /// Compresses one block, which depends on nothing but its own plain bytes.
    fn compress(&self, plain: &[u8]) -> io::Result<Vec<u8>>;

    /// The stream of no bytes at all.
    fn empty(&self) -> io::Result<Vec<u8>>;
}
