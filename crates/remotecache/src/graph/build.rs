//! Building a graph from what a build knows, where the same key may be told several times.

use std::collections::{BTreeSet, HashMap, HashSet};

use kiln_oci::{Descriptor, Digest, Timestamp, media_type};

use super::{CacheGraph, GraphInput, GraphLayer, GraphRecord, GraphResult, LayerList};

/// How a record is found from one of its inputs.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Step {
    from: usize,
    input: usize,
    selector: String,
    digest: String,
}

/// Collects records and results. Records that are the same, because each of their inputs is known in a way that
/// both share, become one.
#[derive(Default)]
pub struct GraphBuilder {
    graph: CacheGraph,
    roots: HashMap<String, usize>,
    steps: HashMap<Step, BTreeSet<usize>>,
    /// What uses each record.
    users: Vec<BTreeSet<usize>>,
    layers: HashMap<(Digest, Option<usize>), usize>,
}

impl GraphBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record and gives its place. Inputs are places given before.
    pub fn add_record(&mut self, digest: &str, inputs: &[Vec<GraphInput>]) -> usize {
        if inputs.is_empty() {
            if let Some(known) = self.roots.get(digest) {
                return *known;
            }
            let place = self.push(digest, 0);
            self.roots.insert(digest.to_owned(), place);
            return place;
        }
        let known = self.find(digest, inputs);
        let place = known.unwrap_or_else(|| self.push(digest, inputs.len()));
        // A record found again may be told to depend on something that depends on it; that way is left out.
        let above = if known.is_some() { self.above(place) } else { HashSet::new() };
        for (index, ways) in inputs.iter().enumerate() {
            for way in ways {
                if way.record == place || above.contains(&way.record) {
                    continue;
                }
                let known = &mut self.graph.records[place].inputs[index];
                if !known.contains(way) {
                    known.push(way.clone());
                }
                let step = Step {
                    from: way.record,
                    input: index,
                    selector: way.selector.clone(),
                    digest: digest.to_owned(),
                };
                self.steps.entry(step).or_default().insert(place);
                self.users[way.record].insert(place);
            }
        }
        place
    }

    /// Hangs a result on a record: blobs, bottom first.
    pub fn add_result(&mut self, record: usize, created: Timestamp, blobs: &[Descriptor]) {
        let mut below = None;
        for blob in blobs {
            below = Some(self.layer(blob, below));
        }
        let Some(head) = below else { return };
        let result = GraphResult { created, layers: LayerList::Head(head) };
        let results = &mut self.graph.records[record].results;
        if !results.contains(&result) {
            results.push(result);
        }
    }

    /// The graph.
    pub fn finish(self) -> CacheGraph {
        self.graph
    }

    fn push(&mut self, digest: &str, inputs: usize) -> usize {
        self.graph.records.push(GraphRecord {
            digest: digest.to_owned(),
            inputs: vec![Vec::new(); inputs],
            results: Vec::new(),
        });
        self.users.push(BTreeSet::new());
        self.graph.records.len() - 1
    }

    /// The record that all inputs lead to.
    fn find(&self, digest: &str, inputs: &[Vec<GraphInput>]) -> Option<usize> {
        let mut common: Option<BTreeSet<usize>> = None;
        for (input, ways) in inputs.iter().enumerate() {
            let mut here = BTreeSet::new();
            for way in ways {
                let selector = way.selector.clone();
                let step = Step { from: way.record, input, selector, digest: digest.to_owned() };
                here.extend(self.steps.get(&step).into_iter().flatten().copied());
            }
            let both = match common {
                None => here,
                Some(before) => &before & &here,
            };
            if both.is_empty() {
                return None;
            }
            common = Some(both);
        }
        common.and_then(|common| {
            common.into_iter().find(|place| self.graph.records[*place].inputs.len() == inputs.len())
        })
    }

    /// All records that depend on this one.
    fn above(&self, place: usize) -> HashSet<usize> {
        let mut found = HashSet::new();
        let mut stack = vec![place];
        while let Some(place) = stack.pop() {
            stack.extend(self.users[place].iter().copied().filter(|user| found.insert(*user)));
        }
        found
    }

    fn layer(&mut self, blob: &Descriptor, parent: Option<usize>) -> usize {
        let next = self.graph.layers.len();
        let place = *self.layers.entry((blob.digest.clone(), parent)).or_insert(next);
        if place == next {
            let mut descriptor = blob.clone();
            descriptor.media_type = media_type::to_oci(&descriptor.media_type).to_owned();
            self.graph.layers.push(GraphLayer { descriptor, parent });
        }
        place
    }
}
