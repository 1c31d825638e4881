//! Looking things up in a cache that was read: the solver's view of it.

use std::collections::{BTreeMap, HashMap};

use kiln_solver::{
    Backlink, Digest, KeyId, KeyStore, Link, Record, RecordId, StoreError, root_key, whole_millis,
};

use crate::graph::{CacheGraph, GraphResult};

/// How a key is used as an input: which input, the op with its output, and the part that is looked at.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Use {
    input: usize,
    root: String,
    selector: String,
}

/// The keys of a cache. Only read from; what the solver adds goes into its own cache.
pub struct CacheKeys {
    graph: CacheGraph,
    /// The places of each key's records: a cache may be told in several parts.
    places: HashMap<KeyId, Vec<usize>>,
    ids: Vec<KeyId>,
    links: HashMap<KeyId, HashMap<Use, Vec<KeyId>>>,
    results: BTreeMap<RecordId, (usize, usize)>,
}

impl CacheKeys {
    /// Names all keys of a graph.
    pub fn new(graph: CacheGraph) -> Self {
        let ids = key_ids(&graph);
        let mut links: HashMap<KeyId, HashMap<Use, Vec<KeyId>>> = HashMap::new();
        let mut results = BTreeMap::new();
        for (place, record) in graph.records.iter().enumerate() {
            for (input, ways) in record.inputs.iter().enumerate() {
                for way in ways {
                    let usage = Use { input, root: record.digest.clone(), selector: way.selector.clone() };
                    let targets = links.entry(ids[way.record].clone()).or_default().entry(usage).or_default();
                    if !targets.contains(&ids[place]) {
                        targets.push(ids[place].clone());
                    }
                }
            }
            for (index, _) in record.results.iter().enumerate() {
                results.insert(record_id(place, index), (place, index));
            }
        }
        let mut places: HashMap<KeyId, Vec<usize>> = HashMap::new();
        for (place, id) in ids.iter().enumerate() {
            places.entry(id.clone()).or_default().push(place);
        }
        Self { graph, places, ids, links, results }
    }

    /// The graph.
    pub fn graph(&self) -> &CacheGraph {
        &self.graph
    }

    /// The result of that name.
    pub fn result(&self, record: &RecordId) -> Option<&GraphResult> {
        let (place, index) = self.results.get(record)?;
        self.graph.records[*place].results.get(*index)
    }
}

fn record_id(place: usize, index: usize) -> RecordId {
    RecordId::new(format!("{place}.{index}"))
}

/// A name for each record: its digest for those without inputs, else a hash of the digest and the names of
/// its inputs. Records come in any order, but never in a circle.
fn key_ids(graph: &CacheGraph) -> Vec<KeyId> {
    let mut ids: Vec<Option<KeyId>> = vec![None; graph.records.len()];
    for start in 0..graph.records.len() {
        let mut stack = vec![start];
        while let Some(place) = stack.last().copied() {
            if ids[place].is_some() {
                stack.pop();
                continue;
            }
            let record = &graph.records[place];
            let missing: Vec<usize> = record
                .inputs
                .iter()
                .flatten()
                .map(|way| way.record)
                .filter(|way| ids[*way].is_none())
                .collect();
            if !missing.is_empty() {
                stack.extend(missing);
                continue;
            }
            ids[place] = Some(if record.inputs.is_empty() {
                KeyId::new(record.digest.as_str())
            } else {
                let mut text = format!("kiln.cache.key.v1\n{}\n", record.digest);
                for (input, ways) in record.inputs.iter().enumerate() {
                    let mut ways: Vec<String> = ways
                        .iter()
                        .map(|way| format!("{input} {:?} {:?}\n", ids[way.record], way.selector))
                        .collect();
                    ways.sort();
                    text.extend(ways);
                }
                KeyId::new(Digest::of(text.as_bytes()).as_str())
            });
            stack.pop();
        }
    }
    ids.into_iter().map(|id| id.expect("every record was named")).collect()
}

impl KeyStore for CacheKeys {
    fn exists(&self, key: &KeyId) -> Result<bool, StoreError> {
        Ok(self.places.contains_key(key))
    }

