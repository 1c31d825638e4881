//! Records of builds, and the blobs that they refer to.

use bytes::{Bytes, BytesMut};
use kiln_proto::content::ReadContentRequest;
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::control::{BuildHistoryRecord, BuildHistoryRequest, Descriptor};
use tonic::Status;

use crate::{Client, Error};

impl Client {
    /// The record of a build that runs or has ended; `None` if the daemon does not know it.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn record(&self, build: &str) -> Result<Option<BuildHistoryRecord>, Error> {
        let request = BuildHistoryRequest {
            r#ref: build.to_owned(),
            early_exit: true,
            ..BuildHistoryRequest::default()
        };
        let mut events = self.control().listen_build_history(request).await?.into_inner();
        let mut last = None;
        while let Some(event) = events.message().await? {
            last = event.record.or(last);
        }
        Ok(last)
    }

    /// A blob that a record refers to, if it is not larger than `bytes_max`.
    ///
    /// # Errors
    /// The daemon's, and one for a blob that has another length than its descriptor says.
    pub async fn blob(&self, of: &Descriptor, bytes_max: usize) -> Result<Bytes, Error> {
        let wrong = || Status::data_loss(format!("blob {} is not what its descriptor says", of.digest));
        let size = usize::try_from(of.size).ok().filter(|size| *size <= bytes_max).ok_or_else(wrong)?;
        let mut client =
            ContentClient::new(self.channel()).max_decoding_message_size(kiln_proto::MESSAGE_BYTES_MAX);
        let request = ReadContentRequest { digest: of.digest.clone(), ..ReadContentRequest::default() };
        let mut pieces = client.read(request).await?.into_inner();
        let mut bytes = BytesMut::with_capacity(size);
        while let Some(piece) = pieces.message().await? {
            if bytes.len() + piece.data.len() > size {
                return Err(wrong().into());
            }
            bytes.extend_from_slice(&piece.data);
        }
        if bytes.len() == size { Ok(bytes.freeze()) } else { Err(wrong().into()) }
    }
}
