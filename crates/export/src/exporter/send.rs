//! From a thread that writes to a client that receives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock, Weak};

use bytes::{Bytes, BytesMut};
use kiln_layer::bulk::BulkWriter;
use kiln_oci::Descriptor;
use kiln_session::daemon::{Caller, Error as SessionError, FileSender};
use kiln_store::BlobSink;
use kiln_store::pool::Pool;
use tokio::sync::mpsc;

use super::ahead::{Ahead, Placed};
use crate::error::ExportError;

/// Bytes gathered before they are handed on.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way.
const PIECES_WAITING: usize = 4;

const WRITE_FAILED: &str = "failed to write the client's file";
const SEND_FAILED: &str = "failed to send to the client";

/// Where an exporter writes its file.
pub(super) trait Out: Write {
    /// Whether the next bytes are this blob's and in the file already; goes on behind them then.
    fn has(&mut self, _blob: &Descriptor) -> io::Result<bool> {
        Ok(false)
    }
}

/// Sends what `write` writes as one file of exporter number `id`, or writes it into the client's file where that gives its handle. A
/// client that does not want it is no error.
pub(super) async fn send_file(
    caller: &Caller,
    id: u32,
    metadata: &BTreeMap<String, String>,
    pool: &Pool,
    write: impl FnOnce(&mut dyn Out) -> Result<(), ExportError> + Send + 'static,
) -> Result<(), ExportError> {
    match ClientTarget::open(caller, id, metadata).await? {
        Some(target) => target.send(pool, write).await,
        None => Ok(()),
    }
}

/// A file of the client's that is open. Dropped before [`ClientTarget::send`] has ended, it is broken off at the client, and nobody writes
/// it any more.
pub(super) struct ClientTarget {
    sender: FileSender,
    /// Where the client gives its handle.
    file: Option<File>,
    wanted: Arc<()>,
    ahead: Arc<OnceLock<Placed>>,
}

impl ClientTarget {
    /// Opens the file of exporter number `id`; none: the client does not want it.
    pub(super) async fn open(
        caller: &Caller,
        id: u32,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, ExportError> {
        match caller.send_file(id, metadata).await {
            Ok(mut sender) => {
                let file = sender.take_file();
                Ok(Some(Self { sender, file, wanted: Arc::default(), ahead: Arc::default() }))
            }
            Err(error) => unwanted(error).map(|()| None),
        }
    }

    /// Where a blob's bytes go that stand in the file from `offset` on, while it is made. Once at most; none: the client gives no handle.
    pub(super) fn sink(&self, offset: u64) -> Option<Box<dyn BlobSink>> {
        let file = self.file.as_ref()?.try_clone().ok()?;
        let sink = Ahead::new(file, offset, Arc::downgrade(&self.wanted), Arc::clone(&self.ahead));
        sink.map(|sink| Box::new(sink) as Box<dyn BlobSink>)
    }

    /// Sends what `write` writes, and the end.
    pub(super) async fn send(
        mut self,
        pool: &Pool,
        write: impl FnOnce(&mut dyn Out) -> Result<(), ExportError> + Send + 'static,
    ) -> Result<(), ExportError> {
        if let Some(file) = self.file.take() {
            let file = ClientFile {
                file: BulkWriter::new(file),
                wanted: Arc::downgrade(&self.wanted),
                placed: self.ahead.get().cloned(),
            };
            pool.run(move || file.fill(write)).await.map_err(super::store_failed(WRITE_FAILED))??;
            return self.sender.finish().await.or_else(unwanted);
        }
        let mut sender = self.sender;
        let (pieces, mut queue) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let writing = pool.run(move || {
            let mut writer = PieceWriter { pieces, buffer: BytesMut::with_capacity(PIECE_BYTES) };
            write(&mut writer)?;
            writer.flush().map_err(|error| ExportError::failed(SEND_FAILED, error))
        });
        let sending = async {
            while let Some(piece) = queue.recv().await {
                sender.write(piece).await?;
            }
            Ok(sender)
        };
        let (written, sent) = tokio::join!(writing, sending);
        match sent {
            // Why the client stopped taking it says more than that writing failed then.
            Err(error) => unwanted(error),
            Ok(sender) => {
                // An incomplete file is never finished: dropping the sender breaks it off at the client too.
                written.map_err(super::store_failed(SEND_FAILED))??;
                sender.finish().await.or_else(unwanted)
            }
        }
    }
}

fn unwanted(error: SessionError) -> Result<(), ExportError> {
    match error {
        SessionError::TargetExists => Ok(()),
        error => Err(ExportError::failed(SEND_FAILED, error)),
    }
}

/// The client's own file. Writing fails when nobody waits for it any more.
struct ClientFile {
    file: BulkWriter,
    /// Who waits holds the other end.
    wanted: Weak<()>,
    /// What is in it already.
    placed: Option<Placed>,
}

impl ClientFile {
    fn fill(
        mut self,
        write: impl FnOnce(&mut dyn Out) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        write(&mut self)?;
        let failed = |error| ExportError::failed(WRITE_FAILED, error);
        let bytes = self.file.bytes();
        let file = self.file.finish().map_err(failed)?;
        // What was placed ahead, and then was not wanted there, may be longer than all the rest.
        if file.metadata().map_err(failed)?.len() != bytes {
            file.set_len(bytes).map_err(failed)?;
        }
        Ok(())
    }

    fn is_wanted(&self) -> io::Result<()> {
        if self.wanted.strong_count() == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the export was given up"));
        }
        Ok(())
    }
}