    fn links(&self, key: &KeyId, link: &Link) -> Result<Vec<KeyId>, StoreError> {
        let Some(uses) = self.links.get(key) else { return Ok(Vec::new()) };
        let usage = Use {
            input: link.input,
            root: root_key(&link.digest, i64::try_from(link.output).unwrap_or(i64::MAX)).as_str().to_owned(),
            selector: link.selector.as_ref().map(|selector| selector.as_str().to_owned()).unwrap_or_default(),
        };
        Ok(uses.get(&usage).cloned().unwrap_or_default())
    }

    fn add_links(&self, _links: &[(KeyId, Link, KeyId)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn records(&self, key: &KeyId) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        for place in self.places.get(key).into_iter().flatten() {
            for (index, result) in self.graph.records[*place].results.iter().enumerate() {
                let created = whole_millis(result.created.into());
                found.push(Record { id: record_id(*place, index), created });
            }
        }
        Ok(found)
    }

    fn add_record(&self, _key: &KeyId, _record: &Record) -> Result<(), StoreError> {
        Ok(())
    }

    fn keys_of_record(&self, record: &RecordId) -> Result<Vec<KeyId>, StoreError> {
        Ok(self.results.get(record).map(|(place, _)| self.ids[*place].clone()).into_iter().collect())
    }

    fn release(&self, _record: &RecordId) -> Result<(), StoreError> {
        Ok(())
    }

    /// The op's own digest cannot be told from an export, which only has it mixed with its output: the
    /// links name the mix, as output 0.
    fn backlinks(&self, key: &KeyId) -> Result<Vec<Backlink>, StoreError> {
        let mut found = Vec::new();
        for place in self.places.get(key).into_iter().flatten() {
            let record = &self.graph.records[*place];
            for (input, ways) in record.inputs.iter().enumerate() {
                found.extend(ways.iter().map(|way| Backlink {
                    from: self.ids[way.record].clone(),
                    link: Link {
                        input,
                        output: 0,
                        digest: Digest::new(record.digest.as_str()),
                        selector: (!way.selector.is_empty()).then(|| Digest::new(way.selector.as_str())),
                    },
                }));
            }
        }
        Ok(found)
    }

    fn all_records(&self) -> Result<Vec<RecordId>, StoreError> {
        Ok(self.results.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use kiln_oci::{Descriptor, Timestamp, media_type};

    use super::*;
    use crate::graph::{GraphBuilder, GraphInput};

    #[test]
    fn answers_the_solver() {
        let op = Digest::of(b"op");
        let content = root_key(&Digest::of(b"content"), -1);
        let mut builder = GraphBuilder::new();
        let source = builder.add_record(root_key(&Digest::of(b"source"), 0).as_str(), &[]);
        let known_content = builder.add_record(content.as_str(), &[]);
        let ways = vec![
            GraphInput { record: source, selector: String::new() },
            GraphInput { record: known_content, selector: "sel".into() },
        ];
        let run = builder.add_record(root_key(&op, 1).as_str(), &[ways]);
        let created = Timestamp::from_unix(5).unwrap();
        builder.add_result(run, created, &[Descriptor::of(media_type::OCI_LAYER, b"x")]);
        let keys = CacheKeys::new(builder.finish());

        let source = KeyId::from(&root_key(&Digest::of(b"source"), 0));
        assert!(keys.exists(&source).unwrap());
        let link = |output, selector: Option<&str>| Link {
            input: 0,
            output,
            digest: op.clone(),
            selector: selector.map(Digest::new),
        };
        let found = keys.links(&source, &link(1, None)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(keys.links(&KeyId::from(&content), &link(1, Some("sel"))).unwrap(), found);
        assert!(keys.links(&source, &link(0, None)).unwrap().is_empty());
        assert!(keys.links(&source, &link(1, Some("sel"))).unwrap().is_empty());
        let records = keys.records(&found[0]).unwrap();
        assert_eq!(records[0].created, std::time::SystemTime::from(created));
        assert_eq!(keys.result(&records[0].id).unwrap().created, created);
        assert_eq!(keys.keys_of_record(&records[0].id).unwrap(), found);
        assert_eq!(keys.backlinks(&found[0]).unwrap().len(), 2);
    }
}
