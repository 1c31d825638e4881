//! Who has the bytes of layers that are only known so far.

use std::sync::Arc;

use futures::StreamExt;
use kiln_oci::Descriptor;
use kiln_registry::{Repository, RepositoryOptions};
use kiln_session::daemon::ClientStore;
use kiln_store::{BoxError, LayerHandle, Provider, Store};
use kiln_worker::repository_of;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

type Opened = Result<Box<dyn AsyncRead + Send + Unpin>, BoxError>;

/// A repository.
pub struct RegistryProvider(pub Repository);

impl std::fmt::Debug for RegistryProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "registry {}", self.0.name())
    }
}

#[async_trait::async_trait]
impl Provider for RegistryProvider {
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Opened {
        Ok(Box::new(self.0.blob(descriptor, offset).await?.into_read()))
    }

    async fn has(&self, descriptor: &Descriptor) -> bool {
        // Whoever opens it learns what an error is about.
        self.0.has_blob(&descriptor.digest).await.unwrap_or(true)
    }
}

/// A folder of the client.
pub struct ClientProvider(pub ClientStore);

impl std::fmt::Debug for ClientProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("folder of a client")
    }
}

#[async_trait::async_trait]
impl Provider for ClientProvider {
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Opened {
        let stream = self.0.read(&descriptor.digest, offset).await?;
        Ok(Box::new(StreamReader::new(stream.map(|piece| piece.map_err(std::io::Error::other)))))
    }

    async fn has(&self, descriptor: &Descriptor) -> bool {
        self.0.info(&descriptor.digest).await.map_or(true, |known| known.is_some())
    }

    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// Says of a lazy layer who can be asked for it now: the build that took note of it may be long over.
pub fn attach_registry(store: &Store, layer: &LayerHandle, registry: &kiln_registry::Client) {
    if !layer.is_lazy() {
        return;
    }
    let Some(origin) = repository_of(store, layer) else { return };
    if let Ok(repository) = registry.repository(&origin, RepositoryOptions::default()) {
        layer.attach_provider(Arc::new(RegistryProvider(repository)));
    }
}
