//! The solver's own cache, kept in the store: keys in its tables, results as its records.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_solver::{
    Backlink, Cache, Digest, KeyId, KeyStore, Link, OpContext, Record, RecordId, ResultStore, StoreError,
};
use kiln_store::{KeyLink, LayerHandle, Ref, Store};

use crate::Worker;
use crate::op::VertexOp;

/// The name of the worker's own cache, in decisions and in records of keys.
pub const OWN_CACHE: &str = "local";

impl Worker {
    /// The cache that builds on this worker save to and look into first.
    pub fn cache(&self) -> Cache<VertexOp> {
        let keys = Arc::new(StoreKeys(self.store().clone()));
        let results = Arc::new(StoreResults(self.store().clone()));
        Cache::new(OWN_CACHE, keys, results)
    }
}

struct StoreKeys(Store);

fn failed(what: &'static str) -> impl FnOnce(kiln_store::Error) -> StoreError {
    move |error| StoreError::new(what, error)
}

fn to_store(link: &Link) -> KeyLink {
    KeyLink {
        input: link.input,
        output: link.output,
        digest: link.digest.as_str().to_owned(),
        selector: link.selector.as_ref().map(|selector| selector.as_str().to_owned()),
    }
}

fn links_to_store(links: &[(KeyId, Link, KeyId)]) -> Vec<(String, KeyLink, String)> {
    let link = |(from, link, to): &(KeyId, Link, KeyId)| {
        (from.as_str().to_owned(), to_store(link), to.as_str().to_owned())
    };
    links.iter().map(link).collect()
}

fn from_store(link: KeyLink) -> Link {
    Link {
        input: link.input,
        output: link.output,
        digest: Digest::from(link.digest),
        selector: link.selector.map(Digest::from),
    }
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn stored_id(record: &RecordId) -> kiln_store::RecordId {
    kiln_store::RecordId::new(record.as_str())
}

impl KeyStore for StoreKeys {
    fn exists(&self, key: &KeyId) -> Result<bool, StoreError> {
        self.0.keys().exists(key.as_str()).map_err(failed("look up a cache key"))
    }

    fn links(&self, key: &KeyId, link: &Link) -> Result<Vec<KeyId>, StoreError> {
        let found =
            self.0.keys().links(key.as_str(), &to_store(link)).map_err(failed("follow a cache key"))?;
        Ok(found.into_iter().map(KeyId::new).collect())
    }

    fn add_links(&self, links: &[(KeyId, Link, KeyId)]) -> Result<(), StoreError> {
        self.0.keys().add_links(&links_to_store(links)).map_err(failed("add cache keys"))
    }

    fn records(&self, key: &KeyId) -> Result<Vec<Record>, StoreError> {
        let found = self.0.keys().records(key.as_str()).map_err(failed("look up cache records"))?;
        Ok(found
            .into_iter()
            .map(|record| Record {
                id: RecordId::new(record.record.as_str()),
                created: UNIX_EPOCH + Duration::from_millis(u64::try_from(record.created_ms).unwrap_or(0)),
            })
            .collect())
    }

    fn add_record(&self, key: &KeyId, record: &Record) -> Result<(), StoreError> {
        let added = self.0.keys().add_record(key.as_str(), &stored_id(&record.id), millis(record.created));
        added.map_err(failed("add a cache record"))
    }

    fn save(&self, links: &[(KeyId, Link, KeyId)], key: &KeyId, record: &Record) -> Result<(), StoreError> {
        let (links, created) = (links_to_store(links), millis(record.created));
        let saved = self.0.keys().save(&links, key.as_str(), &stored_id(&record.id), created);
        saved.map_err(failed("add a cache record"))
    }

    fn keys_of_record(&self, record: &RecordId) -> Result<Vec<KeyId>, StoreError> {
        let found =
            self.0.keys().keys_of_record(&stored_id(record)).map_err(failed("look up a cache record"))?;
        Ok(found.into_iter().map(KeyId::new).collect())
    }

    fn release(&self, record: &RecordId) -> Result<(), StoreError> {
        self.0.keys().release(&stored_id(record)).map_err(failed("release a cache record"))
    }

    fn backlinks(&self, key: &KeyId) -> Result<Vec<Backlink>, StoreError> {
        let found = self.0.keys().backlinks(key.as_str()).map_err(failed("look up a cache key"))?;
        Ok(found
            .into_iter()
            .map(|(from, link)| Backlink { from: KeyId::new(from), link: from_store(link) })
            .collect())
    }

    fn all_records(&self) -> Result<Vec<RecordId>, StoreError> {
        let found = self.0.keys().all_records().map_err(failed("list cache records"))?;
        Ok(found.into_iter().map(|id| RecordId::new(id.as_str())).collect())
    }
}

struct StoreResults(Store);

#[async_trait::async_trait]
impl ResultStore<VertexOp> for StoreResults {
    async fn save(&self, output: &Ref, _created: SystemTime) -> Result<RecordId, StoreError> {
        let id = self.0.records().keep(output).map_err(failed("save a result"))?;
        Ok(RecordId::new(id.as_str()))
    }

    async fn load(&self, record: &RecordId, cx: &OpContext<VertexOp>) -> Result<Ref, StoreError> {
        let found = self.0.records().get(&stored_id(record)).map_err(failed("load a result"))?;
        let Some(found) = found else {
            return Err(StoreError::not_found(format!("load result {record}")));
        };
        // A lazy layer is as good as one that is here only if somebody can still be asked for it.
        let reachable = |layer: &LayerHandle| {
            !layer.is_lazy() || layer.has_provider() || crate::source::can_fetch(&self.0, layer, cx)
        };
        if !found.reference.layers().iter().all(reachable) {
            return Err(StoreError::not_found(format!(
                "load result {record}: nobody has its layers any more"
            )));
        }
        if let Some(top) = found.reference.top() {
            top.touch();
        }
        Ok(found.reference)
    }

    fn exists(&self, record: &RecordId) -> bool {
        self.0.records().exists(&stored_id(record)).unwrap_or(false)
    }
}
