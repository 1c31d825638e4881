//! A layer's blob goes into the client's archive while it is made.
//!
//! The store's copy and the client's are written side by side then, and nothing is read back. Only its place has to be
//! known before: that of a layer whose predecessors in the archive are made. Its header and all around it are written
//! afterwards, when the archive is. Whatever happens differently from what was expected, the archive is the same: what
//! does not stand where it belongs is written over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, OnceLock, Weak};

use kiln_layer::bulk::BulkWriter;
use kiln_oci::{Descriptor, Digest};
use kiln_session::daemon::Caller;
use kiln_store::{Blob, BlobSink};

use super::send::ClientTarget;
use crate::archive::next_content;
use crate::error::ExportError;

/// The client's file, which is opened ahead of everything else where that helps.
pub(super) struct AheadFile<'a> {
    caller: &'a Caller,
    id: u32,
    /// What the client can be told already.
    metadata: BTreeMap<String, String>,
    opened: Option<Option<ClientTarget>>,
}

impl<'a> AheadFile<'a> {
    pub(super) fn new(caller: &'a Caller, id: u32, metadata: BTreeMap<String, String>) -> Self {
        Self { caller, id, metadata, opened: None }
    }

    /// Whether [`AheadFile::sink`] may have anything to give.
    pub(super) fn is_possible(&self) -> bool {
        self.caller.gives_handles() && self.opened.is_none()
    }

    /// Where the bytes of the layer go that stands behind these in the archive.
    pub(super) async fn sink(
        &mut self,
        before: Vec<Descriptor>,
    ) -> Result<Option<Box<dyn BlobSink>>, ExportError> {
        if !self.is_possible() {
            return Ok(None);
        }
        let offset = next_content(before)
            .map_err(|error| ExportError::failed("failed to lay out the archive", error))?;
        let target = ClientTarget::open(self.caller, self.id, &self.metadata).await?;
        let sink = target.as_ref().and_then(|target| target.sink(offset));
        self.opened = Some(target);
        Ok(sink)
    }

    /// The client's file, with all that it is told if it is opened only now; none: the client does not want it.
    pub(super) async fn open(
        self,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Option<ClientTarget>, ExportError> {
        match self.opened {
            Some(target) => Ok(target),
            None => ClientTarget::open(self.caller, self.id, metadata).await,
        }
    }
}

/// A blob that is in the file.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    digest: Digest,
    size: u64,
    offset: u64,
}

impl Placed {
    /// Whether it is this one, at that place.
    pub(super) fn is(&self, blob: &Descriptor, offset: u64) -> bool {
        self.digest == blob.digest && self.size == blob.size && self.offset == offset
    }
}

/// Writes a blob into a file of the client's. What fails fails again, and is told, when the archive is written without it.
pub(super) struct Ahead {
    /// None: it came to nothing.
    file: Option<BulkWriter>,
    offset: u64,
    /// Who waits for the file holds the other end.
    wanted: Weak<()>,
    placed: Arc<OnceLock<Placed>>,
}

impl Ahead {
    pub(super) fn new(
        file: File,
        offset: u64,
        wanted: Weak<()>,
        placed: Arc<OnceLock<Placed>>,
    ) -> Option<Self> {
        let mut file = BulkWriter::new(file);
        file.skip(offset).ok()?;
        Some(Self { file: Some(file), offset, wanted, placed })
    }
}

impl BlobSink for Ahead {
    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let written = match self.wanted.strong_count() {
            0 => Err(std::io::Error::other("the export was given up")),
            _ => file.write_all(bytes),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "a layer does not go ahead into the client's file");
            self.file = None;
        }
    }

    fn finish(mut self: Box<Self>, blob: &Blob) {
        let Some(file) = self.file.take() else { return };
        let whole = file.bytes() - self.offset == blob.size();
        match file.finish() {
            Ok(_) if whole => {
                let (digest, size) = (blob.digest().clone(), blob.size());
                // Set once: there is one sink for a file.
                let _ = self.placed.set(Placed { digest, size, offset: self.offset });
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a layer did not go ahead into the client's file"),
        }
    }
}
