//! Directories of the client, and results that go to it.

use std::collections::BTreeMap;
use std::fs::File;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::filesync::BytesMessage;
use kiln_proto::filesync::file_send_client::FileSendClient;
use kiln_proto::filesync::file_sync_client::FileSyncClient;
use kiln_proto::fsutil_types::Packet;
use kiln_spool::Spools;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Caller, Error, handles};
use crate::fsync::{FsSink, FsSource, Packets, ReceiveLimits, SyncError, encode_values, receive, send};
use crate::keys;

const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// Bytes of a file in one message: peers take 4 MiB by default.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Messages of a file that wait to be sent.
const CHUNK_QUEUE: usize = 4;

/// Which directory of a client, and what of it.
#[derive(Debug, Clone, Default)]
pub struct FileSyncRequest {
    /// The name under which the client serves it.
    pub name: String,
    /// Patterns to include; empty: everything.
    pub include_patterns: Vec<String>,
    /// Patterns to exclude.
    pub exclude_patterns: Vec<String>,
    /// Paths to include, and what links on them lead to.
    pub follow_paths: Vec<String>,
    /// How much is taken.
    pub limits: ReceiveLimits,
}

/// A file that is being sent to the client. Dropped before [`FileSender::finish`], its end is never sent.
pub struct FileSender {
    chunks: mpsc::Sender<Chunk>,
    answer: JoinHandle<Result<(), Error>>,
    file: Option<File>,
}

enum Chunk {
    Data(Bytes),
    End,
}

impl Caller {
    /// Receives a directory into `sink`. `progress` gets the bytes that came so far, and whether these were the last.
    pub async fn receive_files(
        &self,
        request: &FileSyncRequest,
        sink: impl FsSink,
        progress: impl FnMut(u64, bool) + Send,
    ) -> Result<(), Error> {
        let channel = self.channel_for(DIFF_COPY)?;
        let mut metadata = MetadataMap::new();
        encode_values(&mut metadata, keys::DIR_NAME, &[&request.name])?;
        encode_values(&mut metadata, keys::INCLUDE_PATTERNS, &request.include_patterns)?;
        encode_values(&mut metadata, keys::EXCLUDE_PATTERNS, &request.exclude_patterns)?;
        encode_values(&mut metadata, keys::FOLLOW_PATHS, &request.follow_paths)?;
        let (outgoing, packets) = mpsc::unbounded_channel::<Packets>();
        let mut call = Request::new(UnboundedReceiverStream::new(packets).flat_map(futures::stream::iter));
        *call.metadata_mut() = metadata;
        let mut client = FileSyncClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = client.diff_copy(call).await?.into_inner();
        Ok(receive(incoming, outgoing, sink, request.limits, progress).await?)
    }

    /// Sends a directory to the target of exporter number `exporter`. `multi_platform`: it has all platforms' results at once. The list of
    /// its files is in a spool of `spools`.
    pub async fn send_files(
        &self,
        exporter: u32,
        multi_platform: bool,
        source: impl FsSource,
        spools: Spools,
        progress: impl FnMut(u64, bool) + Send + 'static,
    ) -> Result<(), Error> {
        let channel = self.channel_for(SEND)?;
        let (answer_sender, answer) = tokio::sync::oneshot::channel();
        let answer = async move { answer.await.map_err(|_| Status::cancelled("the client did not answer")) };
        let incoming = futures::stream::once(answer).try_flatten().boxed();
        let (packets, transfer) = send(incoming, source, spools, progress);
        let mut call = Request::new(packets);
        exporter_metadata(call.metadata_mut(), exporter);
        if multi_platform {
            call.metadata_mut().insert(keys::EXPORTER_MULTI_PLATFORM, AsciiMetadataValue::from_static("1"));
        }
        // The method is declared with bytes of a file; for directories its messages are packets.
        let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the client is gone: {error}")))?;
        let codec = ProstCodec::<Packet, Packet>::default();
        let answer = client.streaming(call, PathAndQuery::from_static(SEND), codec).await?.into_inner();
        // Fails only if the transfer ended already, which then says why.
        let _ = answer_sender.send(answer);
        transfer.await.map_err(|_| Status::internal("the transfer panicked"))??;
        Ok(())
    }

