//! Reading a blob as it arrives, over as many connections as it takes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, StatusCode};
use kiln_oci::{Descriptor, Hasher};
use reqwest::{Response, Url};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::auth::Scopes;
use crate::client::Repository;
use crate::error::RegistryError;
use crate::limits::Permit;
use crate::observer::Observer;
use crate::pull::{content_length, keep_farthest};
use crate::request::{Call, unexpected};
use crate::retry::Backoff;
use crate::transport::cause;

/// A connection that is silent for so long is given up, and the rest asked for on another.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A blob's content in order. A connection that breaks is replaced by one that goes on where it broke; that
/// the length is right is always checked, the digest if asked for.
pub struct BlobReader {
    repository: Repository,
    descriptor: Descriptor,
    /// Where the next byte belongs.
    offset: u64,
    current: Option<Connection>,
    hasher: Option<Hasher>,
    backoff: Backoff,
    observer: Arc<dyn Observer>,
    /// Set when the last byte was given out and checked.
    done: bool,
    _permit: Permit,
}

struct Connection {
    response: Response,
    host: String,
    /// Bytes to throw away first: the server does not know ranges.
    skip: u64,
}

impl Repository {
    /// Opens a blob at `offset`. Its digest is **not** checked here: whoever stores it does that anyway. Waits
    /// for a free place at the host, which is held until the reader is dropped.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobReader, RegistryError> {
        self.open(descriptor, offset, None).await
    }

    /// Opens a blob at its start, to be checked against its digest: the last piece is only given out if the
    /// whole was right.
    pub async fn blob_verified(&self, descriptor: &Descriptor) -> Result<BlobReader, RegistryError> {
        self.open(descriptor, 0, Some(descriptor.digest.hasher())).await
    }

    async fn open(
        &self,
        descriptor: &Descriptor,
        offset: u64,
        hasher: Option<Hasher>,
    ) -> Result<BlobReader, RegistryError> {
        let permit = self.permit(kiln_oci::media_type::is_document(&descriptor.media_type)).await;
        let mut reader = BlobReader {
            repository: self.clone(),
            descriptor: descriptor.clone(),
            offset,
            current: None,
            hasher,
            backoff: Backoff::new(self.retry_wait()),
            observer: self.observer().clone(),
            done: false,
            _permit: permit,
        };
        // A blob that is not there is better known now than at the first read.
        reader.connect_with_retries().await?;
        Ok(reader)
    }

    /// Asks each host in turn for the blob from `offset` on.
    async fn connect(&self, descriptor: &Descriptor, offset: u64) -> Result<Connection, RegistryError> {
        let mut first = None;
        for address in &descriptor.urls {
            let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
            else {
                continue;
            };
            let mut call = Call::new(Method::GET, url, Scopes::default(), self.access());
            call.foreign = true;
            match self.request_blob(self.origin(), call, descriptor, offset).await {
                Ok(connection) => return Ok(connection),
                Err(error) => keep_farthest(&mut first, error)?,
            }
        }
        let kind = if kiln_oci::media_type::is_manifest(&descriptor.media_type)
            || kiln_oci::media_type::is_index(&descriptor.media_type)
        {
            "manifests"
        } else {
            "blobs"
        };
        for endpoint in self.endpoints() {
            let url = endpoint.url(self.name().path(), &format!("{kind}/{}", descriptor.digest))?;
            let call = Call::new(Method::GET, url, self.scopes(), self.access());
            match self.request_blob(endpoint, call, descriptor, offset).await {
                Ok(connection) => return Ok(connection),
                Err(error) => keep_farthest(&mut first, error)?,
            }
        }
        Err(first.expect("there is always a host"))
    }

    async fn request_blob(
        &self,
        endpoint: &crate::endpoint::Endpoint,
        mut call: Call<'_>,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Connection, RegistryError> {
        let accept = if descriptor.media_type.is_empty() {
            "*/*".to_owned()
        } else {
            format!("{}, */*", descriptor.media_type)
        };
        call.range_from = Some(offset);
        let response = self.sender(endpoint).send(call.accept(accept)).await?;
        let skip = match response.status() {
            StatusCode::OK => offset,
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                let range = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
                let wanted = format!("bytes {offset}-");
                if !range.is_some_and(|range| range.starts_with(&wanted)) {
                    let detail = "a part of the content that was not asked for";
                    return Err(crate::request::malformed(&Method::GET, response.url(), detail));
                }
                0
            }
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::NotFound(self.full_name(descriptor.digest.as_str())));
            }
            _ => return Err(unexpected(&Method::GET, response).await),
        };
        let expected = descriptor.size - (offset - skip).min(descriptor.size);
        if let Some(length) = content_length(&response).filter(|length| *length != expected) {
            return Err(RegistryError::SizeMismatch {
                host: endpoint.host.clone(),
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                actual: length + (offset - skip),
            });
        }
        Ok(Connection { response, host: endpoint.host.clone(), skip })
    }
}

