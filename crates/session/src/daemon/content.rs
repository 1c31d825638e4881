//! Content stores of the client: OCI layouts that it offers as contexts, and folders with a local cache.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kiln_oci::Digest;
use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::content::{InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Caller, Error};
use crate::keys;

const INFO: &str = "/containerd.services.content.v1.Content/Info";
/// Bytes of a blob that one message carries.
const WRITE_BYTES: usize = 1 << 20;
/// Messages that wait to be written.
const WRITE_QUEUE: usize = 4;

/// One content store of the client, by its id (`oci:NAME`, `local:FOLDER`, `export`).
#[derive(Clone)]
pub struct ClientStore {
    caller: Caller,
    id: String,
}

/// What is known of a blob before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

impl Caller {
    /// A content store of this client.
    pub fn store(&self, id: &str) -> ClientStore {
        ClientStore { caller: self.clone(), id: id.to_owned() }
    }
}

impl ClientStore {
    /// Whether the client has gone.
    pub fn is_closed(&self) -> bool {
        self.caller.is_closed()
    }

    fn client(&self) -> Result<ContentClient<Channel>, Error> {
        Ok(ContentClient::new(self.caller.channel_for(INFO)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        let id = self.id.parse().map_err(|_| Status::invalid_argument("a store's id is not ASCII"))?;
        request.metadata_mut().insert(keys::STORE_ID, id);
        Ok(request)
    }

    /// Whether a blob is there, and its size.
    pub async fn info(&self, digest: &Digest) -> Result<Option<StoredBlob>, Error> {
        let request = self.request(InfoRequest { digest: digest.to_string() })?;
        match self.client()?.info(request).await {
            Ok(answer) => {
                let info = answer.into_inner().info.unwrap_or_default();
                let size =
                    u64::try_from(info.size).map_err(|_| Status::data_loss("a blob of negative size"))?;
                Ok(Some(StoredBlob { digest: digest.clone(), size }))
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// The bytes of a blob from an offset, as they come. Nothing is verified here.
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + Unpin + use<>, Error> {
        let offset = i64::try_from(offset).map_err(|_| Status::out_of_range("offset"))?;
        let request = self.request(ReadContentRequest { digest: digest.to_string(), offset, size: 0 })?;
        let answer = self.client()?.read(request).await?.into_inner();
        Ok(answer.map(|message| message.map(|message| message.data)))
    }

    /// Writes a blob; one that is there already is left as it is.
    pub async fn write(
        &self,
        digest: &Digest,
        size: u64,
        mut data: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let total = i64::try_from(size).map_err(|_| Status::out_of_range("size"))?;
        let reference = format!("kiln-{digest}");
        let (send, receive) = mpsc::channel(WRITE_QUEUE);
        let (expected, name) = (digest.to_string(), reference.clone());
        let feeding = tokio::spawn(async move {
            let mut offset = 0_i64;
            while let Some(chunk) = data.next().await {
                let mut chunk = chunk?;
                while !chunk.is_empty() {
                    let part = chunk.split_to(chunk.len().min(WRITE_BYTES));
                    let count = part.len() as i64;
                    let message = WriteContentRequest {
                        action: WriteAction::Write as i32,
                        r#ref: name.clone(),
                        total,
                        expected: expected.clone(),
                        offset,
                        data: part,
                        ..WriteContentRequest::default()
                    };
                    offset += count;
                    if send.send(message).await.is_err() {
                        return Ok(());
                    }
                }
            }
            let commit = WriteContentRequest {
                action: WriteAction::Commit as i32,
                r#ref: name,
                total,
                expected,
                offset,
                ..WriteContentRequest::default()
            };
            let _ = send.send(commit).await;
            Ok::<(), std::io::Error>(())
        });
        let request = self.request(ReceiverStream::new(receive))?;
        let outcome = async {
            let mut answers = self.client()?.write(request).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                if answer.action == WriteAction::Commit as i32 {
                    break;
                }
            }
            Ok::<(), Error>(())
        }
        .await;
        match outcome {
            Err(Error::Status(status)) if status.code() == tonic::Code::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => match feeding.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Status::internal(error.to_string()).into()),
                Err(_) => Err(Status::internal("the blob could not be read").into()),
            },
        }
    }
}
