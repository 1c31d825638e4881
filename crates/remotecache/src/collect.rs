//! Gathering a build's keys and results into a graph.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_oci::{Descriptor, Digest, Timestamp, annotations};
use kiln_solver::{CacheKey, ExportOptions, ExportRecord, KeyStore, RecordRef, export_records};
use kiln_store::{BlobOptions, LayerBlob, LayerHandle, NoObserver, Store};

use crate::backlinks::Backlinks;
use crate::blobs::BlobOrigin;
use crate::error::CacheError;
use crate::graph::{CacheGraph, GraphBuilder, GraphInput};
use crate::import::{ImportedCache, by_name};
use crate::options::CacheMode;
use crate::provider::attach_registry;

/// What of a build is gathered, and how.
pub struct Collector<'a> {
    /// Where results are.
    pub store: &'a Store,
    /// The name of the solver's own cache.
    pub own_cache: &'a str,
    /// The keys of that cache; without them only what the build itself has tried is told.
    pub own_keys: Option<&'a dyn KeyStore>,
    /// Caches that the build looked into.
    pub imported: &'a [ImportedCache],
    /// Registries, for layers that are still with one; without them such layers are left out.
    pub registry: Option<&'a kiln_registry::Client>,
    /// How blobs that have to be made are made.
    pub blobs: BlobOptions,
    /// How much.
    pub mode: CacheMode,
    /// Also results of sources, and no blob is made: for statements about what layers steps made.
    pub describe_only: bool,
}

/// The layers of one output of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLayers {
    /// The vertex, by the digest it has in the build.
    pub vertex: kiln_solver::Digest,
    /// Its output.
    pub output: usize,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// A build's cache.
#[derive(Default)]
pub struct Collected {
    /// Keys and results.
    pub graph: CacheGraph,
    /// Where the blobs are.
    pub origins: HashMap<Digest, BlobOrigin>,
    /// The layers of vertices.
    pub layers: Vec<ResultLayers>,
}

/// How eagerly a record's result is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    /// If its blobs are there.
    IfThere,
    /// Blobs are made.
    Made,
}

