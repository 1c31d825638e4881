//! From the document to the graph. The document comes from outside: every number in it may be wrong.

use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Digest};

use super::{CacheGraph, GraphInput, GraphLayer, GraphRecord, GraphResult, LayerList};
use crate::document::{CacheConfig, NO_PARENT};
use crate::error::CacheError;

/// Reads a document. Results whose blobs are not all in `blobs` are left out.
pub fn parse(config: &CacheConfig, blobs: &BTreeMap<Digest, Descriptor>) -> Result<CacheGraph, CacheError> {
    let whole = whole_layers(config, blobs)?;
    let layer_count = config.layers.len();
    let layer = |index: i64| {
        usize::try_from(index)
            .ok()
            .filter(|index| *index < layer_count)
            .ok_or_else(|| CacheError::Invalid(format!("invalid layer index {index}")))
    };
    let record_count = config.records.len();
    let mut records = Vec::with_capacity(record_count);
    for (place, record) in config.records.iter().enumerate() {
        let mut inputs = Vec::with_capacity(record.inputs.len());
        for ways in &record.inputs {
            if ways.is_empty() {
                return Err(CacheError::Invalid(format!("invalid empty input for record {place}")));
            }
            let ways = ways.iter().map(|way| {
                let record = usize::try_from(way.link).ok().filter(|index| *index < record_count);
                let record =
                    record.ok_or_else(|| CacheError::Invalid(format!("invalid record ID: {}", way.link)))?;
                Ok(GraphInput { record, selector: way.selector.clone() })
            });
            inputs.push(ways.collect::<Result<Vec<_>, CacheError>>()?);
        }
        let mut results = Vec::new();
        for result in &record.results {
            let head = layer(result.layer)?;
            if whole[head] {
                results.push(GraphResult { created: result.created, layers: LayerList::Head(head) });
            }
        }
        for result in &record.chains {
            let each = result.layers.iter().map(|index| layer(*index)).collect::<Result<Vec<_>, _>>()?;
            if !each.is_empty() && each.iter().all(|layer| blobs.contains_key(&config.layers[*layer].blob)) {
                results.push(GraphResult { created: result.created, layers: LayerList::Each(each) });
            }
        }
        records.push(GraphRecord { digest: record.digest.clone(), inputs, results });
    }
    let graph = CacheGraph { layers: layers(config, blobs), records };
    check_no_circle(&graph)?;
    Ok(graph)
}

/// Which layers have their blob and those of all layers below.
fn whole_layers(config: &CacheConfig, blobs: &BTreeMap<Digest, Descriptor>) -> Result<Vec<bool>, CacheError> {
    let count = config.layers.len();
    // None: not looked at yet.
    let mut whole: Vec<Option<bool>> = vec![None; count];
    for start in 0..count {
        let mut path = Vec::new();
        let mut next = start;
        let mut answer = loop {
            if let Some(known) = whole[next] {
                break known;
            }
            if path.len() > count {
                return Err(CacheError::Invalid("invalid looping layer".to_owned()));
            }
            path.push(next);
            match config.layers[next].parent {
                NO_PARENT => break true,
                parent => {
                    next = usize::try_from(parent)
                        .ok()
                        .filter(|parent| *parent < count)
                        .ok_or_else(|| CacheError::Invalid(format!("invalid layer index {parent}")))?;
                }
            }
        };
        for layer in path.into_iter().rev() {
            answer &= blobs.contains_key(&config.layers[layer].blob);
            whole[layer] = Some(answer);
        }
    }
    Ok(whole.into_iter().map(|whole| whole == Some(true)).collect())
}

fn layers(config: &CacheConfig, blobs: &BTreeMap<Digest, Descriptor>) -> Vec<GraphLayer> {
    config
        .layers
        .iter()
        .map(|layer| GraphLayer {
            // A blob that is missing is in no result, see above.
            descriptor: blobs
                .get(&layer.blob)
                .cloned()
                .unwrap_or_else(|| Descriptor::new("", layer.blob.clone(), 0)),
            parent: usize::try_from(layer.parent).ok(),
        })
        .collect()
}

fn check_no_circle(graph: &CacheGraph) -> Result<(), CacheError> {
    let mut open: Vec<usize> = Vec::with_capacity(graph.records.len());
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); graph.records.len()];
    for (place, record) in graph.records.iter().enumerate() {
        open.push(record.inputs.iter().map(Vec::len).sum());
        for way in record.inputs.iter().flatten() {
            users[way.record].push(place);
        }
    }
    let mut ready: Vec<usize> = (0..open.len()).filter(|place| open[*place] == 0).collect();
    let mut seen = 0;
    while let Some(place) = ready.pop() {
        seen += 1;
        for user in &users[place] {
            open[*user] -= 1;
            if open[*user] == 0 {
                ready.push(*user);
            }
        }
    }
    if seen == graph.records.len() {
        Ok(())
    } else {
        Err(CacheError::Invalid("invalid looping record".to_owned()))
    }
}
