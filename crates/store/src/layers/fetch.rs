//! Bytes from a provider to a blocking reader, mending broken connections.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kiln_oci::Descriptor;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::{BoxError, FetchEvent, FetchObserver, Provider};

/// One piece on its way from the connection to the unpacker.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces on their way: 1 MiB a layer, of which many come at once.
const PIECES_WAITING: usize = 8;
/// Broken connections in a row, without a byte between them, before it is an error.
const TRIES_MAX: u32 = 4;
/// Wait before the first new try; doubles.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// A blocking reader of what [`feed`] sends.
pub(super) struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
}

pub(super) fn channel(size: u64) -> (mpsc::Sender<Bytes>, Pieces) {
    let (sender, queue) = mpsc::channel(PIECES_WAITING);
    (sender, Pieces { queue, piece: Bytes::new(), left: size })
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.piece = piece,
                None if self.left == 0 => return Ok(0),
                // The feeder has the reason.
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the transfer was given up",
                    ));
                }
            }
        }
        let len = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..len]);
        self.left = self.left.saturating_sub(len as u64);
        Ok(len)
    }
}

/// Sends a blob's bytes, exactly `descriptor.size` of them. Ends quietly when nobody listens any more.
pub(super) async fn feed(
    providers: &[Arc<dyn Provider>],
    descriptor: &Descriptor,
    sender: mpsc::Sender<Bytes>,
    observer: &dyn FetchObserver,
) -> Result<(), BoxError> {
    let mut offset = 0;
    let mut tries = 0;
    observer.event(descriptor, FetchEvent::Progress(0));
    loop {
        let before = offset;
        let error = match transfer(providers, tries, descriptor, &mut offset, &sender, observer).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        tries = if offset > before { 1 } else { tries + 1 };
        if tries >= TRIES_MAX {
            return Err(error);
        }
        observer.event(descriptor, FetchEvent::Retry(&error.to_string()));
        tokio::time::sleep(RETRY_DELAY * 2u32.pow(tries - 1)).await;
    }
}

async fn transfer(
    providers: &[Arc<dyn Provider>],
    tries: u32,
    descriptor: &Descriptor,
    offset: &mut u64,
    sender: &mpsc::Sender<Bytes>,
    observer: &dyn FetchObserver,
) -> Result<(), BoxError> {
    // Each new try asks the next one who has it.
    let provider = &providers[tries as usize % providers.len()];
    let mut source = provider.open(descriptor, *offset).await?;
    let mut buffer = BytesMut::new();
    while *offset < descriptor.size {
        buffer.reserve(PIECE_BYTES);
        let len = source.read_buf(&mut buffer).await?;
        if len == 0 {
            return Err(format!("connection ended after {offset} of {} bytes", descriptor.size).into());
        }
        let piece = buffer.split().freeze();
        *offset += len as u64;
        if *offset > descriptor.size {
            return Err(format!("more than the promised {} bytes came", descriptor.size).into());
        }
        observer.event(descriptor, FetchEvent::Progress(*offset));
        if sender.send(piece).await.is_err() {
            // The reader has failed and says why.
            return Ok(());
        }
    }
    Ok(())
}
