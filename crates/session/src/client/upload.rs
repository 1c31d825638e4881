//! Bodies for the daemon: what came on standard input.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::Stream;
use kiln_proto::moby::upload::v1::BytesMessage;
use kiln_proto::moby::upload::v1::upload_server::Upload;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::{Request, Response, Status, Streaming};

use super::Error;
use crate::keys;

/// Host part of the addresses that name an upload (BuildKit `session/upload/uploadprovider`).
const HOST: &str = "buildkit-session";
/// Bytes that one message carries.
const CHUNK_BYTES: usize = 64 << 10;

type Body = Box<dyn AsyncRead + Send + Unpin>;

/// Bodies that wait to be pulled, each once.
#[derive(Default)]
pub struct UploadSource {
    bodies: Mutex<HashMap<String, Body>>,
}

impl UploadSource {
    /// Takes a body and gives the address under which a build may name it as its context.
    ///
    /// # Errors
    /// [`Error::Random`] when this machine has no random numbers to give.
    pub fn add(&self, body: impl AsyncRead + Send + Unpin + 'static) -> Result<String, Error> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| Error::Random)?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("/{id}"), Box::new(body));
        Ok(format!("http://{HOST}/{id}"))
    }
}

pub(super) struct Service(pub(super) Arc<UploadSource>);

type Messages = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

#[async_trait]
impl Upload for Service {
    type PullStream = Messages;

    async fn pull(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Messages>, Status> {
        let text =
            |key| request.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text(keys::UPLOAD_HOST) != HOST {
            return Err(Status::not_found(format!("no upload at host {:?}", text(keys::UPLOAD_HOST))));
        }
        let path = text(keys::UPLOAD_PATH);
        let body = self.0.bodies.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        let body =
            body.ok_or_else(|| Status::not_found(format!("no upload at {path}, or it was pulled before")))?;
        Ok(Response::new(Box::pin(futures::stream::try_unfold(body, |mut body| async move {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            let count =
                body.read_buf(&mut chunk).await.map_err(|error| Status::unknown(error.to_string()))?;
            Ok((count > 0).then(|| (BytesMessage { data: chunk.freeze() }, body)))
        }))))
    }
}
