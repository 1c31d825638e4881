//! Where the bytes of an image come from: a registry, a layout at the client, or the content that is here.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use kiln_oci::{Descriptor, Reference, media_type};
use kiln_registry::{RegistryError, Repository, RepositoryOptions};
use kiln_session::daemon::{ClientStore, SessionCredentials, SessionGroup};
use kiln_solver::OpContext;
use kiln_store::{BoxError, LayerHandle, Provider, Ref, Store};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::image::ImageError;
use crate::Worker;
use crate::error::Result;
use crate::op::VertexOp;

/// Largest manifest, configuration or other document that is read.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 32 << 20;
/// Among the values of a layer: the repository that its blob is in.
const REPOSITORY_KEY: &str = "image-repository";

/// Who has an image.
#[derive(Clone)]
pub enum Origin {
    Registry(Repository),
    Layout(ClientStore),
    /// All of it is in the content store.
    Here,
}

impl Origin {
    /// A document, from the content store where it is there, else from whoever has it, and kept then.
    pub(super) async fn document(&self, store: &Store, descriptor: &Descriptor) -> Result<Bytes, ImageError> {
        let content = store.content();
        if content.has(&descriptor.digest) {
            return Ok(content.read(&descriptor.digest, DOCUMENT_BYTES_MAX)?);
        }
        if descriptor.size > DOCUMENT_BYTES_MAX {
            return Err(ImageError::TooLarge(descriptor.digest.clone()));
        }
        let bytes = match self {
            Origin::Registry(repository) => fetch(repository.clone(), descriptor.clone()).await?,
            Origin::Layout(layout) => read_layout(layout, descriptor).await?,
            Origin::Here => return Err(kiln_store::Error::BlobNotFound(descriptor.digest.clone()).into()),
        };
        if !descriptor.digest.matches(&bytes) {
            return Err(ImageError::Damaged(descriptor.digest.clone()));
        }
        Ok(bytes)
    }

    /// Who gives the bytes of the image's layers.
    pub(super) fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(OriginProvider(self.clone()))
    }

    /// Notes with a layer where it can be had, for builds to come.
    pub(super) fn note(&self, store: &Store, layer: &LayerHandle) -> Result<(), ImageError> {
        if let Origin::Registry(repository) = self {
            note_repository(store, layer, repository.name())?;
        }
        Ok(())
    }
}

/// Boxed with all that it needs: the compiler can't see through what is borrowed across so many calls.
fn fetch(repository: Repository, descriptor: Descriptor) -> BoxFuture<'static, Result<Bytes, RegistryError>> {
    Box::pin(async move {
        let media_type = &descriptor.media_type;
        if media_type::is_manifest(media_type) || media_type::is_index(media_type) {
            repository.manifest(&descriptor).await
        } else {
            repository.document(&descriptor).await
        }
    })
}

async fn read_layout(layout: &ClientStore, descriptor: &Descriptor) -> Result<Bytes, ImageError> {
    let mut stream = layout.read(&descriptor.digest, 0).await?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(kiln_session::daemon::Error::from)?);
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(ImageError::TooLarge(descriptor.digest.clone()));
        }
    }
    Ok(bytes.freeze())
}

struct OriginProvider(Origin);

impl std::fmt::Debug for OriginProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Origin::Registry(_) => "registry",
            Origin::Layout(_) => "layout of a client",
            Origin::Here => "content store",
        })
    }
}

#[async_trait::async_trait]
impl Provider for OriginProvider {
    async fn open(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> std::result::Result<Box<dyn AsyncRead + Send + Unpin>, BoxError> {
        match &self.0 {
            Origin::Registry(repository) => {
                Ok(Box::new(repository.blob(descriptor, offset).await?.into_read()))
            }
            Origin::Layout(layout) => {
                let stream = layout.read(&descriptor.digest, offset).await?;
                let stream = stream.map(|chunk| chunk.map_err(std::io::Error::other));
                Ok(Box::new(StreamReader::new(stream)))
            }
            Origin::Here => Err(Box::new(kiln_store::Error::BlobNotFound(descriptor.digest.clone()))),
        }
    }

    fn is_gone(&self) -> bool {
        matches!(&self.0, Origin::Layout(layout) if layout.is_closed())
    }
}

impl Worker {
    /// A repository, asked on behalf of these sessions.
    pub(crate) fn repository(
        &self,
        reference: &Reference,
        sessions: &SessionGroup,
    ) -> Result<Repository, ImageError> {
        let credentials = SessionCredentials::new(self.sessions().clone(), sessions.clone());
        let client = self.registry().client(Arc::new(credentials));
        Ok(client.repository(reference, RepositoryOptions::default())?)
    }

    /// Says of lazy layers that a registry has where they can be had, on behalf of these sessions: those that attached
    /// them first may be gone.
    pub(crate) fn attach_providers(&self, reference: &Ref, sessions: &SessionGroup) -> Result<()> {
        let mut providers: HashMap<String, Arc<dyn Provider>> = HashMap::new();
        for layer in reference.layers().iter().filter(|layer| layer.is_lazy()) {
            let Some(name) = noted(self.store(), layer) else { continue };
            let provider = match providers.get(&name) {
                Some(provider) => provider.clone(),
                None => {
                    let Ok(parsed) = Reference::parse(&name) else { continue };
                    let provider = Origin::Registry(self.repository(&parsed, sessions)?).provider();
                    providers.entry(name).or_insert(provider).clone()
                }
            };
            layer.attach_provider(provider);
        }
        Ok(())
    }
}

/// The repository (`domain/path`) in which a layer's blob is, where that was noted.
pub fn repository_of(store: &Store, layer: &LayerHandle) -> Option<Reference> {
    Reference::parse(&noted(store, layer)?).ok()
}

/// Notes with a layer in which repository its blob is.
pub fn note_repository(
    store: &Store,
    layer: &LayerHandle,
    repository: &Reference,
) -> std::result::Result<(), kiln_store::Error> {
    store.values().set(layer, REPOSITORY_KEY, repository.name().as_bytes(), None)
}

fn noted(store: &Store, layer: &LayerHandle) -> Option<String> {
    String::from_utf8(store.values().get(layer, REPOSITORY_KEY).ok()??).ok()
}

/// Whether a lazy layer that nobody provides at the moment can be asked for again.
pub(crate) fn can_fetch(store: &Store, layer: &LayerHandle, _cx: &OpContext<VertexOp>) -> bool {
    noted(store, layer).is_some()
}
