//! The cache that goes into images: the records of each platform's result, as far as they are made of the image's own layers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_export::InlineCache;
use kiln_frontend::{Refs, Solution};
use kiln_remotecache::inline::{ImageLayer, write};
use kiln_remotecache::options::CacheMode;
use kiln_remotecache::{Collector, ImportedCache};
use kiln_solver::{CachedResult, KeyStore};
use kiln_store::{BlobOptions, Store};
use kiln_worker::{OWN_CACHE, VertexOp};

/// What an image's cache is made from.
pub(super) struct Inline {
    pub store: Store,
    pub keys: Arc<dyn KeyStore>,
    pub registry: kiln_registry::Client,
    pub imported: Vec<ImportedCache>,
    pub results: Solution<CachedResult<VertexOp>>,
}

impl Inline {
    fn result(&self, platform: &str) -> Option<&CachedResult<VertexOp>> {
        match &self.results.refs {
            Refs::Single(one) => one.as_ref(),
            Refs::Map(many) => match (many.get(platform), many.len()) {
                (Some(found), _) => found.as_ref(),
                (None, 1) => many.values().next().and_then(Option::as_ref),
                (None, _) => None,
            },
        }
    }
}

#[async_trait]
impl InlineCache for Inline {
    async fn records(
        &self,
        platform: &str,
        layers: &[ImageLayer],
    ) -> Result<Option<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let Some(result) = self.result(platform) else { return Ok(None) };
        let collector = Collector {
            store: &self.store,
            own_cache: OWN_CACHE,
            own_keys: Some(&*self.keys),
            imported: &self.imported,
            registry: Some(&self.registry),
            blobs: BlobOptions::default(),
            mode: CacheMode::Min,
            describe_only: false,
        };
        let collected = collector.collect(&[result.keys()]).await?;
        Ok(write(&collected.graph, layers)?.map(Bytes::from))
    }
}