impl Out for ClientFile {
    fn has(&mut self, blob: &Descriptor) -> io::Result<bool> {
        self.is_wanted()?;
        let placed = self.placed.as_ref().is_some_and(|placed| placed.is(blob, self.file.bytes()));
        if placed {
            self.file.skip(blob.size)?;
        }
        Ok(placed)
    }
}

impl Write for ClientFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_wanted()?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Out for PieceWriter {}

/// Gathers what is written into pieces. Writing fails when nobody receives any more.
struct PieceWriter {
    pieces: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client takes no more");
        self.pieces.blocking_send(piece).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use kiln_store::{Blob, Store, StoreOptions};
    use tempfile::TempDir;

    use super::super::archive::write_archive;
    use super::*;
    use crate::archive::{members, next_content};

    fn client_file(file: &File, wanted: &Arc<()>, placed: Option<Placed>) -> ClientFile {
        let file = BulkWriter::new(file.try_clone().unwrap());
        ClientFile { file, wanted: Arc::downgrade(wanted), placed }
    }

    #[test]
    fn an_export_that_was_given_up_writes_no_more() {
        let file = tempfile::tempfile().unwrap();
        let failed = |error| ExportError::failed(WRITE_FAILED, error);
        let wanted = Arc::new(());
        let given_up = client_file(&file, &wanted, None);
        let mut waiting = Some(wanted);
        let filled = given_up.fill(|out| {
            out.write_all(b"one").map_err(failed)?;
            waiting = None;
            out.write_all(b"two").map_err(failed)
        });
        let error = std::error::Error::source(&filled.unwrap_err()).unwrap().to_string();
        assert_eq!(error, "the export was given up");

        let wanted = Arc::new(());
        client_file(&file, &wanted, None).fill(|out| out.write_all(b"whole").map_err(failed)).unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "whole");
    }

    /// A store with two blobs, in an archive in this order.
    struct Two {
        store: Store,
        blobs: [Blob; 2],
        _folder: TempDir,
    }

    const ONE: &[u8] = b"one";
    const TWO: &[u8] = b"the second one";

    impl Two {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("state"), StoreOptions::default()).unwrap();
            let blobs = [ONE, TWO].map(|bytes| store.content().put(bytes).unwrap());
            Self { store, blobs, _folder: folder }
        }

        fn descriptors(&self) -> [Descriptor; 2] {
            self.blobs.each_ref().map(|blob| blob.descriptor("layer"))
        }

        /// Writes the archive into a file in which something is already.
        fn fill(&self, file: &File, placed: Option<Placed>) -> Result<(), ExportError> {
            let members = members(Vec::new(), self.descriptors(), None).unwrap();
            let content = self.store.content();
            let wanted = Arc::new(());
            client_file(file, &wanted, placed).fill(|out| write_archive(&members, content, out))
        }

        fn offset(&self) -> u64 {
            next_content(self.descriptors().into_iter().take(1)).unwrap()
        }
    }

    /// What was placed of a blob that was begun at `offset`, of which `pieces` came.
    fn ahead(file: &File, offset: u64, pieces: &[&[u8]], blob: &Blob) -> Option<Placed> {
        let (wanted, placed) = (Arc::new(()), Arc::new(OnceLock::new()));
        let file = file.try_clone().unwrap();
        let sink = Ahead::new(file, offset, Arc::downgrade(&wanted), Arc::clone(&placed));
        let mut sink = Box::new(sink.unwrap());
        let mut wanted = Some(wanted);
        for piece in pieces {
            // An empty one: given up.
            wanted = wanted.filter(|_| !piece.is_empty());
            sink.write(piece);
        }
        sink.finish(blob);
        placed.get().cloned()
    }

    #[test]
    fn what_went_ahead_is_not_read() {
        let two = Two::new();
        let (whole, file) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        two.fill(whole.as_file(), None).unwrap();
        let placed = ahead(file.as_file(), two.offset(), &[&TWO[..5], &TWO[5..]], &two.blobs[1]);
        std::fs::remove_file(two.store.content().path(two.blobs[1].digest())).unwrap();
        two.fill(file.as_file(), placed).unwrap();
        assert!(std::fs::read(whole.path()).unwrap() == std::fs::read(file.path()).unwrap());
    }

    #[test]
    fn what_went_ahead_in_vain_is_written_over() {
        let two = Two::new();
        let whole = tempfile::NamedTempFile::new().unwrap();
        two.fill(whole.as_file(), None).unwrap();
        let whole = std::fs::read(whole.path()).unwrap();
        let [one, other] = &two.blobs;
        let at = two.offset();
        for (what, offset, pieces, blob, placed) in [
            ("another place", at + 512, &[TWO][..], other, true),
            ("behind the end", 1 << 20, &[TWO], other, true),
            ("another blob", at, &[ONE], one, true),
            ("a part", at, &[&TWO[1..]], other, false),
            ("given up", at, &[&TWO[..5], b"", &TWO[5..]], other, false),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let found = ahead(file.as_file(), offset, pieces, blob);
            assert_eq!(found.is_some(), placed, "{what}");
            two.fill(file.as_file(), found).unwrap();
            assert!(std::fs::read(file.path()).unwrap() == whole, "{what}");
        }
        // Where nothing can be written the archive says so, not the layer.
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(file.path()).unwrap();
        let found = ahead(&file, at, &[TWO], other);
        assert!(found.is_none());
        assert!(two.fill(&file, found).is_err());
    }
}
