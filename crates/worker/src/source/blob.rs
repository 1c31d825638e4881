//! Single blobs of registries and layouts, as files.

use futures::StreamExt;
use kiln_oci::Reference;
use kiln_session::daemon::{SessionGroup, SessionId};
use kiln_solver::Progress;
use kiln_store::Ref;

use super::http::NewFile;
use super::identifier::BlobId;
use super::image::ImageError;
use crate::Worker;
use crate::encode::{Encoder, Hash};
use crate::error::{Error, Result};

impl BlobId {
    /// Key of the file with all that it will have on disk.
    pub(crate) fn key(&self) -> Hash {
        let mut encoder = Encoder::new("kiln.source.blob.v1");
        encoder.str(self.digest.as_str()).str(&self.name()).u32(self.mode).u32(self.uid).u32(self.gid);
        encoder.finish()
    }

    fn name(&self) -> String {
        if self.filename.is_empty() { self.digest.hex().to_owned() } else { self.filename.clone() }
    }
}

impl Worker {
    /// The blob as a file.
    pub(crate) async fn blob_ref(
        &self,
        id: &BlobId,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<Ref> {
        let file = NewFile {
            name: id.name(),
            mode: if id.mode == 0 { 0o600 } else { id.mode },
            uid: id.uid,
            gid: id.gid,
            mtime_s: 0,
            description: format!("blob {}", id.reference),
        };
        let (reference, digest) = match &id.oci_layout {
            Some((store, session)) => {
                let group = match session.as_str() {
                    "" => sessions.clone(),
                    session => SessionGroup::new([SessionId::new(session)]),
                };
                let store_id = format!("oci:{store}");
                let stream = group
                    .any(self.sessions(), |caller| {
                        let (layout, digest) = (caller.store(&store_id), id.digest.clone());
                        async move { layout.read(&digest, 0).await }
                    })
                    .await?;
                let body = stream.map(|chunk| chunk.map_err(|status| Error::Session(status.into())));
                self.save_file(file, body, progress).await?
            }
            None => {
                let parsed = Reference::parse(&id.reference)
                    .map_err(|_| Error::Text(format!("invalid image blob reference {}", id.reference)))?;
                let repository = self.repository(&parsed, sessions)?;
                let descriptor = repository.blob_info(&id.digest).await.map_err(ImageError::from)?;
                // Its digest is checked below.
                let body = repository.blob(&descriptor, 0).await.map_err(ImageError::from)?.into_stream();
                let body = body.map(|chunk| chunk.map_err(|error| Error::Image(error.into())));
                self.save_file(file, Box::pin(body), progress).await?
            }
        };
        if digest != id.digest {
            return Err(ImageError::Damaged(id.digest.clone()).into());
        }
        Ok(reference)
    }
}
