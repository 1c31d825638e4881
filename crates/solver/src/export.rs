//! The chain of keys below a result as a flat list: what a remote cache is written from.

use crate::{CacheKey, Digest, KeyId, KeyOutput, RecordRef};
use std::collections::HashMap;
use std::sync::Arc;

/// What to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions {
    /// Also give the results of sources, which are usually found elsewhere.
    pub source_results: bool,
}

/// One way to know an input of an [`ExportRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInput {
    /// Place of the input's record in the list; always before the record that uses it.
    pub record: usize,
    /// The part of the input that the op looks at.
    pub selector: Option<Digest>,
}

/// A result that hangs on an [`ExportRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportResult {
    /// Where it is kept.
    pub record: RecordRef,
    /// The vertex it was made for.
    pub vertex: Option<Digest>,
    /// Which output of it.
    pub output: usize,
}

/// One key with the keys of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRecord {
    /// The op with its output ([`CacheKey::root`]), or the content.
    pub digest: Digest,
    /// For each input all ways to know it, at least one.
    pub inputs: Vec<Vec<ExportInput>>,
    /// Results, best first; none for content, and for sources unless asked for.
    pub results: Vec<ExportResult>,
    /// What the vertex says about being exported with its result.
    pub export: Option<bool>,
    /// The names of the key in the caches that know it, which may know more ways to get to it.
    pub ids: Vec<(Arc<str>, KeyId)>,
}

/// Lists all keys below `keys`, inputs first. Keys that no other build can compute are left out, and with
/// them whatever is only known through such.
pub fn export_records(keys: &[Arc<CacheKey>], options: ExportOptions) -> Vec<ExportRecord> {
    let mut records = Vec::new();
    // The place of every key that has been dealt with; none if it is left out.
    let mut places: HashMap<*const CacheKey, Option<usize>> = HashMap::new();
    let mut stack: Vec<&Arc<CacheKey>> = keys.iter().rev().collect();
    while let Some(key) = stack.last().copied() {
        if places.contains_key(&Arc::as_ptr(key)) {
            stack.pop();
            continue;
        }
        let below = key.inputs().iter().flatten().map(|way| &way.key).chain(key.extra());
        let before = stack.len();
        stack.extend(below.filter(|key| !places.contains_key(&Arc::as_ptr(key))));
        if stack.len() > before {
            continue;
        }
        stack.pop();
        let record = (!key.is_ephemeral()).then(|| record(key, &places, options)).flatten();
        places.insert(Arc::as_ptr(key), record.as_ref().map(|_| records.len()));
        records.extend(record);
    }
    records
}

fn record(
    key: &CacheKey,
    places: &HashMap<*const CacheKey, Option<usize>>,
    options: ExportOptions,
) -> Option<ExportRecord> {
    let mut inputs = Vec::with_capacity(key.inputs().len());
    for ways in key.inputs() {
        let mut known: Vec<ExportInput> = Vec::new();
        for way in ways {
            if let Some(Some(record)) = places.get(&Arc::as_ptr(&way.key)) {
                let input = ExportInput { record: *record, selector: way.selector.clone() };
                if !known.contains(&input) {
                    known.push(input);
                }
            }
        }
        if known.is_empty() {
            return None;
        }
        inputs.push(known);
    }
    let results = match key.output() {
        KeyOutput::Index(output) if options.source_results || !inputs.is_empty() => {
            let result = |record: &RecordRef| ExportResult {
                record: record.clone(),
                vertex: key.vertex().cloned(),
                output,
            };
            key.records().iter().map(result).collect()
        }
        _ => Vec::new(),
    };
    Some(ExportRecord {
        digest: key.root().clone(),
        inputs,
        results,
        export: key.export(),
        ids: key.all_ids(),
    })
}
