//! Finds vertices that are different by definition and the same by their keys while they are in memory, so
//! that two builds which come to the same step by different ways run it once.

use crate::active::VertexState;
use crate::{CacheKey, Digest, KeyId, KeyInput, Link, Op};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// One way to one input of an op, by the key's name in the solver's own cache. Sources have an entry with
/// their digest alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    from: Option<KeyId>,
    link: Link,
}

/// What is running or has run, by its entries.
pub(crate) struct Inflight<O: Op> {
    entries: Mutex<HashMap<Entry, Vec<Weak<VertexState<O>>>>>,
}

impl<O: Op> Default for Inflight<O> {
    fn default() -> Self {
        Inflight { entries: Mutex::default() }
    }
}

/// The entries of an op with this digest and these inputs, one list for every input.
pub(crate) fn entries(digest: &Digest, inputs: &[Vec<KeyInput>], own_cache: &str) -> Vec<Vec<Entry>> {
    let link = |input, selector| Link { input, output: 0, digest: digest.clone(), selector };
    if inputs.is_empty() {
        return vec![vec![Entry { from: None, link: link(0, None) }]];
    }
    let ways = |(index, ways): (usize, &Vec<KeyInput>)| {
        let entry = |way: &KeyInput, id| Entry { from: Some(id), link: link(index, way.selector.clone()) };
        ways.iter()
            .flat_map(|way| ids(&way.key, own_cache).into_iter().map(move |id| entry(way, id)))
            .collect()
    };
    inputs.iter().enumerate().map(ways).collect()
}

fn ids(key: &CacheKey, own_cache: &str) -> Vec<KeyId> {
    key.ids_in(own_cache)
}

impl<O: Op> Inflight<O> {
    fn lock(&self) -> MutexGuard<'_, HashMap<Entry, Vec<Weak<VertexState<O>>>>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The vertex that `state` can take its result from; if there is none, `state` is entered for others.
    ///
    /// One that ignores the cache takes only from another such one.
    pub(crate) fn find_or_enter(
        &self,
        state: &Arc<VertexState<O>>,
        inputs: Vec<Vec<Entry>>,
    ) -> Option<Arc<VertexState<O>>> {
        let mut map = self.lock();
        let mut found: Option<Vec<&Weak<VertexState<O>>>> = None;
        for ways in &inputs {
            let here: Vec<_> = ways.iter().filter_map(|entry| map.get(entry)).flatten().collect();
            let both = match found {
                None => here,
                Some(before) => {
                    before.into_iter().filter(|one| here.iter().any(|two| one.ptr_eq(two))).collect()
                }
            };
            found = Some(both);
        }
        // Kept until the map is unlocked: whoever drops the last of one of these locks it again.
        let found: Vec<_> = found.unwrap_or_default().into_iter().filter_map(Weak::upgrade).collect();
        let fits = |other: &Arc<VertexState<O>>| {
            Arc::ptr_eq(other, state) || other.ignore_cache() || !state.ignore_cache()
        };
        let other = found.iter().find(|other| fits(other)).cloned();
        if other.is_none() {
            let mut own = state.entered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            own.reserve_exact(inputs.iter().map(Vec::len).sum());
            for entry in inputs.into_iter().flatten() {
                let known = map.entry(entry.clone()).or_default();
                known.reserve_exact(1);
                known.push(Arc::downgrade(state));
                own.push(entry);
            }
        }
        drop(map);
        drop(found);
        other.filter(|other| !Arc::ptr_eq(other, state))
    }

    /// Takes the entries of a vertex out again that is being dropped. By then nobody holds it, and it may have been moved, so that its
    /// address tells nothing.
    pub(crate) fn remove(&self, entries: Vec<Entry>) {
        let mut map = self.lock();
        for entry in entries {
            if let Some(list) = map.get_mut(&entry) {
                list.retain(|known| known.strong_count() > 0);
                if list.is_empty() {
                    map.remove(&entry);
                }
            }
        }
        if map.is_empty() {
            // A large graph leaves a large table behind.
            *map = HashMap::new();
        }
    }

    /// Whether nothing is entered.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
