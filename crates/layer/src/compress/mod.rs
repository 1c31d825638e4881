//! Compressing and decompressing layer archives.

mod block;
mod decode;
mod gzip;
mod parallel;
mod zstd;

pub use decode::{Decoder, decompressor};
pub use kiln_oci::Compression;
pub use parallel::Compressor;

use crate::error::{Error, Result};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompressOptions {
    /// The format.
    pub kind: Compression,
    /// The format's own level (gzip 0 to 9, zstd 1 to 22); `None` or a negative number is the format's default.
    pub level: Option<i32>,
}

impl CompressOptions {
    /// That format at its default level.
    pub fn new(kind: Compression) -> Self {
        Self { kind, level: None }
    }

    /// The level in force, within the format's bounds; 0 where the format has none.
    pub fn effective_level(&self) -> i32 {
        let level = self.level.filter(|&level| level >= 0);
        match self.kind {
            Compression::Uncompressed => 0,
            Compression::Gzip | Compression::Estargz => level.unwrap_or(gzip::DEFAULT_LEVEL).clamp(0, 9),
            Compression::Zstd => level.unwrap_or(zstd::DEFAULT_LEVEL).clamp(1, 22),
        }
    }

    pub(crate) fn codec(&self) -> Result<Option<std::sync::Arc<dyn block::Codec>>> {
        match self.kind {
            Compression::Uncompressed => Ok(None),
            Compression::Gzip => Ok(Some(std::sync::Arc::new(gzip::Gzip::new(self.effective_level())))),
            Compression::Zstd => Ok(Some(std::sync::Arc::new(zstd::Zstd::new(self.effective_level())))),
            Compression::Estargz => Err(Error::Unsupported("eStargz compression")),
        }
    }
}

#[cfg(test)]
mod tests;
