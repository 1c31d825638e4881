//! From a thread that writes to a client that receives.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use kiln_layer::bulk::BulkWriter;
use kiln_session::daemon::{Caller, Error as SessionError};
use kiln_store::pool::Pool;
use tokio::sync::mpsc;

use crate::error::ExportError;

/// Bytes gathered before they are handed on.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way.
const PIECES_WAITING: usize = 4;

const WRITE_FAILED: &str = "failed to write the client's file";

/// Sends what `write` writes as one file of exporter number `id`, or writes it into the client's file where that gives its handle. A
/// client that does not want it is no error.
pub(super) async fn send_file(
    caller: &Caller,
    id: u32,
    metadata: &BTreeMap<String, String>,
    pool: &Pool,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError> + Send + 'static,
) -> Result<(), ExportError> {
    let unwanted = |error: SessionError| match error {
        SessionError::TargetExists => Ok(()),
        error => Err(ExportError::failed("failed to send to the client", error)),
    };
    let mut sender = match caller.send_file(id, metadata).await {
        Ok(sender) => sender,
        Err(error) => return unwanted(error),
    };
    if let Some(file) = sender.take_file() {
        let wanted = Arc::new(());
        let file = ClientFile { file: BulkWriter::new(file), wanted: Arc::downgrade(&wanted) };
        pool.run(move || file.fill(write)).await.map_err(super::store_failed(WRITE_FAILED))??;
        return sender.finish().await.or_else(unwanted);
    }
    let (pieces, mut queue) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let writing = pool.run(move || {
        let mut writer = PieceWriter { pieces, buffer: BytesMut::with_capacity(PIECE_BYTES) };
        write(&mut writer)?;
        writer.flush().map_err(|error| ExportError::failed("failed to send to the client", error))
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
            written.map_err(super::store_failed("failed to send to the client"))??;
            match sender.finish().await {
                Ok(()) => Ok(()),
                Err(error) => unwanted(error),
            }
        }
    }
}

/// The client's own file. Writing fails when nobody waits for it any more.
struct ClientFile {
    file: BulkWriter,
    /// Who waits holds the other end.
    wanted: Weak<()>,
}

impl ClientFile {
    fn fill(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        write(&mut self)?;
        self.file.finish().map(drop).map_err(|error| ExportError::failed(WRITE_FAILED, error))
    }
}

impl Write for ClientFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.wanted.strong_count() == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the export was given up"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

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
    use super::*;

    #[test]
    fn an_export_that_was_given_up_writes_no_more() {
        let file = tempfile::tempfile().unwrap();
        let client_file = |wanted: &Arc<()>| ClientFile {
            file: BulkWriter::new(file.try_clone().unwrap()),
            wanted: Arc::downgrade(wanted),
        };
        let failed = |error| ExportError::failed(WRITE_FAILED, error);
        let wanted = Arc::new(());
        let given_up = client_file(&wanted);
        let mut waiting = Some(wanted);
        let filled = given_up.fill(|out| {
            out.write_all(b"one").map_err(failed)?;
            waiting = None;
            out.write_all(b"two").map_err(failed)
        });
        let error = std::error::Error::source(&filled.unwrap_err()).unwrap().to_string();
        assert_eq!(error, "the export was given up");

        let wanted = Arc::new(());
        client_file(&wanted).fill(|out| out.write_all(b"whole").map_err(failed)).unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "whole");
    }
}
