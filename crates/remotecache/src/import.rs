//! Reading a cache, so that the solver can look into it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures::StreamExt;
use kiln_oci::{Descriptor, Digest, Manifest, Timestamp, annotations, media_type};
use kiln_registry::{Repository, RepositoryOptions};
use kiln_session::daemon::{Caller, ClientStore};
use kiln_solver::{Cache, Op, OpContext, RecordId, ResultStore, StoreError};
use kiln_store::{LayerHandle, LayerMeta, LazyLayer, Provider, Ref, Store};
use kiln_worker::note_repository;

use crate::document::CacheConfig;
use crate::error::CacheError;
use crate::graph::{self, CacheGraph};
use crate::keys::CacheKeys;
use crate::manifest::{Unwrapped, unwrap};
use crate::options::ImportPlace;
use crate::provider::{ClientProvider, RegistryProvider};
use crate::{inline, report::Reporter};

/// The longest document that is read, in bytes.
const DOCUMENT_BYTES_MAX: u64 = kiln_registry::DOCUMENT_BYTES_MAX;
/// Indexes in indexes that are looked into.
const INDEX_DEPTH_MAX: usize = 4;

/// What an import needs.
#[derive(Clone)]
pub struct ImportContext {
    /// Where its layers will be.
    pub store: Store,
    /// Registries, with the client's credentials.
    pub registry: kiln_registry::Client,
    /// The client, for its folders.
    pub caller: Option<Caller>,
    /// Where progress is told.
    pub reporter: Reporter,
}

/// A cache that was read.
#[derive(Clone)]
pub struct ImportedCache {
    name: Arc<str>,
    keys: Arc<CacheKeys>,
    store: Store,
    origin: Origin,
    lent: Arc<Lent>,
}

/// What was taken from a cache.
#[derive(Default)]
struct Lent {
    /// Layers that nothing had read when they were given out, with the blobs that the cache named for them.
    layers: Mutex<Vec<(LayerHandle, Digest)>>,
    given_up: AtomicBool,
}

#[derive(Clone)]
enum Origin {
    Registry(Repository),
    Client(ClientStore),
}

