//! Where else the bytes of an archive go while it is made.

use std::io::{self, Write};

use kiln_oci::Digest;

use crate::content::{Blob, Ingest};
use crate::error::Result;

/// Gets the bytes of a layer's archive as they are made for the store. The archive is made whatever becomes of them here. An archive
/// that was there already, or that others made meanwhile, does not come.
pub trait BlobSink: Send {
    /// The next bytes. Compression waits meanwhile.
    fn write(&mut self, bytes: &[u8]);

    /// All came, and are this blob of the store. A sink that is dropped without it has got a part, or nothing.
    fn finish(self: Box<Self>, blob: &Blob);
}

/// A blob on its way into the store, and into a sink where there is one.
pub(super) struct Packed {
    pub(super) ingest: Ingest,
    pub(super) sink: Option<Box<dyn BlobSink>>,
}

impl Packed {
    /// Ends the blob. `hashed` is its digest where it was not asked to hash.
    pub(super) fn commit(self, hashed: Option<Digest>) -> Result<Blob> {
        let blob = match hashed {
            Some(digest) => self.ingest.commit_hashed(digest)?,
            None => self.ingest.commit()?,
        };
        if let Some(sink) = self.sink {
            sink.finish(&blob);
        }
        Ok(blob)
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.ingest.write(bytes)?;
        if let Some(sink) = &mut self.sink {
            sink.write(&bytes[..len]);
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.ingest.flush()
    }
}
