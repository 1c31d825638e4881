//! Bodies that the client uploads: a Dockerfile or a tar archive from its standard input.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kiln_proto::moby::upload::v1::BytesMessage;
use kiln_proto::moby::upload::v1::upload_client::UploadClient;
use tonic::{Request, Status};

use super::{Caller, Error};
use crate::keys;
use crate::tunnel::Chunk;

const METHOD: &str = "/moby.upload.v1.Upload/Pull";

impl Caller {
    /// The body behind `http://HOST/PATH`, as it comes. A body can be pulled once.
    pub async fn pull_upload(
        &self,
        host: &str,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Error> {
        let mut client = UploadClient::new(self.channel_for(METHOD)?);
        // Nothing is sent, but the call's own direction stays open until the body has come.
        let mut request = Request::new(futures::stream::pending::<BytesMessage>());
        let value = |text: &str| {
            text.parse().map_err(|_| Status::invalid_argument("an upload's address is not ASCII"))
        };
        request.metadata_mut().insert(keys::UPLOAD_PATH, value(path)?);
        request.metadata_mut().insert(keys::UPLOAD_HOST, value(host)?);
        let answer = client.pull(request).await?.into_inner();
        Ok(answer.map(|message| message.map(Chunk::into_bytes)))
    }
}
