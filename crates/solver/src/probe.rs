//! Looks for the keys of an edge: for every input the keys that its own keys lead to, then those which all
//! inputs agree on.

use crate::active::VertexState;
use crate::{
    Cache, CacheKey, CacheMap, Decision, Digest, KeyId, KeyInput, KeyOutput, Link, MissReason, Op, RecordRef,
    StoreError,
};
use std::collections::HashSet;
use std::sync::Arc;

/// The keys of an edge as far as they are known.
pub(crate) struct KeySet {
    pub(crate) keys: Vec<Arc<CacheKey>>,
    /// Content had to be looked at to find them.
    pub(crate) content: bool,
}

impl KeySet {
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(KeySet { keys: Vec::new(), content: false })
    }

    /// All records, best first.
    pub(crate) fn records(&self) -> Vec<(Arc<CacheKey>, RecordRef)> {
        let pairs = |key: &Arc<CacheKey>| {
            key.records().iter().map(|record| (key.clone(), record.clone())).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.keys.iter().flat_map(pairs).collect();
        // Stable: among equals the solver's own cache stays in front.
        all.sort_by_key(|(_, record)| std::cmp::Reverse(record.created));
        all
    }

    pub(crate) fn has_records(&self) -> bool {
        self.keys.iter().any(|key| !key.records().is_empty())
    }
}

/// The name of a key in a cache.
type Found = (Arc<str>, KeyId);

/// What has been found for each input of an edge so far.
pub(crate) struct Probe {
    inputs: Vec<ProbedInput>,
}

#[derive(Default)]
struct ProbedInput {
    tried: bool,
    ways: Vec<KeyInput>,
    asked: HashSet<(Arc<str>, KeyId, Option<Digest>)>,
    /// Keys of the edge that this input leads to, in order: mostly one.
    found: Vec<Found>,
    content: bool,
    /// The content key has been tried, or there is none to try.
    content_tried: bool,
}

impl Probe {
    pub(crate) fn new(inputs: usize) -> Self {
        Probe { inputs: (0..inputs).map(|_| ProbedInput::default()).collect() }
    }

    pub(crate) fn matched(&self, input: usize) -> bool {
        !self.inputs[input].found.is_empty()
    }

    pub(crate) fn content_tried(&self, input: usize) -> bool {
        self.inputs[input].content_tried
    }

    pub(crate) fn set_content_tried(&mut self, input: usize) {
        self.inputs[input].content_tried = true;
    }

    /// Looks up the keys that `ways` of knowing input `input` lead to. True if the input has any by now.
    pub(crate) fn look_up<O: Op>(
        &mut self,
        state: &VertexState<O>,
        caches: &[Cache<O>],
        map: &CacheMap<O>,
        output: usize,
        input: usize,
        ways: Vec<KeyInput>,
    ) -> Result<bool, StoreError> {
        let probed = &mut self.inputs[input];
        probed.tried = true;
        for way in ways {
            let before = probed.found.len();
            let mut new = false;
            for cache in caches {
                for id in way.key.ids_in(&cache.name) {
                    let asked = (cache.name.clone(), id.clone(), way.selector.clone());
                    if !probed.asked.insert(asked) {
                        continue;
                    }
                    new = true;
                    let selector = way.selector.clone();
                    let link = Link { input, output, digest: map.digest.clone(), selector };
                    let targets = cache.keys.links(&id, &link)?;
                    for target in targets {
                        let target = (cache.name.clone(), target);
                        if let Err(at) = probed.found.binary_search(&target) {
                            probed.found.reserve_exact(1);
                            probed.found.insert(at, target);
                        }
                    }
                }
            }
            // A key without any name leads nowhere, but belongs to what the edge is made of.
            if !new && probed.ways.iter().any(|known| same_way(known, &way)) {
                continue;
            }
            let content = way.key.output() == KeyOutput::Content;
            let matched = probed.found.len() > before;
            probed.content |= content && matched;
            let key = way.key.root().clone();
            state.hub.decision(Decision::KeyTried { input: Some(input), key, content, matched });
            probed.ways.push(way);
        }
        Ok(self.matched(input))
    }

