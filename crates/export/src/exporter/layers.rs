//! The layers of results as blobs.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use kiln_oci::{Descriptor, Digest, Reference, Timestamp, annotations, media_type};
use kiln_remotecache::attach_registry;
use kiln_store::{Blob, BlobOptions, BlobSink, LayerBlob, LayerHandle, Ref, Store};

use super::ahead::AheadFile;
use super::{Reporter, store_failed};
use kiln_remotecache::report::Downloads;
use kiln_worker::repository_of;

use crate::error::ExportError;
use crate::image::{CompressionOptions, Layer};

/// Repositories remembered for one blob and registry.
const SOURCES_MAX: usize = kiln_registry::MOUNT_CANDIDATES_MAX;
/// Start of the keys of annotations that belong to the bytes of a layer rather than to an image.
const BYTES_ANNOTATIONS: [&str; 2] = ["containerd.io/snapshot/stargz/", "io.containers.estargz"];

const LOOK_UP_FAILED: &str = "failed to look up a layer";

/// A layer of a result with its blob.
#[derive(Clone)]
pub(super) struct ExportLayer {
    pub(super) layer: Layer,
    pub(super) handle: LayerHandle,
    /// Keeps the blob; none while it is only somewhere else.
    pub(super) pin: Option<Blob>,
}

/// How blobs are to be.
#[derive(Clone, Copy)]
pub(super) struct LayerWish<'a> {
    pub(super) compression: CompressionOptions,
    /// Times later than this become this, but for layers of the base image.
    pub(super) epoch: Option<Timestamp>,
    /// The layers of the base image.
    pub(super) base: &'a [Digest],
}

/// A layer, and which blob of it is wanted.
pub(super) struct WantedLayer {
    handle: LayerHandle,
    options: BlobOptions,
    /// Where the blob goes as well if it has to be made.
    sink: Option<Box<dyn BlobSink>>,
}

/// The layers of a result, and how their blobs are to be.
pub(super) fn wanted(
    store: &Store,
    reference: &Ref,
    wish: LayerWish<'_>,
    registry: &kiln_registry::Client,
) -> Vec<WantedLayer> {
    let handles = reference.layers();
    // The epoch starts where this image leaves its base.
    let inherited = handles
        .iter()
        .zip(wish.base)
        .take_while(|(handle, diff_id)| handle.diff_id().as_ref() == Some(diff_id))
        .count();
    for handle in &handles {
        attach_registry(store, handle, registry);
    }
    let each = handles.into_iter().enumerate().map(|(place, handle)| {
        let epoch = wish.epoch.filter(|_| place >= inherited).map(Timestamp::unix_seconds);
        let mut options = wish.compression.blob_options();
        options.force |= epoch.is_some();
        options.epoch = epoch;
        WantedLayer { handle, options, sink: None }
    });
    each.collect()
}

/// Lets the first of these layers whose blob has to be made go into the client's file meanwhile. `all` are those of all platforms, in the
/// order of the archive.
pub(super) async fn send_ahead(
    store: &Store,
    all: impl Iterator<Item = &mut WantedLayer>,
    file: &mut AheadFile<'_>,
) -> Result<(), ExportError> {
    let mut before = Vec::new();
    for layer in all {
        let known = store.known_blob(&layer.handle, &layer.options).map_err(store_failed(LOOK_UP_FAILED))?;
        match known {
            Some(blob) if store.content().has(&blob.descriptor.digest) || layer.handle.has_provider() => {
                before.push(blob.descriptor);
            }
            _ => {
                layer.sink = file.sink(before).await?;
                break;
            }
        }
    }
    Ok(())
}

/// Makes the blobs of all layers that have none, all at the same time. Blobs that somebody else has are left there.
pub(super) async fn layers(
    store: &Store,
    all: Vec<WantedLayer>,
    prefer_nondist: bool,
    reporter: &Reporter,
) -> Result<Vec<ExportLayer>, ExportError> {
    try_join_all(all.into_iter().map(|wanted| layer(store, wanted, prefer_nondist, reporter))).await
}

async fn layer(
    store: &Store,
    wanted: WantedLayer,
    prefer_nondist: bool,
    reporter: &Reporter,
) -> Result<ExportLayer, ExportError> {
    let WantedLayer { handle, options, sink } = wanted;
    let known = store.known_blob(&handle, &options).map_err(store_failed(LOOK_UP_FAILED))?;
    let elsewhere = known.filter(|blob| {
        !options.force && !store.content().has(&blob.descriptor.digest) && handle.has_provider()
    });
    let (blob, pin) = match elsewhere {
        Some(blob) => (blob, None),
        None => {
            let downloads = Downloads(reporter.clone());
            let (blob, pin) = store
                .layer_blob_beside(&handle, &options, &downloads, sink)
                .await
                .map_err(store_failed("failed to get a layer's blob"))?;
            (blob, Some(pin))
        }
    };
    let meta = handle.meta().map_err(store_failed(LOOK_UP_FAILED))?;
    let created = meta.created_ms.and_then(|ms| Timestamp::from_unix_nanos(i128::from(ms) * 1_000_000));
    let layer = Layer {
        descriptor: descriptor(&blob, prefer_nondist),
        diff_id: blob.diff_id,
        created,
        description: meta.description,
    };
    Ok(ExportLayer { layer, handle, pin })
}

fn descriptor(blob: &LayerBlob, prefer_nondist: bool) -> Descriptor {
    let mut descriptor = blob.descriptor.clone();
    descriptor.annotations.retain(|key, _| BYTES_ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)));
    if !prefer_nondist {
        let distributable = media_type::to_distributable(&descriptor.media_type);
        if distributable != descriptor.media_type {
            descriptor.media_type = distributable.to_owned();
            descriptor.urls.clear();
        }
    }
    if let Some(epoch) = blob.epoch {
        descriptor = descriptor.with_annotation(annotations::BUILDKIT_REWRITTEN_TIMESTAMP, epoch.to_string());
    }
    descriptor
}

fn source_key(domain: &str) -> String {
    format!("{}{domain}", annotations::DISTRIBUTION_SOURCE_PREFIX)
}

/// The repositories on the registry of `target` that are known to have this layer's blob.
pub(super) fn known_sources(store: &Store, layer: &ExportLayer, target: &Reference) -> Vec<String> {
    let key = source_key(target.domain());
    let mut found: Vec<String> = Vec::new();
    if let Ok(Some(value)) = store.values().get(&layer.handle, &key) {
        found.extend(String::from_utf8_lossy(&value).split(',').map(str::to_owned));
    }
    // Where it was pulled from.
    if let Some(origin) =
        repository_of(store, &layer.handle).filter(|origin| origin.domain() == target.domain())
    {
        found.push(origin.path().to_owned());
    }
    found.retain(|repository| !repository.is_empty());
    found.dedup();
    found
}

/// Remembers that a repository has this layer's blob now.
pub(super) fn note_source(store: &Store, layer: &ExportLayer, target: &Reference) {
    let mut known = known_sources(store, layer, target);
    if known.iter().any(|repository| repository == target.path()) {
        return;
    }
    known.insert(0, target.path().to_owned());
    known.truncate(SOURCES_MAX);
    let value = known.join(",");
    if let Err(error) =
        store.values().set(&layer.handle, &source_key(target.domain()), value.as_bytes(), None)
    {
        tracing::warn!(%error, "a blob's repository could not be noted");
    }
}

/// All pins of these layers.
pub(super) fn pins(layers: &BTreeMap<String, Vec<ExportLayer>>) -> Vec<Blob> {
    layers.values().flatten().filter_map(|layer| layer.pin.clone()).collect()
}
