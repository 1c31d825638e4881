//! Saves results under their keys in the solver's own cache.

use crate::active::EdgeRef;
use crate::store::whole_millis;
use crate::{Cache, CacheKey, Digest, KeyId, KeyInput, KeyOutput, Link, Op, Record, RecordRef, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

impl<O: Op> EdgeRef<O> {
    /// Saves what an execution gave, under one key for each page of a source, under a single one otherwise.
    pub(crate) async fn save_executed(
        &self,
        output: &O::Output,
        inputs: &[Vec<KeyInput>],
    ) -> Result<Vec<Arc<CacheKey>>, StoreError> {
        let state = &self.state;
        let created = whole_millis(state.core.clock.now());
        let mut saved = Vec::new();
        for page in state.known_pages() {
            let vertex = Some(state.vertex.digest.clone());
            let index = KeyOutput::Index(self.output);
            let key = CacheKey::new(page.digest.clone(), index, vertex, inputs.to_vec())
                .with_export(state.vertex.options.export_cache)
                .with_extra(state.sub_keys());
            saved.push(Arc::new(save(&state.core.cache, key, output, created).await?));
            if !inputs.is_empty() {
                break;
            }
        }
        Ok(saved)
    }

    /// Keeps a result that came from an imported cache.
    pub(crate) async fn save_loaded(
        &self,
        key: &Arc<CacheKey>,
        output: &O::Output,
        created: SystemTime,
    ) -> Result<(), StoreError> {
        if key.is_ephemeral() {
            return Ok(());
        }
        let own = &self.state.core.cache;
        let Named { id, links } = name(own, key)?;
        let record = own.results.save(output, created).await?;
        own.keys.save(&links, &id, &Record { id: record, created })
    }
}

async fn save<O: Op>(
    own: &Cache<O>,
    key: CacheKey,
    output: &O::Output,
    created: SystemTime,
) -> Result<CacheKey, StoreError> {
    let Named { id, links } = name(own, &key)?;
    if key.is_ephemeral() {
        // Nobody will ask for it again.
        return Ok(key);
    }
    let record = own.results.save(output, created).await?;
    own.keys.save(&links, &id, &Record { id: record.clone(), created })?;
    Ok(key.with_records(vec![RecordRef { cache: own.name.clone(), record, created }]))
}

/// The name of a key in the solver's own cache, and the links that are to lead there.
struct Named {
    id: KeyId,
    links: Vec<(KeyId, Link, KeyId)>,
}

/// Gives the key, and all below it, a name in the solver's own cache. The links that lead to those below are added.
fn name<O: Op>(own: &Cache<O>, key: &CacheKey) -> Result<Named, StoreError> {
    // A loop with a stack of its own: chains of keys are as long as chains of steps.
    let unnamed = |key: &CacheKey| -> Vec<Arc<CacheKey>> {
        let ways = key.inputs().iter().flatten();
        ways.filter(|way| way.key.ids_in(&own.name).is_empty()).map(|way| way.key.clone()).collect()
    };
    let mut stack = unnamed(key);
    while let Some(top) = stack.last().cloned() {
        let below = unnamed(&top);
        if below.is_empty() || !top.ids_in(&own.name).is_empty() {
            let Named { links, .. } = name_one(own, &top)?;
            if !links.is_empty() {
                own.keys.add_links(&links)?;
            }
            stack.pop();
        } else {
            stack.extend(below);
        }
    }
    name_one(own, key)
}

/// Names a key whose inputs have names.
fn name_one<O: Op>(own: &Cache<O>, key: &CacheKey) -> Result<Named, StoreError> {
    let unlinked = |id: KeyId| Named { id, links: Vec::new() };
    if key.inputs().is_empty() {
        return Ok(unlinked(KeyId::from(key.root())));
    }
    if key.is_ephemeral() {
        let id = made_up(own, key);
        key.add_id(&own.name, id.clone());
        return Ok(unlinked(id));
    }
    let KeyOutput::Index(output) = key.output() else {
        return Ok(unlinked(KeyId::from(key.root())));
    };
    // Where every input leads already is where this key belongs.
    let mut ways = Vec::new();
    let mut common: Option<BTreeSet<KeyId>> = None;
    for (input, known) in key.inputs().iter().enumerate() {
        let mut here = BTreeSet::new();
        for way in known.iter().filter(|way| !way.key.is_ephemeral()) {
            let link = Link { input, output, digest: key.digest().clone(), selector: way.selector.clone() };
            for id in way.key.ids_in(&own.name) {
                let targets = own.keys.links(&id, &link)?;
                here.extend(targets.iter().cloned());
                ways.push((id, link.clone(), targets));
            }
        }
        common = Some(match common {
            None => here,
            Some(before) => &before & &here,
        });
    }
    let known = key.ids_in(&own.name).into_iter().next();
    let id =
        known.or_else(|| common.and_then(|ids| ids.into_iter().next())).unwrap_or_else(|| made_up(own, key));
    let missing = ways.into_iter().filter(|(_, _, targets)| !targets.contains(&id));
    let links = missing.map(|(from, link, _)| (from, link, id.clone())).collect();
    key.add_id(&own.name, id.clone());
    Ok(Named { id, links })
}

/// A new name: a digest of the op and of the first way to know each input. Keys that can be found again are
/// made of what can be found again, so that two builds which cannot see each other give the same name.
fn made_up<O: Op>(own: &Cache<O>, key: &CacheKey) -> KeyId {
    let mut text = String::from("kiln.key.v1\n");
    text.push_str(key.root().as_str());
    for ways in key.inputs() {
        let lasting = ways.iter().find(|way| !way.key.is_ephemeral());
        let Some(way) = lasting.or_else(|| ways.first()) else { continue };
        let id = way.key.ids_in(&own.name).into_iter().next();
        text.push('\n');
        text.push_str(id.as_ref().map_or("", KeyId::as_str));
        text.push(' ');
        text.push_str(way.selector.as_ref().map_or("", Digest::as_str));
    }
    KeyId::from(&Digest::of(text.as_bytes()))
}