    /// Makes every way of knowing the input lead to everything that any of them leads to, in the solver's own
    /// cache: what was found by content this time is found by definition the next.
    pub(crate) fn link_ways<O: Op>(
        &self,
        own: &Cache<O>,
        map: &CacheMap<O>,
        output: usize,
        input: usize,
    ) -> Result<(), StoreError> {
        let probed = &self.inputs[input];
        let mut links = Vec::new();
        for way in probed.ways.iter().filter(|way| !way.key.is_ephemeral()) {
            let link = Link { input, output, digest: map.digest.clone(), selector: way.selector.clone() };
            for id in way.key.ids_in(&own.name) {
                let there = own.keys.links(&id, &link)?;
                let missing =
                    probed.found.iter().filter(|(cache, key)| *cache == own.name && !there.contains(key));
                links.extend(missing.map(|(_, key)| (id.clone(), link.clone(), key.clone())));
            }
        }
        if links.is_empty() { Ok(()) } else { own.keys.add_links(&links) }
    }

    /// The keys of the edge that all inputs lead to.
    pub(crate) fn collect<O: Op>(
        &self,
        state: &VertexState<O>,
        caches: &[Cache<O>],
        map: &CacheMap<O>,
        output: usize,
    ) -> Result<Arc<KeySet>, StoreError> {
        let mut inputs = self.inputs.iter();
        let mut common = inputs.next().map(|first| first.found.clone()).unwrap_or_default();
        inputs.for_each(|input| common.retain(|key| input.found.binary_search(key).is_ok()));
        if common.is_empty() {
            return Ok(KeySet::empty());
        }
        let records = records(caches, &common)?;
        let ways = self.inputs.iter().map(|input| input.ways.clone()).collect();
        let vertex = Some(state.vertex.digest.clone());
        let key = CacheKey::new(map.digest.clone(), KeyOutput::Index(output), vertex, ways)
            .with_ids(common)
            .with_records(records)
            .with_export(state.vertex.options.export_cache);
        let content = self.inputs.iter().any(|input| input.content);
        Ok(Arc::new(KeySet { keys: vec![Arc::new(key)], content }))
    }

    /// Why nothing usable was found.
    pub(crate) fn miss(&self, keys_known: bool) -> MissReason {
        if keys_known {
            return MissReason::NoRecord;
        }
        let tried = |matched: bool| {
            let fits =
                move |input: &&(usize, &ProbedInput)| input.1.tried && input.1.found.is_empty() != matched;
            self.inputs.iter().enumerate().filter(|input| fits(&input)).map(|(index, _)| index).collect()
        };
        MissReason::InputsDiffer { changed: tried(false), matched: tried(true) }
    }
}

fn same_way(one: &KeyInput, two: &KeyInput) -> bool {
    one.selector == two.selector && (Arc::ptr_eq(&one.key, &two.key) || names(&one.key) == names(&two.key))
}

fn names(key: &CacheKey) -> (Digest, Vec<Found>) {
    (key.root().clone(), key.all_ids())
}

/// The keys of a source: one page of its cache map.
pub(crate) fn source_key<O: Op>(
    state: &VertexState<O>,
    caches: &[Cache<O>],
    map: &CacheMap<O>,
    output: usize,
) -> Result<Option<CacheKey>, StoreError> {
    let vertex = Some(state.vertex.digest.clone());
    let key = CacheKey::new(map.digest.clone(), KeyOutput::Index(output), vertex, Vec::new());
    let root = key.root().clone();
    let id = KeyId::from(&root);
    let mut known = Vec::new();
    for cache in caches {
        if cache.keys.exists(&id)? {
            known.push((cache.name.clone(), id.clone()));
        }
    }
    let matched = !known.is_empty();
    state.hub.decision(Decision::KeyTried { input: None, key: root, content: false, matched });
    if !matched {
        return Ok(None);
    }
    let records = records(caches, &known)?;
    Ok(Some(key.with_ids(known).with_records(records).with_export(state.vertex.options.export_cache)))
}

/// The records that hang on these keys and still have their results, best first.
fn records<O: Op>(caches: &[Cache<O>], keys: &[Found]) -> Result<Vec<RecordRef>, StoreError> {
    let mut records: Vec<RecordRef> = Vec::new();
    for (index, cache) in caches.iter().enumerate() {
        for (_, key) in keys.iter().filter(|(name, _)| *name == cache.name) {
            for record in cache.keys.records(key)? {
                if cache.results.exists(&record.id) {
                    let found =
                        RecordRef { cache: cache.name.clone(), record: record.id, created: record.created };
                    if !records.contains(&found) {
                        records.push(found);
                    }
                } else if index == 0 {
                    cache.keys.release(&record.id)?;
                }
            }
        }
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.created));
    Ok(records)
}
