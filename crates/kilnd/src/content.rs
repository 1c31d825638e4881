//! `containerd.services.content.v1`, for reading: how clients fetch what records of builds refer to, such as statements and logs.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use kiln_oci::Digest;
use kiln_proto::content::content_server::Content;
use kiln_proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use kiln_store::Blob;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::builds::to_timestamp;
use crate::daemon::Daemon;

/// Bytes in one answer.
const PIECE_BYTES: usize = 1 << 20;
/// Blobs in one answer.
const INFOS_MAX: usize = 100;
/// Answers that wait for the client.
const PIECES_WAITING: usize = 2;

/// The service. Clones share the daemon.
#[derive(Clone)]
pub struct ContentService(pub Arc<Daemon>);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

fn read_only<T>() -> Result<T, Status> {
    Err(Status::unimplemented("read-only content store"))
}

fn failed(error: kiln_store::Error) -> Status {
    Status::internal(kiln_frontend::Error::of(&error).message().to_owned())
}

impl ContentService {
    fn about(&self, digest: &Digest, size: u64) -> Info {
        let meta = std::fs::metadata(self.0.store.content().path(digest));
        let changed = meta.and_then(|meta| meta.modified()).ok().map(to_timestamp);
        Info {
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            created_at: changed,
            updated_at: changed,
            ..Info::default()
        }
    }

    /// A blob, kept while it is looked at.
    fn blob(&self, digest: &str) -> Result<Blob, Status> {
        let parsed: Digest = digest
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{digest:?} failed validation: invalid digest")))?;
        let found = self.0.store.content().pin(&parsed).map_err(failed)?;
        found.ok_or_else(|| Status::not_found(format!("content {digest}: not found")))
    }
}

/// Sends `wanted` bytes of a blob from `offset` on, until the client takes no more.
fn send(
    content: &kiln_store::Content,
    blob: &Blob,
    mut offset: u64,
    wanted: u64,
    pieces: &mpsc::Sender<Result<ReadContentResponse, Status>>,
) -> Result<(), Status> {
    let mut file = content.open_blob(blob.digest()).map_err(failed)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut file = file.take(wanted);
    loop {
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let length = file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut data)?;
        let at = i64::try_from(offset).unwrap_or(i64::MAX);
        let piece = ReadContentResponse { offset: at, data: data.into() };
        if length == 0 || pieces.blocking_send(Ok(piece)).is_err() {
            return Ok(());
        }
        offset += length as u64;
    }
}

#[tonic::async_trait]
impl Content for ContentService {
    type ListStream = Answers<ListContentResponse>;
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = Answers<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let blob = self.blob(&request.into_inner().digest)?;
        let info = self.about(blob.digest(), blob.size());
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let blob = self.blob(&request.digest)?;
        let beyond = || Status::out_of_range("read past the end of the content");
        let offset = u64::try_from(request.offset).map_err(|_| beyond())?;
        let rest = blob.size().checked_sub(offset).ok_or_else(beyond)?;
        let wanted = match u64::try_from(request.size).map_err(|_| beyond())? {
            0 => rest,
            size if size <= rest => size,
            _ => return Err(beyond()),
        };
        let (pieces, answers) = mpsc::channel(PIECES_WAITING);
        let content = self.0.store.content().clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send(&content, &blob, offset, wanted, &pieces) {
                // Without a client there is nobody to tell.
                let _ = pieces.blocking_send(Err(error));
            }
        });
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        if !request.into_inner().filters.is_empty() {
            return Err(Status::unimplemented("content is listed without filters"));
        }
        let content = self.0.store.content().clone();
        let all =
            self.0.store.pool().run(move || content.list()).await.and_then(|all| all).map_err(failed)?;
        let infos: Vec<Info> = all.iter().map(|(digest, _, size)| self.about(digest, *size)).collect();
        let answers: Vec<_> =
            infos.chunks(INFOS_MAX).map(|infos| Ok(ListContentResponse { info: infos.to_vec() })).collect();
        Ok(Response::new(futures::stream::iter(answers).boxed()))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        read_only()
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        read_only()
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        read_only()
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        read_only()
    }

    async fn write(
        &self,
        _: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        read_only()
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        read_only()
    }
}
