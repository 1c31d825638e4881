//! The layers that the steps of a build have as blobs.

use std::collections::BTreeMap;

use kiln_export::provenance::LayerFacts;
use kiln_oci::{Descriptor, Digest};
use kiln_solver::{ExportOptions, export_records};
use kiln_store::{Ref, Store};
use kiln_worker::VertexOp;

/// Start of the keys of annotations that belong to the bytes of a layer.
const BYTES_ANNOTATIONS: [&str; 2] = ["containerd.io/snapshot/stargz/", "io.containers.estargz"];

/// The layers of a result and of the steps before it which are there as blobs; nothing is made for this. `places` are the numbers of the
/// steps.
pub fn layers(
    store: &Store,
    result: &kiln_solver::CachedResult<VertexOp>,
    places: &BTreeMap<Digest, usize>,
) -> Result<LayerFacts, kiln_store::Error> {
    let mut facts = LayerFacts::new();
    for found in export_records(result.keys(), ExportOptions { source_results: true })
        .into_iter()
        .flat_map(|record| record.results)
    {
        let vertex = found.vertex.and_then(|vertex| Digest::parse(vertex.as_str()).ok());
        let Some(place) = vertex.and_then(|vertex| places.get(&vertex)) else { continue };
        let id = kiln_store::RecordId::new(found.record.record.as_str());
        // Most steps of most builds have none.
        if !store.records().has_blob(&id)? {
            continue;
        }
        let Some(record) = store.records().get(&id)? else { continue };
        let known = facts.entry(format!("step{place}:{}", found.output)).or_default();
        for chain in chains(store, &record.reference)? {
            let same = |other: &Vec<Descriptor>| {
                other.iter().map(|layer| &layer.digest).eq(chain.iter().map(|layer| &layer.digest))
            };
            if !known.iter().any(same) {
                known.push(chain);
            }
        }
    }
    facts.retain(|_, chains| !chains.is_empty());
    Ok(facts)
}

/// The blobs of all layers of a result, once for each form that its top layer has; none if one layer has no blob.
fn chains(store: &Store, reference: &Ref) -> Result<Vec<Vec<Descriptor>>, kiln_store::Error> {
    let mut layers = Vec::new();
    for handle in reference.layers() {
        let mut blobs = store.layer_blobs(&handle)?;
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        blobs.sort_by_key(|blob| (!blob.local, blob.epoch.is_some(), blob.descriptor.digest.clone()));
        layers.push(blobs.into_iter().map(|blob| public(blob.descriptor)).collect::<Vec<_>>());
    }
    let Some(top) = layers.pop() else { return Ok(Vec::new()) };
    let below: Vec<Descriptor> = layers.into_iter().filter_map(|forms| forms.into_iter().next()).collect();
    Ok(top.into_iter().map(|top| below.iter().cloned().chain([top]).collect()).collect())
}

/// A descriptor without what is only for the store.
fn public(mut descriptor: Descriptor) -> Descriptor {
    descriptor.annotations.retain(|key, _| BYTES_ANNOTATIONS.iter().any(|start| key.starts_with(start)));
    descriptor
}