    /// Begins to send one file to the target of exporter number `exporter`. Whether the client wants it at all
    /// ([`Error::TargetExists`]) shows while it is sent: some clients answer nothing before they have all of it.
    pub async fn send_file(
        &self,
        exporter: u32,
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSender, Error> {
        let mut client = self.file_send()?;
        let (chunks, receiver) = mpsc::channel(CHUNK_QUEUE);
        let mut call = Request::new(until_end(receiver));
        exporter_metadata(call.metadata_mut(), exporter);
        for (key, value) in metadata {
            let name = format!("{}{key}", keys::EXPORTER_METADATA_PREFIX);
            let invalid = || SyncError::Header { key: name.clone() };
            let header = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            call.metadata_mut()
                .insert(header, AsciiMetadataValue::try_from(value.as_str()).map_err(|_| invalid())?);
        }
        if !self.gives_handles() {
            let answer =
                tokio::spawn(
                    async move { answered(client.diff_copy(call).await.map_err(target_error)?).await },
                );
            return Ok(FileSender { chunks, answer, file: None });
        }
        handles::ask(call.metadata_mut());
        let answer = client.diff_copy(call).await.map_err(target_error)?;
        let file = self.take_file(answer.metadata()).await;
        Ok(FileSender { chunks, answer: tokio::spawn(answered(answer)), file })
    }

    fn file_send(&self) -> Result<FileSendClient<Channel>, Error> {
        Ok(FileSendClient::new(self.channel_for(SEND)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// The bytes of a file. A file without its end is not ended: the client would take it for whole.
fn until_end(chunks: mpsc::Receiver<Chunk>) -> impl Stream<Item = BytesMessage> + Send + 'static {
    futures::stream::unfold(chunks, |mut chunks| async move {
        match chunks.recv().await {
            Some(Chunk::Data(data)) => Some((BytesMessage { data }, chunks)),
            Some(Chunk::End) => None,
            None => std::future::pending().await,
        }
    })
}

/// Waits until the client has the whole file.
async fn answered(answer: Response<Streaming<BytesMessage>>) -> Result<(), Error> {
    let mut answer = answer.into_inner();
    while answer.next().await.transpose().map_err(target_error)?.is_some() {}
    Ok(())
}

fn exporter_metadata(metadata: &mut MetadataMap, exporter: u32) {
    metadata.insert(keys::EXPORTER_ID, AsciiMetadataValue::from(exporter));
}

fn target_error(status: Status) -> Error {
    if status.code() == Code::AlreadyExists { Error::TargetExists } else { status.into() }
}

impl FileSender {
    /// The file itself, empty, where the client gives its handle: it is to be written instead of sent.
    pub fn take_file(&mut self) -> Option<File> {
        self.file.take()
    }

    /// Sends the next bytes.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(CHUNK_BYTES_MAX));
            if self.chunks.send(Chunk::Data(part)).await.is_err() {
                return Err(match self.outcome().await {
                    Ok(()) => Status::aborted("the client stopped taking the file").into(),
                    Err(error) => error,
                });
            }
        }
        Ok(())
    }

    /// Sends the end and waits until the client has everything.
    pub async fn finish(mut self) -> Result<(), Error> {
        // Fails only if the client has answered already, which is looked at next.
        let _ = self.chunks.send(Chunk::End).await;
        self.outcome().await
    }

    async fn outcome(&mut self) -> Result<(), Error> {
        (&mut self.answer).await.map_err(|_| Status::internal("the transfer panicked"))?
    }
}

impl Drop for FileSender {
    fn drop(&mut self) {
        self.answer.abort();
    }
}