impl Origin {
    fn provider(&self) -> Arc<dyn Provider> {
        match self {
            Self::Registry(repository) => Arc::new(RegistryProvider(repository.clone())),
            Self::Client(store) => Arc::new(ClientProvider(store.clone())),
        }
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, CacheError> {
        let kind = &descriptor.media_type;
        match self {
            Self::Registry(repository) if media_type::is_manifest(kind) || media_type::is_index(kind) => {
                repository.manifest(descriptor).await.map_err(|error| Box::new(error).into())
            }
            Self::Registry(repository) => {
                repository.document(descriptor).await.map_err(|error| Box::new(error).into())
            }
            Self::Client(store) => read(store, descriptor).await,
        }
    }
}

/// Reads a cache. `name` tells it from other caches of the build.
pub async fn import(
    name: &str,
    place: &ImportPlace,
    context: &ImportContext,
) -> Result<ImportedCache, CacheError> {
    let (origin, bytes) = match place {
        ImportPlace::Registry { reference, insecure } => {
            let options = RepositoryOptions { insecure: *insecure, ..RepositoryOptions::default() };
            let repository = context.registry.repository(reference, options).map_err(Box::new)?;
            let object = reference.object().unwrap_or(kiln_oci::DEFAULT_TAG);
            let resolved = repository.resolve(object).await.map_err(Box::new)?;
            let bytes = match resolved.manifest {
                Some(bytes) => bytes,
                None => {
                    let fetched = repository.manifest(&resolved.descriptor).await;
                    fetched.map_err(Box::new)?
                }
            };
            (Origin::Registry(repository), bytes)
        }
        ImportPlace::Local { store, digest } => {
            let caller = context.caller.as_ref().ok_or_else(|| {
                CacheError::Option("local cache exporter/importer requires session".to_owned())
            })?;
            let store = caller.store(store);
            let known = store.info(digest).await?;
            let known = known.ok_or_else(|| CacheError::Manifest(format!("{digest}: not found")))?;
            let bytes = read(&store, &Descriptor::new("", known.digest, known.size)).await?;
            (Origin::Client(store), bytes)
        }
    };
    let unwrapped = unwrap(&bytes)?;
    let kind = match &unwrapped {
        Unwrapped::Cache { .. } => "cache",
        Unwrapped::Image(_) => "image",
        Unwrapped::Images(_) => "image index",
    };
    let told = kiln_oci::detect_manifest_media_type(&bytes).unwrap_or_else(|_| kind.to_owned());
    drop(context.reporter.step(format!("inferred cache manifest type: {told}")));
    let graph = match unwrapped {
        Unwrapped::Cache { config, blobs } => {
            let document = origin.document(&config).await?;
            let config: CacheConfig = serde_json::from_slice(&document)?;
            graph::parse(&config, &blobs)?
        }
        Unwrapped::Image(manifest) => from_image(&origin, &manifest).await?,
        Unwrapped::Images(index) => {
            let mut graph = CacheGraph::default();
            let mut todo: Vec<(Descriptor, usize)> =
                index.manifests.into_iter().map(|entry| (entry, 1)).collect();
            let mut seen: Vec<Digest> = Vec::new();
            while let Some((entry, depth)) = todo.pop() {
                if depth > INDEX_DEPTH_MAX
                    || seen.contains(&entry.digest)
                    || kiln_oci::is_attestation_manifest(&entry)
                {
                    continue;
                }
                seen.push(entry.digest.clone());
                match unwrap(&origin.document(&entry).await?)? {
                    Unwrapped::Image(manifest) => graph.append(from_image(&origin, &manifest).await?),
                    Unwrapped::Images(index) => {
                        todo.extend(index.manifests.into_iter().map(|entry| (entry, depth + 1)));
                    }
                    Unwrapped::Cache { .. } => {}
                }
            }
            graph
        }
    };
    Ok(ImportedCache {
        name: name.into(),
        keys: Arc::new(CacheKeys::new(graph)),
        store: context.store.clone(),
        origin,
        lent: Arc::default(),
    })
}

/// The cache inside an image; nothing if there is none in it.
async fn from_image(origin: &Origin, manifest: &Manifest) -> Result<CacheGraph, CacheError> {
    if manifest.layers.is_empty() || !media_type::is_config(&manifest.config.media_type) {
        return Ok(CacheGraph::default());
    }
    let config = origin.document(&manifest.config).await?;
    Ok(inline::read(manifest, &config)?.unwrap_or_default())
}

async fn read(store: &ClientStore, descriptor: &Descriptor) -> Result<Bytes, CacheError> {
    let too_long = || {
        let (digest, size) = (&descriptor.digest, descriptor.size);
        CacheError::Manifest(format!("blob {digest} is too large ({size} > {DOCUMENT_BYTES_MAX})"))
    };
    if descriptor.size > DOCUMENT_BYTES_MAX {
        return Err(too_long());
    }
    let mut stream = store.read(&descriptor.digest, 0).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(kiln_session::daemon::Error::from)?);
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(too_long());
        }
    }
    if !descriptor.digest.matches(&bytes) {
        return Err(CacheError::Manifest(format!(
            "content of {} does not have that digest",
            descriptor.digest
        )));
    }
    Ok(bytes.into())
}

impl ImportedCache {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many keys it has.
    pub fn key_count(&self) -> usize {
        self.keys.graph().records.len()
    }

    /// For the solver, whatever its ops are, as long as they give refs.
    pub fn cache<O: Op<Output = Ref>>(&self) -> Cache<O> {
        Cache::new(self.name.clone(), self.keys.clone(), Arc::new(self.clone()))
    }

    /// Whether a layer that was taken from here could not be had when something read it: its blob, and the reason.
    pub fn damage(&self) -> Option<(Digest, String)> {
        let lent = self.lent.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = lent.iter().filter(|(layer, _)| layer.is_lazy());
        lost.find_map(|(layer, blob)| Some((blob.clone(), layer.lost_blob(blob)?)))
    }

