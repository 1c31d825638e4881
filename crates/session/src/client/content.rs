//! Folders that are OCI image layouts, for the daemon to read (contexts) and to write (local caches).

use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{Stream, StreamExt};
use kiln_oci::Digest;
use kiln_proto::content::content_server::Content;
use kiln_proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use ring::digest::{Context, SHA256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::keys;

/// Bytes of a blob that one message carries.
const CHUNK_BYTES: usize = 1 << 20;
/// Answers to a write that may wait.
const ANSWERS: usize = 4;

/// A folder that is an OCI image layout, or becomes one.
#[derive(Debug, Clone)]
pub struct LayoutStore {
    folder: PathBuf,
    writable: bool,
}

impl LayoutStore {
    /// A layout that is only read.
    pub fn read_only(folder: PathBuf) -> LayoutStore {
        LayoutStore { folder, writable: false }
    }

    /// A layout that blobs may be added to.
    pub fn writable(folder: PathBuf) -> LayoutStore {
        LayoutStore { folder, writable: true }
    }

    /// Where a blob is. A digest holds no path separator, so this stays inside.
    fn blob(&self, digest: &str) -> Result<PathBuf, Status> {
        let digest: Digest = digest.parse().map_err(|_| Status::invalid_argument("no digest"))?;
        let (algorithm, hex) =
            digest.as_str().split_once(':').ok_or_else(|| Status::invalid_argument("no digest"))?;
        Ok(self.folder.join("blobs").join(algorithm).join(hex))
    }

    async fn info(&self, digest: &str) -> Result<Info, Status> {
        let path = self.blob(digest)?;
        let data = tokio::fs::metadata(&path).await.map_err(|error| not_there(digest, &error))?;
        Ok(Info { digest: digest.to_owned(), size: data.len() as i64, ..Info::default() })
    }
}

fn not_there(digest: &str, error: &std::io::Error) -> Status {
    match error.kind() {
        std::io::ErrorKind::NotFound => Status::not_found(format!("content {digest}: not found")),
        _ => Status::unknown(format!("content {digest}: {error}")),
    }
}

pub(super) struct Service {
    stores: HashMap<String, LayoutStore>,
}

impl Service {
    pub(super) fn new(stores: Vec<(String, LayoutStore)>) -> Service {
        Service { stores: stores.into_iter().collect() }
    }

    fn store<T>(&self, request: &Request<T>) -> Result<&LayoutStore, Status> {
        let id = request.metadata().get(keys::STORE_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        self.stores.get(id).ok_or_else(|| Status::not_found(format!("unknown store {id:?}")))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Content for Service {
    type ListStream = Answers<ListContentResponse>;
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = Answers<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let info = self.store(&request)?.info(&request.get_ref().digest).await?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        // Labels have no place in a layout: what is there is answered as it is.
        let digest = request.get_ref().info.as_ref().map(|info| info.digest.clone()).unwrap_or_default();
        let info = self.store(&request)?.info(&digest).await?;
        Ok(Response::new(UpdateResponse { info: Some(info) }))
    }

    async fn list(&self, _: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented("a layout's blobs are asked for by digest"))
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(Status::permission_denied("blobs of a client are not deleted"))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(&request)?;
        let wanted = request.get_ref();
        let path = store.blob(&wanted.digest)?;
        let mut file = File::open(&path).await.map_err(|error| not_there(&wanted.digest, &error))?;
        let offset = u64::try_from(wanted.offset).map_err(|_| Status::out_of_range("offset"))?;
        file.seek(SeekFrom::Start(offset)).await.map_err(|error| not_there(&wanted.digest, &error))?;
        let left = if wanted.size > 0 { wanted.size as u64 } else { u64::MAX };
        let file = file.take(left);
        let chunks = futures::stream::try_unfold((file, wanted.offset), |(mut file, offset)| async move {
            let mut data = BytesMut::with_capacity(CHUNK_BYTES);
            while data.len() < CHUNK_BYTES {
                let count =
                    file.read_buf(&mut data).await.map_err(|error| Status::unknown(error.to_string()))?;
                if count == 0 {
                    break;
                }
            }
            let next = offset + data.len() as i64;
            Ok((!data.is_empty())
                .then(|| (ReadContentResponse { offset, data: data.freeze() }, (file, next))))
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(Status::not_found(format!("no write of {} is under way", request.get_ref().r#ref)))
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse { statuses: Vec::new() }))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.store(&request)?.clone();
        if !store.writable {
            return Err(Status::permission_denied("this store is only read"));
        }
        let (send, receive) = mpsc::channel(ANSWERS);
        let incoming = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = Writing::default().run(&store, incoming, &send).await {
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive).map(|answer| answer))))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

/// One blob being written: under another name until its bytes were hashed to its digest.
#[derive(Default)]
struct Writing {
    file: Option<(File, PathBuf)>,
    offset: i64,
    hash: Option<Context>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some((_, path)) = self.file.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Writing {
    async fn run(
        mut self,
        store: &LayoutStore,
        mut incoming: Streaming<WriteContentRequest>,
        send: &mpsc::Sender<Result<WriteContentResponse, Status>>,
    ) -> Result<(), Status> {
        let failed = |error: std::io::Error| {
            Status::unknown(format!("cannot write to {}: {error}", store.folder.display()))
        };
        while let Some(message) = incoming.message().await? {
            if !message.expected.is_empty() && store.info(&message.expected).await.is_ok() {
                return Err(Status::already_exists(format!("content {} already exists", message.expected)));
            }
            let mut answer =
                WriteContentResponse { action: message.action, ..WriteContentResponse::default() };
            let action = WriteAction::try_from(message.action)
                .map_err(|_| Status::invalid_argument("unknown action"))?;
            if !message.data.is_empty() {
                if message.offset != self.offset {
                    return Err(Status::out_of_range("a write must go on where the last one ended"));
                }
                if self.file.is_none() {
                    let folder = store.folder.join("ingest");
                    tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
                    let path = folder.join(format!("{}-{:p}", std::process::id(), &self));
                    self.file = Some((File::create(&path).await.map_err(failed)?, path));
                }
                let (file, _) = self.file.as_mut().ok_or_else(|| Status::internal("no file"))?;
                file.write_all(&message.data).await.map_err(failed)?;
                self.hash.get_or_insert_with(|| Context::new(&SHA256)).update(&message.data);
                self.offset += message.data.len() as i64;
            }
            if action == WriteAction::Commit {
                answer.digest = self.commit(store, &message.expected).await?;
            }
            answer.offset = self.offset;
            answer.total = message.total;
            let done = action == WriteAction::Commit;
            if send.send(Ok(answer)).await.is_err() || done {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn commit(&mut self, store: &LayoutStore, expected: &str) -> Result<String, Status> {
        let failed = |error: std::io::Error| {
            Status::unknown(format!("cannot write to {}: {error}", store.folder.display()))
        };
        let hash = self.hash.take().unwrap_or_else(|| Context::new(&SHA256)).finish();
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        if !expected.is_empty() && expected != digest {
            return Err(Status::failed_precondition(format!(
                "unexpected digest {digest}, expected {expected}"
            )));
        }
        let path = store.blob(&digest)?;
        let folder = path.parent().ok_or_else(|| Status::internal("a blob without a folder"))?;
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        match self.file.take() {
            Some((file, part)) => {
                file.sync_all().await.map_err(failed)?;
                tokio::fs::rename(&part, &path).await.map_err(failed)?;
            }
            None => tokio::fs::write(&path, b"").await.map_err(failed)?,
        }
        Ok(digest)
    }
}
