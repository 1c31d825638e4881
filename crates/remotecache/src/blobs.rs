//! Blobs on their way out, wherever they are.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use kiln_oci::Descriptor;
use kiln_registry::{BlobSource, BodyStream, read_ahead};
use kiln_store::{LayerHandle, NoObserver, Provider, Store};
use tokio_util::io::ReaderStream;

/// One read of what somebody else has.
const READ_BYTES: usize = 256 << 10;

/// Where a layer's blob is.
#[derive(Clone)]
pub enum BlobOrigin {
    /// In the store, or with whoever the store knows to have it; then it is fetched first.
    Layer {
        /// The store.
        store: Store,
        /// The layer.
        layer: LayerHandle,
        /// Its blob.
        descriptor: Descriptor,
    },
    /// Only with somebody else.
    Elsewhere {
        /// Who has it.
        provider: Arc<dyn Provider>,
        /// The blob.
        descriptor: Descriptor,
    },
}

impl BlobOrigin {
    /// Whether whoever only is said to have it does. What the store knows is taken for granted.
    pub(crate) async fn is_there(&self) -> bool {
        match self {
            Self::Layer { .. } => true,
            Self::Elsewhere { provider, descriptor } => provider.has(descriptor).await,
        }
    }
}

impl BlobSource for BlobOrigin {
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<BodyStream>> + Send + '_>> {
        Box::pin(async move {
            match self {
                Self::Layer { store, layer, descriptor } => {
                    if !store.content().has(&descriptor.digest) {
                        let fetched = store.ensure_blob(layer, descriptor, &NoObserver).await;
                        fetched.map_err(io::Error::other)?;
                    }
                    let reader = store.content().reader(&descriptor.digest).map_err(io::Error::other)?;
                    Ok(read_ahead(reader))
                }
                Self::Elsewhere { provider, descriptor } => {
                    let reader = provider.open(descriptor, 0).await.map_err(io::Error::other)?;
                    Ok(ReaderStream::with_capacity(reader, READ_BYTES).boxed())
                }
            }
        })
    }
}
