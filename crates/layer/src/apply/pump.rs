//! Plain chunks out of a compressed stream, on a thread of its own where one is free.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use kiln_oci::{Compression, Digest, Hasher};

use crate::compress::{Decoder, decompressor};
use crate::digest::HashingReader;
use crate::error::{Error, Result};
use crate::tar::Chunks;

/// Small enough for the second-level cache to still hold it when it is hashed and written.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks waiting between the two threads. Many layers are unpacked at once, each with as many.
const CHUNKS_WAITING: usize = 3;

/// What is known of the compressed stream once it has ended.
pub(super) struct Source {
    pub digest: Digest,
    pub size: u64,
    pub compression: Compression,
}

/// Reads, hashes and decompresses.
pub(super) struct Inflate<R: Read> {
    decoder: Decoder<HashingReader<R>>,
}

impl<R: Read> Inflate<R> {
    pub(super) fn new(source: R) -> Result<Self> {
        Ok(Self { decoder: decompressor(HashingReader::new(source)).map_err(Error::Read)? })
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut len = 0;
        while len < chunk.len() {
            match self.decoder.read(&mut chunk[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        chunk.truncate(len);
        Ok((len > 0).then(|| chunk.into()))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        let compression = self.decoder.compression();
        // Decoders speak of damage in these kinds; a source that fails (a connection, a file) uses others.
        let damaged = matches!(
            source.kind(),
            std::io::ErrorKind::InvalidInput
                | std::io::ErrorKind::InvalidData
                | std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::Other
        );
        if damaged && compression != Compression::Uncompressed {
            Error::Decompress { compression, source }
        } else {
            Error::Read(source)
        }
    }

    fn finish(self) -> Result<Source> {
        let compression = self.decoder.compression();
        let (digest, size) = self.decoder.into_source().map_err(Error::Read)?.finish();
        Ok(Source { digest, size, compression })
    }
}

/// Plain chunks, hashed as they pass.
pub(super) struct Plain<'a, R: Read> {
    from: From<R>,
    hasher: Hasher,
    bytes: u64,
    bytes_max: u64,
    cancel: Option<&'a Arc<AtomicBool>>,
}

enum From<R: Read> {
    Here(Box<Inflate<R>>),
    Thread(Receiver<Result<Bytes>>),
}

impl<'a, R: Read> Plain<'a, R> {
    pub(super) fn here(inflate: Inflate<R>, bytes_max: u64, cancel: Option<&'a Arc<AtomicBool>>) -> Self {
        Self { from: From::Here(Box::new(inflate)), hasher: Hasher::sha256(), bytes: 0, bytes_max, cancel }
    }

    pub(super) fn threaded(
        chunks: Receiver<Result<Bytes>>,
        bytes_max: u64,
        cancel: Option<&'a Arc<AtomicBool>>,
    ) -> Self {
        Self { from: From::Thread(chunks), hasher: Hasher::sha256(), bytes: 0, bytes_max, cancel }
    }

    /// The plain bytes' digest and number, and the source's end where it was read here.
    pub(super) fn finish(self) -> Result<(Digest, u64, Option<Source>)> {
        let source = match self.from {
            From::Here(inflate) => Some(inflate.finish()?),
            From::Thread(_) => None,
        };
        Ok((self.hasher.finish(), self.bytes, source))
    }
}

impl<R: Read> Chunks for Plain<'_, R> {
    fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Canceled);
        }
        let chunk = match &mut self.from {
            From::Here(inflate) => inflate.next()?,
            From::Thread(chunks) => chunks.recv().ok().transpose()?,
        };
        if let Some(chunk) = &chunk {
            self.bytes += chunk.len() as u64;
            if self.bytes > self.bytes_max {
                return Err(Error::TooLarge { limit: self.bytes_max });
            }
            self.hasher.update(chunk);
        }
        Ok(chunk)
    }
}

/// A channel for [`run`].
pub(super) fn channel() -> (SyncSender<Result<Bytes>>, Receiver<Result<Bytes>>) {
    sync_channel(CHUNKS_WAITING)
}

/// The helper thread's work: decompresses to the end, or until nobody listens.
pub(super) fn run<R: Read>(source: R, chunks: SyncSender<Result<Bytes>>) -> Option<Result<Source>> {
    let mut inflate = match Inflate::new(source) {
        Ok(inflate) => inflate,
        Err(error) => {
            let _ = chunks.send(Err(error));
            return None;
        }
    };
    loop {
        match inflate.next() {
            Ok(Some(chunk)) => chunks.send(Ok(chunk)).ok()?,
            Ok(None) => return Some(inflate.finish()),
            Err(error) => {
                // The listener reports it; if it is gone it has its own error.
                let _ = chunks.send(Err(error));
                return None;
            }
        }
    }
}