    /// From now on nothing is found here.
    pub fn give_up(&self) {
        self.lent.given_up.store(true, Ordering::SeqCst);
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.lent.given_up.load(Ordering::SeqCst)
    }

    /// Whether a result holds layers that were taken from here and never came.
    pub fn is_owed(&self, reference: &Ref) -> bool {
        let lent = self.lent.layers.lock().unwrap_or_else(PoisonError::into_inner);
        reference.layers().iter().any(|layer| layer.is_lazy() && lent.iter().any(|(lent, _)| lent == layer))
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> &CacheKeys {
        &self.keys
    }

    /// Who has its layers.
    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        self.origin.provider()
    }

    /// The blobs of a result, bottom first.
    pub(crate) fn blobs(&self, record: &RecordId) -> Option<Vec<Descriptor>> {
        let result = self.keys.result(record)?;
        Some(self.keys.graph().blobs(&result.layers).into_iter().cloned().collect())
    }

    /// A result whose layers are fetched when something reads them.
    fn reference(&self, record: &RecordId) -> Result<Ref, StoreError> {
        let blobs =
            self.blobs(record).ok_or_else(|| StoreError::not_found(format!("load result {record}")))?;
        if self.is_given_up() {
            return Err(StoreError::not_found(format!("load result {record}: the cache was given up")));
        }
        let provider = self.provider();
        let mut reference = Ref::scratch();
        for descriptor in blobs {
            let diff_id = descriptor
                .annotation(annotations::UNCOMPRESSED)
                .and_then(|text| Digest::parse(text).ok())
                .ok_or_else(|| {
                    let what = format!("load result {record}: {} has no diff id", descriptor.digest);
                    StoreError::not_found(what)
                })?;
            let created_ms = descriptor
                .annotation(annotations::BUILDKIT_CREATED_AT)
                .and_then(|text| text.parse::<Timestamp>().ok())
                .map(|created| i64::try_from(created.unix_nanos() / 1_000_000).unwrap_or(0));
            let described = descriptor.annotation(annotations::BUILDKIT_DESCRIPTION);
            let description = described.map_or_else(|| format!("imported from {}", self.name), str::to_owned);
            let meta = LayerMeta { created_ms, ..LayerMeta::regular(description) };
            let blob = descriptor.digest.clone();
            let lazy = LazyLayer { descriptor, diff_id, provider: provider.clone(), meta };
            let failed = |error| StoreError::new("take note of an imported layer", error);
            let layer = self.store.lazy_layer(&reference, lazy).map_err(failed)?;
            if layer.is_lazy() {
                let mut lent = self.lent.layers.lock().unwrap_or_else(PoisonError::into_inner);
                if !lent.iter().any(|known| known.0 == layer && known.1 == blob) {
                    lent.push((layer.clone(), blob));
                }
            }
            if let (true, Origin::Registry(repository)) = (layer.is_lazy(), &self.origin) {
                note_repository(&self.store, &layer, repository.name()).map_err(failed)?;
            }
            reference = self.store.append(&reference, &layer).map_err(failed)?;
        }
        Ok(reference)
    }
}

#[async_trait::async_trait]
impl<O: Op<Output = Ref>> ResultStore<O> for ImportedCache {
    async fn save(&self, _output: &Ref, _created: SystemTime) -> Result<RecordId, StoreError> {
        Err(StoreError::not_found("an imported cache is not written to".to_owned()))
    }

    async fn load(&self, record: &RecordId, _cx: &OpContext<O>) -> Result<Ref, StoreError> {
        self.reference(record)
    }

    fn exists(&self, record: &RecordId) -> bool {
        !self.is_given_up() && self.keys.result(record).is_some()
    }
}

/// Imported caches by their names.
pub(crate) fn by_name(imported: &[ImportedCache]) -> BTreeMap<&str, &ImportedCache> {
    imported.iter().map(|cache| (cache.name(), cache)).collect()
}
