//! Content to send.

use std::future::Future;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::{self, StreamExt};

/// Content in pieces.
pub type BodyStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Bytes read from a file at once. Larger ones gain nothing on a loopback registry, smaller ones cost.
const READ_BYTES: usize = 256 << 10;
/// Pieces read ahead of the network.
const READ_AHEAD: usize = 4;

/// Content that can be sent, and sent again from its start when the first try failed.
pub trait BlobSource: Send + Sync {
    /// Opens the content at its start.
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<BodyStream>> + Send + '_>>;
}

impl BlobSource for Bytes {
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<BodyStream>> + Send + '_>> {
        let bytes = self.clone();
        Box::pin(async move { Ok(stream::once(async move { Ok(bytes) }).boxed()) })
    }
}

/// A file's content, read by a thread of its own a little ahead of the network.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
}

impl BlobSource for FileSource {
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<BodyStream>> + Send + '_>> {
        let path = self.path.clone();
        Box::pin(async move {
            let file = tokio::fs::File::open(path).await?.into_std().await;
            Ok(read_ahead(file))
        })
    }
}

/// Streams what a blocking reader gives, read by a thread of its own a little ahead.
pub fn read_ahead(mut reader: impl Read + Send + 'static) -> BodyStream {
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut buffer = BytesMut::new();
        loop {
            buffer.resize(READ_BYTES, 0);
            let piece = match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(buffer.split_to(read).freeze()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            // Nobody listening any more is how a cancelled upload ends this thread.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) },
    )
    .boxed()
}