impl Collector<'_> {
    /// Gathers what hangs on the keys of these results.
    pub async fn collect(&self, results: &[&[Arc<CacheKey>]]) -> Result<Collected, CacheError> {
        let mut builder = GraphBuilder::new();
        let mut collected = Collected::default();
        let imported = by_name(self.imported);
        let mut more: BTreeMap<&str, Backlinks<'_>> =
            imported.iter().map(|(name, cache)| (*name, Backlinks::imported(cache.keys()))).collect();
        more.extend(self.own_keys.map(|keys| (self.own_cache, Backlinks::own(keys))));
        for keys in results {
            self.collect_one(keys, &mut builder, &mut more, &mut collected).await?;
        }
        collected.graph = builder.finish();
        Ok(collected)
    }

    async fn collect_one(
        &self,
        keys: &[Arc<CacheKey>],
        builder: &mut GraphBuilder,
        more: &mut BTreeMap<&str, Backlinks<'_>>,
        collected: &mut Collected,
    ) -> Result<(), CacheError> {
        let records = export_records(keys, ExportOptions { source_results: self.describe_only });
        // From the top down: what lies below a result that was found is only taken if it is there.
        let mut wishes: Vec<Wish> = vec![Wish::IfThere; records.len()];
        let mut used = vec![false; records.len()];
        for input in records.iter().flat_map(|record| &record.inputs).flatten() {
            used[input.record] = true;
        }
        let mut found: Vec<Option<(Timestamp, Vec<Descriptor>)>> = Vec::new();
        found.resize_with(records.len(), || None);
        for place in (0..records.len()).rev() {
            let record = &records[place];
            if !used[place] || self.mode == CacheMode::Max {
                wishes[place] = Wish::Made;
            }
            let wish = if self.describe_only { Wish::IfThere } else { wishes[place] };
            found[place] = self.result(record, wish, collected).await?;
            if wishes[place] == Wish::Made && (self.mode == CacheMode::Max || found[place].is_none()) {
                for input in record.inputs.iter().flatten() {
                    wishes[input.record] = Wish::Made;
                }
            }
        }
        let mut places = Vec::with_capacity(records.len());
        for (record, result) in records.iter().zip(found) {
            let inputs: Vec<Vec<GraphInput>> = record
                .inputs
                .iter()
                .map(|ways| {
                    ways.iter()
                        .map(|way| GraphInput {
                            record: places[way.record],
                            selector: way
                                .selector
                                .as_ref()
                                .map(|selector| selector.as_str().to_owned())
                                .unwrap_or_default(),
                        })
                        .collect()
                })
                .collect();
            let place = builder.add_record(record.digest.as_str(), &inputs);
            for (cache, id) in &record.ids {
                if let Some(links) = more.get_mut(&**cache) {
                    let failed = |error| CacheError::failed("failed to look up a key", error);
                    links.add(id, builder).map_err(failed)?;
                }
            }
            if let Some((created, blobs)) = result {
                builder.add_result(place, created, &blobs);
            }
            places.push(place);
        }
        Ok(())
    }

    /// The first result of a record whose layers can be had.
    async fn result(
        &self,
        record: &ExportRecord,
        wish: Wish,
        collected: &mut Collected,
    ) -> Result<Option<(Timestamp, Vec<Descriptor>)>, CacheError> {
        if record.export == Some(false) {
            return Ok(None);
        }
        for result in &record.results {
            let Some(blobs) = self.blobs_of(&result.record, wish, &mut collected.origins).await? else {
                continue;
            };
            if let Some(vertex) = &result.vertex {
                let layers = blobs.clone();
                collected.layers.push(ResultLayers { vertex: vertex.clone(), output: result.output, layers });
            }
            return Ok(Some((Timestamp::from(result.record.created), blobs)));
        }
        Ok(None)
    }

    async fn blobs_of(
        &self,
        record: &RecordRef,
        wish: Wish,
        origins: &mut HashMap<Digest, BlobOrigin>,
    ) -> Result<Option<Vec<Descriptor>>, CacheError> {
        if *record.cache != *self.own_cache {
            let imported = by_name(self.imported);
            let Some(cache) = imported.get(&*record.cache) else { return Ok(None) };
            let Some(blobs) = cache.blobs(&record.record) else { return Ok(None) };
            let provider = cache.provider();
            for descriptor in &blobs {
                let origin =
                    BlobOrigin::Elsewhere { provider: provider.clone(), descriptor: descriptor.clone() };
                origins.entry(descriptor.digest.clone()).or_insert(origin);
            }
            return Ok(Some(blobs));
        }
        let failed = |error| CacheError::failed("failed to look up a result", error);
        let id = kiln_store::RecordId::new(record.record.as_str());
        let Some(found) = self.store.records().get(&id).map_err(failed)? else { return Ok(None) };
        let mut blobs = Vec::new();
        for layer in found.reference.layers() {
            if let Some(registry) = self.registry {
                attach_registry(self.store, &layer, registry);
            }
            let Some(blob) = self.blob(&layer, wish).await? else { return Ok(None) };
            let descriptor = describe(&layer, &blob);
            let origin = BlobOrigin::Layer {
                store: self.store.clone(),
                layer: layer.clone(),
                descriptor: blob.descriptor.clone(),
            };
            origins.insert(descriptor.digest.clone(), origin);
            blobs.push(descriptor);
        }
        Ok(Some(blobs))
    }

    async fn blob(&self, layer: &LayerHandle, wish: Wish) -> Result<Option<LayerBlob>, CacheError> {
        let failed = |error| CacheError::failed("failed to get a layer's blob", error);
        let known = self.store.known_blob(layer, &self.blobs).map_err(failed)?;
        let known =
            known.filter(|blob| self.store.content().has(&blob.descriptor.digest) || layer.has_provider());
        match (known, wish) {
            (Some(blob), _) => Ok(Some(blob)),
            (None, Wish::IfThere) => Ok(None),
            (None, Wish::Made) => {
                let (blob, _pin) =
                    self.store.layer_blob(layer, &self.blobs, &NoObserver).await.map_err(failed)?;
                Ok(Some(blob))
            }
        }
    }
}

/// A blob as the layer of a cache.
fn describe(layer: &LayerHandle, blob: &LayerBlob) -> Descriptor {
    let mut descriptor = blob.descriptor.clone();
    descriptor.annotations = BTreeMap::new();
    let created = layer.meta().ok().and_then(|meta| meta.created_ms);
    let created = created.and_then(|ms| Timestamp::from_unix_nanos(i128::from(ms) * 1_000_000));
    if let Some(created) = created {
        descriptor = descriptor.with_annotation(annotations::BUILDKIT_CREATED_AT, created.to_string());
    }
    descriptor.with_annotation(annotations::UNCOMPRESSED, blob.diff_id.to_string())
}
