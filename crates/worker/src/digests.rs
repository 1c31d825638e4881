//! Content digests of refs: the tables of their layers, made when first needed, kept in memory for a while and with the
//! layers for ever.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_store::{LayerHandle, LayerId, LayerState, Ref, Store};

use crate::contenthash::{LayerTable, Selector, Tree, checksum, empty_tree, scan};
use crate::encode::Hash;
use crate::error::{Error, Result};

/// Key of a table among the values of its layer.
const TABLE_KEY: &str = "content-digests";
/// Paths of all tables in memory. One takes a hundred bytes or so.
const RECORDS_MAX: usize = 100_000;
/// What a table costs besides its paths, in paths: a step that makes one file has a table of two.
const RECORDS_PER_TABLE: usize = 3;
/// Trees in memory: builds look at few refs, again and again.
const TREES_MAX: usize = 8;

pub struct Digests {
    store: Store,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    tables: Tables,
    /// With the layers that each shows.
    trees: VecDeque<(Vec<LayerId>, Arc<Tree>)>,
}

/// Tables by layer. Builds of many steps have many of them, so nothing here walks them all.
#[derive(Default)]
struct Tables {
    by_layer: HashMap<LayerId, (u64, Arc<LayerTable>)>,
    /// The layers in the order in which their tables came.
    order: BTreeMap<u64, LayerId>,
    next: u64,
    records: usize,
}

impl Tables {
    fn get(&self, layer: &LayerId) -> Option<&Arc<LayerTable>> {
        self.by_layer.get(layer).map(|(_, table)| table)
    }

    /// Puts a table in place of the one before, and forgets the oldest ones if there are too many.
    fn put(&mut self, layer: &LayerId, table: Arc<LayerTable>) {
        self.remove(layer);
        self.records += cost(&table);
        self.by_layer.insert(layer.clone(), (self.next, table));
        self.order.insert(self.next, layer.clone());
        self.next += 1;
        while self.records > RECORDS_MAX
            && self.order.len() > 1
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, layer: &LayerId) {
        if let Some((place, table)) = self.by_layer.remove(layer) {
            self.order.remove(&place);
            self.records -= cost(&table);
        }
    }
}

fn cost(table: &LayerTable) -> usize {
    table.len() + RECORDS_PER_TABLE
}

impl Kept {
    /// The table of a layer. One that is not kept by itself any more may still be part of a tree, which counts for layers that never
    /// change alone.
    fn table(&self, layer: &LayerHandle) -> Option<Arc<LayerTable>> {
        if let Some(table) = self.tables.get(layer.id()) {
            return Some(table.clone());
        }
        if layer.state() != LayerState::Ready {
            return None;
        }
        self.trees.iter().rev().find_map(|(layers, tree)| {
            let index = layers.iter().position(|id| id == layer.id())?;
            tree.tables().get(index).cloned()
        })
    }
}

impl Digests {
    pub fn new(store: Store) -> Digests {
        Digests { store, kept: Mutex::default() }
    }

    /// The digest of what `selectors` pick of an unpacked ref. Blocks.
    ///
    /// # Errors
    /// A path that is not there, and what the file system says.
    pub fn checksum(&self, reference: &Ref, selectors: &[Selector]) -> Result<Hash> {
        let layers = reference.layers();
        let tree = self.tree(&layers)?;
        let dirs = layers.iter().map(LayerHandle::dir).collect::<std::result::Result<Vec<_>, _>>()?;
        let result = checksum(&tree, &dirs, selectors, &self.store.options().budget);
        for (layer, table) in layers.iter().zip(tree.tables()) {
            // What changes is described by whoever changes it, each time.
            if layer.state() == LayerState::Ready && table.take_unsaved() {
                self.store.values().set(layer, TABLE_KEY, &table.encode(), None)?;
            }
        }
        let name = || reference.id().map_or_else(|| "scratch".to_owned(), |id| id.to_string());
        result.map_err(|source| Error::Checksum { reference: name(), source })
    }

    /// Says what a layer holds, instead of having it looked at.
    pub fn put(&self, layer: &LayerId, table: Arc<LayerTable>) {
        let mut kept = self.kept();
        // What showed its table before would never be asked for again.
        kept.trees.retain(|(layers, _)| !layers.contains(layer));
        kept.tables.put(layer, table);
    }

    fn tree(&self, layers: &[LayerHandle]) -> Result<Arc<Tree>> {
        if layers.is_empty() {
            return Ok(Arc::new(empty_tree()));
        }
        let tables = layers.iter().map(|layer| self.table(layer)).collect::<Result<Vec<_>>>()?;
        let same = |tree: &Arc<Tree>| {
            tree.tables().len() == tables.len()
                && tree.tables().iter().zip(&tables).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some((_, tree)) = self.kept().trees.iter().find(|(_, tree)| same(tree)) {
            return Ok(tree.clone());
        }
        let tree = Arc::new(Tree::new(tables));
        let mut kept = self.kept();
        kept.trees.push_back((layers.iter().map(|layer| layer.id().clone()).collect(), tree.clone()));
        if kept.trees.len() > TREES_MAX {
            kept.trees.pop_front();
        }
        Ok(tree)
    }

    fn table(&self, layer: &LayerHandle) -> Result<Arc<LayerTable>> {
        if let Some(table) = self.kept().table(layer) {
            return Ok(table);
        }
        let stored = self.store.values().get(layer, TABLE_KEY)?;
        let table = match stored.map(|bytes| LayerTable::decode(&bytes)) {
            Some(Ok(table)) => table,
            Some(Err(_)) | None => scan(&layer.dir()?, self.store.format(), &self.store.options().budget)?,
        };
        let table = Arc::new(table);
        self.put(layer.id(), table.clone());
        Ok(table)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenthash::{Record, RecordKind, TableBuilder};

    fn table(paths: usize) -> Arc<LayerTable> {
        let mut builder = TableBuilder::default();
        for number in 0..paths {
            let (path, header) = (format!("{number:08}"), &Hash::default());
            let record = Record { path: path.as_bytes(), kind: RecordKind::File, header, content: None };
            builder.push(&record).unwrap();
        }
        Arc::new(builder.finish())
    }

    #[test]
    fn the_oldest_tables_go_first_and_a_new_one_replaces_the_old() {
        let layer = |number: usize| LayerId::new(format!("l{number}"));
        let mut tables = Tables::default();
        let fit = RECORDS_MAX / (1 + RECORDS_PER_TABLE);
        (0..fit).for_each(|number| tables.put(&layer(number), table(1)));
        assert!(tables.get(&layer(0)).is_some());
        // The first one comes again, so that the second is the oldest.
        let again = table(1);
        tables.put(&layer(0), again.clone());
        assert!(tables.get(&layer(1)).is_some());
        tables.put(&layer(fit), table(1));
        assert!(tables.get(&layer(1)).is_none());
        assert!(Arc::ptr_eq(tables.get(&layer(0)).unwrap(), &again));
        assert_eq!((tables.by_layer.len(), tables.order.len()), (fit, fit));
        assert_eq!(tables.records, fit * (1 + RECORDS_PER_TABLE));
        // One that is too large by itself is kept alone.
        tables.put(&layer(fit + 1), table(RECORDS_MAX + 1));
        assert_eq!((tables.by_layer.len(), tables.order.len()), (1, 1));
        assert!(tables.get(&layer(fit + 1)).is_some());
    }
}
