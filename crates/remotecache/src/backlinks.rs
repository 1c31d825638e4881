//! What a cache knows about a key beyond what the build has tried: all the ways that lead to it.
//!
//! A build that finds a step by its definition never looks at the content of its inputs. An export that left out what an earlier
//! build knew about that content would be poorer than the cache it came from, and would differ from build to build.

use std::collections::{BTreeMap, HashMap};

use kiln_solver::{Digest, KeyId, KeyStore, StoreError, root_key};

use crate::graph::{GraphBuilder, GraphInput};

/// The keys of one cache on their way into a graph.
pub(crate) struct Backlinks<'a> {
    keys: &'a dyn KeyStore,
    /// Whether links already name the op with its output, see [`crate::keys::CacheKeys`].
    mixed: bool,
    /// Keys that have their place, and (without one) those that are being looked at.
    places: HashMap<KeyId, Option<usize>>,
}

/// The ways to a key as the cache tells them.
#[derive(Default)]
struct Ways {
    digest: Option<Digest>,
    inputs: BTreeMap<usize, Vec<(KeyId, String)>>,
}

impl<'a> Backlinks<'a> {
    /// Links of the solver's own cache.
    pub(crate) fn own(keys: &'a dyn KeyStore) -> Self {
        Self { keys, mixed: false, places: HashMap::new() }
    }

    /// Links of an imported cache.
    pub(crate) fn imported(keys: &'a dyn KeyStore) -> Self {
        Self { keys, mixed: true, places: HashMap::new() }
    }

    /// Puts a key with all that leads to it into the graph.
    pub(crate) fn add(&mut self, top: &KeyId, builder: &mut GraphBuilder) -> Result<(), StoreError> {
        // A loop with a stack of its own: chains of keys are as long as chains of steps.
        let mut stack = vec![(top.clone(), None::<Ways>)];
        while let Some((key, ways)) = stack.pop() {
            match ways {
                None if self.places.contains_key(&key) => {}
                None => {
                    let ways = self.ways(&key)?;
                    // Until it has its place, what leads back to it counts as nothing: keys of a damaged cache may run in a circle.
                    self.places.insert(key.clone(), None);
                    let below: Vec<KeyId> =
                        ways.inputs.values().flatten().map(|(from, _)| from.clone()).collect();
                    stack.push((key, Some(ways)));
                    stack.extend(below.into_iter().map(|key| (key, None)));
                }
                Some(ways) => {
                    let place = self.place(&key, &ways, builder);
                    self.places.insert(key, place);
                }
            }
        }
        Ok(())
    }

    fn ways(&self, key: &KeyId) -> Result<Ways, StoreError> {
        let mut ways = Ways::default();
        for backlink in self.keys.backlinks(key)? {
            let link = backlink.link;
            let digest = if self.mixed {
                link.digest
            } else {
                root_key(&link.digest, i64::try_from(link.output).unwrap_or(i64::MAX))
            };
            // A key belongs to one output of one op; were it otherwise, the first one counts.
            if *ways.digest.get_or_insert_with(|| digest.clone()) != digest {
                continue;
            }
            let selector = link.selector.map(|selector| selector.as_str().to_owned()).unwrap_or_default();
            ways.inputs.entry(link.input).or_default().push((backlink.from, selector));
        }
        Ok(ways)
    }

    fn place(&self, key: &KeyId, ways: &Ways, builder: &mut GraphBuilder) -> Option<usize> {
        let Some(digest) = &ways.digest else {
            return Some(builder.add_record(key.as_str(), &[]));
        };
        let count = ways.inputs.keys().next_back()? + 1;
        let mut inputs = Vec::with_capacity(count);
        for index in 0..count {
            let mut known: Vec<GraphInput> = Vec::new();
            for (from, selector) in ways.inputs.get(&index)? {
                if let Some(Some(record)) = self.places.get(from) {
                    known.push(GraphInput { record: *record, selector: selector.clone() });
                }
            }
            if known.is_empty() {
                return None;
            }
            inputs.push(known);
        }
        Some(builder.add_record(digest.as_str(), &inputs))
    }
}
