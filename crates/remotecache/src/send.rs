//! Writing a cache to where it belongs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use kiln_oci::{Descriptor, Digest, gojson, media_type};
use kiln_registry::{BlobSource, Observer, Repository, RepositoryOptions};
use kiln_session::daemon::{Caller, ClientStore};

use crate::collect::Collected;
use crate::document::CacheConfig;
use crate::error::CacheError;
use crate::graph;
use crate::manifest::{ManifestForm, wrap};
use crate::options::{ExportPlace, ExportTarget};
use crate::report::Reporter;

/// What the client is told: the descriptor of the cache's manifest.
const RESPONSE_KEY: &str = "cache.manifest";
/// Layers written at once.
const LAYERS_AT_ONCE: usize = 4;

/// What an export needs.
#[derive(Clone)]
pub struct SendContext {
    /// Registries, with the client's credentials.
    pub registry: kiln_registry::Client,
    /// The client, for its folders.
    pub caller: Option<Caller>,
    /// Where progress is told.
    pub reporter: Reporter,
}

/// What an export is called in displays.
pub fn cache_vertex_name(place: &ExportPlace) -> &'static str {
    match place {
        ExportPlace::Inline => "exporting inline cache",
        ExportPlace::Registry { .. } => "exporting cache to registry",
        ExportPlace::Local { .. } => "exporting cache to client directory",
    }
}

/// Writes a cache, and gives what the client is told. A cache inside an image is written by who makes the image.
pub async fn send(
    target: &ExportTarget,
    collected: &Collected,
    context: &SendContext,
) -> Result<BTreeMap<String, String>, CacheError> {
    let (sink, form) = match &target.place {
        ExportPlace::Inline => return Ok(BTreeMap::new()),
        ExportPlace::Registry { reference, insecure, form } => {
            let retries: Arc<dyn Observer> = Arc::new(Retries(context.reporter.clone()));
            let options = RepositoryOptions {
                insecure: *insecure,
                observer: retries.clone(),
                ..RepositoryOptions::push()
            };
            let repository = context.registry.repository(reference, options).map_err(Box::new)?;
            let tag = reference.tag().map(str::to_owned);
            (Sink::Registry { repository, tag, retries }, *form)
        }
        ExportPlace::Local { store, form } => {
            let caller = context.caller.as_ref().ok_or_else(|| {
                CacheError::Option("local cache exporter/importer requires session".to_owned())
            })?;
            (Sink::Client(caller.store(store)), *form)
        }
    };
    let (config, blobs) = what_is_there(collected).await?;
    if config.layers.is_empty() {
        drop(context.reporter.step("skipping cache export for empty result"));
        return Ok(BTreeMap::new());
    }
    // In the order of the document, each blob once.
    let mut layers: Vec<Descriptor> = Vec::new();
    for layer in &config.layers {
        if !layers.iter().any(|known| known.digest == layer.blob) {
            layers.push(blobs[&layer.blob].clone());
        }
    }
    // A list and not a mapped stream: the compiler cannot see that the latter may move between threads.
    let mut each: Vec<BoxFuture<'_, Result<(), CacheError>>> = Vec::new();
    for descriptor in &layers {
        let missing = || CacheError::Invalid(format!("missing blob {}", descriptor.digest));
        let origin = collected.origins.get(&descriptor.digest).ok_or_else(missing)?;
        let sink = &sink;
        each.push(Box::pin(async move {
            let _step = context.reporter.step(format!("writing layer {}", descriptor.digest));
            sink.blob(descriptor, origin)
                .await
                .map_err(|error| CacheError::failed("error writing layer blob", error))
        }));
    }
    stream::iter(each).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>().await?;

    let document = Bytes::from(gojson::to_vec(&config)?);
    let config = Descriptor::of(media_type::CACHE_CONFIG, &document);
    {
        let _step = context.reporter.step(format!("writing config {}", config.digest));
        sink.blob(&config, &document)
            .await
            .map_err(|error| CacheError::failed("error writing config blob", error))?;
    }
    let (manifest, bytes) = wrap(form, &layers, &config)?;
    let ManifestForm { image_manifest, .. } = form;
    let what = if image_manifest { "cache image manifest" } else { "cache manifest" };
    let _step = context.reporter.step(format!("writing {what} {}", manifest.digest));
    sink.manifest(&manifest, bytes.into())
        .await
        .map_err(|error| CacheError::failed("error writing manifest blob", error))?;
    let told = String::from_utf8(gojson::to_vec(&manifest)?).expect("JSON is UTF-8");
    Ok(BTreeMap::from([(RESPONSE_KEY.to_owned(), told)]))
}

/// The document, without results that an imported cache names but has no longer.
async fn what_is_there(
    collected: &Collected,
) -> Result<(CacheConfig, BTreeMap<Digest, Descriptor>), CacheError> {
    let (config, mut blobs) = graph::marshal(&collected.graph);
    let mut each: Vec<BoxFuture<'_, Option<Digest>>> = Vec::new();
    for digest in blobs.keys().cloned() {
        let origin = collected.origins.get(&digest);
        each.push(Box::pin(async move {
            match origin {
                Some(origin) if !origin.is_there().await => Some(digest),
                _ => None,
            }
        }));
    }
    let missing: Vec<Digest> =
        stream::iter(each).buffer_unordered(LAYERS_AT_ONCE).filter_map(|one| async { one }).collect().await;
    if missing.is_empty() {
        return Ok((config, blobs));
    }
    blobs.retain(|digest, _| !missing.contains(digest));
    Ok(graph::marshal(&graph::parse(&config, &blobs)?))
}

enum Sink {
    Registry { repository: Repository, tag: Option<String>, retries: Arc<dyn Observer> },
    Client(ClientStore),
}

impl Sink {
    async fn blob(&self, descriptor: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError> {
        match self {
            Self::Registry { repository, retries, .. } => {
                repository.push_blob(descriptor, source, &[], retries).await.map_err(Box::new)?;
            }
            Self::Client(store) => {
                if store.info(&descriptor.digest).await.is_ok_and(|known| known.is_some()) {
                    return Ok(());
                }
                let stream = source
                    .open()
                    .await
                    .map_err(|error| CacheError::failed("failed to read a blob", error))?;
                store.write(&descriptor.digest, descriptor.size, stream).await?;
            }
        }
        Ok(())
    }

    async fn manifest(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<(), CacheError> {
        match self {
            Self::Registry { repository, tag, .. } => {
                let pushed = repository.push_manifest(&descriptor.media_type, bytes, tag.as_deref()).await;
                pushed.map_err(Box::new)?;
                Ok(())
            }
            Self::Client(_) => self.blob(descriptor, &bytes).await,
        }
    }
}

/// Only what went wrong.
struct Retries(Reporter);

impl Observer for Retries {
    fn message(&self, line: &str) {
        self.0.log(line);
    }
}
