//! Stores in memory: for tests, for imported caches, and to keep the traits honest.

use crate::{Backlink, KeyId, KeyStore, Link, Op, OpContext, Record, RecordId, ResultStore, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A [`KeyStore`] in memory.
#[derive(Default)]
pub struct MemoryKeyStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    keys: HashMap<KeyId, Node>,
    by_record: BTreeMap<RecordId, BTreeSet<KeyId>>,
}

#[derive(Default)]
struct Node {
    records: BTreeMap<RecordId, SystemTime>,
    links: BTreeMap<Link, BTreeSet<KeyId>>,
    /// Keys with a link to here.
    sources: BTreeSet<KeyId>,
}

impl MemoryKeyStore {
    /// An empty store.
    pub fn new() -> Self {
        MemoryKeyStore::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyStore for MemoryKeyStore {
    fn exists(&self, key: &KeyId) -> Result<bool, StoreError> {
        let inner = self.lock();
        Ok(inner.keys.get(key).is_some_and(|node| !node.links.is_empty() || !node.records.is_empty()))
    }

    fn links(&self, key: &KeyId, link: &Link) -> Result<Vec<KeyId>, StoreError> {
        let inner = self.lock();
        let targets = inner.keys.get(key).and_then(|node| node.links.get(link));
        Ok(targets.map(|targets| targets.iter().cloned().collect()).unwrap_or_default())
    }

    fn add_links(&self, links: &[(KeyId, Link, KeyId)]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for (from, link, target) in links {
            let node = inner.keys.entry(from.clone()).or_default();
            node.links.entry(link.clone()).or_default().insert(target.clone());
            inner.keys.entry(target.clone()).or_default().sources.insert(from.clone());
        }
        Ok(())
    }

    fn records(&self, key: &KeyId) -> Result<Vec<Record>, StoreError> {
        let inner = self.lock();
        let record = |(id, created): (&RecordId, &SystemTime)| Record { id: id.clone(), created: *created };
        Ok(inner.keys.get(key).map(|node| node.records.iter().map(record).collect()).unwrap_or_default())
    }

    fn add_record(&self, key: &KeyId, record: &Record) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let node = inner.keys.entry(key.clone()).or_default();
        node.records.insert(record.id.clone(), record.created);
        inner.by_record.entry(record.id.clone()).or_default().insert(key.clone());
        Ok(())
    }

    fn keys_of_record(&self, record: &RecordId) -> Result<Vec<KeyId>, StoreError> {
        let inner = self.lock();
        Ok(inner.by_record.get(record).map(|keys| keys.iter().cloned().collect()).unwrap_or_default())
    }

    fn release(&self, record: &RecordId) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let mut stack: Vec<KeyId> = inner.by_record.remove(record).unwrap_or_default().into_iter().collect();
        for key in &stack {
            if let Some(node) = inner.keys.get_mut(key) {
                node.records.remove(record);
            }
        }
        while let Some(key) = stack.pop() {
            let empty = |node: &Node| node.records.is_empty() && node.links.is_empty();
            if !inner.keys.get(&key).is_some_and(empty) {
                continue;
            }
            let node = inner.keys.remove(&key).unwrap_or_default();
            for source in node.sources {
                if let Some(above) = inner.keys.get_mut(&source) {
                    above.links.retain(|_, targets| {
                        targets.remove(&key);
                        !targets.is_empty()
                    });
                    stack.push(source);
                }
            }
        }
        Ok(())
    }

    fn backlinks(&self, key: &KeyId) -> Result<Vec<Backlink>, StoreError> {
        let inner = self.lock();
        let mut found = Vec::new();
        for from in inner.keys.get(key).map(|node| &node.sources).into_iter().flatten() {
            let links = inner.keys.get(from).map(|node| &node.links);
            let to_key = links.into_iter().flatten().filter(|(_, targets)| targets.contains(key));
            found.extend(to_key.map(|(link, _)| Backlink { from: from.clone(), link: link.clone() }));
        }
        Ok(found)
    }

    fn all_records(&self) -> Result<Vec<RecordId>, StoreError> {
        Ok(self.lock().by_record.keys().cloned().collect())
    }
}

/// A [`ResultStore`] in memory, for outputs that have a name of their own.
pub struct MemoryResultStore<O: Op> {
    name: fn(&O::Output) -> RecordId,
    results: Mutex<HashMap<RecordId, O::Output>>,
}

impl<O: Op> MemoryResultStore<O> {
    /// An empty store; `name` gives the record id of an output.
    pub fn new(name: fn(&O::Output) -> RecordId) -> Self {
        MemoryResultStore { name, results: Mutex::default() }
    }

    /// Forgets a result, as a prune would.
    pub fn remove(&self, record: &RecordId) -> Option<O::Output> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).remove(record)
    }

    /// How many results there are.
    pub fn len(&self) -> usize {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait::async_trait]
impl<O: Op> ResultStore<O> for MemoryResultStore<O> {
    async fn save(&self, output: &O::Output, _created: SystemTime) -> Result<RecordId, StoreError> {
        let record = (self.name)(output);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.insert(record.clone(), output.clone());
        Ok(record)
    }

    async fn load(&self, record: &RecordId, _cx: &OpContext<O>) -> Result<O::Output, StoreError> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let found = results.get(record).cloned();
        found.ok_or_else(|| StoreError::not_found(format!("no result {record}")))
    }

    fn exists(&self, record: &RecordId) -> bool {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).contains_key(record)
    }
}
