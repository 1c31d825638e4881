//! From the graph to the document, always in the same order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Digest};

use super::{CacheGraph, GraphRecord, LayerList};
use crate::document::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, NO_PARENT};

/// Writes the document, with the blobs it needs by their digests. Only the best result of each record is
/// kept, and only layers that some result needs.
pub fn marshal(graph: &CacheGraph) -> (CacheConfig, BTreeMap<Digest, Descriptor>) {
    let heads: Vec<Option<(usize, _)>> = graph
        .records
        .iter()
        .map(|record| {
            let best = record.results.iter().max_by_key(|result| result.created)?;
            match best.layers {
                LayerList::Head(head) => Some((head, best.created)),
                // Lists only come from images, and are not written again.
                LayerList::Each(_) => None,
            }
        })
        .collect();
    let mut needed = vec![false; graph.layers.len()];
    for (head, _) in heads.iter().flatten() {
        let mut next = Some(*head);
        while let Some(layer) = next.filter(|layer| !needed[*layer]) {
            needed[layer] = true;
            next = graph.layers[layer].parent;
        }
    }

    // Two layers of the same blob on the same parent are one, so that blob and depth tell all apart that the
    // parent's place does not.
    let mut order: Vec<usize> = (0..graph.layers.len()).filter(|layer| needed[*layer]).collect();
    let chain = |layer: usize| graph.blobs(&LayerList::Head(layer));
    order.sort_by(|one, other| {
        let blob = |layer: usize| graph.layers[layer].descriptor.digest.as_str();
        let by_chain = || {
            let digests =
                |layer| chain(layer).into_iter().map(|blob| blob.digest.clone()).collect::<Vec<_>>();
            digests(*one).cmp(&digests(*other))
        };
        blob(*one).cmp(blob(*other)).then_with(by_chain)
    });
    let mut layer_places = vec![NO_PARENT; graph.layers.len()];
    for (place, layer) in order.iter().enumerate() {
        layer_places[*layer] = place as i64;
    }
    let mut blobs = BTreeMap::new();
    let layers = order
        .iter()
        .map(|layer| {
            let layer = &graph.layers[*layer];
            blobs.insert(layer.descriptor.digest.clone(), layer.descriptor.clone());
            CacheLayer {
                blob: layer.descriptor.digest.clone(),
                parent: layer.parent.map_or(NO_PARENT, |parent| layer_places[parent]),
            }
        })
        .collect();

    let mut order: Vec<usize> = (0..graph.records.len()).collect();
    order.sort_by(|one, other| compare(graph, &graph.records[*one], &graph.records[*other]));
    let mut record_places = vec![0i64; graph.records.len()];
    for (place, record) in order.iter().enumerate() {
        record_places[*record] = place as i64;
    }
    let records = order
        .iter()
        .map(|place| {
            let record = &graph.records[*place];
            let inputs = record
                .inputs
                .iter()
                .map(|ways| {
                    let mut ways: Vec<CacheInput> = ways
                        .iter()
                        .map(|way| CacheInput {
                            selector: way.selector.clone(),
                            link: record_places[way.record],
                        })
                        .collect();
                    ways.sort_by(|one, other| (one.link, &one.selector).cmp(&(other.link, &other.selector)));
                    ways
                })
                .collect();
            let results = heads[*place]
                .iter()
                .map(|(head, created)| CacheResult { layer: layer_places[*head], created: *created })
                .collect();
            CacheRecord { results, chains: Vec::new(), digest: record.digest.clone(), inputs }
        })
        .collect();
    (CacheConfig { layers, records }, blobs)
}

/// An order that does not depend on where records stand.
fn compare(graph: &CacheGraph, one: &GraphRecord, other: &GraphRecord) -> Ordering {
    let shape = |record: &GraphRecord| record.inputs.iter().map(Vec::len).collect::<Vec<_>>();
    let ways = |record: &GraphRecord| {
        let mut all: Vec<(usize, String, String)> = record
            .inputs
            .iter()
            .enumerate()
            .flat_map(|(index, ways)| {
                ways.iter()
                    .map(move |way| (index, way.selector.clone(), graph.records[way.record].digest.clone()))
            })
            .collect();
        all.sort();
        all
    };
    one.digest
        .cmp(&other.digest)
        .then_with(|| one.inputs.len().cmp(&other.inputs.len()))
        .then_with(|| shape(one).cmp(&shape(other)))
        .then_with(|| ways(one).cmp(&ways(other)))
}