impl BlobReader {
    /// The next piece of content; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.done {
                return Ok(None);
            }
            if self.offset == self.descriptor.size && self.descriptor.size == 0 {
                self.finish()?;
                continue;
            }
            if self.current.is_none() {
                self.connect_with_retries().await?;
            }
            match self.read().await {
                Ok(piece) => return Ok(Some(piece)),
                Err(error) => {
                    self.current = None;
                    self.backoff.wait(error, &*self.observer).await?;
                }
            }
        }
    }

    async fn connect_with_retries(&mut self) -> Result<(), RegistryError> {
        loop {
            match self.repository.connect(&self.descriptor, self.offset).await {
                Ok(connection) => {
                    self.current = Some(connection);
                    return Ok(());
                }
                Err(error) => self.backoff.wait(error, &*self.observer).await?,
            }
        }
    }

    /// One piece from the current connection, which exists.
    async fn read(&mut self) -> Result<Bytes, RegistryError> {
        let connection = self.current.as_mut().expect("connected by the caller");
        let interrupted = |reason: String, host: &str| RegistryError::Interrupted {
            digest: self.descriptor.digest.clone(),
            host: host.to_owned(),
            reason,
        };
        let mut piece = loop {
            let next = tokio::time::timeout(SILENCE_MAX, connection.response.chunk()).await;
            let mut piece = match next {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => return Err(interrupted("unexpected EOF".to_owned(), &connection.host)),
                Ok(Err(error)) => return Err(interrupted(cause(&error), &connection.host)),
                Err(_) => return Err(interrupted("no data for a minute".to_owned(), &connection.host)),
            };
            let skipped = connection.skip.min(piece.len() as u64);
            connection.skip -= skipped;
            let piece = piece.split_off(skipped as usize);
            if !piece.is_empty() {
                break piece;
            }
        };
        let left = self.descriptor.size - self.offset;
        if piece.len() as u64 > left {
            return Err(RegistryError::SizeMismatch {
                host: connection.host.clone(),
                digest: self.descriptor.digest.clone(),
                expected: self.descriptor.size,
                actual: self.offset + piece.len() as u64,
            });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        self.offset += piece.len() as u64;
        self.backoff.reset();
        self.observer.progress(self.offset, self.descriptor.size);
        if self.offset == self.descriptor.size {
            self.drain().await;
            self.finish()?;
        }
        Ok(std::mem::take(&mut piece))
    }

    /// Lets the connection see the end of its answer, so that it can be used again.
    async fn drain(&mut self) {
        if let Some(mut connection) = self.current.take() {
            let end = connection.response.chunk();
            let _ = tokio::time::timeout(Duration::from_millis(100), end).await;
        }
    }

    fn finish(&mut self) -> Result<(), RegistryError> {
        self.done = true;
        self.current = None;
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual == self.descriptor.digest {
            return Ok(());
        }
        Err(RegistryError::DigestMismatch {
            host: self.repository.name().domain().to_owned(),
            expected: self.descriptor.digest.clone(),
            actual,
        })
    }

    /// The content as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, RegistryError>> + Send {
        futures::stream::try_unfold(self, |mut reader| async move {
            Ok(reader.chunk().await?.map(|piece| (piece, reader)))
        })
    }

    /// The content to read from; errors carry the [`RegistryError`] inside.
    pub fn into_read(self) -> Pin<Box<dyn AsyncRead + Send>> {
        let stream = self.into_stream().map(|piece| piece.map_err(std::io::Error::other));
        Box::pin(StreamReader::new(Box::pin(stream)))
    }
}
